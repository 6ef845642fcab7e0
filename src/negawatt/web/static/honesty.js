// The footer: what the figures rest on, and what they leave out.

import { h } from "./dom.js";
import { count, percent } from "./format.js";

function listed(counts) {
  const parts = Object.entries(counts ?? {}).map(([name, n]) => `${name} (${count(n)})`);
  return parts.length ? parts.join(", ") : "none used yet";
}

function calls(n) {
  return n ? `${count(n)} ${n === 1 ? "call" : "calls"} of the period` : "no call of the period";
}

/** Fill *list* with what *facts*, as the overview sends them, say; hide *footer* without any. */
export function honesty(facts, footer, list) {
  footer.hidden = !facts;
  if (!facts) return;
  const { prices, energy, grid, holdout, latency, simulated } = facts;
  const made = (simulated?.modelled ?? 0) + (simulated?.recorded ?? 0);
  const rows = [
    ["Prices", `${prices.version}; ${listed(prices.sources)}`],
    ["Energy, estimated", `${listed(energy.bases)}; boundary: ${energy.boundary}`],
    ["Grid", `${grid.zone}, ${grid.year}, ${grid.source}`],
    ["Holdout", `${holdout.share_configured === null ? "" : `${percent(holdout.share_configured)} of calls by configuration, `}${holdout.share_seen === null ? "no call yet" : `${percent(holdout.share_seen)} seen`}`],
    ["Without a price", calls(facts.unpriced)],
    ["Without an energy", calls(facts.unknown_energy)],
    ["Usage nobody reported", calls(facts.unknown_usage)],
    ["Percentiles of time", `right to within ${percent(latency.relative_error)}`],
    ["Intervals", facts.intervals],
    ["Not real traffic", made ? `${count(simulated.modelled)} modelled and ${count(simulated.recorded)} recorded answers are in these figures` : "none in these figures"],
    ["The ledger", `${count(facts.rows)} ${facts.rows === 1 ? "call" : "calls"} in all`],
    ["Version", `negawatt ${facts.versions?.negawatt ?? "unknown"}`],
  ];
  list.replaceChildren(...rows.map(([term, words]) => h("div", null, h("dt", null, term), h("dd", null, words))));
}
