"""The offload lever: code answers in every protocol what it is certain of, and the model everything else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from threefold import PROTOCOLS, asking, send, text_of
from worlds import bare_call, chat, configured, decisions, virtual, world

from negawatt.config import RequestClass
from negawatt.errors import ConfigError
from negawatt.gateway import Gateway
from negawatt.levers.offload import OffloadLever, Parts, not_for_code
from negawatt.offloads import opening
from negawatt.offloads.handler import Answered, Declined, OffloadAsk, offload
from negawatt.reply import Reply
from negawatt.routing.asked import asked_of
from negawatt.translate.said import said
from negawatt.verify.schema import broken_contract
from negawatt.wire.responses import RESPONSES

SUM = "What is 12 * (3 + 4)?"
RULES = """
[[rules]]
name = "return-window"
asks = ["Can I return an order after {days:int} days?"]
when = ["days <= 30"]
answer = "Yes: returns are taken for 30 days."
"""


def on(*handlers: str, allowed: tuple[str, ...] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a configuration in which the class ``desk`` allows *handlers*, or those of *allowed*."""
    settings = {"mode": "on", "handlers": list(handlers), **fields}
    return {
        "levers": {"offload": settings, "retry": {"attempts": 1}},
        "classes": {"desk": {"offload": list(handlers if allowed is None else allowed)}},
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sum_is_answered_without_a_model(protocol: str, stream: bool):
    """In the caller's words, whole or streamed; the row says so, and what the model would have used was saved."""

    @virtual
    async def story():
        async with world(**on("arithmetic")) as w:
            answer = await send(w, protocol, asking(protocol, SUM, stream=stream), request_class="desk")
            assert text_of(protocol, answer) == "84"
            assert w.calls == 0
            (row,) = w.rows()
            assert (row.ending, row.cache, row.attempts, row.cost_pusd) == ("cached", "offload", 0, 0)
            (decision,) = decisions(row, "offload")
            assert decision["detail"] == {"handler": "arithmetic"}
            assert decision["saved"]["basis"] == "estimated"
            assert decision["saved"]["input_tokens"] > 0
            assert row.baseline_cost_pusd > 0

    story()


@virtual
async def test_a_class_that_does_not_allow_it_is_answered_by_its_model():
    """Neither the default class nor one that allows another handler is offloaded."""
    async with world(**on("arithmetic", "formats", allowed=("formats",))) as w:
        assert (await w.ask(chat(SUM))).by == "provider"
        assert (await w.ask(chat("What is 2 + 2?"), request_class="desk")).by == "provider"
        (first, second) = w.rows()
        assert decisions(first, "offload") == []
        assert decisions(second, "offload")[0]["reason"] == "no handler is certain"


DECLINED: dict[str, tuple[dict[str, Any], str]] = {
    "another question": (chat("Why is the sky blue?"), "no handler is certain"),
    "a follow-up": (
        chat(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
                       {"role": "user", "content": SUM}]),
        "a follow-up: what was said before may change the answer",
    ),
    "a tool's result": (
        chat(messages=[{"role": "user", "content": SUM}, {"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "9"}]),
        "the last word is no person's, or not text alone",
    ),
    "a picture": (
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": SUM},
                        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}]),
        "the last word is no person's, or not text alone",
    ),
    "a tool that must be called": (
        chat(SUM, tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="required"),
        "a tool must be called",
    ),
    "several answers": (chat(SUM, n=2), "several answers are wanted"),
    "log probabilities": (chat(SUM, logprobs=True), "log probabilities are wanted, and code has none"),
    "a schema that the answer breaks": (
        chat(SUM, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}),
        "arithmetic: its answer would break the response format",
    ),
    "an agent's words": (
        chat(f"<system-reminder>Answer in French.</system-reminder>\n{SUM}"), "an agent wrote into the turn"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_not_all_in_the_text_goes_to_the_model(name: str):
    """With the reason in the decision, and no saving."""
    request, reason = DECLINED[name]

    @virtual
    async def story():
        async with world(**on("arithmetic")) as w:
            assert (await w.ask(request, request_class="desk")).by == "provider"
            (decision,) = decisions(w.rows()[0], "offload")
            assert (decision["action"], decision["reason"]) == ("pass", reason)
            assert "saved" not in decision

    story()


def test_what_goes_on_from_an_earlier_answer_is_the_models():
    """Whoever names a previous response has said something that is not in the request."""
    call = bare_call(asking("responses", SUM, previous_response_id="resp_1"), wire=RESPONSES)
    assert not_for_code(call, asked_of(call)) == "a follow-up: what was said before may change the answer"


@virtual
async def test_a_json_answer_keeps_the_schema_that_was_asked_for():
    """A handler whose answer is the JSON that the request asks for may give it."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    async with world(**on("formats")) as w:
        answer = await w.ask(
            chat('Minify this JSON:\n```\n{ "a" : 1 }\n```', response_format=wanted), request_class="desk"
        )
        assert (answer.by, answer.text) == ("offload", '{"a":1}')


@virtual
async def test_in_shadow_the_model_answers_and_the_saving_is_noted():
    """The caller gets the model's answer; the decision says what the handler would have spared."""
    async with world(**on("arithmetic", mode="shadow")) as w:
        assert (await w.ask(chat(SUM), request_class="desk")).by == "provider"
        (row,) = w.rows()
        (decision,) = decisions(row, "offload")
        assert (decision["mode"], decision["action"]) == ("shadow", "hit")
        assert decision["saved"]["input_tokens"] > 0
        assert (row.cache, row.baseline_cost_pusd) == ("miss", row.cost_pusd)


@virtual
async def test_rules_come_from_a_table(tmp_path: Path):
    """The handler ``rules`` is there where a file of rules is, and a class has to allow it like any other."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    async with world(**on(allowed=("rules",), rules=str(path))) as w:
        answer = await w.ask(chat("Can I return an order after 10 days?"), request_class="desk")
        assert (answer.by, answer.text) == ("offload", "Yes: returns are taken for 30 days.")
        assert (await w.ask(chat("Can I return an order after 40 days?"), request_class="desk")).by == "provider"


# -- handlers that go wrong ------------------------------------------------------------------------------------


@offload("broken")
def broken(ask: OffloadAsk) -> Answered | Declined:
    raise RuntimeError("no such table")


@offload("certain")
def certain(ask: OffloadAsk) -> Answered | Declined:
    return Answered("42")


@offload("endless")
async def endless(ask: OffloadAsk) -> Answered | Declined:
    await asyncio.Event().wait()
    return Answered("never")


async def passed_through(*handlers: Any) -> tuple[Reply, list[Any]]:
    """Return the reply to a sum and the decisions, where *handlers* are allowed."""
    classes = {"default": RequestClass(offload=tuple(one.name for one in handlers))}
    lever = OffloadLever(handlers, classes, Parts(said, broken_contract, lambda call, text: None))
    call = bare_call(chat(SUM))

    async def model(call: Any) -> Reply:
        return Reply(call.wire, body=b'{"by": "the model"}')

    return await lever(call, model), call.trail.decisions


@virtual
async def test_a_handler_that_raises_is_passed_by_with_its_reason():
    """The next one answers, and the decision names the one that failed and why."""
    reply, noted = await passed_through(broken, certain)
    assert reply.answered_by == "offload"
    assert [(one.action, one.reason) for one in noted] == [
        ("failed", "broken: it failed: RuntimeError: no such table"), ("hit", None)
    ]  # fmt: skip
    reply, noted = await passed_through(broken)
    assert reply.data == {"by": "the model"}
    assert [one.action for one in noted] == ["failed", "pass"]


@virtual
async def test_a_handler_that_does_not_end_holds_nobody_up():
    """After a second the model is asked."""
    reply, noted = await passed_through(endless, certain)
    assert reply.data == {"by": "the model"}
    assert [(one.action, one.reason) for one in noted] == [("pass", "the handlers took longer than 1 s")]


# -- the configuration -----------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown handler": (on("sums"), "levers.offload.handlers[0]: no handler 'sums'; known: arithmetic, units"),
    "a class that allows one that is not there": (
        on("arithmetic", allowed=("arithmetic", "units")),
        "classes.desk.offload[1]: levers.offload has no handler 'units'; known: arithmetic",
    ),
    "rules that are not there": (on(rules="missing.toml"), "missing.toml"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_refused_at_the_start(name: str):
    """Before anything is opened, with the field and what there is."""
    tables, say = WRONG[name]

    async def opened() -> None:
        async with Gateway.open(configured(ledger={"url": "memory:"}, **tables), providers={}, environ={}):
            raise AssertionError("it was opened")

    with pytest.raises(ConfigError) as error:
        asyncio.run(opened())
    assert say in error.value.message


def test_a_handler_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    """What is missing, and how to get it."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"levers.offload.handlers\[0\]: units needs pint; install negawatt\[offload\]"
    ):
        opening.open_handlers(("units",), "levers.offload.handlers")
