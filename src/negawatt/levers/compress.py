"""compress: take out of a request what its answer does not need, before it is sent.

Lossless first; folded turns, chosen context and pruned tools only where they are configured, and only where what they
save outweighs the beginning that the provider would no longer hold (`negawatt.shape.weighing`). Instructions and what a
person asked are never touched. What was changed is kept as it was, under its id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson

from negawatt.call import Call, Saved, Target
from negawatt.caller import Scope
from negawatt.clock import Clock
from negawatt.config import RequestClass
from negawatt.config_shape import Compress as Settings
from negawatt.economics.usage import Usage
from negawatt.errors import StoreError
from negawatt.pipeline import Handler
from negawatt.recall.originals import LAYER, Original, Originals, Shaping, whose
from negawatt.recall.policy import Plan, callers_tags, controlled, scope_tags
from negawatt.reply import Reply
from negawatt.routing.asked import asked_of
from negawatt.shape.edits import id_of
from negawatt.shape.gains import Gains
from negawatt.shape.places import FIELDS, as_turns, read
from negawatt.shape.shorten import Short, Shortener
from negawatt.shape.tool_habits import ToolHabits
from negawatt.shape.weighing import Weighing, conversation_of, outweighs, sending_of

log = logging.getLogger(__name__)
NAME = "compress"
_HELD = "the provider's prefix cache is worth more than what the ask allows to leave out"
_CHARS_A_TOKEN = 4  # about; for what providers say in tokens and is weighed in characters


class Parts(NamedTuple):
    """What the lever works with.

    *count*: input tokens of a call. *count_text*: tokens of a text for a model. *held*: of how many tokens on a
    target's provider keeps the beginnings of prompts and charges less for them, where the request is marked or not;
    None: it does not. *spawn* runs what need not be waited for.
    """

    count: Callable[[Call], int]
    count_text: Callable[[str, str], int]
    held: Callable[[Target, bool, float], int | None]
    originals: Originals
    spawn: Callable[[Awaitable[None]], object]


class Compress:
    """Shortens what is sent, in any of the three protocols of conversations; in shadow it only says by how much."""

    def __init__(self, settings: Settings, classes: Mapping[str, RequestClass], parts: Parts, clock: Clock) -> None:
        self._settings = settings
        self._classes = classes
        self._parts = parts
        self._clock = clock
        self._shorten = Shortener(settings)
        self._gains = Gains()
        self._weighing = Weighing()
        self._habits = None if settings.tools_recall is None else ToolHabits()

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        if call.wire.name not in FIELDS:
            return await forward(call)
        refusal = self._gains.rests(call.request_class)
        tokens = 0
        if refusal is None:
            tokens = self._parts.count(call)
            if tokens < self._settings.least_tokens:
                refusal = f"a prompt of fewer than {self._settings.least_tokens} tokens"
        if refusal is not None:
            call.note(NAME, "pass", refusal)
            return await forward(call)
        try:
            short = self._shortened(call)
            removed = self._tokens(call, short)
        except Exception as error:
            # Requests hold whatever callers send; one that cannot be shortened is sent as it is.
            log.exception("call %s could not be shortened", call.id)
            call.note(NAME, "failed", f"{type(error).__name__}: {error}"[:200])
            return await forward(call)
        if removed > 0 or not self._learns(call):
            self._gains.learn(call.request_class, max(removed, 0) / tokens if tokens else 0.0)
        if removed <= 0:
            call.note(NAME, "pass", "; ".join(short.abstained) or "there is nothing to take out")
            return await self._watched(call, call, forward)
        changed = call.with_(request=call.request.shortened(**short.fields))
        kept = self._keep(call, short)
        detail = {
            "tokens": tokens, "chars": short.chars, "parts": dict(short.saved), "originals": kept,
            **({"abstained": list(short.abstained)} if short.abstained else {}),
        }  # fmt: skip
        note = partial(call.note, NAME, "shortened", detail=detail)
        try:
            reply = await self._watched(call, changed, forward)
        except BaseException:
            note()  # nobody answered: nothing was spared
            raise
        reply.on_read(lambda _: note(saved=_saved(call, removed)))
        return reply

    def _shortened(self, call: Call) -> Short:
        """Return what to send instead, of the two ways that there are: with and without what the ask decides on."""
        protocol, data = call.wire.name, call.request.data
        places = read(protocol, data, asked_of(call).ask)
        plain = self._shorten(data, places, chosen=False)
        if not self._shorten.chooses:
            return plain
        tools = data.get("tools")
        calibration = self._habits.of(tools) if self._habits is not None and isinstance(tools, list) else None
        full = self._shorten(data, places, chosen=True, pruned=True, tools=calibration)
        target, now = call.targets[0], self._clock.monotonic()
        least = self._parts.held(target, b'"cache_control"' in call.request.body, call.received_at)
        rest = sending_of(protocol, {**data, **full.fields}).total
        tools_chars = full.saved.get("tools", 0)
        held = least is not None and rest >= least * _CHARS_A_TOKEN
        if held and tools_chars and not outweighs(tools_chars, rest):
            full = self._shorten(data, places, chosen=True)
            full = full._replace(abstained=(*full.abstained, _HELD))
        conversation = conversation_of(protocol, data, f"{call.scope} {target.label}".encode())
        ways = [(short, sending_of(protocol, {**data, **short.fields})) for short in (full, plain)]
        if least is not None:
            costs = [self._weighing.cost(conversation, way, now, least * _CHARS_A_TOKEN) for _, way in ways]
            if costs[1] < costs[0]:
                ways[0] = (plain._replace(abstained=(*plain.abstained, _HELD)), ways[1][1])
        if not call.shadow:
            self._weighing.sent(conversation, ways[0][1], now)
        return ways[0][0]

    def _tokens(self, call: Call, short: Short) -> int:
        """Return how many tokens fewer the request has, by our own count."""
        model, count = call.targets[0].model, self._parts.count_text
        removed = sum(count(model, before) - count(model, text) for _, before, text in short.texts)
        if short.tools is not None:
            written = [orjson.dumps(tools).decode() for tools in (short.tools, short.fields["tools"])]
            removed += count(model, written[0]) - count(model, written[1])
        return removed

    # -- afterwards --------------------------------------------------------------------------------------------

    async def _watched(self, call: Call, changed: Call, forward: Handler) -> Reply:
        """Forward *changed*, and learn which tools are called where all of them were there."""
        reply = await forward(changed)
        tools = call.request.get("tools")
        if self._habits is not None and isinstance(tools, list) and changed.request.get("tools") == tools:
            reply.on_end(partial(self._learn, call, self._habits, tools))
        return reply

    def _learns(self, call: Call) -> bool:
        """True while it is too early to say what pruning the tools of *call* would save."""
        tools = call.request.get("tools")
        return self._habits is not None and isinstance(tools, list) and self._habits.learns(tools)

    @staticmethod
    def _learn(call: Call, habits: ToolHabits, tools: list[Any], reply: Reply) -> None:
        if reply.finished and reply.error is None and call.wire.complete(reply.data):
            habits.learn(tools, as_turns(call.wire.name, call.request.data), reply.data)

    def _keep(self, call: Call, short: Short) -> bool:
        """Keep the texts that were changed, as they were and as they are sent, where the class and the caller allow it;
        True if so."""
        policy = self._classes.get(call.request_class)
        control = call.hints.cache_control
        allowed = control is None or controlled(Plan(read=True, write=True), control).write
        if call.shadow or not allowed or (policy is not None and policy.cache == "never"):
            return False
        texts = {id_of(text): text for _, *both in short.texts for text in both}
        shaping = Shaping(
            call.wire.name,
            tuple(Original(path, id_of(before), id_of(text)) for path, before, text in short.texts),
            None if short.tools is None else orjson.dumps(short.tools),
        )
        tags = (
            *scope_tags(LAYER, call.scope), f"class={call.request_class}", *callers_tags(call.hints.cache_tags)
        )  # fmt: skip
        self._parts.spawn(self._put(call.id, _whose(call), shaping, texts, tags))
        return True

    async def _put(
        self, call_id: str, scope: Scope, shaping: Shaping, texts: Mapping[str, str], tags: tuple[str, ...]
    ) -> None:
        try:
            await self._parts.originals.keep(call_id, scope, shaping, texts, tags)
        except StoreError as error:
            log.warning("the originals of call %s were not kept: %s", call_id, error.message)


def _saved(call: Call, removed: int) -> Saved:
    """Return what the call would have used more; the provider's cache would have had as much of it as of the rest."""
    target, answered = call.targets[0], call.trail.answerer
    used = None if answered is None else answered.usage
    share = 0.0 if used is None or not used.input_tokens else used.cache_read_tokens / used.input_tokens
    usage = Usage(
        input_tokens=removed, output_tokens=0, cache_read_tokens=round(removed * share), basis="estimated"
    )  # fmt: skip
    return Saved(usage=usage, model=target.model, provider=target.provider, basis="estimated")


def _whose(call: Call) -> Scope:
    user = call.hints.user or (None if call.caller is None else call.caller.user)
    return whose(call.scope.tenant, call.scope.permissions, user)
