// Caches: what they answered, how often they may be wrong, and what waits for a person.

import { badge, figure, h, missing, name, nothing, s, section, shortTable, table } from "./dom.js";
import * as f from "./format.js";
import { bounded, callsOf, energy, head, lever, unfinished } from "./parts.js";

const MODES = { on: ["good", "on"], canary: ["neutral", "canary"], shadow: ["neutral", "shadow"], off: ["neutral", "off"] };

export const view = {
  load: (context) => context.get("caches", context.asked),

  draw(context, data) {
    return [head(context, "Caches", data), unfinished(data.rollup),
      data.caches.length ? h("div", { class: "card" }, cacheTable(data.caches)) : nothing("No cache is on.", h("p", null, "The exact cache and the sharing of equal calls are on by default; this configuration has switched them off.")),
      review(data.review), wrong(data), prefix(data.provider_prefix), perClass(data.caches)];
  },
};

function cacheTable(rows) {
  return table("Caches", [
    { head: "cache", rowHead: true, cell: (row) => [lever(row.name), " ", row.mode === null ? null : badge(...(MODES[row.mode] ?? ["neutral", row.mode]))] },
    { head: "hits", cell: (row) => [h("a", { href: `#/requests?lever=${encodeURIComponent(row.name)}` }, f.count(row.hits)), row.stale ? h("span", { class: "under" }, `${f.count(row.stale)} past their time, renewed`) : null] },
    { head: "of calls", cell: (row) => figure(row.calls, f.count, "it says nothing of a call that it forwards") },
    { head: "hit rate", cell: (row) => bounded(row.hit_rate, f.percent, "no call came by, or none is counted") },
    { head: "saved", cell: (row) => [bounded(row.cost_usd, f.usd, "no price is known"), row.unpriced_hits ? h("span", { class: "under" }, `+ ${f.count(row.unpriced_hits)} unpriced`) : null] },
    { head: "tokens in / out", cell: (row) => [figure(row.input_tokens, f.count), " / ", figure(row.output_tokens, f.count)] },
    { head: "energy, est.", cell: (row) => energy(row.energy_wh) },
    { head: "what it did", text: true, cell: (row) => Object.entries(row.actions ?? {}).map(([action, n]) => `${action.replaceAll("_", " ")} ${f.count(n)}`).join(", ") || missing("nothing yet") },
  ], rows);
}

function review(queue) {
  if (!queue) return null;
  const words = queue.waiting === null || queue.waiting === undefined ? h("span", null, missing("the review queue cannot be read here"), " the queue lies with the gateway")
    : queue.waiting ? badge("attention", `${f.count(queue.waiting)} ${queue.waiting === 1 ? "answer waits" : "answers wait"}`) : badge("good", "nothing waits");
  return section("Review", "Answers of the semantic cache that only a person can judge. Each judgement sharpens the estimate below.",
    h("div", { class: "card row-card" }, words, queue.waiting ? h("code", null, queue.command) : null));
}

function wrong({ learned, learned_note: note }) {
  const title = "How often the semantic cache is wrong";
  if (learned === null) return section(title, `Not known here: ${note ?? "it cannot be read"}.`);
  if (!learned.length) return section(title, "The semantic cache is off, so it answers nothing, wrong or right.");
  const scale = Math.max(...learned.flatMap((row) => [row.budget ?? 0, row.wrong_share?.high ?? 0, row.wrong_share?.mean ?? 0]), 1e-6) * 1.15;
  return section(title, "The share of its answers that differ from what the model would have said, by answers that were asked anyway and compared; the upright line is the budget of errors.",
    h("div", { class: "card" }, table("Wrong answers of the semantic cache", [
      { head: "class", rowHead: true, cell: (row) => [name(row.class), h("span", { class: "under" }, row.tier)] },
      { head: "wrong", cell: (row) => bounded(row.wrong_share, f.percent, "nothing was compared yet") },
      { head: "against its budget", text: true, cell: (row) => gauge(row, scale) },
      { head: "budget", cell: (row) => figure(row.budget, f.percent, "none is set") },
      { head: "served", cell: (row) => f.count(row.served) },
      { head: "compared", cell: (row) => [f.count(row.compared), row.human ? h("span", { class: "under" }, `${f.count(row.human)} by people`) : null] },
      { head: "waiting", cell: (row) => f.count(row.waiting) },
      { head: "threshold", cell: (row) => figure(row.threshold, (value) => value.toFixed(3), "it abstains: the evidence is too thin") },
    ], learned)));
}

/** Return a small picture of where the error lies beside its budget. */
function gauge(row, scale) {
  const { mean, low, high } = row.wrong_share ?? {};
  if (mean === null || mean === undefined) return missing("nothing was compared yet");
  const x = (value) => 4 + (192 * value) / scale;
  const over = high !== null && row.budget !== null && high > row.budget;
  const told = `wrong ${f.percent(mean)} ${f.bounds(low, high, f.percent)}, budget ${f.percent(row.budget)}`;
  const picture = s("svg", { class: "gauge", viewBox: "0 0 200 24", width: 200, height: 24, role: "img", "aria-label": told },
    s("path", { class: "grid-line", d: "M4 12H196" }),
    low === null || high === null ? null : s("path", { class: "whisker", d: `M${x(low)} 12H${x(high)}M${x(low)} 8v8M${x(high)} 8v8` }),
    s("circle", { class: over ? "point amber" : "point", cx: x(mean), cy: 12, r: 5 }),
    row.budget === null ? null : s("path", { class: "limit", d: `M${x(row.budget)} 2v20` }));
  return [picture, over ? badge("attention", "may exceed it") : badge("good", "within")];
}

function prefix(part) {
  if (!part) return null;
  return section("The provider's own cache", "Input tokens that the provider read from its prompt cache, at a lower price.", h("div", { class: "card" }, h("dl", null,
    h("dt", null, "read from it"), h("dd", null, figure(part.cache_read_tokens, f.count), " of ", figure(part.input_tokens, f.count), " input tokens", part.read_share === null ? null : [", ", h("b", null, f.percent(part.read_share))]),
    h("dt", null, "written to it"), h("dd", null, figure(part.cache_write_tokens, f.count), " tokens"))));
}

function perClass(rows) {
  const pairs = rows.flatMap((row) => (row.classes ?? []).map((one) => ({ ...one, cache: row.name })));
  if (!pairs.length) return null;
  return section("By class", null, h("div", { class: "card" }, shortTable("Hits by class", [
    { head: "class", rowHead: true, cell: (row) => callsOf(row.name, { class: row.name, lever: row.cache }) },
    { head: "cache", text: true, cell: (row) => lever(row.cache) },
    { head: "hits", cell: (row) => f.count(row.hits) },
    { head: "saved", cell: (row) => figure(row.cost_usd, f.usd, "no price is known") },
  ], pairs)));
}
