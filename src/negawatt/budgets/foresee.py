"""The most that an attempt is likely to cost, before it is made.

Input: a quarter more than the tokens that its kind of call had at most for each byte; of a kind that is not known yet
one token a byte, which text never exceeds. Output: the limit that the request has; without one, twice the most that its
kind has used, and more where lengths have long tails (`Lengths`); of an unknown kind what the configuration says. Input
counts as written to the provider's cache where that costs more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from negawatt.call import Call, Target
from negawatt.config_budgets import Budgeting
from negawatt.economics.accounts import Accounts, Amount, to_pusd
from negawatt.economics.usage import Usage, with_tier
from negawatt.wire import limits

Get = Callable[[str], Any]  # a field of a request
Amounts = tuple[int, int | None, int | None]
"""Tokens, pico-dollars, millijoules. None: there is no price, or nothing is known of the energy."""

_GENERATES = frozenset({"chat", "text_completion"})
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")  # of the output, in any protocol
_RECENT = 50  # calls: what the last 50 to 100 of a kind used at most is believed of the next
_MOST_TIMES = 4
_MOST_KINDS = 4096
_MOST_AMOUNTS = 512  # of each kind
_RATIO = 1024  # ratios of tokens to bytes are kept in whole parts of this
_DOCUMENTS = 100  # of reranking, that one search unit is charged for
_QUARTER_S = 900  # prices may change by the quarter of an hour


class Most:
    """The most of what came last: of 50 to 100 numbers."""

    __slots__ = ("_before", "_new", "_seen", "count", "value")

    def __init__(self) -> None:
        self.count = self._seen = 0
        self._new = self._before = self.value = 0

    def add(self, number: int) -> None:
        self.count += 1
        self._seen += 1
        if self._seen > _RECENT:
            self._before, self._new, self._seen = self._new, number, 1
            self.value = max(self._before, number)
        elif number > self._new:
            self._new = number
            self.value = max(self.value, number)


class Lengths(Most):
    """The lengths of answers that came last."""

    __slots__ = ("_total", "_total_before")

    def __init__(self) -> None:
        super().__init__()
        self._total = self._total_before = 0

    def add(self, number: int) -> None:
        super().add(number)
        if self._seen == 1:
            self._total_before, self._total = self._total, 0
        self._total += number

    def next(self, usual: int) -> int:
        """Return what the next one is not likely to exceed.

        Twice the most; as many times as the most is above the mean, where that is more: the longer a tail was, the
        longer it may be yet. But then no more than `_MOST_TIMES`, and no more than is *usual* of what is unknown.
        """
        seen = self._seen + (_RECENT if self.count > _RECENT else 0)
        times = self.value * seen / max(1, self._total + self._total_before)
        return max(2 * self.value, min(math.ceil(min(times, _MOST_TIMES) * self.value), usual))


class Kind:
    """What the recent calls of one class to one target used at most, and what amounts came to.

    *ratios*: input tokens for each byte of the request, in parts of `_RATIO`. *outputs*: tokens of answers that had no
    limit; those that had one say nothing of these.
    """

    __slots__ = ("amounts", "outputs", "ratios", "used")

    def __init__(self) -> None:
        self.ratios = Most()
        self.outputs = Lengths()
        self.amounts: dict[tuple[Any, ...], Amounts] = {}
        self.used: dict[tuple[Usage, float], Amounts] = {}


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

    def of(self, call: Call) -> tuple[Kind, Amounts]:
        """Return what an attempt at the first target of *call* may cost, and of which kind it is."""
        target, request, settings = call.targets[0], call.request, self._settings
        key = (call.request_class, target.provider, target.model)
        kind = self._kinds.get(key) or self._new(key)
        get, body = request.data.get, request.body
        inputs = len(body)
        if kind.ratios.count >= settings.least_seen:
            most = kind.ratios.value
            inputs = -(-inputs * (most + -(-most // 4)) // _RATIO)
        inputs = _rounded(inputs)
        limit: Any = 0
        if call.wire.operation in _GENERATES:
            limit = limit_of(get)
            if limit is None:
                known = kind.outputs.count >= settings.least_seen and not settings.limit_output
                limit = kind.outputs.next(settings.output_tokens) if known else settings.output_tokens
            if get("n") is not None or get("best_of") is not None:
                limit *= _answers(get)
        tokens: int = inputs + limit
        if not self._priced:
            return kind, (tokens, None, None)
        tier = "fast" if get("speed") == "fast" else get("service_tier")
        hour = b'"1h"' in body
        case = (inputs, limit, tier if isinstance(tier, str) else None, hour, call.received_at // _QUARTER_S)
        found = kind.amounts.get(case)
        if found is None or call.wire.operation == "rerank":
            found = (tokens, *self._amounts(call, inputs, limit, tier, hour=hour))
            if len(kind.amounts) >= _MOST_AMOUNTS:
                kind.amounts.clear()
            kind.amounts[case] = found
        return kind, found

    def _new(self, key: tuple[str, str, str]) -> Kind:
        while len(self._kinds) >= _MOST_KINDS:  # models may be named by callers: keep the table bounded
            del self._kinds[next(iter(self._kinds))]
        kind = self._kinds[key] = Kind()
        return kind

    def limited(self, call: Call) -> Call:
        """Return *call* with a limit of its answer, where it has none and its protocol has a word for it."""
        name, request = call.wire.name, call.request
        if name not in limits.PROTOCOLS or limit_of(request.data.get) is not None:
            return call
        newer = self._newer_word(call.targets[0])
        changed = limits.with_limit(name, request, self._settings.output_tokens, newer=newer)
        return msgspec.structs.replace(call, request=changed)  # not by `with_`: above, it is as its caller asked

    def learn(self, call: Call, kind: Kind, usage: Usage) -> Amounts:
        """Take in that an attempt has used *usage*, and return what that comes to."""
        size = len(call.request.body)
        if size and usage.basis != "partial":
            get = call.request.data.get
            kind.ratios.add(-(-usage.input_tokens * _RATIO // size))
            if limit_of(get) is None:
                kind.outputs.add(-(-usage.output_tokens // _answers(get)))
        if not self._priced:
            return usage.total_tokens, None, None
        key = (usage, call.received_at // _QUARTER_S)
        used = kind.used.get(key)
        if used is None:
            if len(kind.used) >= _MOST_AMOUNTS:
                kind.used.clear()
            target = call.targets[0]
            amount = self._accounts.amount(target.provider, target.model, usage, call.received_at)
            used = kind.used[key] = (usage.total_tokens, to_pusd(amount.cost_usd), _millijoules(amount))
        return used

    def _amounts(
        self, call: Call, inputs: int, output: int, tier: object, *, hour: bool
    ) -> tuple[int | None, int | None]:
        """Return what so many tokens come to: pico-dollars and millijoules. *hour*: the cache is kept for one."""
        units = _search_units(call.request.data) if call.wire.operation == "rerank" else 0
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
        return max(money, default=None), _millijoules(amounts[0])

    def _foreseen(self, call: Call, usage: Usage) -> Amount:
        target = call.targets[0]
        return self._accounts.foreseen(target.provider, target.model, usage, call.received_at)


def _millijoules(amount: Amount) -> int | None:
    """Return the central figure of *amount*."""
    return None if amount.joules is None else round(amount.joules.central * 1000)


def limit_of(get: Get) -> int | None:
    """Return the most output tokens that a request allows for one answer; None where it does not say."""
    for name in _LIMITS:
        limit = get(name)
        if type(limit) is int and limit > 0:
            return limit
    return None


def _answers(get: Get) -> int:
    """Return how many answers are made: ``best_of`` of legacy completions are paid for, though ``n`` are given."""
    most = 1
    for name in ("n", "best_of"):
        count = get(name)
        if type(count) is int and count > most:
            most = count
    return most


def _search_units(data: Mapping[str, Any]) -> int:
    documents = data.get("documents")
    return max(1, -(-len(documents) // _DOCUMENTS)) if isinstance(documents, list) else 1


def _rounded(tokens: int) -> int:
    """Return *tokens* rounded up by at most a sixteenth: so few different amounts are worked out again and again."""
    step = 1 << max(0, tokens.bit_length() - 5)
    return -(-tokens // step) * step
