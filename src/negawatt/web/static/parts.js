// Parts that several views are made of.

import { badge, h, missing, name } from "./dom.js";
import * as f from "./format.js";
import { chooser, words } from "./period.js";

/** Return the head of a view: its title, what it covers, and the choice of periods. */
export function head(context, title, data, more) {
  const period = data?.period ? `${words(data.period, context.times)} · times in ${context.zone.replaceAll("_", " ")}` : null;
  return h("div", { class: "head" },
    h("div", null, h("h1", { tabindex: "-1" }, title), period || more ? h("p", { class: "sub" }, [period, more].filter(Boolean).join(" · ")) : null),
    data?.period ? chooser(context.period, context.choose) : null);
}

/** Return what must be said of roll-ups that are still being made; null when they are whole. */
export function unfinished(rollup) {
  if (!rollup || rollup.complete) return null;
  const done = f.percent(rollup.progress);
  return h("div", { class: "notice", role: "status" }, h("div", null, h("b", null, `${done} of the ledger is in these figures. `),
    "It is older than its roll-ups, which are being made now; the rest follows by itself."));
}

/** Return the text of an interval: [38, 44]; "" where nothing bounds it. */
export function within(interval, form) {
  return interval ? f.bounds(interval.low, interval.high, form) : "";
}

/** Return a share in percent without its sign, as it stands within brackets. */
export const bare = (value) => f.percent(value).replace(" %", "");
export const pct = (value) => f.percent(value === null ? null : value / 100);
export const ms = (value) => f.seconds(value === null ? null : value / 1000);

/** Return an interval's figure with its bounds beneath. */
export function bounded(interval, form, reason) {
  if (!interval || interval.mean === null) return missing(reason ?? "nothing to go by yet");
  const range = within(interval, form === f.percent ? bare : form);
  return [h("span", { class: "figure" }, form(interval.mean)), range ? h("span", { class: "under range", title: "95 % interval" }, range) : null];
}

/** Return "p50 / p95" of a latency; a percentile that too few calls support is a dash with the reason. */
export function times(latency) {
  if (!latency || !latency.n) return missing("no call was answered");
  return [latency.p50_ms === null ? missing("no call was answered") : h("span", { class: "figure" }, ms(latency.p50_ms)), " / ",
    latency.p95_ms === null ? missing(`p95 needs 60 calls, there are ${latency.n}`) : h("span", { class: "figure" }, ms(latency.p95_ms))];
}

/** Return an energy's central estimate, with low and high beneath. */
export function energy(triple) {
  if (!triple || triple[1] === null) return missing("no energy is known of these calls");
  return [h("span", { class: "figure" }, f.wh(triple[1])), h("span", { class: "under", title: "low to high estimate" }, f.whRange(triple[0], triple[2]))];
}

/** Return a bar that is filled to *share*, with a mark at *mark*. It is drawn, and said in words beside it. */
export function meter(share, kind = "plain", mark = null) {
  const at = (value) => `${Math.max(0, Math.min(100, 100 * value)).toFixed(2)}%`;
  return h("span", { class: `meter ${kind}`, "aria-hidden": "true" }, h("span", { style: { width: at(share) } }),
    mark === null ? null : h("span", { class: "mark", style: { left: `calc(${at(mark)} - 1px)`, right: "auto" } }));
}

const ENDINGS = {
  answered: ["good", "answered"], cached: ["good", "from a cache"], coalesced: ["good", "by another's call"],
  refused: ["neutral", "refused"], cancelled: ["neutral", "caller hung up"], abandoned: ["neutral", "caller left"],
  upstream_error: ["attention", "provider failed"], upstream_broken: ["attention", "answer broke off"],
  deadline: ["attention", "too late"], failed: ["attention", "our fault"],
};

export const ENDING_NAMES = Object.keys(ENDINGS);

/** Return how a call ended, as a mark. */
export function ending(value) {
  const [kind, text] = ENDINGS[value] ?? ["neutral", value];
  return badge(kind, text);
}

export const endingWords = (value) => ENDINGS[value]?.[1] ?? value;

/** Return the names of levers as people say them. */
export function lever(value) {
  return value.replaceAll("_", " ");
}

/** Return what was spared, green, or added, amber; with its sign, so that colour is not all that tells. */
export function savedMoney(value) {
  if (value === null || value === undefined) return missing("a price is not known");
  return h("span", { class: value < 0 ? "figure lost" : value > 0 ? "figure saved" : "figure" }, f.usd(value));
}

/** Return money, and how many calls it leaves out. */
export function cost(value, unpriced) {
  const left = unpriced ? h("span", { class: "under" }, `+ ${f.count(unpriced)} unpriced`) : null;
  return [value === null ? missing("no price is known") : h("span", { class: "figure" }, f.usd(value)), left];
}

/** Return a link to the calls that *filters* find. */
export function callsOf(text, filters) {
  return h("a", { href: `#/requests?${new URLSearchParams(filters)}` }, name(text));
}

const STATES = { ok: ["good", "kept"], firing: ["attention", "burning"], pending: ["attention", "at risk"], breached: ["attention", "broken"], unknown: ["neutral", "too little to tell"] };

/** Return how a service level stands, as a mark. */
export function level(slo) {
  const [kind, text] = STATES[slo.state] ?? ["neutral", slo.state];
  return badge(kind, `${slo.kind ?? slo.name}: ${text}`);
}
