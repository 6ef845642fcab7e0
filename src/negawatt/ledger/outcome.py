"""The ledger row: one for each call, however it ended."""

from __future__ import annotations

import msgspec

# How a call can end, for its caller.
ENDINGS = (
    "answered",  # by a provider
    "cached",  # by a cache
    "coalesced",  # by another's call
    "refused",  # by us: a 4xx
    "upstream_error",  # the provider failed before the answer began
    "upstream_broken",  # the provider failed in the middle of the answer
    "cancelled",  # the caller hung up in the middle of the answer
    "abandoned",  # the caller was gone before the first byte
    "deadline",  # the call's own deadline passed
    "failed",  # by our fault
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call. Names follow OpenTelemetry GenAI where it has one; units are in the names.

    Money is in pico-dollars (1e-12 USD), as integers, so that sums are exact. None is unknown, or does not apply.
    ``*_tokens`` are what providers bill for this call, all attempts together; ``baseline_*`` is what the call would
    have used, cost and burned had no lever saved anything: what it did, and what the decisions spared.
    """

    id: str
    received_at: float  # seconds since 1970, UTC
    tenant: str | None
    user_id: str | None
    key_id: str | None
    request_class: str
    task_id: str | None
    session_id: str | None
    operation: str
    protocol: str  # that its caller spoke
    stream: bool | None
    request_model: str | None
    response_model: str | None
    provider: str | None
    ending: str
    status: int | None
    error_type: str | None
    error_message: str | None
    cache: str  # exact, coalesced, miss, bypass
    holdout: bool
    fingerprint: str | None  # SHA-256 of the request's canonical form
    # usage, as billed
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    usage_basis: str | None  # measured, estimated
    baseline_input_tokens: int | None
    baseline_output_tokens: int | None
    # money
    cost_pusd: int | None
    baseline_cost_pusd: int | None
    price_source: str | None
    # energy, joules at the boundary that the basis names, and carbon
    energy_low_j: float | None
    energy_j: float | None
    energy_high_j: float | None
    baseline_energy_low_j: float | None
    baseline_energy_j: float | None
    baseline_energy_high_j: float | None
    energy_basis: str | None
    co2e_g: float | None
    # time, seconds
    duration_s: float
    queue_s: float
    upstream_s: float
    overhead_s: float
    time_to_first_chunk_s: float | None
    baseline_duration_s: float | None
    # what explains all this, as JSON
    decisions: str  # [{lever, action, reason, mode, saved}]
    attempt_log: str  # [{provider, model, status, error, usage, cost_pusd, started_s, duration_s}]
    versions: str  # {prices, energy, carbon}
    # the rest of the scope within which answers are shared
    permissions: str | None = None  # digest
    corpus_version: str | None = None
    prompt_version: str | None = None
    key_headers: str | None = None  # JSON: [[name, value]]
    response_id: str | None = None  # as the provider named its answer
    counted_input_tokens: int | None = None  # before the call, here
    count_basis: str | None = None  # how
    # of a prompt template
    template: str | None = None
    template_version: str | None = None
    prompt_blocks: str | None = None  # JSON: {block: tokens}
    aside_for: str | None = None  # id of the call for whose sake the gateway made this one of its own accord


FIELDS: tuple[str, ...] = Outcome.__struct_fields__


class Content(msgspec.Struct, frozen=True):
    """What a call asked and what it was answered; kept only where the configuration says so."""

    call_id: str
    request: bytes
    response: bytes | None
