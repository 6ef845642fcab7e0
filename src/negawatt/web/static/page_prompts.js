// Prompt templates: how many tokens each block takes, and how they grow from version to version.

import { MOST_SERIES, swatch } from "./charts.js";
import { badge, figure, h, missing, name, nothing, section, table } from "./dom.js";
import * as f from "./format.js";
import { callsOf, cost, head, unfinished } from "./parts.js";

const GROWTH_PCT = 3; // as `negawatt check` allows

export const view = {
  load: (context) => context.get("prompts", context.asked),

  draw(context, data) {
    const n = data.templates.length;
    const first = [head(context, "Prompts", data, n ? `${n} ${n === 1 ? "template" : "templates"}` : null), unfinished(data.rollup)];
    if (!n) return [...first, nothing("No call of this period named a template.", h("p", null, "A template is a prompt in parts (instructions, context, task), kept by the gateway and named by the caller. Each part is counted, so that growth shows where it comes from."),
      h("pre", null, '{"model": "gpt-4o-mini", "negawatt": {"template": "support/answer", "variables": {"question": "Where is my order?"}}}'))];
    return [...first, ...data.templates.map((template) => one(context, template))];
  },
};

function one(context, template) {
  const blocks = [];
  for (const version of template.versions) for (const block of version.blocks) if (!blocks.includes(block.name)) blocks.push(block.name);
  const most = Math.max(...template.versions.map((version) => version.tokens_per_call ?? 0), 1e-9);
  const columns = [
    { head: "version", rowHead: true, cell: (row) => [h("code", null, name(row.version)), h("span", { class: "under" }, `${context.times.shortDay(row.first_s)} to ${context.times.shortDay(row.last_s)}`)] },
    { head: "calls", cell: (row) => callsOf(f.count(row.calls), { template: template.name }) },
    { head: "tokens a call", cell: (row) => [figure(row.tokens_per_call, f.count, "nothing was counted"), growth(row.growth_pct)] },
    { head: "by block", text: true, cell: (row) => shares(row, blocks, most) },
    { head: "cost a call", cell: (row) => figure(row.cost_usd === null || !row.calls || row.calls === row.unpriced ? null : row.cost_usd / (row.calls - row.unpriced), f.usd, "no price is known") },
    { head: "cost", cell: (row) => cost(row.cost_usd, row.unpriced) },
    { head: "from provider's cache", cell: (row) => figure(row.cache_read_share, f.percent, "not reported") },
  ];
  return section(h("bdi", null, template.name), null, h("div", { class: "card" },
    h("ul", { class: "legend" }, blocks.slice(0, MOST_SERIES).map((block, i) => h("li", null, swatch(i), name(block)))),
    table(`Versions of ${template.name}`, columns, template.versions)));
}

function growth(pct) {
  if (pct === null) return null;
  const text = `${f.change(pct / 100)} on the one before`;
  return h("span", { class: "under" }, pct > GROWTH_PCT ? badge("attention", text) : text);
}

function shares(row, blocks, most) {
  if (!row.blocks.length || row.tokens_per_call === null) return missing("nothing was counted");
  const told = row.blocks.map((block) => `${block.name} ${f.count(block.tokens_per_call)}`).join(", ");
  const bar = h("div", { class: "shares", "aria-hidden": "true", style: { width: `${(100 * row.tokens_per_call) / most}%` } },
    row.blocks.map((block) => h("span", { title: `${block.name}: ${f.count(block.tokens_per_call)} tokens a call`,
      style: { flex: String(Math.max(block.share ?? 0, 0.004)) }, class: `p${Math.min(blocks.indexOf(block.name), MOST_SERIES - 1)}` })));
  return [bar, h("span", { class: "under" }, told)];
}
