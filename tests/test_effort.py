"""Reasoning effort is part of where a name leads: it is asked for in the provider's own words, whoever speaks which."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from worlds import CHAT, Fake, chat, virtual, world

from negawatt.call import Call, Request, Target
from negawatt.errors import ConfigError, UpstreamStatus
from negawatt.protocol import Wire
from negawatt.reply import Reply
from negawatt.translate.answer import translated
from negawatt.translate.routes import route
from negawatt.wire.wires import WIRES

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
THOUGHT = {"type": "adaptive"}


def said(protocol: str, effort: str, **fields: Any) -> dict[str, Any]:
    """Return what becomes of a request with *fields*."""
    return dict(WIRES[protocol].with_effort(Request(data={"model": "m", **fields}), effort).data)


# -- in one protocol -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", EFFORTS)
def test_chat_says_it_in_one_field(effort: str):
    """Whatever the caller said, in OpenAI's words or in those that count more."""
    for before in ({}, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled", "budget_tokens": 9}}):
        assert said("chat", effort, **before) == {"model": "m", "reasoning_effort": effort}


def test_chat_says_it_where_the_caller_said_it():
    """In OpenRouter's object, whose other fields are kept; two words for the same would be refused."""
    before = {"reasoning": {"max_tokens": 9, "enabled": True, "exclude": True}, "reasoning_effort": "high"}
    assert said("chat", "low", **before) == {"model": "m", "reasoning": {"exclude": True, "effort": "low"}}


@pytest.mark.parametrize("effort", EFFORTS)
def test_responses_keeps_what_else_is_said_of_reasoning(effort: str):
    """Summaries are not effort."""
    before = {"effort": "high", "summary": "auto"}
    assert said("responses", effort, reasoning=before)["reasoning"] == {"effort": effort, "summary": "auto"}
    assert said("responses", effort)["reasoning"] == {"effort": effort}


@pytest.mark.parametrize("effort", EFFORTS)
def test_messages_says_it_in_two_fields(effort: str):
    """The same two that a request of Chat Completions would come out with, where it has the same effort."""
    native = said("messages", effort)
    way = route("chat", {"messages"})
    assert way is not None
    from_chat = way.request({**chat(temperature=None), "reasoning_effort": effort})
    for name in ("thinking", "output_config"):
        assert native.get(name) == from_chat.get(name)


def test_messages_forgets_what_the_caller_said_of_thinking():
    """A budget and an effort go; the form of the answer and the display of thoughts stay."""
    budget = {"type": "enabled", "budget_tokens": 2_000, "display": "omitted"}
    form = {"type": "json_schema", "schema": {}}
    found = said("messages", "low", thinking=budget, output_config={"effort": "max", "format": form})
    assert found["thinking"] == {**THOUGHT, "display": "omitted"}
    assert found["output_config"] == {"effort": "low", "format": form}
    silent = said("messages", "none", thinking=budget, output_config={"effort": "max"})
    assert silent == {"model": "m", "thinking": {"type": "disabled"}}


@pytest.mark.parametrize("protocol", ["completions", "embeddings", "rerank", "count_tokens"])
def test_where_nobody_thinks_nothing_changes(protocol: str):
    """The request itself comes back, with its bytes."""
    request = Request(b'{"model":  "m"}')
    assert WIRES[protocol].with_effort(request, "high") is request


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
def test_what_was_said_already_leaves_the_bytes_alone(protocol: str):
    """The provider's prefix cache, and whoever signs bodies, see the caller's own."""
    wire = WIRES[protocol]
    once = wire.with_effort(Request(data={"model": "m"}), "high")
    assert wire.with_effort(once, "high") is once


# -- on the path -----------------------------------------------------------------------------------------------


class Speaking(Fake):
    """A provider that speaks one protocol."""

    def __init__(self, protocol: str) -> None:
        super().__init__(delay_s=0)
        self.speaks = frozenset({protocol})
        self.wire = WIRES[protocol]

    async def ask(self, call: Call, target: Target) -> Reply:
        reply = await super().ask(call, target)
        way = route(self.wire.name, {"chat"})
        return reply if way is None else translated(reply, call.request.data, way, self.wire, CHAT)


ASKED: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": "high"},
    "responses": {"input": "Hi", "reasoning": {"effort": "high"}},
    "messages": {
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
    },
}  # fmt: skip


def heard(protocol: str, request: dict[str, Any]) -> Any:
    """Return the effort that a provider of *protocol* reads off *request*."""
    if protocol == "chat":
        return request.get("reasoning_effort")
    if protocol == "responses":
        return (request.get("reasoning") or {}).get("effort")
    if request["thinking"]["type"] == "disabled":
        return "none"
    return (request.get("output_config") or {}).get("effort")


def models(effort: str | None) -> list[dict[str, Any]]:
    entry = {"name": "m", "provider": "openai", "upstream": "gpt-5"}
    return [entry if effort is None else {**entry, "effort": effort}]


async def asked(spoken: str, heard_in: str, effort: str | None, **fields: Any) -> tuple[dict[str, Any], Any]:
    """Return what the provider was asked, and the answer."""
    async with world(Speaking(heard_in), models=models(effort)) as w:
        wire: Wire = WIRES[spoken]
        found = await w.send(w.call({"model": "m", **ASKED[spoken], **fields}, wire=wire))
        return w.provider.asked[0], found


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "max"])
@pytest.mark.parametrize("heard_in", ASKED)
@pytest.mark.parametrize("spoken", ASKED)
@virtual
async def test_the_target_s_effort_is_what_the_provider_hears(spoken: str, heard_in: str, effort: str):
    """Between any two protocols, exactly; Messages alone has no word for the least, and hears the next."""
    request, found = await asked(spoken, heard_in, effort)
    expected = "low" if heard_in == "messages" and effort == "minimal" else effort
    assert heard(heard_in, request) == expected
    if spoken == "responses" and heard_in == "chat":
        assert found.data["reasoning"] == {"effort": effort}, "the answer says what was asked for, not by whom"


@pytest.mark.parametrize("heard_in", ASKED)
@pytest.mark.parametrize("spoken", ASKED)
@virtual
async def test_without_one_the_caller_s_own_word_counts(spoken: str, heard_in: str):
    """A model that is configured without an effort changes nothing."""
    request, _ = await asked(spoken, heard_in, None)
    assert heard(heard_in, request) == "high"


@virtual
async def test_the_books_and_the_caches_tell_efforts_apart():
    """The same question to the same model, once at each effort: two calls, and each row names its own."""
    both = [{**models(effort)[0], "name": name} for name, effort in (("quick", "low"), ("careful", "high"))]
    aliases = {"models": both}
    async with world(**aliases) as w:
        for name in ("quick", "careful", "quick"):
            await w.ask(chat(model=name))
        assert [one["reasoning_effort"] for one in w.provider.asked] == ["low", "high"]
        logs = [orjson.loads(row.attempt_log) for row in w.rows()]
        assert [[one["effort"] for one in log] for log in logs] == [["low"], ["high"], []]
        targets = [w.gateway.catalogue.targets(name)[0] for name in ("quick", "careful", "gpt-5")]
        assert [t.label for t in targets] == ["openai/gpt-5 at low", "openai/gpt-5 at high", "openai/gpt-5"]


@virtual
async def test_a_fallback_has_an_effort_of_its_own():
    """What the first target was told is not told to the next."""
    both = [
        {**models("low")[0], "name": "main", "fallbacks": ["spare"]},
        {"name": "spare", "provider": "openai", "upstream": "gpt-4o"},
    ]
    async with world(models=both) as w:
        w.provider.script = [UpstreamStatus(503, b"{}", {})]
        await w.ask(chat(model="main"))
        assert [one.get("reasoning_effort") for one in w.provider.asked] == ["low", None]


@virtual
async def test_an_effort_that_the_model_does_not_know_is_the_provider_s_to_refuse():
    """Its own error reaches the caller: nothing is tried in its place."""
    error = orjson.dumps({"error": {"message": "unsupported value: reasoning_effort", "param": "reasoning_effort"}})
    async with world(models=models("xhigh")) as w:
        w.provider.script = [UpstreamStatus(400, error, {})]
        assert await w.failing(chat(model="m")) is not None
        (row,) = w.rows()
        assert (row.status, row.attempts, row.ending) == (400, 1, "upstream_error")


def test_a_word_that_is_no_effort_is_refused_before_anything_opens():
    """With the path of the field."""
    from negawatt.config import parse_config

    with pytest.raises(ConfigError) as caught:
        parse_config({"providers": [{"name": "openai"}], "models": models("enormous")})
    assert caught.value.param == "models[0].effort"
