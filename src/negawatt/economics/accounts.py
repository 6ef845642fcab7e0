"""What a call cost, in money and energy, and what it would have cost had no lever spared anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec

from negawatt.call import Attempt, Decision, Saved, Trail
from negawatt.economics.carbon import Carbon
from negawatt.economics.energy import NO_ENERGY, Energy, EnergyRate, Joules
from negawatt.economics.prices import Prices
from negawatt.economics.rates import Rate, charge
from negawatt.economics.usage import Usage

_ZERO = Decimal(0)
_MOST_KEPT = 10_000


class Amount(msgspec.Struct, frozen=True, gc=False):
    """What some usage comes to. None: no price, or nothing known about the energy."""

    cost_usd: Decimal | None
    joules: Joules | None
    price_source: str | None
    energy_basis: str | None


class Bill(msgspec.Struct, frozen=True):
    """What one call comes to: as it was, and as it would have been."""

    usage: Usage | None
    actual: Amount
    baseline_input_tokens: int | None
    baseline_output_tokens: int | None
    baseline_cost_usd: Decimal | None
    baseline_joules: Joules | None
    attempts: list[Amount]
    saved: dict[int, Amount]  # by the position of the decision; what came in place of attempts, less those
    spared: list[Saved]  # the same, as the levers said it
    void: set[int]  # positions of decisions that say they saved, and do not count
    used: tuple[int, int] | None  # input and output tokens of the attempts; None where those of one are unknown

    @property
    def saved_usd(self) -> Decimal | None:
        if self.baseline_cost_usd is None or self.actual.cost_usd is None:
            return None
        return self.baseline_cost_usd - self.actual.cost_usd


_NOTHING = Amount(_ZERO, NO_ENERGY, None, None)


class Accounts:
    """Prices usage, by the tables as they were when the call came in.

    *priced_as* maps a provider's name to its id in the price tables.
    """

    def __init__(self, prices: Prices, energy: Energy, carbon: Carbon, priced_as: Mapping[str, str | None]) -> None:
        self._prices = prices
        self._energy = energy
        self.carbon = carbon
        self._priced_as = priced_as
        self._amounts: dict[tuple[str | None, str, Usage, int], Amount] = {}
        self._rates: dict[tuple[str | None, str, str | None, int], tuple[Rate | None, EnergyRate | None]] = {}

    @property
    def versions(self) -> dict[str, str]:
        return {"prices": self._prices.version, "energy": self._energy.version, "carbon": self.carbon.version}

    def warm(self) -> None:
        """Read the price table now, and not in the middle of the first call."""
        self._prices.rate("openai", "gpt-4o-mini", datetime.now(UTC))

    def own(self, cpu_s: float) -> Joules:
        """Return the energy of our own work: *cpu_s* seconds of a busy core, at most."""
        return self._energy.own(cpu_s)

    def price_id(self, provider: str) -> str | None:
        """Return the id of *provider* in the price tables; None where anybody may run its models."""
        return self._priced_as.get(provider, provider)

    def amount(self, provider: str, model: str, usage: Usage | None, at: float) -> Amount:
        """Return what *usage* of *model* at *provider* comes to at *at* (seconds since 1970)."""
        return self.amount_as(self._priced_as.get(provider, provider), model, usage, at)

    def amount_as(self, price_id: str | None, model: str, usage: Usage | None, at: float) -> Amount:
        """The same, for a provider named as the price tables name it."""
        if usage is None:
            return Amount(None, None, None, None)
        # Prices change by the day, some by the hour: within a quarter of an hour an amount is computed once. What is
        # answered from the cache is priced again and again with the same usage.
        key = (price_id, model, usage, int(at // 900))
        amount = self._amounts.get(key)
        if amount is None:
            amount = self._worked_out(price_id, model, usage, at)
            if len(self._amounts) >= _MOST_KEPT:
                self._amounts.clear()
            self._amounts[key] = amount
        return amount

    def foreseen(self, provider: str, model: str, usage: Usage, at: float) -> Amount:
        """Return what *usage* would come to. As `amount`, but not kept: what is guessed is seldom guessed again."""
        return self._worked_out(self.price_id(provider), model, usage, at)

    def rate(self, price_id: str | None, model: str, tier: str | None, at: float) -> Rate | None:
        """Return the prices of *model* in *tier*, for a provider as the price tables name it; None if unknown."""
        return self._rates_at(price_id, model, tier, at)[0]

    def reads_cached(self, provider: str, model: str, at: float) -> bool:
        """True when *model* at *provider* has a price of its own for input that is read from its cache."""
        rate, _ = self._rates_at(self.price_id(provider), model, None, at)
        return rate is not None and rate.reads_cached

    def _worked_out(self, price_id: str | None, model: str, usage: Usage, at: float) -> Amount:
        rate, energy = self._rates_at(price_id, model, usage.tier, at)
        money = charge(usage, rate)
        return Amount(
            None if money is None else money.usd,
            None if energy is None else energy.joules(usage),
            None if money is None else money.source,
            None if energy is None else energy.basis,
        )

    def _rates_at(
        self, price_id: str | None, model: str, tier: str | None, at: float
    ) -> tuple[Rate | None, EnergyRate | None]:
        key = (price_id, model, tier, int(at // 900))
        found = self._rates.get(key)
        if found is None:
            if len(self._rates) >= _MOST_KEPT:
                self._rates.clear()
            when = datetime.fromtimestamp(at, UTC)
            rate = self._prices.rate(price_id, model, when, tier=tier)
            # A discount for waiting says nothing of the model's size, which energy is guessed from.
            usual = rate if tier is None else self._prices.rate(price_id, model, when)
            price = None if usual is None or usual.output_usd_per_mtok is None else float(usual.output_usd_per_mtok)
            found = (rate, self._energy.rate(price_id, model, output_price_usd_per_mtok=price))
            self._rates[key] = found
        return found

    def bill(self, trail: Trail, received_at: float) -> Bill:
        """Return what the call of *trail* comes to so far."""
        attempts = [self._attempt(attempt, received_at) for attempt in trail.attempts]
        actual = attempts[0] if len(attempts) == 1 else total(attempts) if attempts else _NOTHING
        usages = [attempt.usage for attempt in trail.attempts if attempt.usage is not None]
        usage = usages[0] if len(usages) == 1 else sum(usages[1:], usages[0]) if usages else None
        asked = any(attempt.billed for attempt in trail.attempts)
        void = _void(trail.decisions, asked=asked)
        saved, spared = self._saved(trail.decisions, void, received_at)
        own = (0, 0) if usage is None else (usage.input_tokens, usage.output_tokens)
        instead = next((place for place in saved if _is_instead(trail.decisions[place])), None)
        tokens: tuple[int | None, int | None] = own
        if spared:
            tokens = _together(own if instead is None else (0, 0), spared)
        elif usage is None and asked:
            tokens = (None, None)
        baseline = actual
        if instead is not None:
            baseline = total(list(saved.values()))
            saved[instead] = difference(saved[instead], actual)
        elif saved:
            amounts = list(saved.values())
            baseline = amounts[0] if actual is _NOTHING and len(amounts) == 1 else total([actual, *amounts])
        return Bill(
            usage=usage,
            actual=actual,
            baseline_input_tokens=tokens[0],
            baseline_output_tokens=tokens[1],
            baseline_cost_usd=baseline.cost_usd,
            baseline_joules=baseline.joules,
            attempts=attempts,
            saved=saved,
            spared=spared,
            void=void,
            used=None if any(a.billed and a.usage is None for a in trail.attempts) else own,
        )

    def _attempt(self, attempt: Attempt, at: float) -> Amount:
        if not attempt.billed:
            return _NOTHING
        return self.amount(attempt.target.provider, attempt.target.model, attempt.usage, at)

    def _saved(self, decisions: list[Decision], void: set[int], at: float) -> tuple[dict[int, Amount], list[Saved]]:
        amounts: dict[int, Amount] = {}
        spared: list[Saved] = []
        for place, decision in enumerate(decisions):
            saved = decision.saved
            if saved is not None and decision.mode != "shadow" and place not in void:
                amounts[place] = self.amount(saved.provider, saved.model, saved.usage, at)
                spared.append(saved)
        return amounts, spared

    def priced_saving(self, saved: Saved, place: int, bill: Bill, at: float) -> dict[str, Any]:
        """Return *saved*, of the decision at *place*, as the ledger keeps it, to be encoded by msgspec."""
        amount = bill.saved.get(place)
        shadow = amount is None  # priced, but part of no sum
        if amount is None:
            amount = self.amount(saved.provider, saved.model, saved.usage, at)
            if saved.instead:
                amount = difference(bill.actual, amount)
        joules = amount.joules
        tokens: tuple[int | None, int | None] = (saved.usage.input_tokens, saved.usage.output_tokens)
        if saved.instead:
            tokens = _less(saved.usage, bill.used, -1 if shadow else 1)
        return {
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            **({"instead": True} if saved.instead else {}),
            "usage": saved.usage,
            "model": saved.model,
            "provider": saved.provider,
            "priced_as": self.price_id(saved.provider),
            "cost_pusd": to_pusd(amount.cost_usd),
            "energy_j": None if joules is None else [joules.low, joules.central, joules.high],
            "upstream_s": saved.upstream_s,
            "basis": saved.basis,
        }


def to_pusd(cost_usd: Decimal | None) -> int | None:
    """Return dollars as whole pico-dollars."""
    if cost_usd is None:
        return None
    return int(cost_usd.scaleb(12).to_integral_value(ROUND_HALF_EVEN)) if cost_usd else 0


def _void(decisions: list[Decision], *, asked: bool) -> set[int]:
    """Return the places of decisions that do not count: only the newest can come in place of what was *asked*."""
    void: set[int] = set()
    newest: dict[bool, int] = {}  # in shadow, or not
    for place, decision in enumerate(decisions):
        if _is_instead(decision):
            shadow = decision.mode == "shadow"
            void.update((newest[shadow],) if shadow in newest else ())
            newest[shadow] = place
    return void if asked else void | set(newest.values())


def _is_instead(decision: Decision) -> bool:
    return decision.saved is not None and decision.saved.instead


def _together(own: tuple[int, int], spared: list[Saved]) -> tuple[int, int]:
    """Return the input and output tokens of *own* and *spared*."""
    usages = [one.usage for one in spared]
    return own[0] + sum([u.input_tokens for u in usages]), own[1] + sum([u.output_tokens for u in usages])


def _less(usage: Usage, used: tuple[int, int] | None, sign: int) -> tuple[int | None, int | None]:
    """Return the tokens of *usage* less those that were *used*, or the other way round."""
    if used is None:
        return None, None
    return sign * (usage.input_tokens - used[0]), sign * (usage.output_tokens - used[1])


def difference(one: Amount, other: Amount) -> Amount:
    """Return *one* less *other*, which may be negative; unknown if a part is unknown. Sources are those of *one*.

    The range of the energy is from the least that it may be to the most: what is wrong with one figure need not be
    wrong with the other, which is of another model, or of another number of tokens.
    """
    cost = None if one.cost_usd is None or other.cost_usd is None else one.cost_usd - other.cost_usd
    joules = None if one.joules is None or other.joules is None else one.joules - other.joules
    return Amount(cost, joules, one.price_source, one.energy_basis)


def total(amounts: list[Amount]) -> Amount:
    """Return the sum; unknown if a part is unknown. Of several sources and bases the last is named."""
    cost: Decimal | None = _ZERO
    joules: Joules | None = NO_ENERGY
    source = basis = None
    for amount in amounts:
        cost = None if cost is None or amount.cost_usd is None else cost + amount.cost_usd
        joules = None if joules is None or amount.joules is None else joules + amount.joules
        source, basis = amount.price_source or source, amount.energy_basis or basis
    return Amount(cost, joules, source, basis)
