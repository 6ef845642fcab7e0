"""What our figures are called elsewhere: the one mapping onto OpenTelemetry's GenAI conventions, and onto Prometheus.

Source: open-telemetry/semantic-conventions-genai v0.1.0 (docs/gen-ai/client-inference.md, client-embeddings.md,
gen-ai-metrics.md), status Development, read 2026-11-27. Names there still move: three renamings in 2026. Those that
were current before come from open-telemetry/semantic-conventions v1.37.0; they are given where `Naming` asks for it.
What the convention has no word for lies under ``negawatt.``.

A metric is named once, as OpenTelemetry has it; `prometheus_name` derives the other name by the rules that the
Prometheus exporter of OpenTelemetry follows: dots become underscores, the unit is appended, then ``_total``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from negawatt.ledger.outcome import Outcome

CONVENTION = "open-telemetry/semantic-conventions-genai v0.1.0, read 2026-11-27"

Kind = Literal["counter", "gauge", "histogram"]
Naming = Literal["new", "old", "both"]

# One list of buckets for each unit: those of the convention.
SECONDS = tuple(round(0.01 * 2**k, 2) for k in range(14))  # 0.01 to 81.92
TOKENS = tuple(float(4**k) for k in range(14))  # 1 to 67,108,864
# Our own work takes microseconds, all of which the list above has in its first bucket: the same list, continued down.
OWN_SECONDS = tuple(round(0.01 / 2**k, 8) for k in range(9, 0, -1)) + SECONDS[:8]  # 0.00002 to 1.28

_SUFFIXES = {"s": "_seconds", "USD": "_usd", "J": "_joules", "g": "_grams", "1": "_ratio", "": "", "{token}": ""}


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One metric, as OpenTelemetry names it. *unit* is UCUM's; *labels* as Prometheus has them.

    *old*: what it was called before, where it was called anything.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()
    old: str | None = None

    @property
    def prometheus(self) -> str:
        return prometheus_name(self.name, self.kind, self.unit)


def prometheus_name(name: str, kind: str, unit: str) -> str:
    """Return the name of a metric in Prometheus."""
    return name.replace(".", "_") + _SUFFIXES[unit] + ("_total" if kind == "counter" else "")


# -- attributes ------------------------------------------------------------------------------------------------

ATTRIBUTES: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "stream": "gen_ai.request.stream",
    "session_id": "gen_ai.conversation.id",
    "template": "gen_ai.prompt.name",
    "template_version": "gen_ai.prompt.version",
    "error_type": "error.type",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "time_to_first_chunk_s": "gen_ai.response.time_to_first_chunk",
    # negawatt's own
    "id": "negawatt.call.id",
    "tenant": "negawatt.tenant",
    "key_id": "negawatt.key.id",
    "request_class": "negawatt.request_class",
    "task_id": "negawatt.task.id",
    "protocol": "negawatt.protocol",
    "ending": "negawatt.outcome",
    "cache": "negawatt.cache",
    "holdout": "negawatt.holdout",
    "attempts": "negawatt.attempts",
    "usage_basis": "negawatt.usage.basis",
    "prompt_version": "negawatt.prompt.version",
    "energy_low_j": "negawatt.energy.low_joules",
    "energy_j": "negawatt.energy.central_joules",
    "energy_high_j": "negawatt.energy.high_joules",
    "energy_basis": "negawatt.energy.basis",
    "co2e_g": "negawatt.co2e_grams",
    "queue_s": "negawatt.queue_seconds",
    "upstream_s": "negawatt.upstream_seconds",
    "overhead_s": "negawatt.overhead_seconds",
}
"""The columns of `Outcome` that a span of a call has, and the name of each. The user is not among them."""

COST_AMOUNT = "gen_ai.usage.cost.amount"  # draft: issue 287, pull request 443 of the convention; in COST_CURRENCY
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"  # "provider" where it came with the answer, "local" where we computed it
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"  # only where content is asked for
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"

PARAMETERS: Mapping[str, str] = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "reasoning_effort": "gen_ai.request.reasoning.level",
}
"""The numbers and words of a request that its span has, by their field in the request."""

OLD_ATTRIBUTES: Mapping[str, str] = {
    "gen_ai.provider.name": "gen_ai.system",
    "gen_ai.usage.input_tokens": "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.output_tokens": "gen_ai.usage.completion_tokens",
    "gen_ai.usage.cache_write.input_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.input.messages": "gen_ai.prompt",
    "gen_ai.output.messages": "gen_ai.completion",
}


def attributes_of(outcome: Outcome) -> dict[str, Any]:
    """Return what a span says of *outcome*; what is not known is left out."""
    found = {name: value for field, name in ATTRIBUTES.items() if (value := getattr(outcome, field)) is not None}
    if outcome.cost_pusd is not None:
        found |= cost_attributes(outcome.cost_pusd, told=outcome.price_source == "provider")
    return found


def cost_attributes(pusd: int, *, told: bool) -> dict[str, Any]:
    """Return what a span says of a cost. *told*: it came with the answer."""
    return {COST_AMOUNT: pusd / 10**12, COST_CURRENCY: "USD", COST_SOURCE: "provider" if told else "local"}


def renamed(attributes: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """Return *attributes* under the names that are asked for."""
    if naming == "new":
        return dict(attributes)
    old = {OLD_ATTRIBUTES.get(name, name): value for name, value in attributes.items()}
    return old if naming == "old" else {**attributes, **old}


_LABELS = {
    name.replace(".", "_"): name
    for name in ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type",
                 "gen_ai.system", "error.type")
}  # fmt: skip


def attribute_of(label: str) -> str:
    """Return what Prometheus' *label* is called in OpenTelemetry."""
    return _LABELS.get(label) or f"negawatt.{label}"
