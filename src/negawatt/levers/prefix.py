"""compose, its saving part: the stable part of a prompt first, and the provider's cache marks where they pay.

It stands right above `retry`: what is sent is known there, and by whom it is read; what a cache answered was not sent.
Caches above key on the request as asked.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from negawatt.call import Call, Request, Saved, Target
from negawatt.clock import Clock
from negawatt.config_shape import Compose as Settings
from negawatt.economics.prefix_terms import Market, Terms
from negawatt.economics.tokens import as_json
from negawatt.economics.usage import Usage
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.shape.marks import Places, marked, places_of, upto_markable
from negawatt.shape.prefix import Composed, StablePrefix
from negawatt.shape.prefix_policy import Lifetime, Marking, PrefixPolicy

NAME = "compose"
_PROTOCOLS = frozenset({"chat", "messages", "responses"})
_MOST_TENANTS = 256
_MOST_TEXTS = 1_000  # of one tenant
_MOST_BLOCKS = 50_000  # of one price list
_CHARS_PER_TOKEN = 4
_OWN_MARK = b'"cache_control"'
_T = TypeVar("_T")


class Prefix:
    """Moves what changes behind what does not, and marks what is worth its fee. What it remembers is by tenant."""

    def __init__(self, settings: Settings, market: Market, clock: Clock) -> None:
        self._settings = settings
        self._market = market
        self._clock = clock
        self._stable: OrderedDict[str, StablePrefix] = OrderedDict()
        self._policies: OrderedDict[Terms, PrefixPolicy] = OrderedDict()

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        if call.wire.name not in _PROTOCOLS or not call.targets:
            return await forward(call)
        asked = call
        if self._settings.stable:
            call = self._settled(call)
        marks = False
        if self._settings.marks == "auto" and call.wire.name == "messages":
            call, marks = self._marked(call)
        moved = None if not self._settings.stable or call.request is asked.request else asked.request
        reply = await forward(call)
        if not call.shadow and (marks or moved is not None):
            reply.on_read(partial(self._book, call, moved, marks))
        return reply

    # -- the stable part first ---------------------------------------------------------------------------------

    def _settled(self, call: Call) -> Call:
        tenant = "" if call.caller is None else call.caller.tenant
        composer = _kept(self._stable, tenant, lambda: StablePrefix(most=_MOST_TEXTS), _MOST_TENANTS)
        composed = composer.compose(call.request.data, call.wire.name)
        if composed.data is call.request.data:
            if composed.unmoved:
                call.note(NAME, "unmoved", composed.unmoved[0].reason, detail=_told(composed))
            return call
        call.note(NAME, "stable", "what changes stands behind what does not", detail=_told(composed))
        return _sent(call, Request(data=dict(composed.data)))

    # -- marks -------------------------------------------------------------------------------------------------

    def _marked(self, call: Call) -> tuple[Call, bool]:
        """Return *call* with marks, and whether any of them are ours."""
        target = call.targets[0]
        if _OWN_MARK in call.request.body:
            call.note(NAME, "unmarked", "the request has marks of its own")
            return call, False
        terms = self._market.terms(target, call.received_at)
        if terms is None:
            call.note(NAME, "unmarked", f"{target.provider} does not bill for marks, or what it bills is not known")
            return call, False
        whose = Request.canonical([call.scope.tenant, call.scope.permissions, target.label])
        places = places_of(call.request.data, whose)
        if places is None:
            call.note(NAME, "unmarked", "there is nothing that could be marked")
            return call, False
        lifetimes = [Lifetime(*one) for one in terms.writes]
        new = partial(PrefixPolicy, lifetimes, read=terms.read, max_blocks=_MOST_BLOCKS)
        policy = _kept(self._policies, terms, new, _MOST_TENANTS)
        marking, kept = self._decided(policy, places, terms)
        policy.observe(places.blocks, self._clock.monotonic(), marking)
        changed, marks = marked(call.request.data, places, marking, kept)
        detail = _tokens(places, marking)
        if not marks:
            short = _sum(places, len(places.blocks)) < terms.least_tokens
            why = "the prompt is too short to be kept" if short else "reuse is not expected"
            call.note(NAME, "unmarked", why, detail=detail)
            return call, False
        call.note(NAME, "marked", "reuse is expected" if marking.lifetime else "it is kept already", detail=detail)
        return _sent(call, call.request.replace(**changed)), True

    def _decided(self, policy: PrefixPolicy, places: Places, terms: Terms) -> tuple[Marking, Lifetime | None]:
        """Return what to read and write, and for how long what is read is kept."""
        now = self._clock.monotonic()
        marking = policy.decide(places.blocks, now)
        kept = policy.kept_for(places.blocks[marking.cached - 1]) if marking.cached else None
        if kept is not None and marking.lifetime is not None and marking.lifetime.ttl_s > kept.ttl_s:
            # Longer lifetimes must stand in front of shorter ones.
            marking = policy.decide(places.blocks, now, longest_s=kept.ttl_s)
        marking = upto_markable(places, marking)
        if _sum(places, marking.upto) < terms.least_tokens:
            marking = Marking(marking.cached, marking.cached, None, 0.0)
        return marking, kept

    # -- afterwards --------------------------------------------------------------------------------------------

    def _book(self, call: Call, before: Request | None, marks: bool, reply: Reply) -> None:
        """Note what the attempt that answered would have used with the prompt as it was asked."""
        answered = call.trail.answerer
        usage = None if answered is None else answered.usage
        if answered is None or usage is None or not usage.cache_read_tokens + usage.cache_write_tokens:
            return
        target = answered.target
        kept = self._market.kept(target, call.received_at)
        if marks and kept.marked:
            call.note(NAME, "kept", "marked", saved=_instead(target, usage, 0, "measured"))
            return
        if before is None or kept.marked or not kept.reads:
            return
        anyway = min(usage.cache_read_tokens, _alike(call, before))
        anyway = anyway // kept.step_tokens * kept.step_tokens if anyway >= kept.least_tokens else 0
        if anyway < usage.cache_read_tokens:
            reason = f"about {anyway} tokens would have been read as it was asked"
            call.note(NAME, "kept", reason, saved=_instead(target, usage, anyway, "estimated"))


def _sent(call: Call, request: Request) -> Call:
    """Return a copy of *call* to be sent on; for the trail, and so for the ledger, the request stays as asked."""
    request.digest = call.request.digest
    return msgspec.structs.replace(call, request=request)


def _instead(target: Target, usage: Usage, read: int, basis: str) -> Saved:
    """Return *usage* with only *read* tokens from the provider's cache, and nothing written to it."""
    without = msgspec.structs.replace(
        usage, cache_read_tokens=read, cache_write_tokens=0, cache_write_1h_tokens=0, cached_audio_tokens=0,
        cached_image_tokens=0, cost_usd=None,
    )  # fmt: skip
    return Saved(usage=without, model=target.model, provider=target.provider, basis=basis, instead=True)


def _alike(call: Call, before: Request) -> int:
    """Return about how many tokens the prompts before and after have in common, from their beginning."""
    texts = []
    for request in (before, call.request):
        prompt = call.wire.prompt(request)
        texts.append(as_json(list(prompt.tools)) + as_json(list(prompt.messages)))
    one, other = texts
    low, high = 0, min(len(one), len(other))
    while low < high:  # comparing slices is quick, going through characters is not
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low // _CHARS_PER_TOKEN


def _kept(found: OrderedDict[Any, _T], key: Hashable, make: Callable[[], _T], most: int) -> _T:
    one = found.pop(key, None)
    found[key] = made = make() if one is None else one
    if len(found) > most:
        found.popitem(last=False)
    return made


def _told(composed: Composed) -> dict[str, Any]:
    """Return what a decision says of it: numbers and reasons, and none of the words."""
    reasons: Counter[str] = Counter(one.reason for one in composed.unmoved)
    told: dict[str, Any] = {
        "moved": len(composed.moved),
        "tools_restored": composed.tools_restored,
        "unmoved": dict(reasons),
    }
    return {name: value for name, value in told.items() if value}


def _tokens(places: Places, marking: Marking) -> dict[str, Any]:
    told: dict[str, Any] = {
        "cached_tokens": _sum(places, marking.cached),
        "written_tokens": _sum(places, marking.upto) - _sum(places, marking.cached),
    }
    return told if marking.lifetime is None else {**told, "ttl_s": marking.lifetime.ttl_s}


def _sum(places: Places, count: int) -> int:
    blocks: Sequence[Any] = places.blocks[:count]
    return sum(block.tokens for block in blocks)
