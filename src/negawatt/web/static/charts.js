// Pictures: bars over time by uPlot, and a waterfall, lines and small bars as SVG made here. Each has a name, a
// sentence and a table with the same numbers for those who do not see it; kinds differ in pattern, never in colour alone.

import { details, h, name, newId, s, table } from "./dom.js";
import { moneyLabels, percent, usd } from "./format.js";

const CHAR = 7.3; // px of an average character at 13 px
const PATTERNS = ["solid", "diagonal", "dots", "level", "steep", "cross", "solid"];
export const MOST_SERIES = PATTERNS.length;

let probe = null;

/** Return the colour that the style sheet has under *token* in the theme of now, as a canvas understands it. */
export function colour(token) {
  probe ??= document.body.appendChild(h("span", { class: "sr", "aria-hidden": "true" }));
  probe.style.setProperty("color", `var(${token})`);
  return getComputedStyle(probe).color;
}

/** Draw into *host* now and whenever its width changes: *draw(width)* returns a node, or null to leave what is there. */
export function sized(host, draw) {
  let width = 0;
  const look = () => {
    const now = Math.floor(host.clientWidth);
    if (!now || now === width) return;
    width = now;
    const made = draw(now);
    if (made) host.replaceChildren(made);
  };
  const observer = new ResizeObserver(look);
  observer.observe(host);
  return () => observer.disconnect();
}

/** Return at most about *most* round values within [low, high], 1, 2 or 5 times a power of ten apart. */
export function ticks(low, high, most) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, most - 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10, 20].map((times) => times * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i += 1) found.push(i * step);
  return found;
}

/** Return *text*, cut with an ellipsis where it would be wider than *room* px. */
function shorten(text, room) {
  const letters = [...text];
  const most = Math.max(4, Math.floor(room / CHAR));
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("").trimEnd()}…`;
}

// -- the waterfall --------------------------------------------------------------------------------------------------

/**
 * Return the steps from what would have been paid down to what was, one under the other.
 * *steps*: {label, from, to, kind: "total" | "saved" | "lost" | "rest", estimated, value, bounds: [low, high] | null};
 * *estimated*: the share of the step that rests on estimated usage, hatched.
 */
export function waterfall(steps, width) {
  const wide = width >= 560;
  const values = Math.max(...steps.map((step) => step.value.length)) * CHAR + 24;
  const [left, right, row, thick, above] = wide ? [168, values, 40, 20, 10] : [2, 2, 52, 16, 26];
  const ends = steps.flatMap((step) => [step.from, step.to, ...(step.bounds ?? [])]);
  const low = Math.min(0, ...ends);
  const high = Math.max(...ends, low + 1e-12);
  const length = width - left - right;
  const bottom = steps.length * row + 6;
  const at = (value) => left + (length * (value - low)) / (high - low);
  const id = newId("hatch");
  const told = steps.map((step) => `${step.label} ${step.value}`).join("; ");
  const picture = s("svg", { class: "picture", viewBox: `0 0 ${width} ${bottom + 24}`, role: "img",
    "aria-labelledby": `${id}-t ${id}-d`, width, height: bottom + 24 },
    s("title", { id: `${id}-t` }, "What each lever saved"), s("desc", { id: `${id}-d` }, told),
    s("defs", null, ["saved", "lost", "rest"].map((kind) => hatch(`${id}-${kind}`, kind))));
  let free = -Infinity;
  const marks = ticks(low, high, wide ? 6 : 4);
  const labels = moneyLabels(marks);
  marks.forEach((tick, i) => {
    const x = at(tick);
    picture.append(s("path", { class: tick ? "grid-line" : "axis-line", d: `M${x} 0V${bottom}` }));
    const label = labels[i];
    const half = (label.length * CHAR) / 2;
    const middle = Math.min(Math.max(x, half), width - half);
    if (middle - half > free) {
      picture.append(s("text", { class: "tick", x: middle, y: bottom + 18, "text-anchor": "middle" }, label));
      free = middle + half + 10;
    }
  });
  steps.forEach((step, i) => picture.append(stepOf(step, i, { at, row, thick, above, left: wide ? left : 0, width, id,
    last: i + 1 === steps.length })));
  return picture;
}

function hatch(id, kind) {
  return s("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    s("rect", { class: "hatch-ground", width: 6, height: 6 }),
    s("path", { class: `hatch-${kind}`, d: "M1.5 0V6", "stroke-width": 3 }));
}

function stepOf(step, i, { at, row, thick, above, left, width, id, last }) {
  const top = i * row + above;
  const hatched = step.kind === "rest" ? 1 : (step.estimated ?? 0);
  const turn = step.from + (step.to - step.from) * (1 - hatched);
  const group = s("g", null, s("title", null, `${step.label}: ${step.value}`));
  for (const [from, to, kind] of [[step.from, turn, "solid"], [turn, step.to, "hatched"]]) {
    if (from === to && !(kind === "solid" && hatched === 0)) continue;
    const [x0, x1] = [at(from), at(to)].sort((a, b) => a - b);
    const box = s("rect", { x: x0, y: top, width: Math.max(x1 - x0, 1.5), height: thick, class: kind === "solid" ? `bar-${step.kind}` : `hatch-${step.kind}` });
    if (kind === "hatched") box.style.setProperty("fill", `url("#${id}-${step.kind}")`);
    group.append(box);
  }
  if (step.bounds) {
    const [from, to] = step.bounds.map(at);
    const y = top + thick / 2;
    group.append(s("path", { class: "whisker", d: `M${from} ${y}H${to}M${from} ${y - 4}v8M${to} ${y - 4}v8` }));
  }
  const strong = step.kind === "total" ? "strong" : null;
  const y = left ? top + thick / 2 + 5 : top - 8;
  const room = left ? left - 16 : width - step.value.length * CHAR - 20;
  group.append(s("text", { class: strong, x: left ? left - 12 : 2, y, "text-anchor": left ? "end" : "start" }, shorten(step.label, room)));
  group.append(s("text", { class: strong, x: width - 2, y, "text-anchor": "end" }, step.value));
  if (!last) group.append(s("path", { class: "joint", d: `M${at(step.to)} ${top + thick}V${top + row}` }));
  return group;
}

// -- bars over time -------------------------------------------------------------------------------------------------

function patternOf(kind, tone) {
  const scale = window.devicePixelRatio || 1;
  const size = 8 * scale;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const pen = tile.getContext("2d");
  pen.fillStyle = tone;
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = pen.fillStyle = colour("--card");
  pen.globalAlpha = 0.55;
  pen.lineWidth = 1.5 * scale;
  pen.beginPath();
  const half = size / 2;
  if (kind === "diagonal" || kind === "cross") for (const x of [-size, 0, size]) { pen.moveTo(x, size); pen.lineTo(x + size, 0); }
  if (kind === "cross" || kind === "steep") for (const x of [-size, 0, size]) { pen.moveTo(x, 0); pen.lineTo(x + size, size); }
  if (kind === "level") { pen.moveTo(0, half); pen.lineTo(size, half); }
  if (kind === "dots") { pen.arc(half, half, 1.6 * scale, 0, 7); pen.fill(); } else pen.stroke();
  return pen.createPattern(tile, "repeat");
}

/** Return the mark that the series number *i* has in a legend. The style sheet has the same patterns as the bars. */
export function swatch(i) {
  return h("span", { class: `swatch p${i}`, "aria-hidden": "true" });
}

/**
 * Return a figure of stacked bars. *series*: [{name, values}], values null where unknown; at most MOST_SERIES of them.
 * *at*: when each bar begins, seconds. *form* writes a value, *when* a moment. What is unknown adds nothing to a bar
 * and stays unknown in the table.
 */
export function stacked(title, at, series, { form, when, tick, zone }) {
  const host = h("div", { class: "plot", "aria-hidden": "true" });
  const totals = series.map(({ values }) => totalOf(values));
  const id = newId("chart");
  const told = series.map((one, i) => `${one.name ?? "not named"} ${form(totals[i])}`).join("; ");
  let plot = null;
  if (totals.every((total) => total === null)) host.replaceChildren(h("p", { class: "note" }, "Nothing to draw: no amount is known."));
  else sized(host, (width) => {
    if (plot) { plot.setSize({ width, height: 220 }); return null; }
    const box = h("div");
    plot = new window.uPlot(options(width, series.length, { form, tick, when, zone }), stackOf(at, series), box);
    return box;
  });
  const legend = h("ul", { class: "legend" }, series.map((one, i) =>
    h("li", { title: one.name ?? "not named" }, swatch(i), name(one.name), h("span", { class: "figure" }, form(totals[i])))));
  const rows = at.map((moment, i) => [moment, i]);
  const columns = [{ head: "from", rowHead: true, cell: ([moment]) => when(moment) },
    ...series.map((one) => ({ head: name(one.name), cell: ([, i]) => one.values[i] === null ? "unknown" : form(one.values[i]) }))];
  return h("figure", { role: "group", "aria-labelledby": id },
    h("figcaption", null, h("h3", { id }, title), h("span", { class: "sr" }, told)),
    host, legend, details("The same as a table", table(title, columns, rows)));
}

/** Return the sum of what is known; null where nothing is: a call without a price is no call that was free. */
function totalOf(values) {
  const sum = values.reduce((total, value) => total + (value ?? 0), 0);
  return sum === 0 && values.includes(null) ? null : sum;
}

/** Return uPlot's columns: the times, then the series, each on top of those before it; the tallest is drawn first. */
function stackOf(at, series) {
  const sums = at.map(() => 0);
  const columns = series.map((one) => one.values.map((value, i) => (sums[i] += value ?? 0)));
  return [at, ...columns.reverse()];
}

function options(width, n, { form, tick, when, zone }) {
  const axis = { stroke: () => colour("--soft"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: () => colour("--grid"), width: 1 };
  const bars = window.uPlot.paths.bars({ size: [0.82, 44], align: 1, gap: 1 });
  return {
    tzDate: (at) => window.uPlot.tzDate(new Date(at * 1000), zone), // so that ticks fall on the viewer's midnights
    width, height: 220, legend: { show: false }, padding: [8, 20, 0, 0],
    cursor: { show: true, drag: { x: false, y: false }, points: { show: false }, y: false },
    scales: { x: { time: true, range: (u, low, high) => [low, high + stride(u.data[0])] }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, space: 84, size: 28, values: (u, splits) => splits.map((at) => tick(at)) },
      { ...axis, grid, size: (u, labels) => Math.max(...(labels ?? [""]).map((label) => label.length)) * CHAR + 14, space: 40, values: (u, splits) => moneyLabels(splits) },
    ],
    series: [{ value: (u, at) => when(at) }, ...Array.from({ length: n }, (_, i) => ({
      paths: bars, points: { show: false }, stroke: () => colour("--card"), width: 1,
      fill: () => patternOf(PATTERNS[n - 1 - i], colour(`--s${n - 1 - i}`)),
    }))],
  };
}

function stride(at) {
  return at.length > 1 ? at[1] - at[0] : 3600;
}

// -- lines ----------------------------------------------------------------------------------------------------------

/** Return a small line of *values* without axes; null where fewer than two are known. It is named by *label*. */
export function spark(values, label, lowest = 0) {
  const there = values.map((value, i) => [i, value]).filter(([, value]) => value !== null && value !== undefined);
  if (there.length < 2) return null;
  const high = Math.max(...there.map(([, value]) => value), lowest + 1e-12);
  const x = (i) => (i / (values.length - 1)) * 196 + 2;
  const y = (value) => 34 - ((value - lowest) / (high - lowest)) * 30;
  const line = there.map(([i, value], k) => `${k ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return s("svg", { class: "spark", viewBox: "0 0 200 36", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("path", { class: "area", d: `${line}L${x(there.at(-1)[0])} 36L${x(there[0][0])} 36Z` }),
    s("path", { class: "curve saved-line", d: line, "vector-effect": "non-scaling-stroke" }));
}

/**
 * Return a curve that climbs in steps, from left to right: how much of all lies at or below each cost.
 * *points*: {x: dollars, y: share of all, label, other}.
 */
export function climb(title, points, [across, up], width) {
  const tall = 280;
  const [left, right, top, bottom] = [56, 24, 20, 44];
  const high = Math.max(...points.map((point) => point.x)) * 1.06 || 1;
  const x = (value) => left + (value / high) * (width - left - right);
  const y = (share) => tall - bottom - share * (tall - top - bottom);
  const id = newId("climb");
  const told = points.map((point) => `${point.label}: ${usd(point.x)}, ${percent(point.y)}`).join("; ");
  const picture = s("svg", { class: "picture", viewBox: `0 0 ${width} ${tall}`, width, height: tall, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
    s("title", { id: `${id}-t` }, title), s("desc", { id: `${id}-d` }, told));
  for (const share of [0, 0.25, 0.5, 0.75, 1]) picture.append(s("path", { class: share ? "grid-line" : "axis-line", d: `M${left} ${y(share)}H${width - right}` }),
    s("text", { class: "tick", x: left - 8, y: y(share) + 4, "text-anchor": "end" }, percent(share)));
  const marks = ticks(0, high, width < 480 ? 3 : 6);
  const labels = moneyLabels(marks);
  marks.forEach((mark, i) => picture.append(s("text", { class: "tick", x: x(mark), y: tall - bottom + 18, "text-anchor": i ? "middle" : "start" }, labels[i])));
  picture.append(s("text", { class: "tick", x: width - right, y: tall - 4, "text-anchor": "end" }, width < 480 ? `${across} →` : `${across} →   ↑ ${up}`));
  const line = points.map((point) => `H${x(point.x)}V${y(point.y)}`).join("");
  picture.append(s("path", { class: "area", d: `M${left} ${y(0)}${line}H${width - right}V${y(0)}Z` }), s("path", { class: "curve saved-line", d: `M${left} ${y(0)}${line}H${width - right}` }));
  const taken = [];
  for (const point of points) {
    const late = x(point.x) > width * 0.6;
    const mark = point.other ? s("rect", { class: "point other", x: x(point.x) - 5, y: y(point.y) - 5, width: 10, height: 10 }) : s("circle", { class: "point", cx: x(point.x), cy: y(point.y), r: 6 });
    const label = shorten(point.label, width * 0.36);
    const [at, base, long] = [x(point.x) + (late ? -10 : 4), y(point.y) + (late ? -10 : 22), label.length * CHAR];
    const box = [late ? at - long : at, late ? at : at + long, base - 14, base + 4];
    const free = taken.every(([a, b, c, d]) => box[1] < a || box[0] > b || box[3] < c || box[2] > d); // the table names all
    if (free) taken.push(box);
    picture.append(s("g", null, s("title", null, `${point.label}: ${usd(point.x)}, ${percent(point.y)}`), mark,
      free ? s("text", { x: at, y: base, "text-anchor": late ? "end" : "start" }, label) : ""));
  }
  return picture;
}
