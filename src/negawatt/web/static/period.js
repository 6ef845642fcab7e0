// Periods, in the viewer's zone: a day begins where the viewer's day does.

import { h } from "./dom.js";

export const PERIODS = { today: "Today", week: "7 days", days30: "30 days", month: "This month", days90: "90 days" };
export const DEFAULT = "days30";

/** Return the date of now in *zone*, as [year, month, day]. */
function today(zone) {
  const parts = new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" });
  return parts.format(Date.now()).split("-").map(Number);
}

/** Return the parameters that ask for the period *name* in *zone*. */
export function asked(name, zone) {
  const [year, month, day] = today(zone);
  const back = { today: 0, week: 6, days30: 29, month: day - 1, days90: 89 }[name] ?? 29;
  const first = new Date(Date.UTC(year, month - 1, day - back)).toISOString().slice(0, 10);
  return { zone, since: first, bucket: { today: "hour", week: "day" }[name] };
}

/** Return the buttons that choose a period. */
export function chooser(chosen, choose) {
  return h("div", { class: "periods", role: "group", "aria-label": "Period" }, Object.entries(PERIODS).map(([name, text]) =>
    h("button", { type: "button", "aria-pressed": String(name === chosen), onclick: () => choose(name) }, text)));
}

/** Return the period in words, as the gateway understood it. */
export function words(period, times) {
  const first = times.day(period.since_s);
  const last = times.day(Math.min(period.until_s - 1, period.now_s));
  return first === last ? first : `${first} to ${last}`;
}
