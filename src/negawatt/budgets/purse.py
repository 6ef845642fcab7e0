"""The purse: pays for every attempt at a provider, or says which budget has not enough left.

It stands at the bottom of the path, so whatever asks a provider meets it: calls, retries, fallbacks, cascades, judges,
second opinions, renewals. What a cache answers costs nothing and never comes here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from negawatt.beside import beside
from negawatt.budgets import Books, How, LineId, Lines, Reservation, Short
from negawatt.budgets.foresee import Foresight, Kind
from negawatt.budgets.rules import Payers, Rule, Rules
from negawatt.budgets.states import BudgetState, moment, states
from negawatt.budgets.waiting import Turn, Waiting
from negawatt.call import Attempt, Call, Target
from negawatt.clock import Clock
from negawatt.config_budgets import Budget, Budgeting
from negawatt.economics.accounts import Accounts
from negawatt.errors import BudgetExceeded, BudgetsUnavailable, StoreError

NAME = "budgets"
_UNKNOWN = (None, None, None)
_LOOK_S = 0.25  # where others may give something back that nobody here sees
_SPARE_S = 0.05  # before the call's deadline: who is refused then is told why
_EARLY_S = 0.002  # an event loop's timer may wake a moment early
_NEARLY = 0.9  # share of a limit: what refuses a call when so much is spent, is used up
_MOST_USED_UP = 10_000  # budgets of which that is kept
_SOON_S = 1.0  # after which it may be tried again, where what is missing is only reserved
Settle = Callable[[Attempt], None]


class Counts(Protocol):
    """Adds one to a counter, and raises alerts; `negawatt.telemetry.Telemetry`."""

    def count(self, name: str, **labels: str) -> None: ...

    def alert(self, name: str, about: str, message: str) -> None: ...


class Paid(Reservation):
    """A reservation, with all that it takes to settle it."""

    __slots__ = ("call", "kind", "payers")

    def __init__(self, lines: Lines, amounts: Sequence[int], call: Call, payers: Payers, kind: Kind) -> None:
        self.lines, self.amounts = lines, amounts
        self.open, self.id = False, ""
        self.call = call
        self.payers = payers
        self.kind = kind


class Purse:
    """Reserves before each attempt, and settles after it. One for a gateway."""

    def __init__(  # noqa: PLR0913
        self,
        budgets: Sequence[Budget],
        settings: Budgeting,
        *,
        books: Books,
        accounts: Accounts,
        clock: Clock,
        counts: Counts,
        newer_word: Callable[[Target], bool] = lambda target: False,
    ) -> None:
        self._rules = Rules(budgets)
        self._settings = settings
        self._books = books
        self._accounts = accounts
        self._clock = clock
        self._counts = counts
        priced = self._rules.units != {"tokens"}
        self._foresight = Foresight(settings, accounts, priced=priced, newer_word=newer_word)
        self._waiting = Waiting()
        self._used_up: set[LineId] = set()
        self._downgrades = any(budget.at_limit == "downgrade" for budget in budgets)
        self._down = False

    # -- before and after an attempt -----------------------------------------------------------------------------

    def limited(self, call: Call) -> Call:
        """Return *call* as it is to be asked: with a limit of its answer, where the configuration wants one."""
        return self._foresight.limited(call) if self._settings.limit_output else call

    async def reserve(self, call: Call) -> Settle | None:
        """Reserve what an attempt at the first target of *call* may cost, and return who is to be told what it did.

        None: nobody pays for it. Raises `BudgetExceeded`, and `BudgetsUnavailable` where the books cannot be asked.
        """
        payers = self._rules.of(call) if call.wire.billed else None
        if payers is None:
            return None
        paid = self._paid(call, payers)
        try:
            if self._waiting.lines or await self._books.reserve(paid) is not None:
                paid = await self._later(paid)
            self._down = False
        except StoreError as error:
            self._unasked(error)
            return None
        if payers.own:
            call.trail.budget_left = partial(self._left, paid)
        return partial(self._settle, paid)

    def _paid(self, call: Call, payers: Payers) -> Paid:
        """Return what is to be reserved for *call* at this moment."""
        kind, amounts = self._foresight.of(call)
        claimed: Sequence[Any] = [amounts[unit] for unit in payers.units]
        if None in claimed:
            for place, amount in enumerate(claimed):
                if amount is None and payers.rules[place].budget.unknown == "refuse":
                    raise self._unpriced(call, payers.rules[place])
            claimed = [amount or 0 for amount in claimed]
        return Paid(payers.lines(self._clock.time()), claimed, call, payers, kind)

    def _settle(self, paid: Paid, attempt: Attempt) -> None:
        """Put what *attempt* has used in the place of what was reserved for it."""
        how: list[How] | None = None
        if not attempt.billed:
            spent = [0] * len(paid.amounts)
        else:
            # An attempt that was cancelled: nobody knows how far it had come.
            used: Sequence[Any] = _UNKNOWN
            if attempt.usage is not None:
                used = self._foresight.learn(paid.call, paid.kind, attempt.usage)
            spent = [used[unit] for unit in paid.payers.units]
            if None in spent:  # then what was reserved counts; of nothing reserved, that it is so
                how = ["known" if one is not None else "assumed" if paid.amounts[place] else "unknown"
                       for place, one in enumerate(spent)]  # fmt: skip
                spent = [paid.amounts[place] if one is None else one for place, one in enumerate(spent)]
        self._books.settle(paid, spent, how)
        if self._waiting.lines:
            self._waiting.wake(line[:2] for line in paid.lines.ids)

    def _left(self, paid: Paid) -> tuple[str, float]:
        """Return which of the caller's own budgets has least left, and its share."""
        lines, rules = paid.lines, paid.payers.rules
        shares = [(1.0 - self._books.held(lines.ids[place]) / lines.limits[place], place) for place in paid.payers.own]
        share, place = min(shares)
        return rules[place].name, share

    # -- when there is not enough --------------------------------------------------------------------------------

    async def _later(self, paid: Paid) -> Paid:
        """Return what was reserved in the end. Raises `BudgetExceeded` and `StoreError`."""
        call, payers = paid.call, paid.payers
        short: Short | None = None
        place = next((i for i in range(len(payers.rules)) if self._waiting.count(payers.whose(i))), None)
        if place is None:
            short = await self._books.reserve(paid)
            if short is None:
                return paid
            place = short.place
        rule, whose = payers.rules[place], payers.whose(place)
        if rule.budget.at_limit != "queue" or self._waiting.count(whose) >= rule.budget.max_waiting:
            raise self._exceeded(paid, place, short)
        began = self._clock.monotonic()
        try:
            async with self._waiting.turn(whose) as turn:
                return await self._in_turn(paid, turn, place)
        finally:
            if not call.shadow:
                call.trail.waited_s += self._clock.monotonic() - began

    async def _in_turn(self, paid: Paid, turn: Turn, place: int) -> Paid:
        """Return what was reserved when it was this call's turn. Raises `BudgetExceeded` where waiting cannot help."""
        call, payers = paid.call, paid.payers
        while True:
            # Anew: the period may have ended meanwhile, and more is known of calls of its kind.
            paid = self._paid(call, payers)
            left_s = math.inf if call.deadline is None else call.deadline.left_s - _SPARE_S
            wait_s = left_s
            if turn.first:
                short = await self._books.reserve(paid)
                if short is None:
                    return paid
                blocked = short.place
                amount, limit = paid.amounts[blocked], paid.lines.limits[blocked]
                until_s = max(0.0, paid.lines.untils[blocked] - self._clock.time())
                # What is reserved may come back; what is spent does not before the period ends.
                hopeless = amount > limit or (short.spent + (amount or 1) > limit and until_s > left_s)
                if payers.rules[blocked].budget.at_limit != "queue" or hopeless or left_s <= _EARLY_S:
                    raise self._exceeded(paid, blocked, short)
                wait_s = min(left_s, until_s + _EARLY_S, _LOOK_S if self._books.shared else math.inf)
            elif left_s <= _EARLY_S:
                raise self._exceeded(paid, place, None)
            await turn.wait(wait_s)

    def _exceeded(self, paid: Paid, place: int, short: Short | None) -> BudgetExceeded:
        """Return the error that says which budget it is, and when it begins anew."""
        rule, amount, limit = paid.payers.rules[place], paid.amounts[place], paid.lines.limits[place]
        until, now = paid.lines.untils[place], self._clock.time()
        passing = short is not None and short.spent + (amount or 1) <= limit
        why = "what is left of it is reserved by calls under way" if passing else "it has not enough left for this call"
        message = f"budget {rule.name!r}: {why}; it begins anew at {moment(until)}"
        if amount > limit:
            message = f"budget {rule.name!r}: this call alone may cost more than all of it; ask for a shorter answer"
        elif short is not None and not passing and short.spent >= _NEARLY * limit:
            if len(self._used_up) >= _MOST_USED_UP:
                self._used_up.clear()
            self._used_up.add(paid.lines.ids[place])
        self._counts.count("negawatt_budget_refused_total", budget=rule.name)
        wait_s = _SOON_S if passing else max(1.0, until - now)
        return BudgetExceeded(message, budget=rule.name, resets_at=until, retry_after_s=wait_s, passing=passing)

    def _unpriced(self, call: Call, rule: Rule) -> BudgetExceeded:
        what, remedy = "price", "economics.prices"
        if rule.unit == "joules":
            what, remedy = "energy", "economics.energy"
        model, now = call.targets[0].model, self._clock.time()
        message = (
            f"budget {rule.name!r}: nobody knows the {what} of {model[:100]!r}, so it cannot be kept within it; say it "
            f'in {remedy}, or let such calls pass (unknown = "pass")'
        )
        self._counts.count("negawatt_budget_refused_total", budget=rule.name)
        end = rule.period(now).end
        return BudgetExceeded(
            message, budget=rule.name, resets_at=end, retry_after_s=max(1.0, end - now), passing=False
        )

    def _unasked(self, error: StoreError) -> None:
        """The books cannot be asked: let the call pass, or raise `BudgetsUnavailable`, as it was configured."""
        if not self._down:
            self._down = True
            self._counts.alert("budgets_unavailable", NAME, error.message)
        if self._settings.when_down == "refuse":
            raise BudgetsUnavailable("the budgets cannot be asked at the moment, so nothing is spent") from error
        self._counts.count("negawatt_budget_unchecked_total")

    # -- before a model is chosen --------------------------------------------------------------------------------

    def cheaper(self, call: Call) -> str | None:
        """Return the policy that is to choose for *call*, because a budget is nearly used up; None: as it is."""
        payers = self._rules.of(call) if self._downgrades and call.wire.billed else None
        if payers is None:
            return None
        for rule, line in zip(payers.rules, payers.lines(self._clock.time()).ids, strict=True):
            if rule.budget.at_limit == "downgrade":
                held = self._books.held(line)
                if held >= rule.budget.from_share * rule.limit:
                    reason = f"budget {rule.name}: {held / rule.limit:.0%} of it is used; policy {rule.budget.policy}"
                    call.note(NAME, "downgraded", reason)
                    return rule.budget.policy
        return None

    # -- the state -----------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raise `StoreError` where the books cannot be asked at the moment; cheap."""
        await self._books.check()

    async def states(self, most: int | None = None) -> list[BudgetState]:
        """Return how every budget stands; of those with one for each only those that were used, or the *most* used.

        Raises `StoreError`.
        """
        lines, now = await self._books.lines(), self._clock.time()
        work = partial(states, self._rules.rules, lines, now, refusing=frozenset(self._used_up), most=most)
        return await beside(lines, work)
