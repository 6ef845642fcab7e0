// One call, whole: what it cost and what it would have, what decided that, and what it asked before and after.

import { badge, details, figure, h, missing, name, section, table } from "./dom.js";
import * as f from "./format.js";
import { ending, endingWords, lever } from "./parts.js";

const J_PER_WH = 3600;
const PUSD = 1e12; // pico-dollars in a dollar

const dollars = (pusd) => (f.known(pusd) ? pusd / PUSD : null);

/** Return the nodes of one call's page. */
export function call(context, data) {
  const { row } = data;
  return [h("p", { class: "back" }, h("a", { href: "#/requests" }, "All requests")),
    h("div", { class: "head" }, h("div", null, h("h1", { tabindex: "-1" }, "Call"), h("p", { class: "sub" }, h("code", null, row.id), ` · ${context.times.exact(row.received_at)} · `, endingWords(row.ending))), ending(row.ending)),
    row.error_message ? h("div", { class: "notice" }, h("div", null, h("b", null, row.error_type ?? "error"), " ", h("bdi", null, row.error_message))) : null,
    counterfactual(row), decisions(row), attempts(row), texts(data), judged(context, row), facts(context, row)];
}

function counterfactual(row) {
  const wh = (joules) => (joules === null || joules === undefined ? null : joules / J_PER_WH);
  const rows = [
    ["cost", f.number(row.cost_usd), f.number(row.baseline_cost_usd), f.usd, "no price is known"],
    ["input tokens", row.input_tokens, row.baseline_input_tokens, f.count, "not reported"],
    ["output tokens", row.output_tokens, row.baseline_output_tokens, f.count, "not reported"],
    ["energy, estimated", wh(row.energy_j), wh(row.baseline_energy_j), f.wh, "not known"],
    ["time", row.duration_s, row.baseline_duration_s, f.seconds, "not known"],
  ];
  const spared = ([, after, before, form]) => (after === null || before === null || after === undefined || before === undefined ? missing("one of the two is not known")
    : h("span", { class: before - after > 0 ? "figure saved" : before - after < 0 ? "figure lost" : "figure" }, form(before - after), before ? h("span", { class: "under" }, f.change((after - before) / before)) : null));
  return section("What it cost, and would have cost", null, h("div", { class: "card" }, table("As it was and without levers", [
    { head: "", rowHead: true, cell: ([what]) => what },
    { head: "without levers", cell: ([, , before, form, why]) => figure(before, form, why) },
    { head: "as it was", cell: ([, after, , form, why]) => figure(after, form, why) },
    { head: "saved", cell: spared },
  ], rows)));
}

function decisions(row) {
  const made = row.decisions ?? [];
  if (!made.length) return section("What decided", null, h("p", { class: "note" }, "No lever had anything to say."));
  return section("What decided", "In the order in which the call met the levers.", h("ol", { class: "trace" }, made.map((one) => {
    const saved = spared(one.saved);
    return h("li", { class: saved ? "did" : null }, h("b", null, lever(one.lever)), " ", (one.action ?? "").replaceAll("_", " "),
      one.mode && one.mode !== "on" ? [" ", badge("neutral", one.mode)] : null, one.reason ? h("div", { class: "detail" }, h("bdi", null, one.reason)) : null, saved ? h("div", { class: "detail" }, saved) : null);
  })));
}

function spared(saved) {
  if (!saved) return null;
  const money = dollars(saved.cost_pusd);
  const parts = [["input_tokens", "input tokens", f.count], ["output_tokens", "output tokens", f.count]].filter(([key]) => saved[key]).map(([key, words, form]) => `${form(saved[key])} ${words}`);
  if (money) parts.unshift(f.usd(money));
  return parts.length ? `saved ${parts.join(", ")}${saved.basis ? ` (${saved.basis})` : ""}` : null;
}

function attempts(row) {
  const made = row.attempt_log ?? [];
  if (!made.length) return section("Who was asked", null, h("p", { class: "note" }, "Nobody: it was answered without a model."));
  return section("Who was asked", null, h("div", { class: "card" }, table("Attempts", [
    { head: "provider", rowHead: true, cell: (one) => [name(one.provider), h("span", { class: "under" }, h("bdi", null, one.model ?? ""))] },
    { head: "result", text: true, cell: (one) => (one.error ? badge("attention", one.error) : badge("good", one.status ?? "answered")) },
    { head: "cost", cell: (one) => figure(dollars(one.cost_pusd), f.usd, "no price is known") },
    { head: "began after", cell: (one) => figure(one.started_s, f.seconds, "not kept") },
    { head: "took", cell: (one) => figure(one.duration_s, f.seconds, "not kept") },
  ], made)));
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function texts({ content, content_note: note, shaped, shaped_note: shapedNote }) {
  const asked = content?.request ? h("div", { class: "card" }, h("h3", null, "Asked"), h("pre", { tabindex: "0", "aria-label": "What was asked" }, pretty(content.request))) : null;
  const answered = content?.response ? h("div", { class: "card" }, h("h3", null, "Answered"), h("pre", { tabindex: "0", "aria-label": "What was answered" }, pretty(content.response))) : null;
  return section("Before and after", null, content ? h("div", { class: "compare" }, asked, answered) : h("p", { class: "note" }, note ?? "What it asked was not kept."), shortened(shaped, shapedNote));
}

/** Return by how much a text became shorter, in characters. */
function shorter({ text, sent }) {
  if (!text || sent === null || sent === undefined) return null;
  return h("span", { class: "note" }, ` ${f.count([...sent].length)} of ${f.count([...text].length)} characters, ${f.change([...sent].length / [...text].length - 1)}`);
}

function shortened(shaped, note) {
  if (!shaped) return note ? h("p", { class: "note" }, note) : null;
  const pairs = shaped.texts.map((one) => h("div", { class: "compare pairing" },
    h("div", { class: "card" }, h("h3", null, "Before ", h("code", null, one.path)), h("pre", { tabindex: "0", "aria-label": `${one.path} before` }, one.text)),
    h("div", { class: "card" }, h("h3", null, "After", shorter(one)), one.sent === null || one.sent === undefined ? missing("what was sent in its place is not kept") : h("pre", { tabindex: "0", "aria-label": `${one.path} after` }, one.sent || "(nothing)"))));
  return h("div", null, pairs, shaped.tools ? details("The tools as they were", h("pre", { tabindex: "0", "aria-label": "Tools before" }, pretty(shaped.tools))) : null);
}

function judged(context, row) {
  const verdicts = row.verdicts ?? [];
  if (!verdicts.length) return null;
  return section("Verdicts", null, h("div", { class: "card" }, table("Verdicts", [
    { head: "by", rowHead: true, cell: (one) => name(one.verifier ?? one.source ?? one.by) },
    { head: "verdict", text: true, cell: (one) => (one.success === null || one.success === undefined ? missing("no verdict") : badge(one.success ? "good" : "attention", one.success ? "succeeded" : "failed")) },
    { head: "reason", text: true, cell: (one) => one.reason ?? missing("none was given") },
  ], verdicts)));
}

const FACTS = ["tenant", "user", "key_id", "class", "task", "session", "protocol", "operation", "model", "response_model", "provider", "status", "cache", "holdout",
  "template", "template_version", "prompt_version", "price_source", "energy_basis", "usage_basis", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "co2e_g", "overhead_s", "queue_s", "upstream_s", "fingerprint"];

// The filter of the explorer that a fact is found by, where it has another name.
const FOUND_BY = { key_id: "key", model: "asked", response_model: "model", template_version: "version" };
const FOUND = ["tenant", "user", "key_id", "class", "task", "session", "protocol", "operation", "model", "response_model", "provider", "status", "cache",
  "template", "template_version", "prompt_version", "price_source", "usage_basis", "fingerprint"];

function fact(key, value) {
  const text = h("bdi", null, written(key, value));
  return FOUND.includes(key) ? h("a", { href: `#/requests?${new URLSearchParams({ [FOUND_BY[key] ?? key]: value })}`, title: "all calls that have this" }, text) : text;
}

function facts(context, row) {
  const shown = FACTS.filter((key) => row[key] !== null && row[key] !== undefined);
  return section("All that is known", null, h("div", { class: "card" }, h("dl", { class: "facts" }, shown.map((key) => h("div", null, h("dt", null, key.replace(/_[sg]$/, "").replaceAll("_", " ")), h("dd", null, fact(key, row[key]))))),
    details("The row as it is kept", h("pre", { tabindex: "0", "aria-label": "The row" }, JSON.stringify(row, null, 2)))));
}

function written(key, value) {
  if (key.endsWith("_s")) return f.seconds(value);
  if (key === "co2e_g") return f.grams(value);
  if (key.endsWith("_tokens")) return f.count(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}
