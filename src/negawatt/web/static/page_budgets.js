// Budgets, service levels and alerts.

import { badge, details, figure, h, missing, name, nothing, section, table } from "./dom.js";
import * as f from "./format.js";
import { head, level, meter } from "./parts.js";

const FORMS = { usd: f.usd, tokens: f.count, joules: f.joules, wh: f.wh };
const ELSEWHERE = "Not known here: they are with the gateway, and these are the pages of its ledger alone.";
const MOST_CARDS = 12;
const POLICIES = { refuse: "refuses", downgrade: "takes a cheaper policy", queue: "queues" };

export const view = {
  async load(context) {
    const [money, alarms] = await Promise.all([context.get("budgets"), context.get("alerts")]);
    return { ...alarms, ...money, alerts: alarms.alerts, slos: alarms.slos, alarms: alarms.configured };
  },

  says: (data) => `${data.alerts.filter((alert) => alert.state === "firing").length} alerts firing.`,

  draw(context, data) {
    return [head(context, "Budgets and alerts", null), alerts(context, data), budgetsOf(context, data), levels(context, data)];
  },
};

function alerts(context, { alerts: rows, alarms }) {
  if (!alarms && context.alone) return section("Alerts", ELSEWHERE);
  if (!alarms && !rows.length) return section("Alerts", null, nothing("No alert is configured.", h("p", null, "An alert tells the owner of a class when latency, errors, cost or a cache's mistakes leave their bounds: by webhook, Slack, Alertmanager, e-mail or log.")));
  if (!rows.length) return section("Alerts", null, h("div", { class: "card" }, badge("good", "nothing is firing")));
  return section("Alerts", null, h("div", { class: "card" }, table("Alerts", [
    { head: "alert", rowHead: true, cell: (row) => [name(row.name.replaceAll("_", " ")), h("span", { class: "under" }, row.summary)] },
    { head: "state", text: true, cell: (row) => badge(row.state === "firing" ? "attention" : "good", row.state) },
    { head: "severity", text: true, cell: (row) => row.severity ?? missing("none") },
    { head: "class", text: true, cell: (row) => (row.class === null || row.class === undefined ? "all" : name(row.class)) },
    { head: "owner", text: true, cell: (row) => (row.owner ? name(row.owner) : missing("no owner is named")) },
    { head: "since", cell: (row) => [figure(row.since_s, (at) => context.times.moment(at)), row.until_s ? h("span", { class: "under" }, `until ${context.times.moment(row.until_s)}`) : null] },
  ], rows)));
}

function budgetsOf(context, { budgets: rows, configured }) {
  if (!configured && context.alone) return section("Budgets", ELSEWHERE);
  if (configured && !rows.length) return section("Budgets", null, nothing("No budget has been used yet.", h("p", null, "There is one for each key, user, tenant, class or model, from its first call on.")));
  if (!configured) return section("Budgets", null, nothing("No budget is configured.", h("p", null, "A budget holds tokens, money or energy of a key, user, tenant, class, model, or of all: reserved before a call, settled after it, never exceeded.")));
  const fullest = rows.length > MOST_CARDS ? [...rows].sort((a, b) => spentOf(b) - spentOf(a)).slice(0, MOST_CARDS) : rows;
  const all = fullest === rows ? null : h("div", { class: "card" }, details(`All ${f.count(rows.length)} budgets`, table("Budgets", [
    { head: "budget", rowHead: true, cell: (row) => [name(row.name), h("span", { class: "under" }, h("bdi", null, coverage(row)))] },
    { head: "spent", cell: (row) => figure(row.spent, FORMS[row.unit] ?? f.count, "what was spent is not known") },
    { head: "of", cell: (row) => (FORMS[row.unit] ?? f.count)(row.limit) },
    { head: "share", cell: (row) => figure(row.spent === null ? null : row.spent / row.limit, f.percent, "what was spent is not known") },
    { head: "each", text: true, cell: (row) => row.period },
  ], rows)));
  return section("Budgets", all ? `The ${MOST_CARDS} that are nearest to their limits.` : null, h("ul", { class: "budgets" }, fullest.map((row) => budget(context, row))), all);
}

const spentOf = (row) => (row.spent === null ? -1 : row.spent / row.limit);
const coverage = (row) => Object.entries(row.covers ?? {}).map(([what, which]) => `${what} ${which ?? "unnamed"}`).join(", ") || "everything";

function budget(context, row) {
  const form = FORMS[row.unit] ?? f.count;
  const unit = row.unit in FORMS && row.unit !== "tokens" ? "" : ` ${row.unit}`;
  const spent = row.spent === null ? null : row.spent / row.limit;
  const held = spent === null ? null : (row.spent + (row.reserved ?? 0)) / row.limit;
  const kind = spent === null ? "plain" : spent >= 1 ? "attention" : spent >= 0.8 ? "attention" : "good";
  const mark = spent === null ? badge("neutral", "not known") : spent >= 1 ? badge("attention", "spent") : spent >= 0.8 ? badge("attention", "nearly spent") : badge("good", "within");
  return h("li", { class: "card" }, h("div", { class: "between" }, h("h3", null, name(row.name)), mark),
    h("p", { class: "detail" }, h("bdi", null, coverage(row)), `, each ${row.period}`, row.owner ? [" · owner ", h("bdi", null, row.owner)] : null),
    h("span", { class: "mid" }, figure(row.spent, form, "what was spent is not known"), h("span", { class: "of" }, ` of ${form(row.limit)}${unit}`)),
    meter(spent ?? 0, kind, held !== null && row.reserved ? held : null),
    h("p", { class: "detail" }, [spent === null ? null : f.percent(spent), row.reserved ? `${form(row.reserved)}${unit} reserved` : null, row.resets_s ? `resets ${context.times.moment(row.resets_s)}` : null].filter(Boolean).join(" · ")),
    f.known(row.forecast) ? h("p", { class: "detail" }, `by its end ${form(row.forecast)}${unit} if it goes on like this `, row.forecast > row.limit && spent < 1 ? badge("attention", "over budget") : null) : null,
    h("p", { class: "detail" }, `at the limit it ${POLICIES[row.policy] ?? row.policy}`),
    row.unknown ? h("p", { class: "detail" }, h("b", null, `without ${calls(row.unknown)} of unknown cost`)) : null,
    row.assumed ? h("p", { class: "detail" }, `${calls(row.assumed)} counted as reserved`) : null);
}

const calls = (n) => `${f.count(n)} ${n === 1 ? "call" : "calls"}`;

function levels(context, { slos: rows }) {
  if (!rows.length) return null;
  return section("Service levels", "A burn rate of 1 spends the budget of failures exactly by the end of its period.", h("div", { class: "card" }, table("Service levels", [
    { head: "service level", rowHead: true, cell: (row) => [name(row.name.replaceAll("_", " ")), h("span", { class: "under" }, row.owner ? ["owner ", h("bdi", null, row.owner)] : "no owner named"), row.message ? h("span", { class: "under" }, h("bdi", null, row.message)) : null] },
    { head: "state", text: true, cell: (row) => level(row) },
    { head: "class", text: true, cell: (row) => (row.class === null || row.class === undefined ? "all" : name(row.class)) },
    { head: "promised", cell: (row) => promised(row) },
    { head: "as it is", cell: (row) => [asItIs(row), f.known(row.budget_left) ? h("span", { class: "under" }, row.budget_left > 0 ? `${f.percent(row.budget_left)} of its budget left` : "its budget is used up") : null] },
    { head: "burn rates", text: true, cell: (row) => Object.entries(row.burn_rates ?? {}).map(([window, rate], i) => [i ? ", " : "", h("span", { class: "figure" }, `${window} `, rate === null ? missing("too few calls") : h("b", null, f.plain(rate, 2)))]) },
    { head: "since", cell: (row) => figure(row.since_s, (at) => context.times.moment(at)) },
  ], rows)));
}

/** Return a value of a service level in its unit. */
function amount(value, unit) {
  const forms = { s: f.seconds, ms: (ms) => f.seconds(ms / 1000), usd: f.usd, share: f.percent, times: (n) => `${f.plain(n)} times` };
  return (forms[unit?.toLowerCase()] ?? ((n) => `${f.plain(n)} ${unit ?? ""}`))(value);
}

/** Return the value that a level promises to bound; where calls are counted instead, how many kept it. */
function asItIs(row) {
  if (row.total) return h("span", { class: "figure" }, `${f.percent(row.good / row.total)} of ${f.count(row.total)}`);
  return figure(row.value, (value) => amount(value, row.unit), "too little to tell");
}

function promised(row) {
  const share = f.known(row.objective) ? `${f.percent(row.objective)} of calls` : null;
  if (!f.known(row.target)) return share ?? missing("it has no target in numbers");
  return [h("span", { class: "figure" }, amount(row.target, row.unit)), share ? h("span", { class: "under" }, share) : null];
}
