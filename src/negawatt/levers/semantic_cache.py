"""semantic_cache: answer what was asked before in other words, under an error budget.

A guess: so it comes after what is certain, a candidate must agree with the question in its facts
(`negawatt.recall.guards`), and the acceptance rule (`negawatt.recall.rule`) must find it likely enough to be right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from negawatt.call import Call, Saved
from negawatt.clock import Clock
from negawatt.config import SemanticCache as Settings
from negawatt.embedders import Embedder
from negawatt.errors import EmbedderError, StoreError
from negawatt.indexes import Case, Index, Neighbour
from negawatt.keys import context_key
from negawatt.pipeline import Background, Handler
from negawatt.protocol import Question
from negawatt.recall.compare import Judge, compare, digest_of, mark_of
from negawatt.recall.curated import Curated, Match
from negawatt.recall.features import NEIGHBOURS, Candidate, candidate_of
from negawatt.recall.guards import conflict, read
from negawatt.recall.kept import Kept, Validator, kept, not_to_be_kept, poisoned, revived
from negawatt.recall.learner import CURATED, LEARNED, Learner
from negawatt.recall.policy import CachePolicy, Plan, tags_of
from negawatt.recall.readable import unreadable
from negawatt.recall.rule import Verdict
from negawatt.reply import Reply

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)
NAME = "semantic_cache"


class Entry(msgspec.Struct, frozen=True):
    """What is kept under a question."""

    question: str
    said: str  # the answer's text
    meaning: bytes  # its vector, float16; b"" where there is none
    kept: Kept


class Asked(NamedTuple):
    """One call, as far as this lever is concerned with it."""

    call: Call
    plan: Plan
    question: Question
    scope: str
    vector: NDArray[np.float32]


class Found(NamedTuple):
    """A candidate with its entry, and what the rule says of it."""

    candidate: Candidate
    neighbour: Neighbour
    entry: Entry
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Parts:
    """What the lever works with."""

    embedder: Embedder
    index: Index
    learner: Learner
    curated: Curated
    say: Callable[[Call, str], Reply]
    validate: Validator
    judge_of: Callable[[Call], Judge | None]
    spared: Callable[[Call, str], Saved | None] = lambda call, text: None  # by an answer that no model gave


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class SemanticCache:
    """Finds answers by the meaning of the question; all else about two calls must be the same (`context_key`)."""

    def __init__(
        self, settings: Settings, policy: CachePolicy, parts: Parts, *, clock: Clock, background: Background
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._parts = parts
        self._clock = clock
        self._background = background

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        plan = self._policy.plan(call)
        question = call.wire.question(call.request) if plan.read or plan.write else None
        refusal = plan.reason if question is None and not (plan.read or plan.write) else self._refusal(question)
        if question is None or refusal is not None:
            call.note(NAME, "bypass", refusal)
            return await forward(call)
        try:
            vector = (await self._parts.embedder.embed([question.text]))[0]
        except EmbedderError as error:
            call.note(NAME, "miss", f"the embedder failed: {error.message}")
            return await forward(call)
        asked = Asked(call, plan, question, context_key(call, question.around), vector)
        found: Found | None = None
        if not plan.read:
            call.note(NAME, "refresh", plan.reason)
        else:
            reply = await self._curated(asked)
            if reply is not None:
                return reply
            found = await self._find(asked)
            if found is not None and found.verdict.action == "serve":
                answer = self._serve(asked, found)
                if answer is not None:
                    return answer
        reply = await forward(call)
        reply.on_end(partial(self._learn, asked, found))
        return reply

    def _refusal(self, question: Question | None) -> str | None:
        if question is None:
            return "the last word is no person's, or not text alone"
        if question.follows_up and self._settings.follow_ups == "decline":
            return "a follow-up"
        if len(question.text) > self._settings.max_question_chars:
            return f"a question of more than {self._settings.max_question_chars} characters"
        return unreadable(self._parts.embedder.id, question.text)

    # -- finding -----------------------------------------------------------------------------------------------

    async def _curated(self, asked: Asked) -> Reply | None:
        call = asked.call
        if asked.question.follows_up:
            return None  # a curated question stands for itself
        try:
            await self._parts.curated.prepare(self._parts.embedder)  # it may have been down when we started
        except EmbedderError as error:
            call.note(NAME, "doubt", f"curated questions have no vectors: {error.message}")
            return None
        match, doubt = self._parts.curated.find(call, asked.question.text, asked.vector, self._clock.time())
        if match is None:
            if doubt is not None:
                call.note(NAME, "doubt", f"curated {doubt}")
            return None
        contract = call.contract
        if contract is not None and self._parts.validate(contract, [match.entry.answer]) is not None:
            call.note(NAME, "doubt", f"curated {match.entry.id}: breaks the response format")
            return None
        reply = self._parts.say(call, match.entry.answer)
        reply.answered_by = NAME
        detail = {"tier": CURATED, "id": match.entry.id, "similarity": round(match.similarity, 4)}
        call.note(NAME, "hit", saved=self._parts.spared(call, match.entry.answer), detail=detail)
        if self._parts.learner.drawn_for_review():
            self._background.spawn(self._parts.learner.record(self._curated_case(asked, match)))
        return reply

    async def _find(self, asked: Asked) -> Found | None:
        """Return the candidate, its entry and the verdict; None, with a note, when there is none to speak of."""
        call, index = asked.call, self._parts.index
        agreeing: tuple[Neighbour, Entry] | str | None = None
        try:
            candidate = candidate_of(await index.nearest(asked.scope, asked.vector, k=NEIGHBOURS))
            if candidate is not None:
                agreeing = await self._agreeing(asked, candidate)
        except StoreError as error:
            call.note(NAME, "miss", f"the index failed: {error.message}")
            return None
        if candidate is None or not isinstance(agreeing, tuple):
            await self._parts.learner.decide(call, None)
            call.note(NAME, "miss", agreeing if isinstance(agreeing, str) else None)
            if not call.shadow:
                self._background.spawn(self._parts.learner.record(self._case(asked, None, "missed")))
            return None
        verdict = await self._parts.learner.decide(call, candidate)
        found = Found(candidate, *agreeing, verdict)
        if verdict.action != "serve":
            reason = "asked anyway, to compare" if verdict.action == "explore" else "not sure enough"
            call.note(NAME, "explored" if verdict.action == "explore" else "miss", reason, detail=_detail(found))
        return found

    async def _agreeing(self, asked: Asked, candidate: Candidate) -> tuple[Neighbour, Entry] | str | None:
        """Return the nearest entry with the candidate's answer whose facts agree with the question, or why not."""
        facts = read(asked.question.text)
        veto: str | None = None
        for neighbour in candidate.entries:
            entry = await self._entry(asked, neighbour.key)
            if isinstance(entry, Entry):
                wrong = conflict(facts, read(entry.question))
                if wrong is None:
                    return neighbour, entry
                veto = veto or f"{wrong} differ"
            else:
                veto = veto or entry
        return veto

    async def _entry(self, asked: Asked, key: str) -> Entry | str:
        """Return the entry under *key* if it may be given to this call, else why not."""
        value = await self._parts.index.get(key)
        if value is None:
            return "it is gone"
        try:
            entry = _decode(value)
        except msgspec.MsgspecError:
            return "the stored entry cannot be read"
        if asked.plan.state(self._clock.time() - entry.kept.stored_at) != "fresh":
            return "the stored answer is too old"
        return poisoned(asked.call, entry.kept, self._settings.max_entry_bytes) or entry

    def _serve(self, asked: Asked, found: Found) -> Reply | None:
        call, entry = asked.call, found.entry
        reply = revived(call, entry.kept, NAME)
        if reply is None:
            call.note(NAME, "miss", "the stored entry is not the answer that was kept")
            return None
        age_s = round(self._clock.time() - entry.kept.stored_at, 3)
        detail = {**_detail(found), "risk": round(found.verdict.risk, 5), "age_s": age_s, "tier": LEARNED}
        call.note(NAME, "hit", saved=entry.kept.saved, detail=detail)
        self._background.spawn(self._parts.learner.record(self._case(asked, found, "served")))
        return reply

    # -- learning ----------------------------------------------------------------------------------------------

    def _learn(self, asked: Asked, found: Found | None, reply: Reply) -> None:
        """Compare the model's answer with the candidate's, and keep it; called when the reply has ended."""
        refusal = not_to_be_kept(asked.call, reply, self._parts.validate)
        texts = [] if refusal is not None else asked.call.wire.answers(reply.data)
        if refusal is None and len(texts) != 1:
            refusal = "no single answer in words"
        if refusal is None and len(reply.body) > self._settings.max_entry_bytes:
            refusal = f"larger than {self._settings.max_entry_bytes} bytes"
        if refusal is not None:
            asked.call.note(NAME, "not stored", refusal)
            return
        entry = Entry(asked.question.text, texts[0], b"", kept(asked.call, reply, self._clock.time()))
        self._background.spawn(self._compared_and_kept(asked, found, entry))

    async def _compared_and_kept(self, asked: Asked, found: Found | None, entry: Entry) -> None:
        try:
            if found is not None:
                await self._compare(asked, found, entry)
            if asked.plan.write:
                await self._keep(asked, entry)
        except StoreError as error:
            log.warning("the answer to call %s was not kept: %s", asked.call.id, error.message)

    async def _compare(self, asked: Asked, found: Found, fresh: Entry) -> None:
        settings, parts = self._settings, self._parts
        comparison = await compare(
            parts.embedder, asked.question.text, found.entry.said, fresh.said, same=settings.same_answer,
            different=settings.other_answer, judge=parts.judge_of(asked.call),
        )  # fmt: skip
        case = self._case(asked, found, "explored" if found.verdict.action == "explore" else "missed")
        if comparison is not None:
            case = msgspec.structs.replace(case, wrong=comparison.wrong, basis=comparison.basis)
        if case.review:
            case = msgspec.structs.replace(case, fresh=fresh.said)
        await parts.learner.record(case)

    async def _keep(self, asked: Asked, entry: Entry) -> None:
        """Put *entry* into the index, marked as its neighbours are whose answers say the same."""
        import numpy as np

        near = []
        for neighbour in await self._parts.index.nearest(asked.scope, asked.vector, k=4):
            value = await self._entry(asked, neighbour.key)
            if isinstance(value, Entry) and value.meaning:
                meaning = np.frombuffer(value.meaning, np.float16).astype(np.float32)
                near.append((neighbour.mark, meaning, value.said))
        mark, own = await mark_of(self._parts.embedder, entry.said, near, same=self._settings.same_answer)
        entry = msgspec.structs.replace(entry, meaning=b"" if own is None else own.astype(np.float16).tobytes())
        await self._parts.index.put(
            f"{asked.scope}/{digest_of(asked.question.text).hex()}", asked.vector, _encode(entry), scope=asked.scope,
            ttl_s=asked.plan.ttl_s, mark=mark, tags=tags_of(asked.call),
        )  # fmt: skip

    def _case(self, asked: Asked, found: Found | None, action: str) -> Case:
        """Return the case of one call. Its texts are kept only where a person is to look at them."""
        call = asked.call
        case = Case(
            id=call.id, at=self._clock.time(), request_class=call.request_class, tenant=call.scope.tenant,
            tier=LEARNED, action=action, features=(),
        )  # fmt: skip
        if found is None:
            return case
        case = msgspec.structs.replace(
            case, features=found.candidate.features, risk=found.verdict.risk, propensity=found.verdict.propensity,
            key=found.neighbour.key, mark=found.candidate.mark,
        )  # fmt: skip
        if action == "missed" or not self._parts.learner.drawn_for_review():
            return case
        return msgspec.structs.replace(
            case, review=True, question=asked.question.text, matched=found.entry.question, answer=found.entry.said
        )

    def _curated_case(self, asked: Asked, match: Match) -> Case:
        call = asked.call
        return Case(
            id=call.id, at=self._clock.time(), request_class=call.request_class, tenant=call.scope.tenant,
            tier=CURATED, action="served", features=(), review=True, key=match.entry.id,
            question=asked.question.text, matched=match.entry.questions[0], answer=match.entry.answer,
        )  # fmt: skip


def _detail(found: Found) -> dict[str, object]:
    return {"key": found.neighbour.key, "similarity": round(found.neighbour.similarity, 4)}
