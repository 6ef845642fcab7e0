"""Write the Grafana dashboard from the panels below.

    python deploy/grafana/dashboard.py            write negawatt.json beside this file
    python deploy/grafana/dashboard.py --check    exit 1 where it is out of date

What the metrics mean: docs/metrics.md. Import the file in Grafana (10 or later) and choose a Prometheus.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "negawatt.json"
FAILED = 'outcome=~"upstream_error|upstream_broken|deadline|failed"'
FROM_CACHE = 'cache=~"exact|semantic|coalesced|offload"'
CLASS = 'request_class=~"$request_class"'
RATE, RANGE = "$__rate_interval", "$__range"
Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One panel. *queries*: expression to legend. *width*: of 24."""

    title: str
    text: str
    queries: dict[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """Return the rate of *metric*, summed by *by*."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[{RATE}]))".replace("{}", "")


def increase(metric: str, by: str = "", labels: str = "") -> str:
    """Return what was added to *metric* in the time shown."""
    return f"sum{f' by ({by})' if by else ''} (increase({metric}{{{labels}}}[{RANGE}]))".replace("{}", "")


def quantile(q: float, metric: str, by: str = "", labels: str = "") -> str:
    """Return the quantile *q* of a histogram, by *by*."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'{by}, le' if by else 'le', labels)})"


NET_USD = f"{increase('negawatt_saved_cost_usd_total')} - {increase('negawatt_lost_cost_usd_total')}"
SPENT_USD = increase("negawatt_cost_usd_total")
CENTRAL = 'bound="central"'
ENERGY = "negawatt_energy_joules_total"
FIRST = "negawatt_request_time_to_first_chunk_seconds"
CLIENT = "gen_ai_client_inference_usage"

ROWS = (
    Row("Money and energy, in the time shown", (
        Panel("Spent", "What providers charge.", {SPENT_USD: "spent"}, "stat", "currencyUSD", 4),
        Panel("Saved", "What levers spared, less what they cost.", {NET_USD: "saved"}, "stat", "currencyUSD", 4),
        Panel("Saved, share", "Of what it would have cost without levers.",
              {f"({NET_USD}) / (({NET_USD}) + {SPENT_USD})": "saved"}, "stat", "percentunit", 4),
        Panel("Energy", "Low, central and high estimate.",
              {increase(ENERGY, "bound") + " / 3600": "{{bound}}"}, "stat", "watth", 6),
        Panel("CO2 equivalent", "Of the central estimate, by the grid's zone.",
              {increase("negawatt_co2e_grams_total", "zone"): "{{zone}}"}, "stat", "massg", 3),
        Panel("Without a price", "Calls to providers whose cost is not known: they are in no sum.",
              {increase("negawatt_unpriced_requests_total"): "calls"}, "stat", "short", 3),
        Panel("Spend an hour, by model", "", {rate("negawatt_cost_usd_total", "model") + " * 3600": "{{model}}"},
              unit="currencyUSD"),
        Panel("Saved by lever", "Saved less lost.",
              {f"{increase('negawatt_saved_cost_usd_total', 'lever')} - "
               f"{increase('negawatt_lost_cost_usd_total', 'lever')}": "{{lever}}"}, "bargauge", "currencyUSD"),
        Panel("Energy saved by lever", "Central estimate, saved less lost.",
              {f"{increase('negawatt_saved_energy_joules_total', 'lever', CENTRAL)} - "
               f"{increase('negawatt_lost_energy_joules_total', 'lever', CENTRAL)}":
               "{{lever}}"}, "bargauge", "joule"),
        Panel("Cost of one success", "All attempts of tasks, over those that succeeded.",
              {f"negawatt_cost_per_success_usd{{{CLASS}}}": "{{request_class}}"}, unit="currencyUSD"),
        Panel("Tasks that succeed", "", {
            f'sum by (request_class) (rate(negawatt_task_success_total{{outcome="success",{CLASS}}}[{RATE}])) / '
            + rate("negawatt_task_success_total", "request_class", CLASS): "{{request_class}}"}, unit="percentunit"),
        Panel("Budgets, share left", "", {"negawatt_budget_remaining_ratio": "{{budget}}"}, "bargauge", "percentunit"),
    )),
    Row("Calls", (
        Panel("Calls a second, by outcome", "", {rate("negawatt_requests_total", "outcome", CLASS): "{{outcome}}"},
              unit="reqps"),
        Panel("Calls that fail, by class", "By the provider's or our fault, or at their deadline.",
              {f"{rate('negawatt_requests_total', 'request_class', f'{FAILED},{CLASS}')} / "
               + rate("negawatt_requests_total", "request_class", CLASS): "{{request_class}}"}, unit="percentunit"),
        Panel("In flight", "", {"sum(negawatt_inflight_requests)": "calls"}),
        Panel("Answered by a cache, by kind", "Share of all calls.",
              {f"{rate('negawatt_requests_total', 'cache', f'{FROM_CACHE},{CLASS}')} / ignoring (cache) group_left "
               + rate("negawatt_requests_total", "", CLASS): "{{cache}}"}, unit="percentunit"),
        Panel("What caches decide", "",
              {rate("negawatt_cache_decisions_total", "cache, action"): "{{cache}} {{action}}"}, unit="reqps"),
        Panel("Errors by route", "Answers with an error status; unmatched is no path of ours.",
              {rate("negawatt_http_errors_total", "route, status"): "{{route}} {{status}}"}, unit="reqps"),
    )),
    Row("Time", (
        Panel("How long calls take", "As callers see it.",
              {quantile(q, "negawatt_request_duration_seconds", "", CLASS): f"p{q * 100:g}" for q in (0.5, 0.95, 0.99)},
              unit="s"),
        Panel("First chunk of streams, p95", "", {quantile(0.95, FIRST, "request_class", CLASS): "{{request_class}}"},
              unit="s"),
        Panel("Our own time", "Neither at a provider nor waited on purpose.",
              {quantile(q, "negawatt_overhead_seconds"): f"p{q * 100:g}" for q in (0.5, 0.99)}, unit="s"),
        Panel("Providers, p95 by model", "Each attempt.",
              {quantile(0.95, "gen_ai_client_inference_duration_seconds", "gen_ai_provider_name, gen_ai_request_model"):
               "{{gen_ai_provider_name}} {{gen_ai_request_model}}"}, unit="s"),
        Panel("Providers, first chunk, p95", "",
              {quantile(0.95, "gen_ai_client_inference_time_to_first_chunk_seconds", "gen_ai_request_model"):
               "{{gen_ai_request_model}}"}, unit="s"),
        Panel("Time for an output token", "Of streams, after the first chunk.",
              {quantile(q, "negawatt_time_per_output_token_seconds"): f"p{q * 100:g}" for q in (0.5, 0.95)}, unit="s"),
    )),
    Row("Tokens and energy", (
        Panel("Tokens a second", "As providers bill them; reads and writes of their caches are part of the input.",
              {rate(f"{CLIENT}_input_tokens_total"): "input", rate(f"{CLIENT}_output_tokens_total"): "output",
               rate(f"{CLIENT}_cache_read_input_tokens_total"): "input from the provider's cache",
               rate(f"{CLIENT}_cache_write_input_tokens_total"): "input into the provider's cache",
               rate(f"{CLIENT}_reasoning_output_tokens_total"): "reasoning"}),
        Panel("Tokens of a call", "Median.",
              {quantile(0.5, f"gen_ai_client_inference_operation_{side}_tokens", "gen_ai_request_model"):
               f"{{{{gen_ai_request_model}}}} {side}" for side in ("input", "output")}),
        Panel("Tokens saved by lever", "Saved less lost.",
              {f"{increase('negawatt_saved_tokens_total', 'lever, direction')} - "
               f"{increase('negawatt_lost_tokens_total', 'lever, direction')}": "{{lever}} {{direction}}"}, "bargauge"),
        Panel("Joules for an output token", "Central estimate of everything, over all output.",
              {f'sum(rate({ENERGY}{{bound="central"}}[{RATE}])) / {rate(f"{CLIENT}_output_tokens_total")}': "J"},
              unit="joule"),
    )),
    Row("Choices, guesses, health", (
        Panel("Choices of models", "", {rate("negawatt_routing_decisions_total", "to, reason"): "{{to}} {{reason}}"},
              unit="reqps"),
        Panel("Asked to compare", "Guesses that were checked against the model's answer.",
              {rate("negawatt_explored_total", "lever, request_class"): "{{lever}} {{request_class}}"}, unit="reqps"),
        Panel("Semantic cache: wrong, and allowed", "Estimate with its interval, and the budget.",
              {f"negawatt_semantic_wrong_share{{{CLASS}}}": "{{request_class}} {{bound}}",
               f"negawatt_semantic_budget{{{CLASS}}}": "{{request_class}} budget"}, unit="percentunit"),
        Panel("Parts that work", "", {"negawatt_up": "{{part}}"}, "stat"),
        Panel("Alerts, rows lost, left out", "",
              {increase("negawatt_alerts_total", "alert"): "{{alert}}",
               increase("negawatt_ledger_rows_lost_total"): "rows lost",
               increase("negawatt_telemetry_dropped_total", "what"): "left out: {{what}}"}, "stat"),
        Panel("Series", "Of these metrics.", {"negawatt_series": "series"}, "stat"),
    )),
)  # fmt: skip

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> Json:
    """Return the dashboard as Grafana reads it."""
    panels: list[Json] = []
    y = 0
    for row in ROWS:
        panels.append(_row(len(panels) + 1, row, y))
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > 24:
                x, y = 0, y + height
            height = 4 if panel.width < 8 else 8
            panels.append(_panel(len(panels) + 1, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
            x += panel.width
        y += height
    return {
        "title": "negawatt", "uid": "negawatt", "tags": ["negawatt", "gen_ai"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [_source(), _classes()]}, "annotations": {"list": []}, "panels": panels,
    }  # fmt: skip


def _row(number: int, row: Row, y: int) -> Json:
    where = {"x": 0, "y": y, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": where, "panels": []}


def _panel(number: int, panel: Panel, where: Json) -> Json:
    instant = panel.kind in ("stat", "bargauge")
    targets = [
        {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": SOURCE, "instant": instant,
         "range": not instant}
        for i, (expr, legend) in enumerate(panel.queries.items())
    ]  # fmt: skip
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "gridPos": where,
        "datasource": SOURCE, "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
    }  # fmt: skip


def _source() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _classes() -> Json:
    query = "label_values(negawatt_requests_total, request_class)"
    return {
        "name": "request_class", "label": "Class", "type": "query", "datasource": SOURCE, "refresh": 2,
        "query": {"query": query, "refId": "classes"}, "definition": query, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def main() -> int:
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
