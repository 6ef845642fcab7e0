"""route through the whole gateway: rules, learned routers, cascades, affinity, books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from cascades import Models
from worlds import ONLY, Fake, answer, chat, decisions, status, virtual, world

from negawatt.call import Call, Target
from negawatt.embedders.hashing import Hashing
from negawatt.errors import ConfigError
from negawatt.reply import Reply
from negawatt.routing.gain import Card, GainModel, cross_fitted
from negawatt.routing.router import Router, levels_of
from negawatt.wire.messages import MESSAGES
from negawatt.wire.responses import RESPONSES

SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
TWO = [{"model": SMALL}, {"model": LARGE}]
EASY = "name the colour of the sky and of grass number"
HARD = "prove the theorem about prime integrals number"


class Embedder:
    """Hashes words, as the embedded fallback does."""

    def __init__(self) -> None:
        self._hashing = Hashing()
        self.learned, self.id, self.dimensions = False, self._hashing.id, self._hashing.dimensions
        self.asked: list[str] = []

    async def embed(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return self._hashing.embed(texts)

    async def close(self) -> None:
        """Nothing is open."""


def router_file(folder: Path, candidates: tuple[str, ...] = (SMALL, LARGE)) -> str:
    """Fit a router on questions of which the small model can do the easy ones only, and write its file."""
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    texts = [f"{HARD if one else EASY} {i}" for i, one in enumerate(hard)]
    outcomes = np.column_stack([np.where(hard, rng.random(400) < 0.05, True), np.ones(400)]).astype(float)
    vectors = Hashing().embed(texts)
    card = Card(candidates=candidates, embedder=Hashing().id)
    model = GainModel.fit(texts, vectors, outcomes, seed=0, card=card)
    found = cross_fitted(texts, vectors, outcomes, seed=0)
    path = folder / "router.npz"
    Router.of(model, levels_of(found, outcomes, None)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = router_file(tmp_path_factory.mktemp("router"))
    return {"auto": {"how": "learned", "router": path, "candidates": TWO, "quality": {"loss": 0.05}}}


@virtual
async def test_a_learned_router_asks_the_small_model_what_it_can_do(learned: dict[str, Any]):
    """And the large one the rest; the decision has the gain, and the chances of both."""
    async with world(policies=learned, levers=ONLY, embedder=Embedder()) as w:
        await w.ask(chat(f"{EASY} 57", model="auto"))
        await w.ask(chat(f"{HARD} 58", model="auto"))
        assert w.provider.models == [SMALL, LARGE]
        detail = decisions(w.rows()[0], "route")[0]["detail"]
        assert detail["by"] == "learned"
        assert detail["expected_success"] > 0.8
        assert set(detail["probabilities"]) == {SMALL, LARGE}


@virtual
async def test_a_learned_router_abstains_from_what_it_does_not_know(learned: dict[str, Any]):
    """Prompts unlike any that it was fitted on, targets that it was not seen to reach, and no words at all."""
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    async with world(policies=learned, levers=ONLY, embedder=Embedder()) as w:
        await w.ask(chat("Wie komme ich zum Bahnhof?", model="auto"))
        await w.ask(chat(f"{EASY} 57", model="auto"), quality="0.9999")
        await w.ask({"model": "auto", "messages": [{"role": "user", "content": picture}]})
        assert w.provider.models == [LARGE, LARGE, LARGE]
        reasons = [decisions(row, "route")[0]["reason"] for row in w.rows()]
        assert "nothing like it was learned from" in reasons[0]
        assert "no threshold is surely good enough" in reasons[1]
        assert "no words" in reasons[2]


@virtual
async def test_in_an_agents_loop_the_last_human_ask_is_routed(learned: dict[str, Any]):
    """Not what a tool returned."""
    loop = [
        {"role": "user", "content": f"{EASY} 57"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": f"{HARD} 58 " * 20},
    ]  # fmt: skip
    embedder = Embedder()
    async with world(policies=learned, levers=ONLY, embedder=embedder) as w:
        await w.ask({"model": "auto", "messages": loop})
        assert w.provider.models == [SMALL]
        assert embedder.asked == [f"{EASY} 57"]


@virtual
async def test_a_router_of_other_candidates_or_another_embedder_is_refused(learned: dict[str, Any], tmp_path: Path):
    """With both names and the remedy, before anything is asked."""
    other = [{"model": "gpt-4.1-nano"}, {"model": LARGE}]
    with pytest.raises(ConfigError, match=r"policies\.auto\.router: .*gpt-4\.1-nano.*fit it again"):
        async with world(policies={"auto": {**learned["auto"], "candidates": other}}, embedder=Embedder()):
            pass
    stranger = Embedder()
    stranger.id = "another"
    with pytest.raises(ConfigError, match="another is configured"):
        async with world(policies=learned, embedder=stranger):
            pass
    with pytest.raises(ConfigError, match=r"nowhere\.npz"):
        async with world(policies={"auto": {**learned["auto"], "router": "nowhere.npz"}}, embedder=Embedder()):
            pass


@virtual
async def test_the_first_rule_that_describes_the_request_names_the_model():
    """In every protocol; where none does, the policy's model, else the reference."""
    rules = [{"when": {"says": "(?i)prove"}, "model": LARGE}, {"when": {"max_chars": 20}, "model": SMALL}]
    policies = {"auto": {"how": "rule", "rules": rules, "candidates": TWO}}
    async with world(policies=policies, levers=ONLY) as w:
        for text in ("Prove it", "short", "long enough to be under no rule of these"):
            await w.ask(chat(text, model="auto"))
        await w.send(w.call({"model": "auto", "input": "short"}, wire=RESPONSES))
        ask = [{"role": "user", "content": "short"}]
        await w.send(w.call({"model": "auto", "max_tokens": 9, "messages": ask}, wire=MESSAGES))
        assert w.provider.models == [LARGE, SMALL, LARGE, SMALL, SMALL]
        assert [decisions(row, "route")[0]["reason"] for row in w.rows()[:3]] == [
            "rule 1", "rule 2", "no rule applies: the reference"
        ]  # fmt: skip


CASCADE = {"auto": {"how": "cascade", "candidates": TWO, "cascade": {
    "verify": [{"kind": "regex", "pattern": "^yes"}], "explore": 0}}}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_a_cascade_escalates_what_is_not_accepted(stream: bool):
    """Whole and streamed alike; the caller gets one answer, the row has all that was asked."""
    provider = Models({SMALL: ["yes, it is", "who knows"], LARGE: "no, it is not"})
    options = {"stream_options": {"include_usage": True}} if stream else {}
    async with world(provider, policies=CASCADE, levers=ONLY, embedder=Embedder()) as w:
        accepted = await w.ask(chat("one", model="auto", stream=stream, **options))
        escalated = await w.ask(chat("two", model="auto", stream=stream, **options))
        assert (accepted.text, escalated.text) == ("yes, it is", "no, it is not")
        assert provider.models == [SMALL, SMALL, LARGE]
        first, second = w.rows()
        assert (first.attempts, second.attempts) == (1, 2)
        assert (first.response_model, second.response_model) == (SMALL, LARGE)
        assert [d["action"] for d in decisions(first, "route")] == ["accepted", "instead"]
        assert [d["action"] for d in decisions(second, "route")] == ["escalated", "instead"]
        assert first.cost_pusd < first.baseline_cost_pusd
        assert second.cost_pusd > second.baseline_cost_pusd, "what was thrown away was paid for"


@virtual
async def test_an_accepted_answer_is_kept_as_any_other():
    """Who asks the same again gets it from the cache; a small model's failure is not kept as the policy's answer."""
    provider = Models({SMALL: ["yes, it is", status(503)], LARGE: "no, it is not"})
    async with world(provider, policies=CASCADE, embedder=Embedder()) as w:
        for text in ("one", "one", "two"):
            await w.ask(chat(text, model="auto"))
        assert [row.ending for row in w.rows()] == ["answered", "cached", "answered"]
        assert provider.models == [SMALL, SMALL, LARGE]


def conversation(turns: int) -> list[dict[str, str]]:
    told = [{"role": "system", "content": "You help. " * 2000}]
    for turn in range(turns):
        told += [{"role": "user", "content": f"question {turn}"}, {"role": "assistant", "content": "an answer"}]
    return [*told, {"role": "user", "content": "the last question"}]


@virtual
async def test_a_conversation_keeps_its_model_while_that_is_cheaper():
    """The warm prefix of the large model costs less than a cold one of a middling one; a new conversation is cold."""
    middling = "gpt-4.1"
    rules = [{"when": {"says": "question 0"}, "model": LARGE}]
    policies = {"auto": {"how": "rule", "rules": rules, "model": middling, "candidates": [
        {"model": middling, "tier": 1}, {"model": LARGE, "tier": 2}]}}  # fmt: skip
    usage = {"prompt_tokens": 6000, "completion_tokens": 5, "total_tokens": 6005}
    provider = Models({middling: answer("an answer", usage=usage), LARGE: answer("an answer", usage=usage)})
    first = [*conversation(0)[:-1], {"role": "user", "content": "question 0"}]
    async with world(provider, policies=policies, levers=ONLY) as w:
        await w.ask(chat(messages=first, model="auto", max_tokens=5))
        await w.ask(chat(messages=conversation(1), model="auto", max_tokens=5))
        other = [{"role": "system", "content": "You differ. " * 2000}, *conversation(1)[1:]]
        await w.ask(chat(messages=other, model="auto", max_tokens=5))
        assert provider.models == [LARGE, LARGE, middling]
        assert decisions(w.rows()[1], "route")[0]["detail"]["by"] == "affinity"


@virtual
async def test_effort_is_part_of_the_choice():
    """The same model at another effort is another candidate; the caller's own effort gives way."""
    policies = {"auto": {"how": "rule", "model": "gpt-5", "effort": "low", "candidates": [
        {"model": "gpt-5", "effort": "low"}, {"model": "gpt-5", "effort": "high"}],
        "rules": [{"when": {"says": "think"}, "model": "gpt-5", "effort": "high"}]}}  # fmt: skip
    async with world(policies=policies, levers=ONLY) as w:
        await w.ask(chat("hello", model="auto", temperature=None))
        await w.ask(chat("think", model="auto", temperature=None, reasoning_effort="none"))
        assert [one.get("reasoning_effort") for one in w.provider.asked] == ["low", "high"]
        details = [decisions(row, "route")[0]["detail"] for row in w.rows()]
        assert [(one["effort"], one["tier"]) for one in details] == [("low", 1), ("high", 2)]


@virtual
async def test_classes_that_rules_find_come_under_their_policy():
    """Named by classify, and nothing that the caller had to say."""
    classes = {"maths": {"policy": "careful", "match": [{"says": r"\d \+ \d"}]}}
    policies = {"auto": {"model": SMALL, "candidates": TWO}, "careful": {"model": LARGE, "candidates": TWO}}
    async with world(policies=policies, classes=classes, levers=ONLY) as w:
        await w.ask(chat("what is 3 + 4?", model="auto"))
        await w.ask(chat("what is love?", model="auto"))
        assert w.provider.models == [LARGE, SMALL]
        assert [row.request_class for row in w.rows()] == ["maths", "default"]


class Spoken(Fake):
    """A provider of Responses, whose answers are named after the provider that was asked."""

    speaks = frozenset({"responses"})

    async def ask(self, call: Call, target: Target) -> Reply:
        self.models.append(target.model)
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}
        body = {"id": f"resp_{target.provider}", "object": "response", "status": "completed", "model": target.model,
                "output": [said], "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}}  # fmt: skip
        return Reply(RESPONSES, body=orjson.dumps(body))


@virtual
async def test_who_goes_on_from_an_answer_stays_with_its_provider():
    """Nobody else has the conversation; one that nobody here knows goes to the reference's provider."""
    providers = [{"name": "east", "kind": "openai", "models": ["*mini"]}, {"name": "west", "kind": "openai"}]
    policies = {"auto": {"model": SMALL, "candidates": TWO}}

    provider = Spoken()
    async with world(provider, policies=policies, providers=providers, levers=ONLY) as w:
        await w.send(w.call({"model": LARGE, "input": "hello"}, wire=RESPONSES))
        for previous in ("resp_west", "resp_unknown"):
            await w.send(w.call({"model": "auto", "input": "go on", "previous_response_id": previous}, wire=RESPONSES))
        await w.send(w.call({"model": "auto", "input": "hello"}, wire=RESPONSES))
        await w.send(w.call({"model": "auto", "input": "on", "previous_response_id": "resp_east"}, wire=RESPONSES))
        assert provider.models == [LARGE, LARGE, LARGE, SMALL, SMALL]
