"""Each call gets the class that is declared, described or learned, in this order; and never a scope less strict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from worlds import ManualClock, answer, bare_call, configured, virtual

from negawatt.call import Call, Decision, Request
from negawatt.caller import Caller, Hints, Scope
from negawatt.config import RequestClass
from negawatt.embedders import Embedder
from negawatt.embedders.batching import Batching
from negawatt.embedders.hashing import Hashing
from negawatt.errors import ConfigError, EmbedderError, InvalidRequest
from negawatt.keys import narrowed
from negawatt.levers.classify import Classify
from negawatt.pipeline import Background, Pipeline, Step
from negawatt.reply import Reply
from negawatt.routing.intents import Example, Intents
from negawatt.wire.chat import CHAT

CLASSES: dict[str, Any] = {
    "code": {"match": [{"says": "(?i)python"}, {"tools": ["edit_*"]}], "path": "generate", "complexity": "high"},
    "mail": {"match": [{"says": "(?i)mail"}], "personal": True, "task": "draft", "risk": "medium"},
    "faq": {"match": [{"template": "faq/*"}], "latency": "interactive"},
    "hours": {},
    "refund": {"path": "retrieve"},
}
EXAMPLES = [
    *[("refund", f"I want my money back for order {i}") for i in range(6)],
    *[("hours", f"when are you open on day {i}") for i in range(6)],
]


def classes(**more: Any) -> dict[str, RequestClass]:
    return dict(configured(classes={**CLASSES, **more}).classes)


def lever(intents: Intents | None = None, embedder: Embedder | None = None, *, confidence: float = 0.5) -> Classify:
    settings = configured(levers={"classify": {"confidence": confidence}}).levers.classify
    return Classify(classes(), settings, intents, embedder)


def saying(text: str, **fields: Any) -> Call:
    asked = {"model": "m", "messages": [{"role": "user", "content": text}]}
    hints = fields.pop("hints", {})
    return bare_call({**asked, **fields}, caller=Caller(user="ada"), hints=Hints(**hints))


class Below:
    """What the lever forwards to."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        return Reply(CHAT, body=Request.canonical(answer()))


async def classified(classify: Classify, call: Call) -> tuple[Call, Decision]:
    below = Below()
    await classify(call, below)
    decision = call.trail.decided("classify")
    assert decision is not None and decision.action == below.calls[0].request_class
    return below.calls[0], decision


@virtual
async def test_the_first_rule_that_describes_the_request_names_its_class():
    """In the order of the file; the decision says which, and what the class says of itself."""
    call, decision = await classified(lever(), saying("Write a mail in Python"))
    assert call.request_class == "code" and decision.reason == "classes.code.match[0]"
    assert decision.detail == {"by": "rule", "path": "generate", "complexity": "high"}
    tools = [{"type": "function", "function": {"name": "edit_file"}}]
    _, decision = await classified(lever(), saying("Fix it", tools=tools))
    assert decision.reason == "classes.code.match[1]"
    call, decision = await classified(lever(), saying("Hello"))
    assert (call.request_class, decision.reason, decision.detail) == ("default", "no rule applies", {"by": "default"})


@virtual
async def test_in_an_agents_loop_the_last_human_ask_is_classified():
    """Neither what a tool returned nor a reminder."""
    call = saying("Write a mail")
    said = [
        *call.request.data["messages"],
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "python python"},
        {"role": "user", "content": "<system-reminder>Use Python.</system-reminder>"},
    ]
    found, _ = await classified(lever(), call.with_request(messages=said))
    assert found.request_class == "mail"


@virtual
async def test_what_is_declared_goes_before_rules():
    """Header, then metadata, then the template; default may be declared too."""
    said = {"negawatt": {"template": "faq/returns"}}
    _, decision = await classified(lever(), saying("Write Python", **said))
    assert (decision.action, decision.reason) == ("faq", "classes.faq.match[0]")
    said["metadata"] = {"negawatt_class": "hours"}
    _, decision = await classified(lever(), saying("Write Python", **said))
    assert (decision.action, decision.reason) == ("hours", "metadata.negawatt_class")
    call = saying("Write Python", hints={"request_class": "refund", "task": "triage"}, **said)
    _, decision = await classified(lever(), call.with_(request_class="refund"))
    assert (decision.action, decision.reason) == ("refund", "x-negawatt-class")
    assert decision.detail == {"by": "declared", "path": "retrieve", "task": "triage"}
    _, decision = await classified(lever(), saying("Write Python", hints={"request_class": "default"}))
    assert (decision.action, decision.detail) == ("default", {"by": "declared"})
    _, decision = await classified(lever(), saying("Write Python", metadata={"negawatt_class": "default"}))
    assert (decision.action, decision.detail) == ("default", {"by": "declared"})


@virtual
async def test_a_class_that_is_none_is_refused():
    """As in the header: with the names that there are. Other fields of the metadata are the caller's own."""
    with pytest.raises(InvalidRequest) as caught:
        await lever()(saying("Hello", metadata={"negawatt_class": "fqa"}), Below())
    assert caught.value.param == "metadata.negawatt_class"
    assert "'fqa'; known: code, faq, hours, mail, refund" in str(caught.value)
    await classified(lever(), saying("Hello", metadata={"class": "fqa"}))
    with pytest.raises(InvalidRequest, match="known: none"):
        await Classify({}, configured().levers.classify)(saying("Hi", metadata={"negawatt_class": "x"}), Below())


@virtual
async def test_a_personal_class_narrows_the_scope():
    """To the user that the call names; one that was narrow stays so, whatever class comes."""
    call, decision = await classified(lever(), saying("Write a mail"))
    assert call.scope == Scope(user="ada") and call.trail.call is call
    assert decision.detail == {"by": "rule", "task": "draft", "risk": "medium"}
    narrow = saying("Write Python").with_(scope=Scope(tenant="t", user="eve"))
    call, _ = await classified(lever(), narrow)
    assert call.request_class == "code" and call.scope == narrow.scope
    narrow = saying("Write a mail").with_(scope=Scope(tenant="t", user="eve"))
    assert (await classified(lever(), narrow))[0].scope == narrow.scope


def test_a_scope_is_only_ever_narrowed():
    """All else of it stays."""
    scope = Scope(tenant="t", permissions="p", corpus_version="3", model_policy="openai/m")
    caller = Caller(tenant="t", user="ada")
    assert narrowed(scope, caller, personal=False) is scope
    assert narrowed(scope, None, personal=True) is scope
    narrow = narrowed(scope, caller, personal=True)
    assert narrow == Scope(tenant="t", permissions="p", user="ada", corpus_version="3", model_policy="openai/m")
    assert narrowed(narrow, Caller(user="eve"), personal=True) is narrow
    assert narrowed(narrow, Caller(user="eve"), personal=False) is narrow


@virtual
async def test_without_rules_nothing_is_done():
    """Nor noted: there is nothing to say."""
    classify, call, below = Classify({}, configured().levers.classify), saying("Hello"), Below()
    await classify(call, below)
    assert below.calls == [call] and call.trail.decisions == []


class Counting(Batching):
    """Counts what it is asked; *broken*: it fails."""

    def __init__(self) -> None:
        super().__init__(Hashing(), threads=False)
        self.texts: list[str] = []
        self.broken = False

    async def embed(self, texts: Sequence[str]) -> Any:
        if self.broken:
            raise EmbedderError("out of order")
        self.texts += texts
        return await super().embed(texts)


def learner(examples: list[tuple[str, str]] = EXAMPLES) -> Intents:
    return Intents(tuple(Example(text, label, "") for label, text in examples), threads=False)


@virtual
async def test_intents_are_asked_where_no_rule_applies():
    """With the probability; what is like no example, or not likely enough, is of class default, and why is said."""
    intents, embedder = learner(), Counting()
    await intents.prepare(embedder)
    embedder.texts.clear()
    _, decision = await classified(lever(intents, embedder), saying("Python: I want my money back for order 9"))
    assert decision.action == "code" and embedder.texts == []
    call, decision = await classified(lever(intents, embedder), saying("I want my money back for order 9"))
    assert call.request_class == "refund" and embedder.texts == ["I want my money back for order 9"]
    assert decision.detail is not None and decision.detail["by"] == "intent" and decision.detail["confidence"] > 0.5
    _, decision = await classified(lever(intents, embedder), saying("Prove Fermat's theorem"))
    assert (decision.action, decision.reason) == ("default", "unlike the examples")
    strict = lever(intents, embedder, confidence=1.0)
    _, decision = await classified(strict, saying("I want my money back for order 9"))
    assert (decision.action, decision.reason) == ("default", "refund is not likely enough")
    assert decision.detail is not None and decision.detail["by"] == "default" and "confidence" in decision.detail
    _, decision = await classified(lever(intents, embedder), saying(" "))
    assert decision.reason == "nobody asked anything in words"


@virtual
async def test_what_is_like_the_examples_of_default_is_of_default():
    """They are learned as a class of their own."""
    intents, embedder = learner([*EXAMPLES, *[("default", f"tell me joke number {i}") for i in range(6)]]), Counting()
    await intents.prepare(embedder)
    _, decision = await classified(lever(intents, embedder), saying("tell me joke number 7"))
    assert (decision.action, decision.reason) == ("default", "like the examples of default")


@virtual
async def test_before_the_intents_have_learned_rules_alone_classify():
    """The first call starts the learning where nobody else did, and is not held up by it."""
    intents, embedder = learner(), Counting()
    classify = lever(intents, embedder)
    _, decision = await classified(classify, saying("I want my money back for order 9"))
    assert (decision.action, decision.reason) == ("default", "the intents are being learned")
    assert (await classified(classify, saying("Write Python")))[0].request_class == "code"
    await intents.prepare(embedder)
    assert (await classified(classify, saying("I want my money back for order 9")))[0].request_class == "refund"


@virtual
async def test_an_embedder_that_fails_leaves_the_rules():
    """Before and after the learning; the decision says why."""
    intents, embedder = learner(), Counting()
    embedder.broken = True
    await intents.prepare(embedder)
    classify = lever(intents, embedder)
    reason = "the embedder failed: out of order"
    assert (await classified(classify, saying("I want my money back")))[1].reason == reason
    embedder.broken = False
    await asyncio.sleep(30)
    await intents.prepare(embedder)
    embedder.broken = True
    assert (await classified(classify, saying("I want my money back")))[1].reason == reason
    assert (await classified(classify, saying("Write Python")))[0].request_class == "code"


@virtual
async def test_it_can_be_explained():
    """Everything that speaks for a class, the one that the call gets first."""
    intents, embedder = learner(), Counting()
    await intents.prepare(embedder)
    classify = lever(intents, embedder)
    for text in ("I want my money back by mail, in Python", "I want my money back for order 9", "Prove it"):
        call = saying(text)
        found = await classify.explain(call)
        assert call.trail.decisions == []
        assert found[0].name == (await classified(classify, call))[1].action
    found = await classify.explain(
        saying("I want my money back by mail, in Python", metadata={"negawatt_class": "faq"})
    )
    assert [one.name for one in found[:3]] == ["faq", "code", "mail"]
    assert {(one.name, one.by) for one in found[3:]} >= {("hours", "intent")}
    assert [one.name for one in await lever().explain(saying("Hello"))] == ["default"]


def test_a_rule_that_can_describe_nothing_is_refused_with_its_place():
    """Before anything is opened."""
    with pytest.raises(ConfigError, match=r"classes\.bad\.match\[1\]\.says: "):
        Classify(classes(bad={"match": [{"tools": True}, {"says": "("}]}), configured().levers.classify)


@virtual
async def test_the_modes_hold_for_it_as_for_every_lever():
    """On, off, and in shadow, where it decides and changes nothing; the holdout is classified too."""
    for mode in ("on", "off", "shadow"):
        background, below = Background(), Below()
        steps = [Step("classify", lever(), saves=False, mode=mode)]  # type: ignore[arg-type]
        pipeline = Pipeline(steps, below, class_modes={}, background=background)
        call = saying("Write a mail")
        call.trail.holdout = True
        reply = await pipeline(call)
        await reply.whole()
        await reply.close()
        await background.drain()
        got = below.calls[0]
        assert len(below.calls) == 1
        assert (got.request_class, got.scope.user) == (("mail", "ada") if mode == "on" else ("default", None))
        assert call.trail.call is got
        modes = [one.mode for one in call.trail.decisions]
        assert modes == {"on": ["on"], "off": [], "shadow": ["shadow"]}[mode]


def test_the_clock_plays_no_part():
    """The same request gets the same class at any time."""

    async def twice() -> list[str]:
        calls = [bare_call({"model": "m", "messages": [{"role": "user", "content": "mail"}]}, clock=ManualClock(t))
                 for t in (0.0, 1e6)]  # fmt: skip
        return [(await classified(lever(), call))[0].request_class for call in calls]

    assert asyncio.run(twice()) == ["mail", "mail"]
