"""Cases in memory: gone with the process."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from negawatt.indexes import Case

MOST = 20_000  # of one class and tier
HUMAN = "human"


class MemoryCases:
    """Keeps the newest *most* cases of each class and tier."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[tuple[str, str], OrderedDict[str, Case]] = {}

    async def add(self, case: Case) -> None:
        kept = self._kept.setdefault((case.request_class, case.tier), OrderedDict())
        old = kept.pop(case.id, None)
        if old is not None and old.basis == HUMAN and case.basis != HUMAN:
            case = msgspec.structs.replace(case, wrong=old.wrong, basis=old.basis)
        kept[case.id] = case
        while len(kept) > self._most:
            kept.popitem(last=False)

    async def label(self, id: str, *, wrong: bool, basis: str) -> bool:
        found = False
        for kept in self._kept.values():
            case = kept.get(id)
            if case is None:
                continue
            found = True
            if case.basis != HUMAN or basis == HUMAN:
                kept[id] = msgspec.structs.replace(case, wrong=wrong, basis=basis)
        return found

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        return list(self._kept.get((request_class, tier), {}).values())[-limit:]

    async def waiting(self, *, limit: int) -> list[Case]:
        cases = [c for kept in self._kept.values() for c in kept.values() if c.review and c.basis != HUMAN]
        return sorted(cases, key=lambda case: (case.at, case.id))[:limit]

    async def classes(self) -> list[tuple[str, str]]:
        return sorted(self._kept)
