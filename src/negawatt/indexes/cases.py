"""Cases in memory: gone with the process."""

from __future__ import annotations

from bisect import bisect_left, insort

import msgspec

from negawatt.indexes import HUMAN, Case

MOST = 20_000  # of one class and tier


class MemoryCases:
    """Keeps the newest *most* cases of each class and tier."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[tuple[str, str], Case] = {}  # by id and tier
        self._ages: dict[tuple[str, str], list[tuple[float, str]]] = {}  # of each class and tier, in order

    async def add(self, case: Case) -> None:
        old = self._kept.get((case.id, case.tier))
        if old is not None:
            self._drop(old)
            if old.basis == HUMAN and case.basis != HUMAN:
                case = msgspec.structs.replace(case, wrong=old.wrong, basis=old.basis)
        self._kept[case.id, case.tier] = case
        ages = self._ages.setdefault((case.request_class, case.tier), [])
        insort(ages, (case.at, case.id))
        while len(ages) > self._most:
            self._drop(self._kept[ages[0][1], case.tier])

    async def label(self, id: str, *, wrong: bool, basis: str) -> bool:
        named = [(id, tier) for tier in {tier for _, tier in self._ages} if (id, tier) in self._kept]
        for key in named:
            case = self._kept[key]
            if case.basis != HUMAN or basis == HUMAN:
                self._kept[key] = msgspec.structs.replace(case, wrong=wrong, basis=basis)
        return bool(named)

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        ages = self._ages.get((request_class, tier), [])
        return [self._kept[id, tier] for _, id in ages[max(0, len(ages) - limit) :]]

    async def waiting(self, *, limit: int) -> list[Case]:
        cases = [case for case in self._kept.values() if case.review and case.basis != HUMAN]
        return sorted(cases, key=lambda case: (case.at, case.id))[:limit]

    async def classes(self) -> list[tuple[str, str]]:
        return sorted(self._ages)

    def _drop(self, case: Case) -> None:
        name = (case.request_class, case.tier)
        del self._kept[case.id, case.tier]
        del self._ages[name][bisect_left(self._ages[name], (case.at, case.id))]
        if not self._ages[name]:
            del self._ages[name]
