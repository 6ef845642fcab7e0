"""The configuration of budgets: what may be spent by whom in a day, a week or a month, and what happens then."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from negawatt.config_types import Count, Name, Positive, Section, Share

Patterns = str | tuple[str, ...]
Dimension = Literal["key", "user", "tenant", "class", "model"]


class Whose(Section, frozen=True):
    """Which calls a budget pays for: all that it names must be so. Patterns are those of file names."""

    key: Patterns | None = None  # ids of keys
    user: Patterns | None = None
    tenant: Patterns | None = None
    request_class: Patterns | None = msgspec.field(default=None, name="class")
    model: Patterns | None = None  # names that callers use, or that a policy chooses by


class Budget(Section, frozen=True):
    """So much in each period, and not more. Exactly one of *tokens*, *usd* and *joules* is the limit."""

    name: Name
    tokens: Count | None = None  # input and output together
    usd: Positive | None = None
    joules: Positive | None = None  # by the central figure
    per: Literal["day", "week", "month"] = "month"
    zone: str = "UTC"  # in which days begin; weeks begin on Monday
    of: Whose = Whose()  # which calls; nothing said: all of them
    each: Dimension | None = None  # a budget of its own for each of these; None: one for all together
    assigned: bool = False  # only for keys that name it
    owner: str | None = None
    at_limit: Literal["refuse", "downgrade", "queue"] = "refuse"
    policy: Name | None = None  # downgrade: which of [policies] chooses the model from then on
    from_share: Share = 0.8  # downgrade: of the limit, from which it does
    max_waiting: Count = 1000  # queue: calls that may wait; the next is refused
    unknown: Literal["refuse", "pass"] = "refuse"  # calls whose price, or energy, nobody knows


class Budgeting(Section, frozen=True):
    """What all budgets share."""

    store: str = "ledger:"  # where the books are kept; default: beside the ledger
    output_tokens: Count = 4096  # reserved for an answer of which nothing is known yet
    least_seen: Count = 20  # calls of a kind before what they used is believed
    limit_output: bool = False  # send output_tokens as the answer's limit, where the request has none
    lease_s: Annotated[float, Meta(ge=1)] = 900.0  # shared books: a reservation that is older counts as spent
    when_down: Literal["refuse", "pass"] = "refuse"  # calls while the books cannot be asked
