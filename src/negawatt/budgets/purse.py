"""The purse: pays for every attempt at a provider, or says which budget has not enough left.

It stands at the bottom of the path, so whatever asks a provider meets it: calls, retries, fallbacks, cascades, judges,
second opinions, renewals. What a cache answers costs nothing and never comes here.
"""

from __future__ import annotations

import itertools
import logging
import math
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from negawatt.budgets import Books, Charge, Claim, LineId, Reservation, Short
from negawatt.budgets.foresee import Foreseen, Foresight, millijoules
from negawatt.budgets.rules import Rule, Rules, facts_of
from negawatt.budgets.states import BudgetState, states
from negawatt.budgets.waiting import Turn, Waiting
from negawatt.call import Attempt, Call, Target
from negawatt.clock import Clock
from negawatt.config_budgets import Budget, Budgeting
from negawatt.economics.accounts import Accounts, to_pusd
from negawatt.errors import BudgetExceeded, BudgetsUnavailable, StoreError

log = logging.getLogger(__name__)

NAME = "budgets"
Paying = Sequence[tuple[Rule, str]]  # the budgets that pay for a call, and whose each is
_FREE: Paying = ()
_LOOK_S = 0.25  # where others may give something back that nobody here sees
_SPARE_S = 0.05  # before the call's deadline: who is refused then is told why
_EARLY_S = 0.002  # an event loop's timer may wake a moment early
_SOON_S = 1.0  # after which it may be tried again, where what is missing is only reserved
Settle = Callable[[Attempt], None]


class Counts(Protocol):
    """Adds one to a counter, and raises alerts; `negawatt.telemetry.Telemetry`."""

    def count(self, name: str, **labels: str) -> None: ...

    def alert(self, name: str, about: str, message: str) -> None: ...


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
        self._numbers = itertools.count()
        self._mark = uuid.uuid4().hex[:16]  # no other process names a reservation as this one does
        self._downgrades = any(budget.at_limit == "downgrade" for budget in budgets)
        self._down = False

    # -- before and after an attempt -----------------------------------------------------------------------------

    def limited(self, call: Call) -> Call:
        """Return *call* as it is to be asked: with a limit of its answer, where the configuration wants one."""
        return self._foresight.limited(call)

    async def reserve(self, call: Call) -> Settle | None:
        """Reserve what an attempt at the first target of *call* may cost, and return who is to be told what it did.

        None: nobody pays for it. Raises `BudgetExceeded`, and `BudgetsUnavailable` where the books cannot be asked.
        """
        paying = self._rules.of(facts_of(call)) if call.wire.billed else _FREE
        if not paying:
            return None
        try:
            reservation = await self._reserved(call, paying)
            self._down = False
        except StoreError as error:
            self._unasked(error)
            return None
        self._show(call, paying, reservation)
        return partial(self._settle, call, paying, reservation)

    async def _reserved(self, call: Call, paying: Paying) -> Reservation:
        """Return what was reserved, at once or in the end. Raises `BudgetExceeded` and `StoreError`."""
        reservation = self._reservation(call, paying, self._foresight.of(call))
        short: Short | None = None
        place = self._queued(paying)
        if place is None:
            short = await self._books.reserve(reservation)
            if short is None:
                return reservation
            place = short.place
        rule, value = paying[place]
        whose = (rule.key, value)
        if rule.budget.at_limit != "queue" or self._waiting.count(whose) >= rule.budget.max_waiting:
            raise self._exceeded(rule, reservation.claims[place], short)
        began = self._clock.monotonic()
        try:
            async with self._waiting.turn(whose) as turn:
                return await self._in_turn(call, paying, turn, place)
        finally:
            if not call.shadow:
                call.trail.waited_s += self._clock.monotonic() - began

    def _queued(self, paying: Paying) -> int | None:
        """Return the place of a budget for which others wait already: nobody goes past them."""
        if not self._waiting.any:
            return None
        waiting = (i for i, (rule, value) in enumerate(paying) if self._waiting.count((rule.key, value)))
        return next(waiting, None)

    async def _in_turn(self, call: Call, paying: Paying, turn: Turn, place: int) -> Reservation:
        """Return what was reserved when it was this call's turn. Raises `BudgetExceeded` where waiting cannot help."""
        while True:
            # Anew: the period may have ended meanwhile, and more is known of calls of its kind.
            reservation = self._reservation(call, paying, self._foresight.of(call))
            left_s = math.inf if call.deadline is None else call.deadline.left_s - _SPARE_S
            wait_s = left_s
            if turn.first:
                short = await self._books.reserve(reservation)
                if short is None:
                    return reservation
                rule, claim = paying[short.place][0], reservation.claims[short.place]
                until_s = max(0.0, claim.until - self._clock.time())
                # What is reserved may come back; what is spent does not before the period ends.
                hopeless = short.spent + (claim.amount or 1) > claim.limit and until_s > left_s
                if rule.budget.at_limit != "queue" or claim.amount > claim.limit or hopeless or left_s <= _EARLY_S:
                    raise self._exceeded(rule, claim, short)
                wait_s = min(left_s, until_s + _EARLY_S, _LOOK_S if self._books.shared else math.inf)
            elif left_s <= _EARLY_S:
                raise self._exceeded(paying[place][0], reservation.claims[place], None)
            await turn.wait(wait_s)

    def _reservation(self, call: Call, paying: Paying, foreseen: Foreseen) -> Reservation:
        now = self._clock.time()
        claims = []
        for rule, value in paying:
            amount = foreseen.of(rule.unit)
            if amount is None and rule.budget.unknown == "refuse":
                raise self._unpriced(call, rule)
            start, end = rule.period(now)
            claims.append(Claim((rule.key, value, start), end, rule.limit, amount or 0))
        return Reservation(f"{self._mark}-{next(self._numbers)}", claims)

    def _settle(self, call: Call, paying: Paying, reservation: Reservation, attempt: Attempt) -> None:
        """Put what *attempt* has used in the place of what was reserved for it."""
        usage = attempt.usage
        if not attempt.billed:
            charges = [Charge(0)] * len(paying)
        elif usage is None:  # it was cancelled, and nobody knows how far it had come: what was reserved counts
            charges = [_unsure(claim) for claim in reservation.claims]
        else:
            self._foresight.learn(call, usage)
            target = attempt.target
            amount = self._accounts.amount(target.provider, target.model, usage, call.received_at)
            used = Foreseen(usage.total_tokens, to_pusd(amount.cost_usd), millijoules(amount))
            charges = [
                _unsure(claim) if (spent := used.of(rule.unit)) is None else Charge(spent)
                for (rule, _), claim in zip(paying, reservation.claims, strict=True)
            ]
        self._books.settle(reservation, charges)
        self._waiting.wake(claim.line[:2] for claim in reservation.claims)
        self._show(call, paying, reservation)

    def _show(self, call: Call, paying: Paying, reservation: Reservation) -> None:
        """Note how much of the caller's own budgets is left: the least share of them."""
        least: tuple[str, float] | None = None
        for (rule, _), claim in zip(paying, reservation.claims, strict=True):
            if rule.own:
                share = 1.0 - self._books.held(claim.line) / rule.limit
                if least is None or share < least[1]:
                    least = (rule.name, share)
        call.trail.budget_left = least

    # -- when there is not enough --------------------------------------------------------------------------------

    def _exceeded(self, rule: Rule, claim: Claim, short: Short | None) -> BudgetExceeded:
        now = self._clock.time()
        resets = datetime.fromtimestamp(claim.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        passing = short is not None and short.spent + (claim.amount or 1) <= claim.limit
        why = "what is left of it is reserved by calls under way" if passing else "it has not enough left for this call"
        message = f"budget {rule.name!r}: {why}; it begins anew at {resets}"
        if claim.amount > claim.limit:
            message = f"budget {rule.name!r}: this call alone may cost more than all of it; ask for a shorter answer"
        self._counts.count("negawatt_budget_refused_total", budget=rule.name)
        wait_s = _SOON_S if passing else max(1.0, claim.until - now)
        return BudgetExceeded(
            message, budget=rule.name, resets_at=claim.until, retry_after_s=wait_s, passing=passing
        )  # fmt: skip

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
        if not call.wire.billed or not self._downgrades:
            return None
        now = self._clock.time()
        for rule, value in self._rules.of(facts_of(call)):
            if rule.budget.at_limit == "downgrade":
                line: LineId = (rule.key, value, rule.period(now).start)
                held = self._books.held(line)
                if held >= rule.budget.from_share * rule.limit:
                    reason = f"budget {rule.name}: {held / rule.limit:.0%} of it is used; policy {rule.budget.policy}"
                    call.note(NAME, "downgraded", reason)
                    return rule.budget.policy
        return None

    # -- the state -----------------------------------------------------------------------------------------------

    async def states(self) -> list[BudgetState]:
        """Return how every budget stands; of those with one for each only those that were used. Raises `StoreError`."""
        return states(self._rules.rules, await self._books.lines(), self._clock.time())


def _unsure(claim: Claim) -> Charge:
    """Return what counts where nobody knows what was spent: what was reserved; of nothing reserved, that it is so."""
    return Charge(claim.amount, "assumed") if claim.amount else Charge(0, "unknown")
