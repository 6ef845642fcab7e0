"""Every metric that there is: its name, type, labels and meaning. The documentation's table is made from this one."""

from __future__ import annotations

from collections.abc import Mapping

from negawatt.telemetry.names import OWN_SECONDS, SECONDS, TOKENS, Instrument

_CLIENT = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_BOUND = "the basis, and the bound: low, central or high"

DURATION = Instrument(
    "gen_ai.client.inference.duration", "histogram", "s", (*_CLIENT, "error_type"),
    "How long one call to one provider took, failed ones included; each attempt counts.", SECONDS,
    "gen_ai.client.operation.duration",
)  # fmt: skip
EMBEDDINGS_DURATION = Instrument(
    "gen_ai.client.embeddings.duration", "histogram", "s", (*_CLIENT, "error_type"),
    "The same, of embeddings.", SECONDS, "gen_ai.client.operation.duration",
)  # fmt: skip
OTHER_DURATION = Instrument(
    "gen_ai.client.operation.duration", "histogram", "s", (*_CLIENT, "error_type"),
    "The same, of all other operations.", SECONDS, "gen_ai.client.operation.duration",
)  # fmt: skip
FIRST_CHUNK = Instrument(
    "gen_ai.client.inference.time_to_first_chunk", "histogram", "s", _CLIENT,
    "Of streams: from asking the provider until the first chunk was sent on.", SECONDS,
    "gen_ai.client.operation.time_to_first_chunk",
)  # fmt: skip
INPUT_TOKENS = Instrument(
    "gen_ai.client.inference.usage.input_tokens", "counter", "{token}", _CLIENT,
    "Input tokens that providers bill, those from and for their caches included.",
)  # fmt: skip
OUTPUT_TOKENS = Instrument(
    "gen_ai.client.inference.usage.output_tokens", "counter", "{token}", _CLIENT,
    "Output tokens that providers bill, reasoning included.",
)  # fmt: skip
CACHE_READ_TOKENS = Instrument(
    "gen_ai.client.inference.usage.cache_read.input_tokens", "counter", "{token}", _CLIENT,
    "Of the input tokens, those that came from the provider's cache.",
)  # fmt: skip
CACHE_WRITE_TOKENS = Instrument(
    "gen_ai.client.inference.usage.cache_write.input_tokens", "counter", "{token}", _CLIENT,
    "Of the input tokens, those that were written to the provider's cache.",
)  # fmt: skip
REASONING_TOKENS = Instrument(
    "gen_ai.client.inference.usage.reasoning.output_tokens", "counter", "{token}", _CLIENT,
    "Of the output tokens, those that were reasoning.",
)  # fmt: skip
INPUT_SIZES = Instrument(
    "gen_ai.client.inference.operation.input_tokens", "histogram", "{token}", _CLIENT,
    "Input tokens of one call to one provider.", TOKENS, "gen_ai.client.token.usage",
)  # fmt: skip
OUTPUT_SIZES = Instrument(
    "gen_ai.client.inference.operation.output_tokens", "histogram", "{token}", _CLIENT,
    "Output tokens of one call to one provider.", TOKENS, "gen_ai.client.token.usage",
)  # fmt: skip
EMBEDDINGS_SIZES = Instrument(
    "gen_ai.client.embeddings.operation.input_tokens", "histogram", "{token}", _CLIENT,
    "Input tokens of one call for embeddings.", TOKENS, "gen_ai.client.token.usage",
)  # fmt: skip
PER_TOKEN = Instrument(
    "negawatt.time_per_output_token", "histogram", "s", _CLIENT,
    "Of streams: seconds after the first chunk, by output token after the first. The convention's time "
    "for each chunk would need a look at the clock for each chunk.", SECONDS,
)  # fmt: skip

REQUESTS = Instrument(
    "negawatt.requests", "counter", "", ("request_class", "model", "outcome", "cache"),
    "Calls that have ended: the model as the caller named it, how it ended, and what of a cache it was.",
)  # fmt: skip
REQUEST_DURATION = Instrument(
    "negawatt.request.duration", "histogram", "s", ("request_class", "cache"),
    "How long calls took, as their callers see it.", SECONDS,
)  # fmt: skip
REQUEST_FIRST_CHUNK = Instrument(
    "negawatt.request.time_to_first_chunk", "histogram", "s", ("request_class", "cache"),
    "Of streams: from the request to the first chunk, as callers see it.", SECONDS,
)  # fmt: skip
OVERHEAD = Instrument(
    "negawatt.overhead", "histogram", "s", ("cache",),
    "Of a call's time, what was neither at a provider nor waited on purpose: ours.", OWN_SECONDS,
)  # fmt: skip
INFLIGHT = Instrument("negawatt.inflight_requests", "gauge", "", (), "Calls that are being answered.")
COST = Instrument(
    "negawatt.cost", "counter", "USD", ("model", "source"),
    "What providers charge, in US dollars; source says who priced it: provider, or local (our tables).",
)  # fmt: skip
UNPRICED = Instrument(
    "negawatt.unpriced_requests", "counter", "", ("model",), "Calls to providers whose cost is not known."
)
ENERGY = Instrument(
    "negawatt.energy", "counter", "J", ("model", "basis", "bound"),
    f"Energy of calls, our own included: {_BOUND}. Model none: no provider was asked.",
)  # fmt: skip
CO2E = Instrument(
    "negawatt.co2e", "counter", "g", ("zone", "basis"),
    "CO2 equivalent of the central energy, by the electricity grid's zone and the basis of the energy.",
)  # fmt: skip
SAVED_TOKENS = Instrument(
    "negawatt.saved.tokens", "counter", "{token}", ("lever", "basis", "direction"),
    "Tokens that levers spared; direction: input or output. What it cost instead is in lost: the difference counts.",
)  # fmt: skip
LOST_TOKENS = Instrument(
    "negawatt.lost.tokens", "counter", "{token}", ("lever", "basis", "direction"), "Tokens that levers cost."
)
SAVED_COST = Instrument(
    "negawatt.saved.cost", "counter", "USD", ("lever", "basis"), "US dollars that levers spared; see lost."
)
LOST_COST = Instrument("negawatt.lost.cost", "counter", "USD", ("lever", "basis"), "US dollars that levers cost.")
SAVED_ENERGY = Instrument(
    "negawatt.saved.energy", "counter", "J", ("lever", "basis", "bound"),
    f"Energy that levers spared: {_BOUND}. Each bound goes here or into lost by its own sign.",
)  # fmt: skip
LOST_ENERGY = Instrument(
    "negawatt.lost.energy", "counter", "J", ("lever", "basis", "bound"), f"Energy that levers cost: {_BOUND}."
)
ROUTING = Instrument(
    "negawatt.routing.decisions", "counter", "", ("from", "to", "reason"),
    "Choices of a model: what the caller asked for, what was chosen, and by which rule or with which result.",
)  # fmt: skip
EXPLORED = Instrument(
    "negawatt.explored", "counter", "", ("lever", "request_class"),
    "Calls that were asked anyway, so that a guess could be compared with the answer.",
)  # fmt: skip
HTTP_ERRORS = Instrument(
    "negawatt.http.errors", "counter", "", ("route", "status"),
    "Answers with an error status, by route. Route other: a path with names in it; unmatched: none of ours.",
)  # fmt: skip

FOLDED = (
    DURATION, EMBEDDINGS_DURATION, OTHER_DURATION, FIRST_CHUNK, INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ_TOKENS,
    CACHE_WRITE_TOKENS, REASONING_TOKENS, INPUT_SIZES, OUTPUT_SIZES, EMBEDDINGS_SIZES, PER_TOKEN, REQUESTS,
    REQUEST_DURATION, REQUEST_FIRST_CHUNK, OVERHEAD, COST, UNPRICED, ENERGY, CO2E, SAVED_TOKENS, LOST_TOKENS,
    SAVED_COST, LOST_COST, SAVED_ENERGY, LOST_ENERGY, ROUTING, EXPLORED,
)  # fmt: skip
"""What is folded from the rows of calls (`negawatt.telemetry.observed`)."""

SAMPLED = (
    INFLIGHT,
    HTTP_ERRORS,
    Instrument("negawatt.alerts", "counter", "", ("alert", "about"), "Alerts that were raised."),
    Instrument("negawatt.cache_decisions", "counter", "", ("cache", "action", "mode", "request_class"),
               "What the caches did with calls."),
    Instrument("negawatt.layer_operations", "counter", "", ("layer", "action"),
               "What the caches of the application's own work did."),
    Instrument("negawatt.semantic_budget", "gauge", "", ("request_class", "tier"),
               "Share of requests that the semantic cache may answer wrongly."),
    Instrument("negawatt.semantic_wrong_share", "gauge", "", ("request_class", "tier", "bound"),
               "Estimated share of requests that it did answer wrongly."),
    Instrument("negawatt.semantic_drifts", "counter", "", ("request_class", "tier"),
               "How often the rule of a class found that the world has changed."),
    Instrument("negawatt.up", "gauge", "", ("part",), "1 when a part of the gateway works."),
    Instrument("negawatt.ledger_rows_lost", "counter", "", (), "Rows of the ledger that could not be written."),
    Instrument("negawatt.task.success", "counter", "", ("request_class", "outcome"),
               "Tasks that were judged, by the outcome."),
    Instrument("negawatt.cost_per_success", "gauge", "USD", ("request_class",),
               "What one successful task has cost, failed attempts included; absent where none has succeeded."),
    Instrument("negawatt.budget.remaining", "gauge", "1", ("budget",),
               "What is neither spent nor reserved, as a share of the budget."),
    Instrument("negawatt.budget.refused", "counter", "", ("budget",), "Calls that a budget had not enough left for."),
    Instrument("negawatt.budget.unchecked", "counter", "", (),
               "Calls that passed while the budgets could not be asked."),
    Instrument("negawatt.slo.allowed", "gauge", "", ("request_class", "slo"), "Share of events that may be bad."),
    Instrument("negawatt.slo.burn_rate", "gauge", "", ("request_class", "slo", "pair", "window"),
               "How many times faster than allowed the budget of errors burns."),
    Instrument("negawatt.slo.budget_left", "gauge", "", ("request_class", "slo"),
               "Share of the budget of errors that is left; below 0 when overspent."),
    Instrument("negawatt.alerts_firing", "gauge", "", ("alert", "request_class", "severity"), "Alerts that fire now."),
    Instrument("negawatt.alert_messages", "counter", "", ("result", "sink"),
               "Messages to sinks, by whether they were taken."),
    Instrument("negawatt.alerts_undelivered", "gauge", "", ("sink",), "Alerts that a sink has yet to hear of."),
    Instrument("negawatt.series", "gauge", "", (), "Time series that these metrics have."),
    Instrument("negawatt.telemetry.dropped", "counter", "", ("what",),
               "Spans, or calls, that telemetry had to leave out because more came than it could take."),
)  # fmt: skip
"""What is counted or read elsewhere, and comes as `Sample`."""

INSTRUMENTS: Mapping[str, Instrument] = {one.prometheus: one for one in (*FOLDED, *SAMPLED)}
"""All of them, by the name that Prometheus has."""

DESCRIBED: Mapping[str, tuple[str, str]] = {name: (one.kind, one.text) for name, one in INSTRUMENTS.items()}
"""Type and meaning of each metric."""
