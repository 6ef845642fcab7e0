"""What a candidate would cost for a request, before it is asked: in money and energy, as an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec

from negawatt.call import Call
from negawatt.config_routes import Effort
from negawatt.economics.accounts import Accounts, Amount
from negawatt.economics.counting import Count, TokenCounter
from negawatt.economics.energy import Joules
from negawatt.economics.usage import Usage
from negawatt.routing.choice import Choice

USUAL_OUTPUT = 256
"""Tokens of an answer that nothing is known of: a paragraph or two. A constant, not a measurement."""

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")  # of the output, in any protocol
_GENERATES = frozenset({"chat", "text_completion"})
_BLEND = (3_000, 1_000)  # input and output tokens by which candidates are compared: three to one
_LONGEST_MEMORY = 200  # calls: an older one counts less and less, so that a mean follows what changes
_FEWEST = 5  # calls before a mean is believed
_MOST_KEPT = 4_096  # means
_EFFORTS: Sequence[str] = Effort.__args__  # type: ignore[attr-defined]
_UNSAID = "medium"  # what most providers do where no effort is asked for


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What a call would come to. *usd* None: no price; *joules* None: nothing is known of the model.

    *basis*: how the output was foreseen: ``learned`` from the class's calls to this candidate, ``class`` from its calls
    to others, ``constant``.
    """

    usd: Decimal | None
    joules: Joules | None
    input_tokens: int
    output_tokens: int
    basis: str = "constant"


class Output(NamedTuple):
    """Tokens of an answer that has not come yet, and the basis, as in `Cost`."""

    tokens: int
    basis: str


class Ordered(NamedTuple):
    """Candidates, cheapest first. *note*: why they are in the policy's own order; None where they were compared."""

    choices: tuple[Choice, ...]
    note: str | None = None


class _Mean:
    """Of the tokens of calls that have ended, the newer ones weighing more once there are many."""

    __slots__ = ("calls", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.calls = 0
        self.input_tokens = self.output_tokens = 0.0

    def add(self, usage: Usage) -> None:
        self.calls = min(self.calls + 1, _LONGEST_MEMORY)
        self.input_tokens += (usage.input_tokens - self.input_tokens) / self.calls
        self.output_tokens += (usage.output_tokens - self.output_tokens) / self.calls


class Costs:
    """Foresees costs, and learns from calls that have ended. One for a gateway; not for several threads at once."""

    def __init__(self, accounts: Accounts, tokens: TokenCounter) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._means: dict[tuple[str, str | None], _Mean] = {}  # of a class and a candidate; None: any candidate

    def count(self, call: Call, choice: Choice) -> Count:
        """Return the input tokens of *call* as *choice* would count them; of a long prompt parts are counted."""
        wire, request = call.wire, call.request
        return self._tokens.count(choice.targets[0].model, wire.prompt(request), wire.contract(request))

    def learn(self, request_class: str, choice: Choice, usage: Usage) -> None:
        """Take in that *choice* used *usage* for a call of *request_class*."""
        for key in ((request_class, choice.name), (request_class, None)):
            mean = self._means.get(key)
            if mean is None:
                while len(self._means) >= _MOST_KEPT:
                    del self._means[next(iter(self._means))]
                mean = self._means[key] = _Mean()
            mean.add(usage)

    def output(self, choice: Choice, call: Call) -> Output:
        """Return how long the answer of *choice* to *call* would be, at most what the request allows.

        From the calls of its class, else a constant for each answer that is asked for: limits say what is the most, not
        what is usual.
        """
        if call.wire.operation not in _GENERATES:
            return Output(0, "constant")
        limit = limit_of(call.request.data)
        for name, basis in ((choice.name, "learned"), (None, "class")):
            mean = self._believed(call.request_class, name)
            if mean is not None:
                return Output(_at_most(max(1, round(mean.output_tokens)), limit), basis)
        answers = call.request.get("n")
        count = answers if type(answers) is int and answers > 1 else 1
        return Output(count * _at_most(USUAL_OUTPUT, limit), "constant")

    def estimate(
        self,
        choice: Choice,
        call: Call,
        *,
        input_tokens: int,
        output_tokens: int | None = None,
        warm_tokens: int = 0,
    ) -> Cost:
        """Return what *choice* would cost for *call*, at its first target and standard prices.

        *output_tokens* None: as foreseen. *warm_tokens* of the input are in its provider's cache.
        """
        output = self.output(choice, call) if output_tokens is None else Output(output_tokens, "given")
        usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output.tokens,
            cache_read_tokens=max(0, min(warm_tokens, input_tokens)),
            basis="estimated",
        )
        amount = self._amount(choice, usage, call.received_at)
        return Cost(amount.cost_usd, amount.joules, input_tokens, output.tokens, output.basis)

    def ordered(
        self,
        choices: Sequence[Choice],
        order: Literal["cost", "energy"],
        *,
        at: float,
        request_class: str | None = None,
    ) -> Ordered:
        """Return *choices*, cheapest first by *order*; equals by the other key, then by rising effort.

        Compared at one blend of tokens: what the calls of *request_class* use on average, else three of input to one
        of output. Where a candidate's first key is unknown all stay in their own order, and it is said why; where the
        second is, those that are equal in the first do.
        """
        usage = self._blend(request_class)
        amounts = [self._amount(choice, usage, at) for choice in choices]
        money = [None if amount.cost_usd is None else float(amount.cost_usd) for amount in amounts]
        energy = [None if amount.joules is None else amount.joules.central for amount in amounts]
        first, second = (money, energy) if order == "cost" else (energy, money)
        unknown = [choice.name for choice, key in zip(choices, first, strict=True) if key is None]
        if unknown:
            what = "price" if order == "cost" else "energy"
            return Ordered(tuple(choices), f"in the policy's own order: no {what} is known of {', '.join(unknown)}")
        keys = [(first[p] or 0.0, _other(p, first, second), _effort(choice)) for p, choice in enumerate(choices)]
        return Ordered(tuple(choices[place] for place in sorted(range(len(keys)), key=keys.__getitem__)))

    def _blend(self, request_class: str | None) -> Usage:
        mean = None if request_class is None else self._believed(request_class, None)
        tokens = _BLEND if mean is None else (round(mean.input_tokens), round(mean.output_tokens))
        if not any(tokens):
            tokens = _BLEND
        return Usage(input_tokens=tokens[0], output_tokens=tokens[1], basis="estimated")

    def _believed(self, request_class: str, name: str | None) -> _Mean | None:
        mean = self._means.get((request_class, name))
        return None if mean is None or mean.calls < _FEWEST else mean

    def _amount(self, choice: Choice, usage: Usage, at: float) -> Amount:
        target = choice.targets[0]
        return self._accounts.foreseen(target.provider, target.model, usage, at)


def limit_of(data: Mapping[str, Any]) -> int | None:
    """Return the most output tokens that the request *data* allows for an answer; None where it does not say."""
    for name in _LIMITS:
        if type(data.get(name)) is int:
            limit: int = data[name]
            return limit
    return None


def _at_most(tokens: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, limit)


def _other(place: int, first: Sequence[float | None], second: Sequence[float | None]) -> float:
    """Return the second key of *place*; 0 where it is unknown of one of those that are equal in the first."""
    equals = [other for other, key in zip(second, first, strict=True) if key == first[place]]
    own = second[place]
    return 0.0 if own is None or None in equals else own


def _effort(choice: Choice) -> int:
    return _EFFORTS.index(choice.candidate.effort or _UNSAID)
