// Routing: who was asked for, who answered, what each choice came to, and what decided.

import { climb, sized } from "./charts.js";
import { figure, h, missing, name, nothing, section, shortTable, table } from "./dom.js";
import * as f from "./format.js";
import { cost, head, lever, ms, savedMoney, unfinished } from "./parts.js";

export const view = {
  load: (context) => context.get("routing", context.asked),

  draw(context, data) {
    const first = [head(context, "Routing", data), unfinished(data.rollup)];
    if (!data.models.length) return [...first, policies(data.policies), nothing("No call in this period.", h("p", null, "When calls come, this page tells which models answered them and what that saved against the models that were asked for."))];
    return [...first, curve(data.curve), answered(data.models), policies(data.policies), decisions(data.decisions)];
  },
};

function curve(rows) {
  const priced = rows.filter((row) => row.cost_per_call_usd !== null && row.share !== null);
  let reached = 0;
  const points = priced.map((row) => ({ x: row.cost_per_call_usd, y: (reached += row.share), label: row.model ?? "no model asked", other: row.model === null }));
  const host = h("div", { class: "curve-host" });
  if (points.length > 1) sized(host, (width) => climb("Share of calls by what a call costs", points, ["cost of a call", "share of calls that cost at most so much"], width));
  return section("What a call costs, model by model", points.length > 1 ? "The further left and the steeper the curve climbs, the more is answered by what is cheap." : null,
    h("div", { class: "card" }, points.length > 1 ? host : null, table("What a call costs by model", [
      { head: "model", rowHead: true, cell: (row) => (row.model === null ? "no model asked" : name(row.model)) },
      { head: "calls", cell: (row) => f.count(row.calls) },
      { head: "share", cell: (row) => figure(row.share, f.percent) },
      { head: "cost of a call", cell: (row) => figure(row.cost_per_call_usd, f.usd, "no price is known") },
      ...(rows.some((row) => row.p50_ms !== null) ? [{ head: "p50", cell: (row) => figure(row.p50_ms, ms, "latency is not kept by model") }] : []),
    ], rows)));
}

function answered(rows) {
  return section("Who was asked for, and who answered", null, h("div", { class: "card" }, shortTable("Asked for and answered", [
    { head: "asked for", rowHead: true, cell: (row) => (row.asked === null ? missing("no model was named") : name(row.asked)) },
    { head: "answered", text: true, cell: (row) => [row.answered === null ? "no model asked" : name(row.answered),
      row.provider ? h("span", { class: "under" }, row.provider) : null] },
    { head: "class", text: true, cell: (row) => name(row.class) },
    { head: "calls", cell: (row) => f.count(row.calls) },
    { head: "cost", cell: (row) => cost(row.cost_usd, row.unpriced) },
    { head: "without levers", cell: (row) => figure(row.baseline_usd, f.usd, "no price is known") },
    { head: "saved", cell: (row) => savedMoney(row.cost_usd === null || row.baseline_usd === null ? null : row.baseline_usd - row.cost_usd) },
    { head: "energy, est.", cell: (row) => figure(row.energy_wh?.[1], f.wh, "not known") },
  ], rows)));
}

function policies(rows) {
  if (rows === null) return section("Policies", "Not known here: no configuration says how this ledger was written.");
  if (!rows.length) return section("Policies", "No policy is configured: each call goes to the model that it names.");
  return section("Policies", null, h("div", { class: "card" }, table("Policies", [
    { head: "policy", rowHead: true, cell: (row) => name(row.name) },
    { head: "how it chooses", text: true, cell: (row) => row.how },
    { head: "candidates", text: true, cell: (row) => row.candidates.map((model, i) => [i ? ", " : "", name(model)]) },
    { head: "reference", text: true, cell: (row) => (row.reference === null ? missing("none") : name(row.reference)) },
    { head: "quality", cell: (row) => figure(row.quality, f.percent, "no target is set") },
  ], rows)));
}

function decisions(rows) {
  if (!rows.length) return null;
  const shown = shortTable("What levers decided", [
    { head: "lever", rowHead: true, cell: (row) => h("a", { href: `#/requests?lever=${encodeURIComponent(row.lever)}&action=${encodeURIComponent(row.action)}` }, lever(row.lever)) },
    { head: "did", text: true, cell: (row) => row.action.replaceAll("_", " ") },
    { head: "class", text: true, cell: (row) => name(row.class) },
    { head: "mode", text: true, cell: (row) => row.mode },
    { head: "calls", cell: (row) => f.count(row.calls) },
  ], rows);
  return section("What levers decided", "The most frequent first.", h("div", { class: "card" }, shown));
}
