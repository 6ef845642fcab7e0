"""Draft and verify: the large model is shown what the small one drafted, and says ACCEPT or the answer as it should be.

That is short output where the draft is good, and no dearer than an answer where it is not; the input is paid twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from negawatt.call import Call, Target
from negawatt.errors import RequestError, UpstreamError
from negawatt.pipeline import Handler
from negawatt.protocol import Contract
from negawatt.reply import Reply
from negawatt.routing.cases import Answered, turns
from negawatt.routing.choice import Choice
from negawatt.routing.second import Seconds
from negawatt.verify.draft import accepted, correction, drafted
from negawatt.verify.schema import broken_contract
from negawatt.wire.chat import CHAT

Spoken = Callable[[Call, Mapping[str, Any]], Reply]  # a whole answer of Chat Completions in the caller's protocol


class Found(NamedTuple):
    """*correction*: the large model's own answer, in the caller's protocol."""

    accepted: bool
    reason: str
    correction: Reply | None = None


class Drafting:
    """Has drafts accepted or corrected: by *model* where the configuration names one, else by the reference."""

    def __init__(self, seconds: Seconds, spoken: Spoken, *, targets: tuple[Target, ...] = ()) -> None:
        self._seconds = seconds
        self._spoken = spoken
        self._targets = targets

    async def ask(
        self, call: Call, forward: Handler, draft: Answered, reference: Choice, contracts: tuple[Contract | None, Any]
    ) -> Found:
        """Return what the large model makes of *draft*. *contracts*: of the request, and the schema of its class."""
        said = turns(call)
        if said is None or len(draft.texts) != 1 or draft.choices != 1:
            return Found(False, "a draft of this kind cannot be shown: more than one text, or other things than text")
        asked = [contract for contract in (contracts[0], contracts[1] and Contract(contracts[1])) if contract]
        prompt = drafted(said, draft.texts[0], contract=bool(asked))
        targets = self._targets or reference.targets
        try:
            reply = await self._seconds.say(call, forward, targets, prompt, capped=True)
        except (UpstreamError, RequestError) as error:
            return Found(False, f"{targets[0].name} did not look at it: {type(error).__name__}: {error.message}"[:300])
        texts = CHAT.answers(reply.data) if CHAT.complete(reply.data) else []
        word = texts[0] if len(texts) == 1 else ""
        if accepted(word):
            return Found(True, f"{targets[0].name} accepts the draft")
        text = correction(word)
        if text is None:
            return Found(False, f"{targets[0].name} neither accepted nor corrected the draft")
        if call.wire.prompt(call.request).tools:
            return Found(False, f"{targets[0].name} does not accept the draft, and a correction could call no tool")
        broken = next(filter(None, (broken_contract(one, [text]) for one in asked)), None)
        if broken is not None:
            return Found(False, f"the correction does not do: {broken}")
        return Found(False, f"{targets[0].name} corrected the draft", self._spoken(call, _with_text(reply.data, text)))


def _with_text(data: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the whole answer *data* with *text* as all that it says."""
    whole: dict[str, Any] = orjson.loads(orjson.dumps(data))
    whole["choices"][0]["message"]["content"] = text
    return whole
