"""The most that an attempt is likely to cost, before it is made.

Input: a quarter more than the tokens that its kind of call had at most for each byte; of a kind that is not known yet
one token a byte, which text never exceeds. Output: the limit that the request has; without one, twice the most that its
kind has used, for the lengths of answers have long tails; of an unknown kind what the configuration says. Input counts
as written to the provider's cache where that costs more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from negawatt.call import Call, Target
from negawatt.config_budgets import Budgeting
from negawatt.economics.accounts import Accounts, Amount, to_pusd
from negawatt.economics.usage import Usage, with_tier
from negawatt.wire import limits

_GENERATES = frozenset({"chat", "text_completion"})
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")  # of the output, in any protocol
_RECENT = 50  # calls: what the last 50 to 100 of a kind used at most is believed of the next
_MOST_KINDS = 4096
_MOST_AMOUNTS = 4096
_RATIO = 1024  # ratios of tokens to bytes are kept in whole parts of this
_DOCUMENTS = 100  # of reranking, that one search unit is charged for
_QUARTER_S = 900  # prices may change by the quarter of an hour


class Foreseen(NamedTuple):
    """In the smallest units. None: there is no price, or nothing is known of the energy."""

    tokens: int
    pusd: int | None
    millijoules: int | None

    def of(self, unit: str) -> int | None:
        return self.tokens if unit == "tokens" else self.pusd if unit == "usd" else self.millijoules


class Kind:
    """The most that the recent calls of one class to one target used."""

    __slots__ = ("_before", "_now", "_seen", "count")

    def __init__(self) -> None:
        self._before = self._now = (0, 0)
        self._seen = 0
        self.count = 0

    def add(self, ratio: int, output: int) -> None:
        self.count += 1
        self._seen += 1
        if self._seen > _RECENT:
            self._before, self._now, self._seen = self._now, (0, 0), 1
        self._now = max(self._now[0], ratio), max(self._now[1], output)

    @property
    def ratio(self) -> int:
        """Input tokens for each byte of the request, in parts of `_RATIO`: what was seen, and a quarter more."""
        most = max(self._before[0], self._now[0])
        return most + -(-most // 4)

    @property
    def output(self) -> int:
        """Output tokens of an answer: twice what was seen."""
        return 2 * max(self._before[1], self._now[1])


class Foresight:
    """Foresees amounts, and learns from attempts that have ended. One for a gateway."""

    def __init__(
        self, settings: Budgeting, accounts: Accounts, *, priced: bool, newer_word: Callable[[Target], bool]
    ) -> None:
        self._settings = settings
        self._newer_word = newer_word  # whether a target takes ``max_completion_tokens``
        self._accounts = accounts
        self._priced = priced  # some budget is in money or energy
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self._amounts: dict[tuple[Any, ...], tuple[int | None, int | None]] = {}

    def of(self, call: Call) -> Foreseen:
        """Return what an attempt at the first target of *call* may cost."""
        kind = self._kinds.get(self._key(call))
        if kind is not None and kind.count < self._settings.least_seen:
            kind = None
        size = len(call.request.body)
        inputs = _rounded(size if kind is None else -(-size * kind.ratio // _RATIO))
        output = self.output(call, kind)
        if not self._priced:
            return Foreseen(inputs + output, None, None)
        return Foreseen(inputs + output, *self._amount(call, inputs, output))

    def output(self, call: Call, kind: Kind | None) -> int:
        """Return how long the answer may be."""
        if call.wire.operation not in _GENERATES:
            return 0
        data = call.request.data
        limit = limit_of(data)
        if limit is None:
            known = kind is not None and not self._settings.limit_output
            limit = kind.output if kind is not None and known else self._settings.output_tokens
        return limit * _answers(data)

    def limited(self, call: Call) -> Call:
        """Return *call* with a limit of its answer, where it has none and its protocol has a word for it."""
        name, request = call.wire.name, call.request
        if not self._settings.limit_output or name not in limits.PROTOCOLS or limit_of(request.data) is not None:
            return call
        newer = self._newer_word(call.targets[0])
        changed = limits.with_limit(name, request, self._settings.output_tokens, newer=newer)
        return msgspec.structs.replace(call, request=changed)  # not by `with_`: above, it is as its caller asked

    def learn(self, call: Call, usage: Usage) -> None:
        """Take in what an attempt at the first target of *call* has used."""
        size = len(call.request.body)
        answers = _answers(call.request.data)
        if not size or usage.basis == "partial":
            return
        key = self._key(call)
        kind = self._kinds.get(key)
        if kind is None:
            while len(self._kinds) >= _MOST_KINDS:  # models may be named by callers: keep the table bounded
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[key] = Kind()
        kind.add(-(-usage.input_tokens * _RATIO // size), -(-usage.output_tokens // answers))

    def _key(self, call: Call) -> tuple[str, str, str]:
        target = call.targets[0]
        return call.request_class, target.provider, target.model

    def _amount(self, call: Call, inputs: int, output: int) -> tuple[int | None, int | None]:
        target, data = call.targets[0], call.request.data
        tier = "fast" if data.get("speed") == "fast" else data.get("service_tier")
        hour = b'"1h"' in call.request.body
        units = _search_units(data) if call.wire.operation == "rerank" else 0
        at = int(call.received_at // _QUARTER_S)
        key = (target.provider, target.model, inputs, output, tier if isinstance(tier, str) else None, hour, units, at)
        found = self._amounts.get(key)
        if found is None:
            if len(self._amounts) >= _MOST_AMOUNTS:
                self._amounts.clear()
            usage = Usage(
                input_tokens=inputs, output_tokens=output, cache_write_tokens=inputs,
                cache_write_1h_tokens=inputs if hour else 0, search_units=units, basis="estimated",
            )  # fmt: skip
            tiered = self._foreseen(call, with_tier(usage, tier))
            # A tier without a price of its own is taken to cost the usual one.
            amounts = [tiered if tiered.cost_usd is not None else self._foreseen(call, usage)]
            if units:  # some charge by the search, some by the token
                amounts += [
                    self._foreseen(call, Usage(input_tokens=0, output_tokens=0, search_units=units)),
                    self._foreseen(call, Usage(input_tokens=inputs, output_tokens=0)),
                ]
            money = [cost for one in amounts if (cost := to_pusd(one.cost_usd)) is not None]
            energy = [millijoules(one) for one in amounts]
            found = self._amounts[key] = max(money, default=None), energy[0]
        return found

    def _foreseen(self, call: Call, usage: Usage) -> Amount:
        target = call.targets[0]
        return self._accounts.foreseen(target.provider, target.model, usage, call.received_at)


def millijoules(amount: Amount) -> int | None:
    """Return the central figure of *amount*."""
    return None if amount.joules is None else round(amount.joules.central * 1000)


def limit_of(data: Mapping[str, Any]) -> int | None:
    """Return the most output tokens that the request *data* allows for one answer; None where it does not say."""
    for name in _LIMITS:
        limit = data.get(name)
        if type(limit) is int and limit > 0:
            return limit
    return None


def _answers(data: Mapping[str, Any]) -> int:
    """Return how many answers are made: ``best_of`` of legacy completions are paid for, though ``n`` are given."""
    counts = [count for name in ("n", "best_of") if type(count := data.get(name)) is int and count > 1]
    return max(counts, default=1)


def _search_units(data: Mapping[str, Any]) -> int:
    documents = data.get("documents")
    return max(1, -(-len(documents) // _DOCUMENTS)) if isinstance(documents, list) else 1


def _rounded(tokens: int) -> int:
    """Return *tokens* rounded up by at most a sixteenth: so few different amounts are worked out again and again."""
    step = 1 << max(0, tokens.bit_length() - 5)
    return -(-tokens // step) * step
