// Request classes: who owns each, what it promises, what it costs.

import { details, figure, h, missing, name, nothing, section, table } from "./dom.js";
import * as f from "./format.js";
import { bounded, callsOf, cost, head, level, lever, pct, savedMoney, times, unfinished } from "./parts.js";

let wanted = ""; // what was typed into the search

export const view = {
  load: (context) => context.get("classes", context.asked),

  draw(context, data) {
    const first = [head(context, "Classes", data, `${data.classes.length} ${data.classes.length === 1 ? "class" : "classes"}`), unfinished(data.rollup)];
    if (!data.classes.length) return [...first, nothing("No class yet.", h("p", null, "A class is a kind of request with an owner, a target and settings of its own. Name one in the configuration:"),
      h("pre", null, '[classes.support]\nowner = "desk@example.com"'), h("p", null, "and send calls with the header ", h("code", null, "x-negawatt-class: support"), "."))];
    return [...first, search(data.classes.length), h("div", { class: "card" }, classTable(data.classes)), tenants(data.tenants)];
  },
};

function search(n) {
  if (n < 12) return null;
  const find = (event) => {
    wanted = event.target.value;
    show(document.getElementById("page"));
  };
  return h("div", { class: "filters" }, h("label", null, "Find a class", h("input", { type: "search", id: "find-class", value: wanted, oninput: find, autocomplete: "off" })));
}

function show(host) {
  const words = wanted.trim().toLowerCase();
  let left = 0;
  for (const row of host.querySelectorAll("tr[data-class]")) {
    row.hidden = !row.dataset.class.toLowerCase().includes(words);
    left += row.hidden ? 0 : 1;
  }
  const none = host.querySelector("#none-found");
  if (none) none.textContent = left ? "" : "No class has that in its name.";
}

function classTable(rows) {
  const columns = [
    { head: "class", rowHead: true, cell: (row) => [row.calls ? callsOf(row.name, { class: row.name }) : name(row.name),
      h("span", { class: "under" }, row.owner ? ["owner ", h("bdi", null, row.owner)] : row.configured ? "no owner named" : "not in the configuration")] },
    { head: "target", text: true, cell: (row) => [row.quality_target === null ? missing("no target is set") : h("span", { class: "figure" }, f.percent(row.quality_target)),
      row.risk || row.latency_class ? h("span", { class: "under" }, [row.risk ? `${row.risk} risk` : null, row.latency_class].filter(Boolean).join(", ")) : null] },
    { head: "service levels", text: true, cell: (row) => (row.slos.length ? row.slos.map((slo) => [level(slo), " "]) : missing("none is set")) },
    { head: "calls, hits", cell: (row) => [f.count(row.calls), h("span", { class: "under" }, row.hit_rate === null ? null : `${f.percent(row.hit_rate)} hits`)] },
    { head: "cost", cell: (row) => cost(row.calls ? row.cost_usd : 0, row.unpriced) },
    { head: "saved", cell: (row) => [savedMoney(row.calls ? row.saved_usd : null), row.saved_pct === null ? null : h("span", { class: "under" }, pct(row.saved_pct))] },
    { head: "p50 / p95", cell: (row) => times(row.latency) },
    { head: "errors", cell: (row) => bounded(row.error_rate, f.percent, "no call yet") },
    { head: "cost of a success", cell: (row) => success(row.success) },
  ];
  const made = h("div", null, table("Classes", columns, rows, { row: (row) => ({ "data-class": row.name }) }), h("p", { class: "note", id: "none-found", role: "status" }), byLever(rows));
  show(made);
  return made;
}

function success(judged) {
  if (!judged) return missing("nobody has judged a task of it");
  return [h("div", { class: "loose" }, bounded(judged.cost_per_success_usd, f.usd, "undefined: no task succeeded")), h("span", { class: "under" }, `${f.percent(judged.rate?.mean)} succeeded`)];
}

function byLever(rows) {
  const pairs = rows.flatMap((row) => row.levers.map((one) => ({ ...one, class: row.name })));
  if (!pairs.length) return null;
  return details("What saved it, by class and lever", table("Savings by class and lever", [
    { head: "class", rowHead: true, cell: (row) => name(row.class) },
    { head: "lever", text: true, cell: (row) => lever(row.lever) },
    { head: "calls", cell: (row) => f.count(row.hits) },
    { head: "saved", cell: (row) => savedMoney(row.cost_usd) },
  ], pairs));
}

function tenants(rows) {
  if (rows.length < 2) return null;
  return section("Tenants", null, h("div", { class: "card" }, table("Tenants", [
    { head: "tenant", rowHead: true, cell: (row) => (row.name === null ? missing("refused before it was known who asked") : callsOf(row.name, { tenant: row.name })) },
    { head: "calls", cell: (row) => f.count(row.calls) },
    { head: "cost", cell: (row) => cost(row.cost_usd, row.unpriced) },
    { head: "without levers", cell: (row) => figure(row.baseline_usd, f.usd, "no price is known") },
    { head: "saved", cell: (row) => savedMoney(row.saved_usd) },
  ], rows)));
}
