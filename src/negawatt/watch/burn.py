"""How fast the budget of errors burns, in several windows at once.

A promise allows a share of bad events over a window, 28 days unless it says otherwise. A burn rate of 1 uses the budget
up in exactly that window. The alerts are those of the Site Reliability Workbook (Beyer and others, O'Reilly 2018,
chapter 5, "Alerting on SLOs", 6: multiwindow, multi-burn-rate alerts, table 5-8), whose window is 30 days:

    burn rate   long window   short window   of the budget gone
    14.4        1 h           5 min          2 %                    critical
    6           6 h           30 min         5 %                    critical
    1           3 days        6 h            10 %                   warning

For another window the long and short windows shrink or stretch with it, so that the share of the budget that is gone
when an alert fires stays the same. The third row has a twelfth of its long window too, as the others have: 6 h. Both
windows must burn at the rate: the long one says that it matters, the short one that it still goes on. Where so much is
allowed that even nothing but bad events would not reach the rate, nine bad of ten do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from negawatt.config_watch import Severity
from negawatt.watch.rings import Ring
from negawatt.watch.targets import WIDTH, Objective, Targets

_SLOTS = 120  # of the long window; the short one has ten


class Pair(NamedTuple):
    """A long and a short window, and the burn rate that both must reach. *part*: the long one, of the whole window."""

    name: str
    rate: float
    part: float
    severity: Severity


PAIRS = (
    Pair("fast", 14.4, 1 / 720, "critical"),
    Pair("medium", 6.0, 1 / 120, "critical"),
    Pair("slow", 1.0, 1 / 10, "warning"),
)
SHORT = 12  # short windows to a long one
_NEARLY_ALL = 0.9
_STAYS = 0.75  # of the limit: so a rate that wavers about it is one alert


class Burn(NamedTuple):
    """Burn rates in the windows of one pair; None where nothing has happened.

    *limit*: the rate that both must reach; *bad*: bad events of the long window.
    """

    pair: Pair
    limit: float
    long: float | None
    short: float | None
    bad: int

    def fires(self, least_bad: int, *, already: bool = False) -> bool:
        """True where both windows burn at the limit, on at least *least_bad* bad events.

        *already*: it fires, and does so until a window has fallen well below the limit.
        """
        limit = self.limit * _STAYS if already else self.limit
        return min(self.long or 0.0, self.short or 0.0) >= limit and self.bad >= least_bad


class Standing(NamedTuple):
    """How one promise stands: *good* of *total* events in its whole window, and the burn rates."""

    objective: Objective
    total: int
    good: int
    burns: tuple[Burn, ...]

    @property
    def budget_left(self) -> float | None:
        """The share of the budget of errors that is left, below 0 when overspent; None: there were no events."""
        if self.total == 0:
            return None
        return 1.0 - (self.total - self.good) / (self.total * self.objective.allowed)

    @property
    def kept(self) -> bool | None:
        left = self.budget_left
        return None if left is None else left >= 0.0

    def firing(self, least_bad: int, *, already: bool = False) -> Burn | None:
        """Return the most urgent pair that fires; None where none does. *already*: as for `Burn.fires`."""
        return next((burn for burn in self.burns if burn.fires(least_bad, already=already)), None)


def burn_rate(bad: int, total: int, allowed: float) -> float | None:
    """Return how many times faster than allowed the budget burns; None where nothing happened."""
    return bad / total / allowed if total else None


class Rings:
    """The counts of one class, in the windows of all pairs and in the whole window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._pairs = tuple(Ring(window_s * pair.part / _SLOTS, _SLOTS + 1, WIDTH) for pair in PAIRS)
        self._whole = Ring(window_s / _SLOTS, _SLOTS + 1, WIDTH)

    @property
    def slot_s(self) -> float:
        """The length of the shortest slot, in seconds."""
        return self._pairs[0].slot_s

    def add(self, at: float, counts: Sequence[int]) -> None:
        for ring in (*self._pairs, self._whole):
            ring.add(at, counts)

    def standings(self, targets: Targets, now: float) -> list[Standing]:
        """Return how the promises of *targets* stand at the time *now*."""
        if not targets.objectives:
            return []
        sums = []
        for pair, ring in zip(PAIRS, self._pairs, strict=True):
            long_s = self._window_s * pair.part
            sums.append((pair, ring.sums(now, long_s), ring.sums(now, long_s / SHORT)))
        whole = self._whole.sums(now, self._window_s)
        return [_standing(objective, whole, sums) for objective in targets.objectives]


def _standing(objective: Objective, whole: list[int], sums: Sequence[tuple[Pair, list[int], list[int]]]) -> Standing:
    events, bad, allowed = objective.events, objective.bad, objective.allowed
    burns = tuple(
        Burn(
            pair, min(pair.rate, _NEARLY_ALL / allowed), burn_rate(long[bad], long[events], allowed),
            burn_rate(short[bad], short[events], allowed), long[bad],
        )
        for pair, long, short in sums
    )  # fmt: skip
    return Standing(objective, whole[events], whole[events] - whole[bad], burns)
