// Figures as people read them: three digits that count, one space before the unit, a real minus. Unknown says so.
// The same rules as negawatt/proof/formats.py, so that the page and the reports write one number in one way.

export const UNKNOWN = "unknown";
export const DASH = "–";
const MINUS = "−";
const BIG = [[1e15, " Q"], [1e12, " T"], [1e9, " B"], [1e6, " M"]];

/** True for a number that is there and finite. */
export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Return a number from what JSON holds: a number, or a decimal as text; null for anything else. */
export function number(value) {
  if (typeof value === "string" && value.trim() !== "") value = Number(value);
  return known(value) ? value : null;
}

function grouped(text) {
  const [whole, rest] = text.split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return rest === undefined ? spaced : `${spaced}.${rest}`;
}

/** Return *value* with *digits* significant digits and thousands separators, never as 1e-05. */
export function plain(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return (value < 0 ? MINUS : "") + grouped(size.toFixed(Math.min(places, 12)));
}

/** Return a whole number; from a million on, three digits of it. */
export function count(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  for (const [size, letter] of BIG) if (Math.abs(value) >= size) return plain(value / size) + letter;
  const size = Math.round(Math.abs(value));
  return (value < 0 && size ? MINUS : "") + grouped(size.toFixed(0));
}

/** Return dollars: cents from a dollar on, three digits below, letters from a million on. */
export function usd(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  if (value === 0) return "$0";
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : "";
  for (const [unit, letter] of BIG) if (size >= unit) return `${sign}$${plain(size / unit)}${letter}`;
  if (size >= 10_000) return `${sign}$${grouped(size.toFixed(0))}`;
  return `${sign}$${size >= 1 ? grouped(size.toFixed(2)) : plain(size)}`;
}

/** Return round amounts of money as the marks of an axis: all with as many places as their distance needs. */
export function moneyLabels(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(values[0]) || 1;
  let places = Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9)));
  if (step < 10 && Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) > 1e-6) places += 1; // 0.25, 2.5
  return values.map((value) => {
    if (Math.abs(value) < step / 2) return "$0";
    const sign = value < 0 ? MINUS : "";
    const [unit, letter] = BIG.find(([size]) => step >= size / 10) ?? [1, ""];
    const size = Math.abs(value) / unit;
    return `${sign}$${unit === 1 ? grouped(size.toFixed(places)) : grouped(String(Number(size.toPrecision(6))))}${letter}`;
  });
}

const ENERGY_WH = [[1e12, "TWh"], [1e9, "GWh"], [1e6, "MWh"], [1e3, "kWh"], [1, "Wh"], [1e-3, "mWh"]];

function unitOf(size, units) {
  if (size === 0) return [1, units.find(([unit]) => unit === 1)[1]];
  return units.find(([unit]) => size >= unit) ?? units[units.length - 1];
}

/** Return an energy, given in watt-hours, in the unit that suits its size. */
export function wh(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  const [unit, name] = unitOf(Math.abs(value), ENERGY_WH);
  return `${plain(value / unit)} ${name}`;
}

/** Return an energy, given in joules: in joules below a watt-second's thousands, else in watt-hours. */
export function joules(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  if (Math.abs(value) >= 3600) return wh(value / 3600);
  if (value === 0) return "0 J";
  const [unit, name] = unitOf(Math.abs(value), [[1e3, "kJ"], [1, "J"], [1e-3, "mJ"]]);
  return `${plain(value / unit)} ${name}`;
}

/** Return a range of energies in one unit: 7.93–49.5 Wh. */
export function whRange(low, high) {
  low = number(low);
  high = number(high);
  if (low === null || high === null) return UNKNOWN;
  const [unit, name] = unitOf(Math.max(Math.abs(low), Math.abs(high)), ENERGY_WH);
  return `${plain(low / unit)}–${plain(high / unit)} ${name}`;
}

/** Return a time, given in seconds, in the unit that suits its size. */
export function seconds(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  if (value === 0) return "0 ms";
  const size = Math.abs(value);
  for (const [unit, name] of [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]])
    if (size >= unit) return `${plain(value / unit)} ${name}`;
  return `${plain(value * 1e3, size >= 1e-3 ? 3 : 2)} ms`;
}

/** Return a mass, given in grams. */
export function grams(value) {
  value = number(value);
  if (value === null) return UNKNOWN;
  if (value === 0) return "0 g";
  const [unit, name] = unitOf(Math.abs(value), [[1e6, "t"], [1e3, "kg"], [1, "g"], [1e-3, "mg"]]);
  return `${plain(value / unit)} ${name}`;
}

function signedText(value, plus) {
  const size = Math.abs(value);
  const text = size >= 9.95 ? grouped(size.toFixed(0)) : size.toFixed(1);
  if (text === "0.0" || text === "0") return "0";
  return (value < 0 ? MINUS : plus) + text;
}

/** Return a share of 1 as a percentage; one that is above nothing but rounds to it says so. */
export function percent(share) {
  share = number(share);
  if (share === null) return UNKNOWN;
  if (share !== 0 && Math.abs(share) < 0.0005) return `${share < 0 ? `> ${MINUS}` : "< "}0.1 %`;
  if (share < 1 && share >= 0.9995) return "> 99.9 %"; // not quite all is not all
  if (share < 1 && share >= 0.9895) return `${(100 * share).toFixed(1)} %`;
  return `${signedText(100 * share, "")} %`;
}

/** Return a change in percent, signed. */
export function change(share) {
  share = number(share);
  return share === null ? UNKNOWN : `${signedText(100 * share, "+")} %`;
}

/** Return the bounds of an interval as [low, high]; an open end is a question mark; "" where nothing bounds it. */
export function bounds(low, high, form) {
  low = number(low);
  high = number(high);
  if (low === null && high === null) return "";
  return `[${low === null ? "?" : form(low)}, ${high === null ? "?" : form(high)}]`;
}

/** Return how long ago something was, in words. */
export function ago(elapsed) {
  if (elapsed < 5) return "just now";
  if (elapsed < 60) return `${Math.floor(elapsed)} s ago`;
  if (elapsed < 3600) return `${Math.floor(elapsed / 60)} min ago`;
  if (elapsed < 86_400) return `${Math.floor(elapsed / 3600)} h ago`;
  return `${Math.floor(elapsed / 86_400)} d ago`;
}

/** Writes moments in one time zone: the viewer's (undefined), or "UTC". */
export class Times {
  constructor(zone) {
    const base = { timeZone: zone, hourCycle: "h23" };
    this._day = new Intl.DateTimeFormat("en-GB", { ...base, day: "numeric", month: "short", year: "numeric" });
    this._short = new Intl.DateTimeFormat("en-GB", { ...base, day: "numeric", month: "short" });
    this._clock = new Intl.DateTimeFormat("en-GB", { ...base, hour: "2-digit", minute: "2-digit" });
    this._second = new Intl.DateTimeFormat("en-GB", { ...base, hour: "2-digit", minute: "2-digit", second: "2-digit" });
    this._exact = new Intl.DateTimeFormat("en-GB", {
      ...base, hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
    });
    this.zone = this._day.resolvedOptions().timeZone;
  }

  day(at) { return this._day.format(at * 1000); }
  shortDay(at) { return this._short.format(at * 1000); }
  clock(at) { return this._clock.format(at * 1000); }
  second(at) { return `${this.shortDay(at)} ${this._second.format(at * 1000)}`; }
  moment(at) { return `${this.shortDay(at)} ${this.clock(at)}`; }
  exact(at) { return `${this.day(at)} ${this._exact.format(at * 1000)}`; }
}
