// The first page: what was saved and by what, what is spent, and how well callers are served.

import { MOST_SERIES, sized, spark, stacked, waterfall } from "./charts.js";
import { badge, details, figure, h, missing, name, nothing, section, table } from "./dom.js";
import * as f from "./format.js";
import { bare, bounded, callsOf, ending, energy, head, lever, meter, ms, pct, savedMoney, times, unfinished, within } from "./parts.js";

const NEWEST = 6;
const NARROW = "\u202f"; // a space at which no line breaks
const RESIDUAL = 0.005; // of the first bar: a smaller difference gets no bar of its own, as in the reports

export const view = {
  load: async (context) => closer(context, await context.get("overview", context.asked)),

  says: ({ tiles }) => tiles.calls ? `${f.count(tiles.calls)} calls; saved ${f.usd(tiles.saved.cost_usd.mean)}; spent today ${f.usd(tiles.spend.today_usd)}.` : null,

  draw(context, data) {
    const { tiles } = data;
    const first = [head(context, "Overview", data, tiles.calls ? `${f.count(tiles.calls)} ${tiles.calls === 1 ? "call" : "calls"}` : null),
      simulated(data.honesty), unfinished(data.rollup), problems(tiles.uptime)];
    if (!tiles.calls) return [...first, empty(data), honestyOfNothing(data)];
    return [...first, heroes(tiles), smallTiles(context, tiles), steps(data.waterfall), overTime(context, data), rhythm(context, data), alone(tiles) ? null : justNow(context)];
  },

  tick(context, data, tick, page) {
    newest = [...tick.newest, ...newest].slice(0, NEWEST);
    page.querySelector("#just-now")?.replaceWith(justNow(context));
  },
};

let newest = []; // calls that the stream told of since the page was opened

/** True where no gateway is behind the page, only its ledger. */
const alone = ({ uptime }) => uptime.started_s === null;

// -- a first day ----------------------------------------------------------------------------------------------------

const LEAST_BARS = 8;
const FEW_S = 6 * 3600; // calls that lie closer together than that are drawn by the quarter of an hour

/** Return *data* with its pictures over the one day on which all calls of the period were, if there is only one. */
async function closer(context, data) {
  const { series, period } = data;
  const days = series.total.calls.flatMap((n, i) => (n ? [i] : []));
  if (period.bucket !== "day" || days.length !== 1) return data;
  const since = series.starts_s[days[0]];
  const until = series.starts_s[days[0] + 1] ?? period.until_s;
  const day = await context.get("overview", { zone: context.zone, since, until, bucket: "quarter" });
  const there = day.series.total.calls.flatMap((n, i) => (n ? [i] : []));
  if (!there.length) return data;
  const [first, last] = [day.series.starts_s[there[0]], day.series.starts_s[there.at(-1)]];
  if (last - first < FEW_S) return { ...data, pictured: { period: day.period, series: cut(day.series, ...spread(there[0], there.at(-1) + 1)) } };
  const hours = await context.get("overview", { zone: context.zone, since, until, bucket: "hour" });
  return { ...data, pictured: { period: hours.period, series: hours.series } };
}

/** Return [first, end] with enough buckets between them for a picture, the added ones before rather than after. */
function spread(first, end) {
  const start = Math.max(0, Math.min(first, end - LEAST_BARS));
  return [start, Math.max(end, start + LEAST_BARS)];
}

/** Return the buckets from *first* to before *end* of *series*. */
function cut(series, first, end) {
  const short = (values) => values.slice(first, end);
  const part = (one) => ({ ...one, cost_usd: one.cost_usd.map(short), calls: one.calls.map(short) });
  return { starts_s: short(series.starts_s), by_class: part(series.by_class), by_model: part(series.by_model),
    total: Object.fromEntries(Object.entries(series.total).map(([key, values]) => [key, short(values)])) };
}

// -- nothing yet ----------------------------------------------------------------------------------------------------

function empty(data) {
  const base = `${location.origin}/v1`;
  if (data.honesty?.rows) return nothing("No call in this period.", h("p", null, "There are calls in the ledger, at other times: choose a longer period above."));
  if (alone(data.tiles)) return nothing("There is no call in this ledger.");
  return nothing("No call yet. Send the first one.",
    h("p", null, "Change one line of your application: the address of the API. Keep the SDK, the key goes through."),
    h("pre", null, `from openai import OpenAI\n\nclient = OpenAI(base_url="${base}")\nclient.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])`),
    h("p", null, "Or from a terminal:"),
    h("pre", null, `curl ${base}/chat/completions -H "authorization: Bearer $OPENAI_API_KEY" -H "content-type: application/json" \\\n  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'`),
    h("p", null, "It appears here within a second or two, with what it cost. Saving begins with the second: an equal call is answered from the cache."));
}

function honestyOfNothing(data) {
  return data.rollup?.behind ? h("p", { class: "note" }, `${f.count(data.rollup.behind)} rows of the ledger wait to be rolled up.`) : null;
}

/** Return what must be said first of figures that no provider's answers made; null where all are real. */
function simulated(facts) {
  const { modelled = 0, recorded = 0 } = facts?.simulated ?? {};
  if (!modelled && !recorded) return null;
  const parts = [recorded ? `${f.count(recorded)} recorded` : null, modelled ? `${f.count(modelled)} modelled` : null].filter(Boolean).join(" and ");
  return h("div", { class: "notice", role: "note" }, h("div", null, h("b", null, "Not real traffic. "), `In these figures are ${parts} answers that no provider was asked for.`));
}

function problems(uptime) {
  const found = Object.entries(uptime?.problems ?? {});
  return found.length ? h("div", { class: "notice", role: "status" }, h("div", null, found.map(([part, words]) => h("div", null, h("b", null, part), ` ${words}`)))) : null;
}

// -- tiles ----------------------------------------------------------------------------------------------------------

/** Return an interval of what was added, where it says what was saved. */
const turned = (interval) => (interval ? { mean: -interval.mean, low: interval.high === null ? null : -interval.high, high: interval.low === null ? null : -interval.low } : interval);

function hero(what, note, { saved, share, form }, ...rest) {
  const lost = saved.mean !== null && saved.mean < 0;
  const label = h("p", { class: "label" }, `${what} ${lost ? "added" : "saved"}${note}`);
  if (saved.mean === null) return h("li", null, label, h("span", { class: "big" }, missing("no call has both figures: what it used, and what it would have used")), ...rest);
  const [amount, part] = lost ? [turned(saved), share && share.mean !== null ? turned(share) : share] : [saved, share];
  const range = within(amount, form);
  const known = part && part.mean !== null;
  return h("li", null, label, h("span", { class: lost ? "big lost" : saved.mean > 0 ? "big saved" : "big" }, form(amount.mean)),
    h("p", { class: "detail" }, known ? [h("b", null, pct(part.mean)), " ", within(part, (value) => pct(value).replace(" %", "")), range ? " · " : ""] : null, range), ...rest);
}

function heroes({ saved, holdout }) {
  const [low, , high] = saved.energy_wh.estimates ?? [null, null, null];
  const range = low === null || low === high ? null : h("p", { class: "detail" }, `estimates from ${low < 0 ? f.whRange(-low, -high) : f.whRange(low, high)}`);
  return h("ul", { class: "heroes", "aria-label": "What was saved" },
    hero("Money", "", { saved: saved.cost_usd, share: saved.cost_pct, form: f.usd }, saved.unpriced ? h("p", { class: "detail" }, `without ${f.count(saved.unpriced)} unpriced calls`) : null),
    hero("Tokens", "", { saved: saved.tokens, share: null, form: f.count },
      h("p", { class: "detail" }, "input ", h("b", null, f.count(saved.input_tokens.mean)), share(saved.input_tokens_pct), " · output ", h("b", null, f.count(saved.output_tokens.mean)), share(saved.output_tokens_pct))),
    hero("Energy", ", estimated", { saved: saved.energy_wh, share: saved.energy_pct, form: f.wh }, range, saved.energy_wh.mean < 0 ? h("p", { class: "detail" }, "the gateway's own work is counted") : null),
    h("li", { class: "held" }, heldOut(holdout)));
}

const share = (part) => (part?.mean === null || !part ? "" : ` (${pct(part.mean).replace(" ", NARROW)})`);

function heldOut(holdout) {
  if (!holdout) return h("p", { class: "detail" }, h("b", null, "Against the holdout: "), "no call of this period was held out, so these savings rest on the ledger's own estimate alone (", h("code", null, "[holdout] share"), ").");
  const marks = { agree: badge("good", "agrees"), disagree: badge("attention", "disagrees: trust the holdout"), "too few": badge("neutral", "too few calls to tell") };
  const measured = holdout.measured_saving_pct;
  return h("p", { class: "detail" }, h("b", null, "Against the holdout: "),
    `${f.count(holdout.requests)} ${holdout.requests === 1 ? "call" : "calls"} passed by every lever${costing(holdout.cost_per_call_usd)}, the other ${f.count(holdout.other_requests)} did not${costing(holdout.other_cost_per_call_usd)}: `,
    measured?.mean === null || !measured ? "no saving can be measured by them. " : [h("b", null, `${pct(measured.mean)} saved`), ` ${within(measured, (value) => pct(value).replace(" %", ""))} by measurement. `],
    marks[holdout.verdict] ?? badge("neutral", holdout.verdict));
}

const costing = (each) => (each?.mean === null || !each ? " (at an unknown cost)" : ` (${f.usd(each.mean)} each)`);

function tile(id, label, main, ...rest) {
  return h("li", { "data-tile": id }, h("p", { class: "label" }, label), h("span", { class: "mid" }, main), ...rest.filter(Boolean).map((line) => line instanceof Node && line.tagName !== "BDI" ? line : h("p", { class: "detail" }, line)));
}

function smallTiles(context, { spend, success, latency, ttft, errors, uptime, hits }) {
  return h("ul", { class: "tiles", "aria-label": "Spend and service" },
    tile("today", "Spend today", figure(spend.today_usd, f.usd, "no call of today has a price"), `this month ${f.usd(spend.month_usd)}`),
    forecast(context, spend), perSuccess(context, success),
    tile("hits", "Cache hit rate", figure(hits.rate?.mean, f.percent, "no call could have been a hit"), within(hits.rate, bare), `${f.count(hits.calls)} ${hits.calls === 1 ? "call" : "calls"} answered without a model`),
    tile("latency", "Latency p50 / p95", times(latency), ["first token ", times(ttft)]),
    tile("errors", "Error rate", figure(errors.rate?.mean, f.percent, "no call yet"), within(errors.rate, bare), h("p", { class: "detail" }, h("a", { href: "#/requests?error=1" }, `${f.count(errors.calls)} ${errors.calls === 1 ? "call" : "calls"}`), " failed by us or a provider")),
    up(context, uptime),
    tile("spend", "Spend in this period", figure(spend.period_usd, f.usd, "no call has a price"), ["instead of ", spend.period_baseline_usd === null ? "an unknown amount" : f.usd(spend.period_baseline_usd)],
      spend.unpriced ? `+ ${f.count(spend.unpriced)} unpriced calls` : null,
      spend.energy_wh?.[1] === null || !spend.energy_wh ? "energy unknown" : `${f.wh(spend.energy_wh[1])} (${f.whRange(spend.energy_wh[0], spend.energy_wh[2])})${spend.co2e_g === null ? "" : ` · ${f.grams(spend.co2e_g)} CO₂e`}`));
}

function up(context, uptime) {
  if (uptime.started_s === null) return tile("uptime", "Uptime", missing("no gateway is behind this page"), "these are the pages of a ledger, without its gateway");
  return tile("uptime", "Uptime", f.seconds(uptime.uptime_s), `since ${context.times.moment(uptime.started_s)}`, h("p", { class: "detail" }, Object.keys(uptime.problems ?? {}).length ? badge("attention", "see above") : badge("good", "all parts well")));
}

function forecast(context, { forecast: ahead, forecast_note: why, budget }) {
  const mean = ahead?.month_usd?.mean ?? null;
  const lines = [ahead ? within(ahead.month_usd, f.usd) : why];
  if (budget?.limit_usd) {
    const over = mean !== null && mean > budget.limit_usd;
    lines.push(meter(budget.spent_usd / budget.limit_usd, over ? "attention" : "good", mean === null ? null : mean / budget.limit_usd),
      h("p", { class: "detail" }, `${f.usd(budget.spent_usd)} of ${f.usd(budget.limit_usd)} `, over ? badge("attention", "over budget") : mean === null ? null : badge("good", "within budget")));
  } else lines.push(context.alone ? "budgets are with the gateway" : "no budget covers everything");
  return tile("forecast", "Forecast, this month", figure(mean, f.usd, why ?? "too little is known"), ...lines);
}

function perSuccess(context, success) {
  const label = "Cost per successful task";
  if (!success && context.alone) return tile("success", label, missing("no verdict is known here"), "no verdict is known here");
  if (!success) return tile("success", label, missing("nobody has judged a task yet"), ["not judged yet: ", h("code", null, "POST /v1/feedback")]);
  const each = success.cost_per_success_usd;
  return tile("success", label, each?.mean === null || !each ? missing("undefined: no task succeeded") : f.usd(each.mean), within(each, f.usd),
    [h("b", null, f.percent(success.rate?.mean)), ` ${within(success.rate, bare)} of ${f.count(success.judged)} judged succeeded`],
    success.tasks > success.judged ? `${f.count(success.tasks - success.judged)} more tasks not judged` : null,
    successTakes(success));
}

/** Return what a success takes beside money. */
function successTakes({ energy_per_success_wh: wh, latency_to_success_s: wait }) {
  const parts = [f.known(wh?.mean) ? f.wh(wh.mean) : null, f.known(wait?.mean) ? f.seconds(wait.mean) : null].filter(Boolean);
  return parts.length ? `${parts.join(" and ")} for a success` : null;
}

// -- the waterfall --------------------------------------------------------------------------------------------------

/** Return the bars of the waterfall: from the money without levers down to what was paid. */
export function barsOf(fall) {
  if (fall.baseline_usd === null || fall.actual_usd === null) return [];
  const bars = [{ label: "without levers", from: 0, to: fall.baseline_usd, kind: "total", value: f.usd(fall.baseline_usd) }];
  let at = fall.baseline_usd;
  for (const step of fall.steps) {
    const mean = step.cost_usd.mean;
    if (mean === null) continue;
    const to = at - mean;
    const { low, high } = step.cost_usd;
    const estimated = mean && Math.sign(step.estimated_usd) === Math.sign(mean) ? Math.min(1, step.estimated_usd / mean) : 0;
    bars.push({ label: lever(step.lever), from: at, to, kind: mean < 0 ? "lost" : "saved", estimated, value: shareOf(-mean, fall.baseline_usd),
      bounds: low === null || high === null ? null : [at - high, at - low] });
    at = to;
  }
  if (Math.abs(at - fall.actual_usd) > RESIDUAL * Math.abs(fall.baseline_usd))
    bars.push({ label: "not attributed", from: at, to: fall.actual_usd, kind: "rest", value: shareOf(fall.actual_usd - at, fall.baseline_usd) });
  return [...bars, { label: "as it was", from: 0, to: fall.actual_usd, kind: "total", value: f.usd(fall.actual_usd) }];
}

function shareOf(moved, of) {
  return `${moved > 0 ? "+" : ""}${f.usd(moved)}${of ? ` (${f.change(moved / of)})` : ""}`;
}

function steps(fall) {
  const bars = barsOf(fall);
  const columns = [
    { head: "lever", rowHead: true, cell: (step) => lever(step.lever) },
    { head: "calls", cell: (step) => f.count(step.hits) },
    { head: "money saved", cell: (step) => bounded(step.cost_usd, f.usd, "no price is known") },
    { head: "realised", cell: (step) => savedMoney(step.realised_usd) },
    { head: "estimated", cell: (step) => savedMoney(step.estimated_usd) },
    { head: "input tokens", cell: (step) => figure(step.input_tokens, f.count) },
    { head: "output tokens", cell: (step) => figure(step.output_tokens, f.count) },
    { head: "energy, est.", cell: (step) => energy(step.energy_wh) },
  ];
  const host = h("div", { class: "waterfall" });
  const drawn = bars.length > 0 && fall.steps.length > 0;
  if (drawn) sized(host, (width) => waterfall(bars, width));
  const shadow = fall.shadow.length ? details(`${fall.shadow.length === 1 ? "One lever" : `${fall.shadow.length} levers`} in shadow would have saved`, table("Levers in shadow", columns, fall.shadow)) : null;
  const none = !fall.steps.length ? h("p", { class: "note" }, "No lever has spared anything in this period.") : null;
  return section("What saved it", "From the cost without levers to the cost as it was, lever by lever, in the order in which a call meets them.",
    h("div", { class: "card" }, drawn ? [host, patterns()] : null, bars.length ? null : h("p", { class: "note" }, "No call of this period has a price, so there is no money to show."),
      none, fall.steps.length ? details("The same as a table", table("What each lever saved", columns, fall.steps)) : null, shadow));
}

function patterns() {
  const mark = (kind) => h("span", { class: `key ${kind}`, "aria-hidden": "true" });
  return h("ul", { class: "legend" }, h("li", null, mark("solid"), "realised: from usage a provider counted"), h("li", null, mark("hatched"), "estimated: from usage estimated here"), h("li", null, mark("range"), "95 % interval"));
}

// -- over time ------------------------------------------------------------------------------------------------------

/** Return the series of a breakdown, at most as many as can be told apart, the rest as one. */
export function seriesOf(part, rest = "other") {
  const all = part.names.map((label, i) => ({ name: label ?? "no model asked", values: part.cost_usd[i] }));
  if (all.length <= MOST_SERIES) return all;
  const tail = all.slice(MOST_SERIES - 1);
  const values = tail[0].values.map((_, i) => {
    const there = tail.map((one) => one.values[i]).filter((value) => value !== null);
    return there.length ? there.reduce((sum, value) => sum + value, 0) : null;
  });
  return [...all.slice(0, MOST_SERIES - 1), { name: rest, values }];
}

function marks(context, bucket) {
  const day = ["day", "week", "month"].includes(bucket);
  return { form: f.usd, when: (at) => (day ? context.times.day(at) : context.times.moment(at)), tick: (at) => (day ? context.times.shortDay(at) : context.times.clock(at) === "00:00" ? context.times.shortDay(at) : context.times.clock(at)), zone: context.zone };
}

const bucketWords = (bucket) => (bucket === "quarter" ? "quarter of an hour" : bucket);

/** Return in words when all calls were, where that is one day of a longer period; "" elsewhere. */
const when = (context, { pictured }) => (pictured ? `All calls of the period were on ${context.times.day(pictured.series.starts_s[0])}. ` : "");

function overTime(context, data) {
  const { series, period } = data.pictured ?? data;
  const words = marks(context, period.bucket);
  return section("Where the money goes", `${when(context, data)}Each bar is ${period.bucket === "hour" ? "an" : "a"} ${bucketWords(period.bucket)}.`, h("div", { class: "pair" },
    h("div", { class: "card" }, stacked("Cost by class", series.starts_s, seriesOf(series.by_class, "other classes"), words)),
    h("div", { class: "card" }, stacked("Cost by model", series.starts_s, seriesOf(series.by_model, "other models"), words))));
}

function rhythm(context, data) {
  const { series, period } = data.pictured ?? data;
  const begun = series.starts_s.filter((at) => at <= period.now_s); // a day has hours that are still to come
  const total = Object.fromEntries(Object.entries(series.total).map(([key, values]) => [key, values.slice(0, begun.length)]));
  const words = marks(context, period.bucket);
  const shares = (part) => total.calls.map((n, i) => (n ? part[i] / n : null));
  const per = total.calls.map((n, i) => (n && total.energy_wh[i] !== null ? total.energy_wh[i] / n : null));
  const rows = [
    ["Calls", total.calls, f.count], ["Hit rate", shares(total.hits), f.percent], ["Error rate", shares(total.errors), f.percent],
    ["Latency, p95", total.p95_ms, ms], ["Energy a call", per, f.wh],
    ["Tokens", total.input_tokens.map((n, i) => (n === null || total.output_tokens[i] === null ? null : n + total.output_tokens[i])), f.count],
  ];
  const columns = [{ head: "from", rowHead: true, cell: (at) => words.when(at) },
    ...rows.map(([head, values, form]) => ({ head, cell: (at, i) => figure(values[i], form, "not known of this time") }))];
  const last = data.pictured && begun.length ? `from ${context.times.clock(begun.at(-1))} on` : `of the last ${bucketWords(period.bucket)}`;
  return section("How it went", `The figure is ${last}, the line of ${data.pictured ? "that day" : "the whole period"}.`, h("ul", { class: "multiples" }, rows.map(([label, values, form]) => multiple(label, values, form))),
    details("The same as a table", table("How it went", columns, begun)));
}

function multiple(label, values, form) {
  const there = values.filter((value) => value !== null);
  const last = values.at(-1) ?? null;
  const [least, most] = there.length > 1 ? [form(Math.min(...there)), form(Math.max(...there))] : [null, null];
  const range = least === most ? (least === null ? null : `always ${least}`) : `${least} to ${most}`;
  return h("li", { class: "card" }, h("p", { class: "label" }, label), h("span", { class: "mid" }, figure(last, form, "not known of this time: no call, or too few")),
    spark(values, `${label}: ${range ?? "one value"}, last ${last === null ? "unknown" : form(last)}`), h("p", { class: "detail" }, range));
}

function justNow(context) {
  const columns = [
    { head: "call", rowHead: true, cell: (row) => h("a", { href: `#/requests/${encodeURIComponent(row.id)}` }, context.times.clock(row.received_s)) },
    { head: "class", text: true, cell: (row) => callsOf(row.class, { class: row.class }) },
    { head: "model", text: true, cell: (row) => (row.model === null ? missing("no model was asked") : name(row.model)) },
    { head: "ending", text: true, cell: (row) => ending(row.ending) },
    { head: "cost", cell: (row) => figure(row.cost_usd, f.usd, "no price is known") },
    { head: "took", cell: (row) => figure(row.duration_ms, ms) },
  ];
  const made = section("Just now", newest.length ? null : "Calls appear here as they end.", newest.length ? h("div", { class: "card" }, table("The newest calls", columns, newest)) : null);
  made.id = "just-now";
  return made;
}
