"""One call whose answer consists of items, on its way through `negawatt.levers.item_cache`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from negawatt.call import Attempt, Call, Target
from negawatt.economics.usage import Usage
from negawatt.errors import UpstreamProtocolError
from negawatt.keys import item_key
from negawatt.recall.kept_items import Found, spared
from negawatt.recall.policy import Plan
from negawatt.reply import Reply
from negawatt.wire.items import Items, Result

NAME = "item_cache"


class Batch:
    """A call taken apart, and what has been found of it so far."""

    def __init__(self, call: Call, items: Items, plan: Plan) -> None:
        split = items.split(call.request)
        self.call = call
        self.items = items
        self.plan = plan
        self.keys = [item_key(call, split.shared, item) for item in split.items]
        self.places: dict[str, int] = {}  # of each key, where it is for the first time
        for place, key in enumerate(self.keys):
            self.places.setdefault(key, place)
        self.found: dict[str, Found] = {}
        self.leads: set[str] = set()  # what others wait for, and this call asks for
        self.own: set[str] = set()  # what this call paid for
        self.newest_own: set[str] = set()  # the part of it that the newest reply brought
        self.shared: set[str] = set()  # what others asked for meanwhile
        self.borrowed: set[str] = set()  # what a fallback answered
        self.storing: set[str] = set()
        self.asked = 0
        self.trouble: str | None = None
        self.noted = False
        self.final = False  # the newest reply is the whole answer

    @property
    def missing(self) -> list[str]:
        return [key for key in self.places if key not in self.found]

    @property
    def newest(self) -> Found:
        return max(self.found.values(), key=lambda one: one.entry.stored_at)

    @property
    def coherent(self) -> bool:
        """True when all that was found can stand in one answer: from one model, in one form."""
        kinds = set(map(self._kind, self.found.values()))
        return len(kinds) == 1 and (not self.borrowed or self.borrowed == set(self.found))

    def leave_out_strangers(self) -> None:
        """Leave out what does not go together with the newest: the model behind a name may have changed."""
        if self.found:
            kind = self._kind(self.newest)
            self.found = {key: one for key, one in self.found.items() if self._kind(one) == kind}

    def unpaid(self, paid: set[str]) -> list[Found]:
        """Return what was given without asking for it, where *paid* was asked for once each; repeats included."""
        return [
            self.found[key]
            for place, key in enumerate(self.keys)
            if key not in paid or self.places[key] != place
        ]  # fmt: skip

    def note(
        self, action: str, reason: str | None = None, *, spares: Sequence[Found] = (), age_s: float | None = None
    ) -> None:
        """Write down the decision, once; *spares* is what was not asked for."""
        repeated = len(self.keys) - len(self.places)
        known = len([key for key in self.found if key not in self.own and key not in self.shared])
        counts = {"known": known, "asked": self.asked, "shared": len(self.shared), "repeated": repeated}
        detail: dict[str, Any] = {name: n for name, n in counts.items() if n or name in ("known", "asked")}
        if age_s is not None:
            detail["age_s"] = age_s
        saved = spared(spares, whole=not self.asked) if spares else None
        self.call.note(NAME, action, reason or self.trouble or self.plan.reason, saved=saved, detail=detail)
        self.noted = True

    def _kind(self, found: Found) -> tuple[Any, str]:
        return self.items.kind(found.result), str(found.frame.get("model"))


class Origin(NamedTuple):
    """Where a reply came from and what it used there. *stands_in*: not from where the call was to go first."""

    target: Target
    usage: Usage | None
    upstream_s: float | None
    stands_in: bool


def origin_of(call: Call, reply: Reply, attempts: Sequence[Attempt]) -> Origin:
    """Return the origin of *reply*, for which *attempts* were made. One that cannot be told counts as standing in."""
    first = call.targets[0]
    usage: Usage | None
    answered = [attempt for attempt in attempts if attempt.error is None]
    if reply.answered_by == "coalesce":
        shared = call.trail.decided("coalesce")
        if shared is None or shared.saved is None:
            return Origin(first, None, None, True)
        saved = shared.saved
        target, usage, spent = Target(saved.provider, saved.model, first.name), saved.usage, saved.upstream_s
    elif answered:
        attempt = answered[-1]
        target, usage = attempt.target, attempt.usage
        spent = None if attempt.ended is None else attempt.ended - attempt.started
    else:
        return Origin(first, None, None, reply.answered_by != "provider")
    same = (target.provider, target.model) == (first.provider, first.model)
    return Origin(target, usage, spent, not same)


def parts_of(items: Items, reply: Reply, count: int) -> list[Result] | None:
    """Return what *reply* says of each of *count* items; None when it says anything else."""
    if reply.status != 200 or not reply.finished or reply.error is not None:
        return None
    try:
        return items.take(reply.data, count)
    except UpstreamProtocolError:
        return None


def sound(call: Call, reply: Reply) -> bool:
    """True when *reply* says that all went well, whatever its form."""
    if reply.status != 200:
        return False
    try:
        return call.wire.error_of(reply.data) is None
    except UpstreamProtocolError:
        return True
