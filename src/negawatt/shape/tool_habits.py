"""Which tools of a list are called, learned from the calls that had all of them, list by list, in this process.

Until enough is known for a recall target, no tool goes. A share of the calls keeps the whole list for good, so that
what is learned goes on to be about all tools.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from negawatt.shape.tools import Json, Need, ToolCalibration, called_in, fit_tools

EVERY = 20  # one call in so many keeps all tools
_LISTS, _NEEDS = 32, 160
_FIRST = 40  # calls, before anything is fitted
_HOPE = 400  # calls with a list of which too few call a tool
_LAST_MESSAGES = 12  # what is looked at of a conversation


class _Habit:
    """What is known of one list of tools."""

    __slots__ = ("asked", "calibration", "needs", "seen")

    def __init__(self) -> None:
        self.needs: deque[Need] = deque(maxlen=_NEEDS)
        self.calibration: ToolCalibration | None = None
        self.seen = 0
        self.asked = 0


class ToolHabits:
    """Fits a calibration for each list of tools once there are 40 calls, again at 80 and 160, then every 160."""

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, _Habit] = OrderedDict()

    def of(self, tools: Sequence[Any]) -> ToolCalibration | None:
        """Return what is known of *tools*; None where it is too little, or where this call is to have all of them."""
        habit = self._habit(tools)
        habit.asked += 1
        return None if habit.asked % EVERY == 0 else habit.calibration

    def learns(self, tools: Sequence[Any]) -> bool:
        """True while too little is known of *tools*, and there is still hope that they are called."""
        habit = self._habit(tools)
        return habit.calibration is None and habit.asked < _HOPE

    def learn(self, tools: Sequence[Json], turns: Sequence[Json], answer: Mapping[str, Any]) -> None:
        """Take in which of *tools* a whole *answer*, in any protocol, called after *turns*."""
        called = frozenset(called_in(answer))
        if not called:
            return
        habit = self._habit(tools)
        habit.needs.append(Need(tools, turns[-_LAST_MESSAGES:], called))
        habit.seen += 1
        if habit.seen in (_FIRST, 2 * _FIRST) or habit.seen % _NEEDS == 0:
            habit.calibration = fit_tools(list(habit.needs), "calls of this process")

    def _habit(self, tools: Sequence[Any]) -> _Habit:
        key = blake2b(orjson.dumps(tools), digest_size=16).digest()
        habit = self._lists.setdefault(key, _Habit())
        self._lists.move_to_end(key)
        if len(self._lists) > _LISTS:
            self._lists.popitem(last=False)
        return habit
