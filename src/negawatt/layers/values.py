"""What is asked of a layer, and what comes of it."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import NamedTuple

import msgspec

from negawatt.caller import Scope
from negawatt.keys import layer_key
from negawatt.layers.entry import Entry
from negawatt.recall.policy import Plan, scope_tags


class Asked(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What is asked of a layer."""

    layer: str
    scope: Scope
    material: bytes  # canonical JSON of all that an entry is made of
    tags: tuple[str, ...] = ()  # the caller's own
    ttl_s: float | None = None  # shorter than the layer's
    cache_control: str | None = None

    @cached_property
    def key(self) -> str:
        return layer_key(self.layer, self.scope, self.material)

    @property
    def all_tags(self) -> tuple[str, ...]:
        return (*scope_tags(self.layer, self.scope), *self.tags)


class Missed(NamedTuple):
    """Nothing can be given, and nothing need be made on behalf of others. *refused*: nor would it be kept."""

    reason: str
    refused: bool = False


class Found(NamedTuple):
    """An entry that may be given. *renewal*: it is stale, and whoever has this is to make it anew."""

    entry: Entry
    age_s: float
    state: str  # "hit", "stale", or "shared" with the one who made it
    renewal: Lead | None = None


class Flight:
    """An entry in the making, in this process."""

    __slots__ = ("given_up", "landed", "started")

    def __init__(self, now: float) -> None:
        self.landed: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self.started = now
        self.given_up = False  # it is not to be kept, so that everyone makes it for themselves


class Lead:
    """The duty to make an entry. Without *flight* and *token* nobody waits for it."""

    __slots__ = ("asked", "begun", "flight", "plan", "refused", "token")

    def __init__(self, asked: Asked, plan: Plan, begun: int, token: str | None = None) -> None:
        self.asked = asked
        self.plan = plan
        self.begun = begun  # how many invalidations there had been
        self.token = token
        self.flight: Flight | None = None
        self.refused: str | None = None  # why it was not kept
