"""Which endings of a call are good, which are bad, and which say nothing about us.

    answered, cached, coalesced         good
    upstream_error, upstream_broken     bad, but where the provider found the caller's request wrong: 400, 404, 405,
                                        409, 413, 415, 422, which says nothing
    deadline, failed                    bad
    refused                             says nothing: the caller's mistake, or a limit that was set on purpose; but bad
                                        where the gateway itself was full (`RateLimited`)
    cancelled, abandoned                says nothing, but that it was slow where it had been so already

A provider's 401, 402, 403, 408 and 429 are bad: key, account and rate limit there are ours, and the caller gets
nothing. The gateway's own calls (judges, comparisons, renewals) and the counting of tokens are no calls of anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

GOOD, BAD, LEFT, NOTHING = range(4)

KINDS: Mapping[str, int] = {
    "answered": GOOD, "cached": GOOD, "coalesced": GOOD,
    "upstream_error": BAD, "upstream_broken": BAD, "deadline": BAD, "failed": BAD,
    "cancelled": LEFT, "abandoned": LEFT,
    "refused": NOTHING,
}  # fmt: skip
CALLERS = frozenset({400, 404, 405, 409, 413, 415, 422})  # statuses by which a provider finds the request wrong
FULL = "RateLimited"
OWN_MARK = '"detail":{"for":'  # in the decisions of a call that the gateway made of its own accord


class Ended(Protocol):
    """Of a row of the ledger, what is watched (`negawatt.ledger.outcome.Outcome` has it all)."""

    @property
    def received_at(self) -> float: ...
    @property
    def request_class(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def stream(self) -> bool | None: ...
    @property
    def ending(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error_type(self) -> str | None: ...
    @property
    def request_model(self) -> str | None: ...
    @property
    def response_model(self) -> str | None: ...
    @property
    def cache(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def baseline_input_tokens(self) -> int | None: ...
    @property
    def cost_pusd(self) -> int | None: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def time_to_first_chunk_s(self) -> float | None: ...
    @property
    def template(self) -> str | None: ...
    @property
    def decisions(self) -> str: ...


def kind_of(ended: Ended) -> int:
    """Return how *ended* counts: `GOOD`, `BAD`, `LEFT` (the caller went) or `NOTHING`."""
    kind = KINDS.get(ended.ending, BAD)
    if kind == BAD and ended.status in CALLERS and ended.error_type == "UpstreamStatus":
        return NOTHING
    if kind == NOTHING and ended.error_type == FULL:
        return BAD
    return kind
