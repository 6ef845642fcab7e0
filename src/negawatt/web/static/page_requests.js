// The explorer: any call by anything that is known of it, and one call whole.

import { figure, h, missing, name, nothing, table } from "./dom.js";
import * as f from "./format.js";
import { ENDING_NAMES, ending, endingWords, head, lever, ms, savedMoney } from "./parts.js";
import { call } from "./request.js";

const CACHES = ["exact", "semantic", "coalesced", "offload", "miss", "bypass"];
// name: [label, kind of field, choices]
const FILTERS = {
  class: ["Class", "text"], model: ["Answered by", "text"], asked: ["Asked for", "text"], tenant: ["Tenant", "text"], user: ["User", "text"],
  ending: ["Ended", "choice", ENDING_NAMES.map((value) => [value, endingWords(value)])],
  cache: ["Cache", "choice", CACHES.map((value) => [value, value])],
  lever: ["Lever", "text"], action: ["Lever did", "text"], provider: ["Provider", "text"], template: ["Template", "text"],
  version: ["Template's version", "text"], prompt_version: ["Prompt's version", "text"], corpus_version: ["Corpus version", "text"],
  task: ["Task", "text"], session: ["Session", "text"], key: ["Key", "text"], id: ["Id begins with", "text"],
  protocol: ["Protocol", "text"], operation: ["Operation", "text"], status: ["Status", "text"], error_type: ["Error", "text"],
  price_source: ["Price from", "text"], usage_basis: ["Usage", "text"], fingerprint: ["Fingerprint", "text"],
  error: ["Failed", "choice", [["1", "failures only"]]],
  stream: ["Streamed", "choice", [["1", "streamed"], ["0", "whole"]]],
  holdout: ["Holdout", "choice", [["1", "held out"], ["0", "not held out"]]],
  unpriced: ["Price", "choice", [["1", "unknown"], ["0", "known"]]],
  min_cost_usd: ["Cost from, $", "number"], min_ms: ["Took from, ms", "number"],
  since: ["From", "datetime-local"], until: ["Until", "datetime-local"],
};
const FIRST = ["class", "model", "ending", "cache", "since", "until"]; // the others are unfolded

export const view = {
  fresh: false, // rows do not move under a reader's eyes; it says instead that there are more

  async load(context) {
    came = 0;
    if (context.id) return context.get(`requests/${encodeURIComponent(context.id)}`);
    const parameters = { zone: context.zone, limit: 50, cursor: context.query.get("cursor") };
    for (const filter of Object.keys(FILTERS)) parameters[filter] = context.query.getAll(filter);
    return context.get("requests", parameters);
  },

  draw(context, data) {
    if (data.row) return call(context, data);
    return [head(context, "Requests", null), form(context), news(context), rowsOf(context, data), pager(context, data)];
  },

  tick(context, data, tick, page) {
    if (data.row || context.query.get("cursor")) return;
    came += tick.calls;
    page.querySelector("#news")?.replaceWith(news(context));
  },
};

let came = 0; // calls since the rows were loaded

function news(context) {
  return h("div", { id: "news", class: "row", role: "status" }, came ? h("button", { type: "button", class: "button", onclick: () => context.reload() },
    `${f.count(came)} new ${came === 1 ? "call" : "calls"}: show`) : null);
}

function field(context, filter) {
  const [label, kind, choices] = FILTERS[filter];
  const value = context.query.getAll(filter).join(", ");
  if (kind !== "choice") return h("label", null, label, h("input", { name: filter, type: kind, value, step: kind === "number" ? "any" : null, min: kind === "number" ? "0" : null, autocomplete: "off", spellcheck: "false" }));
  const select = h("select", { name: filter }, h("option", { value: "" }, "any"), choices.map(([choice, text]) => h("option", { value: choice }, text)));
  select.value = value;
  return h("label", null, label, select);
}

function form(context) {
  const rest = Object.keys(FILTERS).filter((filter) => !FIRST.includes(filter));
  const active = rest.filter((filter) => context.query.get(filter));
  const more = h("details", { open: active.length > 0 }, h("summary", null, active.length ? `More filters (${active.length} in use)` : "More filters"), h("div", { class: "filters" }, rest.map((filter) => field(context, filter))));
  const send = (event) => {
    event.preventDefault();
    const found = new URLSearchParams();
    for (const [filter, value] of new FormData(event.target)) for (const one of FILTERS[filter][1] === "text" ? value.split(",") : [value]) if (one.trim()) found.append(filter, one.trim());
    const hash = `#/requests${found.size ? `?${found}` : ""}`;
    if (location.hash === hash) context.reload();
    else context.go(hash);
  };
  return h("form", { class: "card", onsubmit: send, "aria-label": "Filters" }, h("div", { class: "filters" }, FIRST.map((filter) => field(context, filter))), more,
    h("div", { class: "row" }, h("button", { type: "submit", class: "button main" }, "Find"),
      [...context.query.keys()].some((key) => key in FILTERS) ? h("a", { href: "#/requests" }, "Clear all") : null,
      h("span", { class: "note" }, "Several values: put commas between them.")));
}

function rowsOf(context, data) {
  if (!data.rows.length) {
    const filtered = [...context.query.keys()].some((key) => key in FILTERS);
    return nothing(data.complete ? (filtered ? "No call is like that." : "No call yet.") : "Nothing so far.",
      h("p", null, data.complete ? (filtered ? "Loosen a filter, or look further back." : "The overview tells how to send the first one.") : `Looked back to ${context.times.moment(data.searched_until_s)}; the search goes on with “Older”.`));
  }
  return h("div", { class: "card rows" }, table("Calls, the newest first", [
    { head: "received", rowHead: true, cell: (row) => [h("a", { href: `#/requests/${encodeURIComponent(row.id)}` }, context.times.second(row.received_s)), h("span", { class: "under" }, row.protocol, row.stream ? ", streamed" : "", row.holdout ? ", held out" : "")] },
    { head: "class", text: true, cell: (row) => [name(row.class), row.tenant && row.tenant !== "default" ? h("span", { class: "under" }, h("bdi", null, row.tenant)) : null] },
    { head: "model", text: true, cell: (row) => [row.model === null ? missing("no model was asked") : name(row.model), row.asked && row.asked !== row.model ? h("span", { class: "under" }, "asked for ", h("bdi", null, row.asked)) : null] },
    { head: "ended", text: true, cell: (row) => [ending(row.ending), row.levers.length ? h("span", { class: "under" }, row.levers.map(lever).join(", ")) : null] },
    { head: "tokens in / out", cell: (row) => [figure(row.input_tokens, f.count, "not reported"), " / ", figure(row.output_tokens, f.count, "not reported")] },
    { head: "cost, saved", cell: (row) => [figure(row.cost_usd, f.usd, "no price is known"), row.saved_usd ? h("span", { class: "under" }, savedMoney(row.saved_usd)) : null] },
    { head: "energy, est.", cell: (row) => figure(row.energy_wh, f.wh, "not known") },
    { head: "took", cell: (row) => [figure(row.duration_ms, ms), row.ttft_ms === null ? null : h("span", { class: "under" }, `first ${ms(row.ttft_ms)}`)] },
  ], data.rows));
}

function pager(context, data) {
  const older = new URLSearchParams(context.query);
  older.delete("cursor");
  const newest = older.toString();
  if (data.next) older.set("cursor", data.next);
  const cut = data.complete ? null : h("span", { class: "note" }, `A page stops after 300 ms: looked back to ${context.times.moment(data.searched_until_s)}.`);
  return h("nav", { class: "row", "aria-label": "Pages of calls" },
    context.query.get("cursor") ? [h("a", { class: "button", href: `#/requests${newest ? `?${newest}` : ""}` }, "Newest"), h("button", { type: "button", class: "button", onclick: () => history.back() }, "Newer")] : null,
    data.next ? h("a", { class: "button", href: `#/requests?${older}` }, "Older") : h("span", { class: "note" }, data.rows.length ? "That is all." : ""), cut);
}
