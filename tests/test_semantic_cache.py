"""The semantic cache: what must be the same, what must agree, and what happens to what it is not sure of."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from recalls import bold, evidence, recalling, semantic
from worlds import Fake, answer, chat, decisions, settled, virtual

from negawatt.errors import EmbedderError, StoreError
from negawatt.wire.wires import WIRES

FIRST, OTHER_WORDS = "How do I reset my password?", "how do I reset my password please"


async def test_it_is_off_unless_it_is_turned_on():
    """Nothing of it is opened by default: it guesses, and that is its owner's decision."""
    from negawatt.config import Config
    from negawatt.recalling import recalls

    assert not recalls(Config())


@virtual
async def test_it_starts_cold():
    """Without evidence nothing is answered, however alike two questions are; but both are asked and compared."""
    async with recalling() as w:
        for text in (FIRST, OTHER_WORDS, FIRST):
            assert (await w.ask(chat(text))).by == "provider"
        notes = [d["action"] for row in w.rows() for d in decisions(row, "semantic_cache")]
        assert notes == ["miss"] * 3
        cases = await w.gateway.learner._cases.recent("default", "learned", limit=9)
        assert [case.wrong for case in cases] == [None, False, False]


@virtual
async def test_a_question_in_other_words_is_answered_once_there_is_evidence():
    """With what it spares on the row, and the model and the age in the decision."""
    async with recalling(levers=semantic(explore=1e-6)) as w:
        seen = evidence(1200)
        for case in seen:
            await w.gateway.learner.record(case)
        rule = await w.gateway.learner.rule("default")
        for i in range(800):  # requests that had no candidate have nothing to risk
            rule.decide(seen[i].features if i % 8 == 0 else None)
        for text in (FIRST, OTHER_WORDS, "please: how do I reset my password", "how do I reset my own password"):
            await w.ask(chat(text))
        row = w.rows()[-1]
        assert (row.cache, row.ending, row.attempts, row.cost_pusd) == ("semantic", "cached", 0, 0)
        assert row.baseline_cost_pusd and row.baseline_cost_pusd > 0
        decision = decisions(row, "semantic_cache")[-1]
        assert decision["action"] == "hit" and 0 <= decision["detail"]["risk"] < 0.2


DIFFERENT = {
    "system prompt": {
        "messages": [{"role": "system", "content": "Be rude."}, {"role": "user", "content": OTHER_WORDS}]
    },
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "response format": {"response_format": {"type": "json_object"}},
    "model": {"model": "gpt-4o"},
    "top_p": {"top_p": 0.5},
    "seed": {"seed": 1},
    "max_tokens": {"max_tokens": 5},
}


@pytest.mark.parametrize("name", DIFFERENT)
@virtual
async def test_all_but_the_question_must_be_the_same(name: str):
    """System prompt, tools, response format, model, parameters: a bold rule cannot bridge them."""
    provider = Fake('{"a": 1}')
    async with recalling(provider) as w:
        bold(w)
        await w.ask(chat(FIRST))
        assert (await w.ask(chat(OTHER_WORDS))).by == "semantic_cache"
        assert (await w.ask({**chat(OTHER_WORDS), **DIFFERENT[name]})).by == "provider"


SCOPES = {
    "tenant": ("a", "b"), "user": (None, "u"), "permissions": (None, "p", "q"), "corpus_version": (None, "1", "2"),
    "prompt_version": (None, "1"), "tool_digests": (None, "d"),
}  # fmt: skip


@virtual
async def test_no_answer_crosses_a_scope():
    """Tenant, user of a personal class, permissions, versions of corpus and prompt, tool results: every pair."""
    keys = [{"id": t, "key_env": t.upper(), "tenant": t} for t in SCOPES["tenant"]]
    every = [dict(zip(SCOPES, values, strict=True)) for values in itertools.product(*SCOPES.values())]
    provider = Fake(delay_s=0, every_s=0)
    async with recalling(
        provider, keys=keys, environ={"A": "secret-a", "B": "secret-b"}, classes={"mine": {"personal": True}}
    ) as w:
        bold(w), bold(w, "mine")
        said: dict[str, str] = {}
        for i, scope in enumerate(every):
            name = "default" if scope["user"] is None else "mine"
            hints = {k: v for k, v in scope.items() if k != "tenant"}
            hints |= {"key": f"secret-{scope['tenant']}", "request_class": name}
            provider.said = f"answer {i}"
            first = await w.ask(chat(FIRST), **hints)
            assert first.by == "provider", f"{scope} was answered with {first.text}"
            again = await w.ask(chat(OTHER_WORDS, stream=i % 2 == 0 or None), **hints)
            assert (again.by, again.text) == ("semantic_cache", f"answer {i}")
            said[str(i)] = again.text
        assert len(set(said.values())) == len(every) == 144


@virtual
async def test_facts_must_agree():
    """Another number, another negation: asked upstream, and the decision says which guard objected."""
    async with recalling() as w:
        bold(w)
        await w.ask(chat("How long is a transfer of 200 dollars under way?"))
        assert (await w.ask(chat("How long is a transfer of 300 dollars under way?"))).by == "provider"
        assert decisions(w.rows()[-1], "semantic_cache")[0]["reason"] == "units differ"


@virtual
async def test_a_follow_up_needs_the_same_conversation():
    """The question before it is part of what must be the same; or follow-ups are declined altogether."""

    def following(before: str, text: str) -> dict[str, Any]:
        said = [("user", before), ("assistant", "Yes."), ("user", text)]
        return chat(messages=[{"role": role, "content": content} for role, content in said])

    async with recalling() as w:
        bold(w)
        await w.ask(following("Can I pay by card?", FIRST))
        assert (await w.ask(following("Can I pay by card?", OTHER_WORDS))).by == "semantic_cache"
        assert (await w.ask(following("Can I pay in cash?", OTHER_WORDS))).by == "provider"
    async with recalling(levers=semantic(follow_ups="decline")) as w:
        bold(w)
        await w.ask(following("Can I pay by card?", FIRST))
        assert (await w.ask(following("Can I pay by card?", OTHER_WORDS))).by == "provider"
        assert decisions(w.rows()[-1], "semantic_cache")[0]["reason"] == "a follow-up"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]), "no person's"),
        (
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "no person's",
        ),
        (chat("x" * 2001), "more than 2000 characters"),
        (chat("hi", temperature=1), "not deterministic"),
    ],
)
@virtual
async def test_what_is_no_question_passes_by(request_: dict[str, Any], reason: str):
    """The last word of a model or a tool, pictures, books, sampled calls."""
    async with recalling() as w:
        await w.ask(request_)
        note = decisions(w.rows()[-1], "semantic_cache")[0]
        assert note["action"] == "bypass" and reason in note["reason"]


@virtual
async def test_explored_candidates_are_compared_with_what_the_model_says():
    """The same answer is right, another one wrong; the caller gets the model's own."""
    provider = Fake("Click on forgot password.")
    async with recalling(provider) as w:
        rule = bold(w, action="explore")
        await w.ask(chat(FIRST))
        assert (await w.ask(chat(OTHER_WORDS))).text == "Click on forgot password."
        provider.said = "You cannot do that at all, sorry."
        assert (await w.ask(chat("how do I reset my password now"))).text == "You cannot do that at all, sorry."
        assert [wrong for _, wrong in rule.told] == [False, True]
        assert decisions(w.rows()[-1], "semantic_cache")[0]["action"] == "explored"


class Broken:
    """An index or an embedder that is down."""

    id, dimensions, learned = "broken", 384, True

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: Any, **kwargs: Any) -> None:
            raise self._error

        return fail


@pytest.mark.parametrize("part", ["index", "embedder"])
@virtual
async def test_what_is_down_makes_misses(part: str):
    """An index or an embedder that fails: the call goes on, and the decision says why."""
    from recalls import lever_of

    error = StoreError("no route") if part == "index" else EmbedderError("no route")
    async with recalling() as w:
        bold(w)
        lever = lever_of(w)
        parts = {name: getattr(lever._parts, name) for name in lever._parts.__slots__}
        lever._parts = type(lever._parts)(**{**parts, part: Broken(error)})
        assert (await w.ask(chat(FIRST))).by == "provider"
        note = decisions(w.rows()[-1], "semantic_cache")[0]
        assert note["action"] == "miss" and note["reason"] == f"the {part} failed: no route"


@virtual
async def test_a_probe_counts_nothing(monkeypatch: pytest.MonkeyPatch):
    """Probes come every few seconds, and counting a million entries would hold up every call."""
    async with recalling() as w:
        for part in (w.gateway.store, w.gateway.recall.index):
            monkeypatch.setattr(part, "stats", None)
        assert set((await w.gateway.checks()).values()) == {None}
        monkeypatch.setattr(w.gateway.store, "get", Broken(StoreError("no route")).get)
        assert (await w.gateway.checks())["store"] == "no route"


@virtual
async def test_a_poisoned_entry_is_not_served():
    """Another protocol, a longer answer than is allowed, half an answer: asked upstream instead."""
    from recalls import lever_of

    from negawatt.levers.semantic_cache import Entry

    async with recalling(levers=semantic(max_entry_bytes=2000)) as w:
        bold(w)
        lever = lever_of(w)
        await w.ask(chat(FIRST))
        index = lever._parts.index
        ((key, item),) = index._items.items()
        good = msgspec.msgpack.decode(item.value, type=Entry)
        for change, reason in [
            ({"protocol": "messages"}, "answer in 'messages'"),
            ({"body": b" " * 3000 + good.kept.body}, "larger than 2000 bytes"),
            ({"body": b'{"choices": []}'}, "not the answer that was kept"),
        ]:
            kept = msgspec.structs.replace(good.kept, **change)
            value = msgspec.msgpack.encode(msgspec.structs.replace(good, kept=kept))
            index._items[key] = item._replace(value=value)
            assert (await w.ask(chat(OTHER_WORDS), cache_control="max-age=99999")).by == "provider"
            notes = [d for d in decisions(w.rows()[-1], "semantic_cache") if d["action"] == "miss"]
            assert reason in notes[0]["reason"]
            await index.delete(next(k for k in index._items if k != key))


@virtual
async def test_an_answer_lives_as_long_as_its_class_says():
    """Not a moment longer; personal and sensitive classes have shorter lives by themselves."""
    lives = {"default": 86_400, "person": 3600, "risky": 600, "brief": 10}
    classes = {"person": {"personal": True}, "risky": {"sensitive": True}, "brief": {"ttl_s": 10}}
    async with recalling(classes=classes) as w:
        for name, life in lives.items():
            bold(w, name)
            await w.ask(chat(FIRST), request_class=name, user="u")
            await asyncio.sleep(life - 5)
            assert (await w.ask(chat(OTHER_WORDS), request_class=name, user="u")).by == "semantic_cache"
            await asyncio.sleep(10)
            assert (await w.ask(chat(OTHER_WORDS), request_class=name, user="u")).by == "provider"


@virtual
async def test_missing_scope_means_no_caching():
    """A class that needs a corpus version is neither read nor written without one, and the decision says so."""
    async with recalling(classes={"kb": {"needs": ["corpus_version", "prompt_version"]}}) as w:
        bold(w, "kb")
        for hints, reason in [({}, "a corpus version"), ({"corpus_version": "1"}, "a prompt version")]:
            await w.ask(chat(FIRST), request_class="kb", **hints)
            note = decisions(w.rows()[-1], "semantic_cache")[0]
            assert note["reason"] == f"the class needs {reason} and the call has none"


@virtual
async def test_in_shadow_it_learns_and_answers_nothing():
    """The model is asked anyway, so every guess is compared, for nothing."""
    async with recalling(levers=semantic(mode="shadow")) as w:
        rule = bold(w)
        await w.ask(chat(FIRST))
        await settled()
        assert (await w.ask(chat(OTHER_WORDS))).by == "provider"
        await settled()
        assert [wrong for _, wrong in rule.told] == [False]


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
@virtual
async def test_a_cached_answer_streams_in_the_callers_protocol(protocol: str):
    """The same entry answers whole and streamed calls, and only those of its own protocol."""
    fields = {"chat": "messages", "responses": "input", "messages": "messages"}

    def asking(text: str, **more: Any) -> dict[str, Any]:
        said = [{"role": "user", "content": text}]
        extra = {"max_tokens": 50} if protocol == "messages" else {}
        return {"model": "gpt-4o-mini", "temperature": 0, fields[protocol]: said, **extra, **more}

    async with recalling() as w:
        bold(w)
        calls = [asking(FIRST), asking(OTHER_WORDS), asking(OTHER_WORDS, stream=True)]
        found = []
        for request in calls:
            call = w.gateway.new_call(msgspec.json.encode(request), wire=WIRES[protocol])
            reply = await w.gateway.handle(call)
            chunks = [chunk async for chunk in reply]
            found.append((reply.answered_by, WIRES[protocol].text_of(reply.data), bool(chunks)))
            await reply.close()
            await settled()
        assert found == [("provider", "an answer", True)] + [("semantic_cache", "an answer", True)] * 2


@virtual
async def test_the_judge_is_asked_where_answers_are_neither_alike_nor_different():
    """At a row of its own; without a judge such an answer counts as wrong."""
    near = {"same_answer": 0.999, "other_answer": 0.01}
    provider = Fake("Click on the link in the mail that we send.")
    judged = semantic(**near, judge="gpt-4o")
    for levers, said, wrong in [(semantic(**near), None, True), (judged, "Yes.", False), (judged, "no", True)]:
        async with recalling(provider, levers=levers) as w:
            rule = bold(w, action="explore")
            await w.ask(chat(FIRST))
            provider.script = [answer("Click on the link in the mail that we will send.")]
            provider.script += [] if said is None else [answer(said)]
            await w.ask(chat(OTHER_WORDS))
            await asyncio.sleep(5)
            assert [one for _, one in rule.told] == [wrong]
            judgements = [row for row in w.rows() if any(d["action"] == "judge" for d in decisions(row))]
            assert [(row.request_model, row.attempts) for row in judgements] == (
                [] if said is None else [("gpt-4o", 1)]
            )


@virtual
async def test_a_drift_is_an_alert():
    """When guesses that seemed safe turn out wrong again and again, the rule forgets, and says so."""
    async with recalling() as w:
        learner = w.gateway.learner
        for case in evidence(600):
            await learner.record(case)
        rule = await learner.rule("default")
        for _ in range(400):
            rule.decide(evidence(1)[0].features)
        assert rule.threshold > 0
        case = evidence(1)[0]
        for i in range(100):
            if rule.threshold > 0:
                changed = {"id": f"d{i}", "wrong": True, "risk": rule.risk(case.features)}
                await learner.record(msgspec.structs.replace(case, **changed))
        assert rule.threshold == 0 and rule.drifts == 1
        assert [alert.name for alert in w.gateway.telemetry.alerts] == ["semantic_cache_drift"]
