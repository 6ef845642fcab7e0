"""How likely a part of a prompt is to be sent again soon, learned from the past only.

Kinds of parts have life tables: of the tokens of a kind that had not been sent again when they were so old, how many
were sent again before they were a little older. A table needs no part to have been watched to the end, so that it
knows something of an hour before an hour has passed; for what nobody has lived through yet it promises nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence

STRENGTH = 16.0  # requests' worth of what is known of a coarser kind, in a finer one
HALVED_AT = 20_000.0  # requests; older ones count for less and less

Kind = tuple[Hashable, ...]  # from coarse to fine: what a prefix of it has learned stands in where it has not


class _Table:
    """Of one kind, per age: tokens that came to this age, and those sent again in it. *mean* tokens come at a time."""

    __slots__ = ("again", "risk", "seen", "tokens")

    def __init__(self, ages: int) -> None:
        self.risk = [0.0] * ages
        self.again = [0.0] * ages
        self.seen = 0.0
        self.tokens = 0.0

    def halve(self) -> None:
        self.risk = [value / 2 for value in self.risk]
        self.again = [value / 2 for value in self.again]
        self.seen, self.tokens = self.seen / 2, self.tokens / 2


class Tables:
    """Life tables of all kinds, over the ages that end at *edges* (seconds, rising).

    Before anything is known, to be sent again within the first *guessed* ages is as likely as not; later, out of sight.
    """

    def __init__(self, edges: Sequence[float], guessed: int) -> None:
        self.edges = tuple(edges)
        self._prior = [1 - 0.5 ** (1 / guessed)] * guessed + [0.0] * (len(self.edges) - guessed)
        self._tables: dict[Kind, _Table] = {}

    def came(self, kind: Kind, tokens: float) -> None:
        """Note that *tokens* of *kind* were sent in one request."""
        for table in self._of(kind):
            table.seen += 1
            table.tokens += tokens
            if table.seen > HALVED_AT:
                table.halve()

    def lived(self, kind: Kind, age: int, tokens: float, again: bool) -> None:
        """Note that *tokens* of *kind* have passed *age*, and whether they were sent again in it."""
        for table in self._of(kind):
            table.risk[age] += tokens
            if again:
                table.again[age] += tokens

    def within(self, kind: Kind, ages: int) -> float:
        """Return the chance that tokens of *kind* are sent again within the first *ages* ages."""
        alive = 1.0
        lines = [table for table in (self._tables.get(kind[:n]) for n in range(1, len(kind) + 1)) if table]
        for age in range(ages):
            hazard = self._prior[age]
            for table in lines:
                weight = STRENGTH * table.tokens / max(table.seen, 1.0)
                hazard = (table.again[age] + weight * hazard) / (table.risk[age] + weight)
            alive *= 1 - hazard
        return 1 - alive

    def _of(self, kind: Kind) -> list[_Table]:
        found = []
        for n in range(1, len(kind) + 1):
            table = self._tables.get(kind[:n])
            if table is None:
                table = self._tables[kind[:n]] = _Table(len(self.edges))
            found.append(table)
        return found


class Sighting:
    """When a block was last sent, how often by then, and as what kind; *again_after*: until it was sent again."""

    __slots__ = ("again_after", "at", "kind", "times", "tokens")

    def __init__(self, at: float, times: int, kind: Kind, tokens: int) -> None:
        self.at = at
        self.times = times
        self.kind = kind
        self.tokens = tokens
        self.again_after: float | None = None


class Sightings:
    """The blocks that were sent, the *most* latest of them, and the tables that their reuse fills."""

    def __init__(self, tables: Tables, most: int) -> None:
        self.tables = tables
        self._last: OrderedDict[Hashable, Sighting] = OrderedDict()
        self._most = most
        # Per age, those who will leave it next; everybody stays equally long, so in order.
        self._ages: list[deque[Sighting]] = [deque() for _ in tables.edges]

    def last(self, block: Hashable) -> Sighting | None:
        return self._last.get(block)

    def add(self, block: Hashable, seen: Sighting) -> None:
        """Note that *block* was sent again, or for the first time."""
        before = self._last.pop(block, None)
        if before is not None:
            before.again_after = seen.at - before.at
        self._last[block] = seen
        self._ages[0].append(seen)
        if len(self._last) > self._most:
            self._last.popitem(last=False)

    def until(self, now: float) -> None:
        """Let everything grow as old as it is at *now*.

        What was sent again counts only when its age is over, as what was not does: else the quick would seem many.
        """
        for age, (edge, waiting) in enumerate(zip(self.tables.edges, self._ages, strict=True)):
            while waiting and waiting[0].at + edge < now:
                seen = waiting.popleft()
                again = seen.again_after is not None and seen.again_after <= edge
                self.tables.lived(seen.kind, age, seen.tokens, again)
                if not again and age + 1 < len(self._ages):
                    self._ages[age + 1].append(seen)
