"""Which budgets pay for a call: the configuration's words, made ready to be asked for every attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import NamedTuple

import orjson

from negawatt.budgets import Lines
from negawatt.budgets.periods import Period, period_of, zone_of
from negawatt.call import Call
from negawatt.caller import Caller
from negawatt.config_budgets import Budget, Patterns, Whose

SCALES: Mapping[str, int] = {"tokens": 1, "usd": 10**12, "joules": 1000}
"""How many of our smallest units one of the configuration's has."""

_DIMENSIONS = ("key", "user", "tenant", "class", "model")
_MOST_KEPT = 10_000
_NOBODY = Caller()


class Facts(NamedTuple):
    """What decides who pays. The first three are None where nobody said."""

    key: str | None
    user: str | None
    tenant: str
    request_class: str
    model: str
    named: tuple[str, ...]  # budgets that the key names


class Rule:
    """One budget. Its *key* names it in the books: where unit or period change, the books begin anew."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name = budget.name
        self.unit = next(unit for unit in SCALES if getattr(budget, unit) is not None)
        # By its text: 0.1 is what was meant, and not the nearest binary fraction.
        self.limit = int(Decimal(str(getattr(budget, self.unit))) * SCALES[self.unit])
        self.key = key_of(self.unit, budget.per, budget.name)
        # Nobody learns from it what other tenants have spent, nor, where it is one key's, what other keys have.
        self.own = budget.each in ("key", "user", "tenant") or _is_one(budget.of.key) or _is_one(budget.of.tenant)
        self._zone = zone_of(budget.zone)
        self._period = Period(0, 0)

    def period(self, now: float) -> Period:
        """Return the period that *now* is in."""
        start, end = self._period
        if not start <= now < end:
            self._period = period_of(self.budget.per, self._zone, now)
        return self._period

    def value(self, facts: Facts) -> str | None:
        """Return whose budget of this kind pays for a call with *facts*; None where none does."""
        budget = self.budget
        if self.name not in facts.named and (budget.assigned or not _is(budget.of, facts)):
            return None
        if budget.each is None:
            return ""
        # Users are a tenant's own: two tenants may each have an Ann. Those who say no name are one user together.
        found = (facts.tenant, facts.user) if budget.each == "user" else (_fact(budget.each, facts),)
        return orjson.dumps(found).decode()


class Payers:
    """The budgets that pay for calls with the same facts. *units*: the place of each one's unit in `SCALES`."""

    def __init__(self, pairs: Sequence[tuple[Rule, str]]) -> None:
        self.rules = tuple(rule for rule, _ in pairs)
        self.values = tuple(value for _, value in pairs)
        self.units = tuple(list(SCALES).index(rule.unit) for rule in self.rules)
        self.own = tuple(place for place, rule in enumerate(self.rules) if rule.own)
        self._lines = Lines((), (), ())
        self._since, self._until = 0, 0

    def lines(self, now: float) -> Lines:
        """Return their lines in the periods that *now* is in."""
        if not self._since <= now < self._until:
            periods = [rule.period(now) for rule in self.rules]
            starts, ends = zip(*periods, strict=True)
            keys = (rule.key for rule in self.rules)
            ids = tuple(zip(keys, self.values, starts, strict=True))
            self._lines = Lines(ids, ends, tuple(rule.limit for rule in self.rules))
            self._since, self._until = max(starts), min(ends)
        return self._lines

    def whose(self, place: int) -> tuple[str, str]:
        """Return what the budget at *place* is called whatever the period: its key, and whose it is."""
        return self.rules[place].key, self.values[place]


class Rules:
    """All budgets."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self.rules = tuple(Rule(budget) for budget in budgets)
        self.units = frozenset(rule.unit for rule in self.rules)
        self._kept: dict[tuple[object, ...], Payers | None] = {}

    def of(self, call: Call) -> Payers | None:
        """Return who pays for *call*, of which its first target is asked; None where nobody does."""
        caller, model = call.caller or _NOBODY, call.targets[0].name
        facts = (caller.key_id, caller.user, caller.tenant, call.request_class, model, caller.budgets)
        try:
            return self._kept[facts]
        except KeyError:
            return self._new(Facts(*facts))

    def _new(self, facts: Facts) -> Payers | None:
        if len(self._kept) >= _MOST_KEPT:  # users and models may be named by callers
            self._kept.clear()
        pairs = [(rule, value) for rule in self.rules if (value := rule.value(facts)) is not None]
        payers = self._kept[facts] = Payers(pairs) if pairs else None
        return payers


def key_of(unit: str, per: str, name: str) -> str:
    return f"{unit}/{per}/{name}"


def parts_of(key: str) -> tuple[str, str, str]:
    """Return the unit, the period and the name that *key* is made of."""
    unit, per, name = key.split("/", 2)
    return unit, per, name


def whose(value: str) -> tuple[str | None, ...]:
    """Return what the value of a line says: a key, a tenant and a user, ...; nothing of a budget for all."""
    return tuple(orjson.loads(value)) if value else ()


def _fact(dimension: str, facts: Facts) -> str | None:
    return facts[_DIMENSIONS.index(dimension)]  # type: ignore[return-value]


def _is_one(patterns: Patterns | None) -> bool:
    """True for a name of which there is one; users have theirs from their tenant, and two may have an Ann."""
    return isinstance(patterns, str) and not set(patterns) & set("*?[")


def _is(of: Whose, facts: Facts) -> bool:
    for dimension, patterns in zip(_DIMENSIONS, (of.key, of.user, of.tenant, of.request_class, of.model), strict=True):
        if patterns is None:
            continue
        fact = _fact(dimension, facts)
        wanted = (patterns,) if isinstance(patterns, str) else patterns
        if fact is None or not any(fnmatchcase(fact, pattern) for pattern in wanted):
            return False
    return True
