"""A conversation keeps its model while that is cheaper, counting the provider's prefix cache that a switch would lose.

What is remembered of a conversation is which targets answered, and how much of its prompt each of their providers has
in its cache since. It counts only where the new prompt begins with the whole of the one that was answered, and within
the lifetime of such caches. Nothing is shared between callers that caches of answers would keep apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from negawatt.call import Call, Request, Target
from negawatt.caller import Caller
from negawatt.clock import Clock
from negawatt.economics.capabilities import KnownModels
from negawatt.economics.usage import Usage
from negawatt.errors import InvalidRequest
from negawatt.routing.choice import Choice
from negawatt.routing.costs import Cost

_MOST_CONVERSATIONS = 10_000
_MOST_TARGETS = 4  # of one conversation
_MOST_READ = 1_000  # calls in flight whose prompts have been read
_LONGEST = 2 * 1024 * 1024  # bytes of a request that is read for this
_ANYONE = Caller()

ReadsCached = Callable[[str, str, float], bool]
"""True when a provider's model has, at that time, a price of its own for what is read from its cache."""


class _Warm(NamedTuple):
    """What a target's provider has in its cache: *tokens* of a prompt of so many *messages* with this *digest*."""

    tokens: int
    messages: int
    digest: bytes
    at: float


class _Reading(NamedTuple):
    """A prompt, read once: whose conversation it is, and a digest of it up to and with each message."""

    request: Request
    conversation: bytes
    digests: list[bytes]


class Affinity:
    """One for a gateway. *ttl_s*: how long a provider's cache is counted on; 0: not at all."""

    def __init__(self, *, ttl_s: float, clock: Clock, models: KnownModels, reads_cached: ReadsCached) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._models = models
        self._reads_cached = reads_cached
        self._warm: OrderedDict[bytes, OrderedDict[str, _Warm]] = OrderedDict()
        self._read: OrderedDict[str, _Reading] = OrderedDict()

    def warm(self, call: Call, choice: Choice) -> int:
        """Return how many tokens of *call*'s prompt the provider of *choice* is likely to have in its cache."""
        reading = self._reading(call)
        found = None if reading is None else self._targets(reading).get(choice.targets[0].label)
        if reading is None or found is None or self._clock.monotonic() - found.at > self._ttl_s:
            return 0
        same = found.messages <= len(reading.digests) and reading.digests[found.messages - 1] == found.digest
        return found.tokens if same else 0

    def last(self, call: Call) -> str | None:
        """Return the label of the target that answered *call*'s conversation last; None where none did of late."""
        reading = self._reading(call)
        targets = {} if reading is None else self._targets(reading)
        newest = max(targets.items(), key=lambda item: item[1].at, default=None)
        return None if newest is None or self._clock.monotonic() - newest[1].at > self._ttl_s else newest[0]

    def remember(self, call: Call, target: Target, usage: Usage | None) -> None:
        """Take in that *target* has answered *call*, which used *usage*. To be told when the answer has been read."""
        reading = self._reading(call)
        self._read.pop(call.id, None)
        if reading is None or usage is None or call.shadow:
            return
        tokens = self._kept_by(target, usage, marked=b'"cache_control"' in call.request.body, at=call.received_at)
        targets = self._warm.setdefault(reading.conversation, OrderedDict())
        self._warm.move_to_end(reading.conversation)
        targets[target.label] = _Warm(tokens, len(reading.digests), reading.digests[-1], self._clock.monotonic())
        targets.move_to_end(target.label)
        if len(targets) > _MOST_TARGETS:
            targets.popitem(last=False)
        if len(self._warm) > _MOST_CONVERSATIONS:
            self._warm.popitem(last=False)

    def keep(
        self,
        call: Call,
        chosen: Choice,
        choices: Sequence[Choice],
        estimates: Mapping[str, Cost],
        order: Literal["cost", "energy"] = "cost",
    ) -> Choice:
        """Return *chosen*, or what the conversation had before, where that is cheaper and of no lower tier.

        *estimates*: by the name of the choice, with what is `warm` counted. *choices* are all that may be asked.
        """
        return cheaper(chosen, [choice for choice in choices if self.warm(call, choice)], estimates, order)

    def _targets(self, reading: _Reading) -> Mapping[str, _Warm]:
        return self._warm.get(reading.conversation) or {}

    def _kept_by(self, target: Target, usage: Usage, *, marked: bool, at: float) -> int:
        """Return how many tokens of the prompt that was answered its provider has in its cache now."""
        rule = self._models.prefix_cache(target.model)
        seen = usage.cache_read_tokens + usage.cache_write_tokens
        if rule.marked:
            return seen if marked else 0
        if not seen and not self._reads_cached(target.provider, target.model, at):
            return 0
        if usage.input_tokens < rule.least_tokens:
            return 0
        return usage.input_tokens // rule.step_tokens * rule.step_tokens

    def _reading(self, call: Call) -> _Reading | None:
        """Return *call*'s prompt, read; None where it is no conversation, or too long to be read on the way."""
        if not self._ttl_s:
            return None
        known = self._read.get(call.id)
        if known is not None and known.request is call.request:
            return known
        try:
            reading = _read(call)
        except InvalidRequest:
            return None  # nested too deeply to be written again: whoever sends it on will say so
        if reading is not None:
            self._read[call.id] = reading
            if len(self._read) > _MOST_READ:
                self._read.popitem(last=False)
        return reading


def cheaper(
    chosen: Choice, others: Sequence[Choice], estimates: Mapping[str, Cost], order: Literal["cost", "energy"]
) -> Choice:
    """Return the cheapest of *chosen* and those of *others* that are of its tier or above, if it is known to be."""

    def key(choice: Choice) -> Any:
        cost = estimates.get(choice.name)
        if cost is None:
            return None
        return cost.usd if order == "cost" else None if cost.joules is None else cost.joules.central

    best, least = chosen, key(chosen)
    if least is None:
        return chosen
    for other in others:
        cost = key(other)
        if other.tier >= chosen.tier and cost is not None and cost < least:
            best, least = other, cost
    return best


def _read(call: Call) -> _Reading | None:
    if len(call.request.body) > _LONGEST:
        return None
    prompt = call.wire.prompt(call.request)
    if not prompt.messages:
        return None
    digest = blake2b(Request.canonical(list(prompt.tools)), digest_size=16)
    digests: list[bytes] = []
    begun = None  # where the first turn of a person ends
    for place, message in enumerate(prompt.messages):
        digest.update(Request.canonical(message))
        digests.append(digest.digest())
        if begun is None and isinstance(message, dict) and message.get("role") == "user":
            begun = place
    caller, session = call.caller or _ANYONE, call.hints.session
    beginning = digests[-1 if begun is None else begun] if session is None else session.encode()
    who = Request.canonical([caller.tenant, caller.permissions, caller.user, session is None])
    return _Reading(call.request, blake2b(who + beginning, digest_size=16).digest(), digests)
