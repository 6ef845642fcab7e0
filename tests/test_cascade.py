"""The cascade: one answer from one model, everything on the books, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import orjson
import pytest
from cascades import LARGE, OTHER, SMALL, Cascaded, Models, streamed, targets_of
from worlds import answer, chat, chunks_of, configured, settled, status, virtual

from negawatt.call import Request, Target
from negawatt.config_routes import Check
from negawatt.errors import DeadlineExceeded, UpstreamBroken, UpstreamStatus
from negawatt.levers.retry import Retry
from negawatt.verify.verdict import Case
from negawatt.wire.messages import MESSAGES
from negawatt.wire.responses import RESPONSES

NUMBER = Check(kind="regex", pattern=r"^\d+$")
JUDGE = Check(kind="judge", model=OTHER)
DRAFT = Check(kind="draft")
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def raising(case: Case) -> bool:
    """A verifier that is broken."""
    raise LookupError("no such thing")


RAISES = Check(kind="python", call="test_cascade:raising")


@virtual
async def test_an_accepted_answer_is_the_small_ones_and_the_large_one_is_not_asked():
    """What passes is the answer; the decision says which model, which score, whose verdict, what is not promised."""
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER])
    got = await w.ask()
    assert got.text == "42"
    assert w.provider.models == [SMALL]
    (said,) = w.said()
    assert said["action"] == "accepted"
    assert said["reason"] == "no guarantee: not calibrated"
    assert said["detail"]["model"] == SMALL
    assert said["detail"]["score"] == 1.0
    assert said["detail"]["verdicts"] == [{"kind": "regex", "passed": True, "score": 1.0}]


@virtual
async def test_what_is_not_accepted_is_asked_of_the_reference_and_both_are_paid():
    """The caller gets the reference's answer; the row has both attempts, and the sum of what they used and cost."""
    w = Cascaded(Models({SMALL: "forty-two", LARGE: "42"}), [NUMBER])
    got = await w.ask()
    assert got.text == "42"
    row = w.row()
    assert row.response_model == LARGE
    assert row.attempts == 2
    assert (row.input_tokens, row.output_tokens) == (200, 40)
    costs = [attempt["cost_pusd"] for attempt in orjson.loads(row.attempt_log)]
    assert row.cost_pusd == sum(costs)
    assert min(costs) > 0
    (said,) = w.said()
    assert said["action"] == "escalated"
    assert said["reason"].startswith("regex: ")


@virtual
async def test_small_ones_are_asked_in_their_order():
    """Each is asked when the one before was not accepted, and the first that passes answers."""
    w = Cascaded(Models({SMALL: "none", OTHER: "7", LARGE: "8"}), [NUMBER], small=[SMALL, OTHER])
    assert (await w.ask()).text == "7"
    assert w.provider.models == [SMALL, OTHER]
    assert [one["action"] for one in w.said()] == ["escalated", "accepted"]


@pytest.mark.parametrize("wrong", [status(500), status(400), UpstreamBroken("it broke off")], ids=["500", "400", "cut"])
@virtual
async def test_a_small_model_that_fails_is_escalated(wrong: Exception):
    """Its error is a reason, never the caller's."""
    w = Cascaded(Models({SMALL: wrong, LARGE: "42"}), [NUMBER])
    assert (await w.ask()).text == "42"
    (said,) = w.said()
    assert said["action"] == "escalated"
    assert type(wrong).__name__ in said["reason"]
    assert w.row().attempts == 2


@virtual
async def test_a_small_model_that_is_busy_is_not_waited_for():
    """It asks to be left alone for ten seconds: the reference is asked at once, and is itself retried as ever."""
    busy = status(429, retry_after="10")
    w = Cascaded(Models({SMALL: busy, LARGE: [status(500), "42"]}), [NUMBER])
    w.retry = Retry(configured(levers={"retry": {"attempts": 3}}).levers.retry, w.clock, random.Random(0))
    assert (await w.ask()).text == "42"
    assert w.provider.models == [SMALL, LARGE, LARGE]
    assert w.row().duration_s < 10.0


@virtual
async def test_a_verifier_that_raises_is_a_failed_verdict():
    """The call is answered by the reference, and the decision has the reason."""
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [RAISES])
    assert (await w.ask()).text == "43"
    assert w.said()[0]["detail"]["verdicts"][0]["reason"] == "raised LookupError: no such thing"


@virtual
async def test_an_answer_that_was_cut_off_is_put_to_no_verifier():
    """It is escalated at once: no judge is paid for half an answer."""
    cut = answer("4")
    cut["choices"][0]["finish_reason"] = "length"
    w = Cascaded(Models({SMALL: cut, LARGE: "43", OTHER: "right 99"}), [JUDGE])
    assert (await w.ask()).text == "43"
    assert w.provider.models == [SMALL, LARGE]


@virtual
async def test_a_choice_that_calls_a_tool_cannot_be_judged_by_the_other_ones_text():
    """Of several choices all must be judged, or none is accepted."""
    both = answer("42")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    both["choices"].append({"index": 1, "message": message, "finish_reason": "tool_calls"})
    w = Cascaded(Models({SMALL: both, LARGE: "43"}), [NUMBER])
    assert (await w.ask(chat("How many?", n=2))).text == "43"


@virtual
async def test_a_judge_is_paid_by_the_call_that_it_judged_and_answers_for_nobody():
    """Its tokens are in the row; the model that answered is still the small one."""
    w = Cascaded(Models({SMALL: "42", OTHER: "Right, 90", LARGE: "43"}), [JUDGE])
    await w.ask()
    row = w.row()
    assert row.attempts == 2
    assert (row.input_tokens, row.output_tokens) == (200, 40)
    assert row.response_model == SMALL
    assert w.said()[0]["detail"]["score"] == 0.9
    asked = w.provider.asked[1]["messages"]
    assert len(asked) == 1
    assert "<answer>\n42\n</answer>" in asked[0]["content"]


@virtual
async def test_a_judge_that_refuses_a_temperature_is_asked_without():
    """It is asked anew once, and never with one again."""
    refuses = UpstreamStatus(400, b"{}", {})
    w = Cascaded(Models({SMALL: "42", OTHER: [refuses, "right", "right"], LARGE: "43"}), [JUDGE])
    assert (await w.ask()).text == "42"
    assert ["temperature" in asked for asked in w.provider.asked[1:]] == [True, False]


def with_fallback(model: str) -> tuple[Target, ...]:
    """Return where a model leads that has a fallback: retry then makes a copy of the call for each of the two."""
    return (*targets_of(model), Target("openai", "gpt-4.1", "gpt-4.1"))


@virtual
async def test_the_call_goes_on_under_its_own_name():
    """Whatever was asked beside it, the newest copy is the caller's request, at the model that answered."""
    w = Cascaded(Models({SMALL: "42", OTHER: "right", LARGE: "43"}), [JUDGE, Check(kind="logprob", least=0.0)],
                 wiring={"targets_of": with_fallback})  # fmt: skip
    call = w.call(chat("How many?"))
    reply = await w.begin(call)
    newest, answerer = call.trail.call, call.trail.answerer
    assert newest is not None
    assert answerer is not None
    assert newest.request.data == chat("How many?")
    assert newest.targets[0].model == answerer.target.model == reply.data["model"]
    await reply.close()


@virtual
async def test_what_was_counted_is_the_callers_own_request():
    """The judge's prompt is longer than the question."""
    w = Cascaded(Models({SMALL: "42", OTHER: "right", LARGE: "43"}), [JUDGE])
    await w.ask()
    counted = w.row().counted_input_tokens
    assert counted is not None
    assert counted < 30


# -- agreement -------------------------------------------------------------------------------------------------------

AGREE = Check(kind="agreement", with_models=(OTHER,))


@virtual
async def test_second_opinions_are_asked_at_the_same_time():
    """Both cheap models answer within the time of one; where they agree, the small one's answer is taken."""
    w = Cascaded(Models({SMALL: "The answer is 42.", OTHER: "It makes 42, so the answer is 42", LARGE: "43"}), [AGREE])
    got = await w.ask()
    assert got.text == "The answer is 42."
    assert sorted(w.provider.models) == sorted([SMALL, OTHER])
    assert w.row().duration_s == pytest.approx(1.0)
    assert w.row().upstream_s == pytest.approx(1.0)
    assert w.row().response_model == SMALL
    assert w.row().attempts == 2


@virtual
async def test_a_second_opinion_answers_for_nobody():
    """Of two that were asked at the same time, the row and the headers name the one whose answer it is."""
    w = Cascaded(Models({SMALL: "42", OTHER: "42", LARGE: "43"}), [AGREE])
    call = w.call()
    reply = await w.begin(call)
    assert call.trail.answerer is not None
    assert call.trail.answerer.target.model == SMALL
    await reply.close()


@virtual
async def test_where_they_differ_the_reference_answers():
    """And all three are on the books."""
    w = Cascaded(Models({SMALL: "The answer is 41.", OTHER: "The answer is 42.", LARGE: "42"}), [AGREE])
    assert (await w.ask()).text == "42"
    assert w.row().attempts == 3
    assert w.row().response_model == LARGE


@virtual
async def test_a_second_opinion_that_fails_agrees_with_nothing():
    """Its error is on the books, not the caller's."""
    w = Cascaded(Models({SMALL: "42", OTHER: status(500), LARGE: "43"}), [AGREE])
    assert (await w.ask()).text == "43"
    assert w.row().ending == "answered"


@virtual
async def test_samples_of_one_model_are_drawn_with_a_temperature():
    """The likeliest answer, asked for twice, would agree with itself."""
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [Check(kind="agreement", samples=3)])
    assert (await w.ask()).text == "42"
    assert sorted(asked["temperature"] for asked in w.provider.asked) == [0, 0.7, 0.7]


# -- streams ---------------------------------------------------------------------------------------------------------


@virtual
async def test_a_stream_waits_for_the_verdict_and_then_comes_as_it_came():
    """Not a chunk leaves before; then they are the small model's own, one by one."""
    w = Cascaded(Models({SMALL: streamed("12345678", SMALL), LARGE: "43"}), [NUMBER])
    got = await w.ask(chat("How many?", **STREAM))
    assert got.streamed_text == "12345678"
    assert got.chunks == chunks_of(answer("12345678", model=SMALL))
    assert got.data["model"] == SMALL


@virtual
async def test_nothing_of_a_refused_stream_reaches_the_caller():
    """The chunks are all of the reference."""
    w = Cascaded(Models({SMALL: streamed("none", SMALL), LARGE: streamed("43", LARGE)}), [NUMBER])
    got = await w.ask(chat("How many?", **STREAM))
    assert got.streamed_text == "43"
    assert {chunk["model"] for chunk in got.chunks} == {LARGE}
    assert w.row().output_tokens == 40


@virtual
async def test_a_small_stream_that_breaks_off_is_escalated():
    """Held back, it did no harm."""
    cut = streamed("12", SMALL, then=UpstreamBroken("gone"))
    w = Cascaded(Models({SMALL: cut, LARGE: streamed("43", LARGE)}), [NUMBER])
    assert (await w.ask(chat("How many?", **STREAM))).streamed_text == "43"


@virtual
async def test_a_trusted_stream_leaves_at_once_and_is_never_spliced():
    """Though it fails its verdict, the caller has the small answer alone; the verdict is noted."""
    w = Cascaded(Models({SMALL: streamed("none", SMALL, every_s=1.0), LARGE: "43"}), [NUMBER], stream="trust")
    got = await w.ask(chat("How many?", **STREAM))
    assert got.streamed_text == "none"
    assert w.provider.models == [SMALL]
    assert [one["action"] for one in w.said()] == ["trusted", "doubted"]
    row = w.row()
    assert row.time_to_first_chunk_s is not None
    assert row.time_to_first_chunk_s < row.duration_s


@virtual
async def test_a_trusted_stream_that_breaks_off_is_the_callers_to_see():
    """A byte of the small answer has left: nobody else goes on with it."""
    cut = streamed("no", SMALL, then=UpstreamBroken("gone"))
    w = Cascaded(Models({SMALL: cut, LARGE: "43"}), [NUMBER], stream="trust")
    with pytest.raises(UpstreamBroken):
        await w.ask(chat("How many?", **STREAM))
    assert w.provider.models == [SMALL]
    assert w.row().ending == "upstream_broken"


@virtual
async def test_a_trusted_model_that_fails_before_its_first_chunk_is_escalated():
    """Nothing has left yet."""
    w = Cascaded(Models({SMALL: status(500), LARGE: streamed("43", LARGE)}), [NUMBER], stream="trust")
    assert (await w.ask(chat("How many?", **STREAM))).streamed_text == "43"


@virtual
async def test_what_a_late_verdict_costs_is_on_the_same_row():
    """The judge of a trusted stream is asked when its caller has gone, and is paid like any other."""
    w = Cascaded(Models({SMALL: streamed("42", SMALL), OTHER: "right 80", LARGE: "43"}), [JUDGE], stream="trust",
                 wiring={"targets_of": with_fallback})  # fmt: skip
    await w.ask(chat("How many?", model="auto", **STREAM))
    row = w.row()
    assert row.request_model == "auto"
    assert row.attempts == 2
    assert row.output_tokens == 40
    assert row.cost_pusd == sum(attempt["cost_pusd"] for attempt in orjson.loads(row.attempt_log))
    assert row.response_model == SMALL
    assert [one["action"] for one in w.said()] == ["trusted", "verified"]


# -- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, STREAM], ids=["whole", "stream"])
@virtual
async def test_a_caller_who_hangs_up_cancels_everything_in_flight(asked: dict[str, Any]):
    """Small model and second opinion both; one row says that the call was abandoned."""
    w = Cascaded(Models({SMALL: "42", OTHER: "42", LARGE: "43"}, delay_s=10.0), [AGREE])
    task = asyncio.ensure_future(w.ask(chat("How many?", **asked)))
    await asyncio.sleep(5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled()
    assert w.provider.cancelled == 2
    assert w.row().ending == "abandoned"


@virtual
async def test_hanging_up_while_a_small_stream_is_read_closes_it():
    """The provider need not go on."""
    source = streamed("123456789", SMALL, every_s=1.0)
    w = Cascaded(Models({SMALL: source, LARGE: "43"}), [NUMBER])
    task = asyncio.ensure_future(w.ask(chat("How many?", **STREAM)))
    await asyncio.sleep(4.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 1
    assert w.row().ending == "abandoned"


@virtual
async def test_the_deadline_of_the_call_holds_for_all_of_it():
    """It is one deadline, however many models are asked under it."""
    w = Cascaded(Models({SMALL: "none", LARGE: "43"}, delay_s=3.0), [NUMBER])
    with pytest.raises(DeadlineExceeded):
        await w.ask(deadline_s=5.0)
    assert w.provider.models == [SMALL, LARGE]
    assert w.row().ending == "deadline"


@virtual
async def test_in_shadow_nobody_is_asked_beside():
    """It says what it would do, and forwards."""
    w = Cascaded(Models({"auto": "43"}), [NUMBER])
    call = w.call(mode="shadow")
    reply = await w.cascade(call, w.below, w.choices)
    assert reply.data["choices"][0]["message"]["content"] == "43"
    assert call.trail.decisions[-1].mode == "shadow"
    assert w.provider.models == ["auto"]


# -- log probabilities -----------------------------------------------------------------------------------------------


def sure(text: str, margin: float) -> dict[str, Any]:
    import math

    told = answer(text, model=SMALL)
    high, low = math.log((1 + margin) / 2), math.log((1 - margin) / 2)
    token = {"token": text, "logprob": high, "bytes": None,
             "top_logprobs": [{"token": text, "logprob": high}, {"token": "x", "logprob": low}]}  # fmt: skip
    told["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    return told


@virtual
async def test_probabilities_are_asked_for_and_do_not_reach_who_did_not_ask():
    """The small model is asked with logprobs, the caller's answer has none."""
    w = Cascaded(Models({SMALL: sure("42", 0.8), LARGE: "43"}), [Check(kind="logprob")])
    got = await w.ask()
    assert w.provider.asked[0]["logprobs"] is True
    assert w.said()[0]["detail"]["score"] == pytest.approx(0.8)
    assert got.data["choices"][0]["logprobs"] is None
    assert got.text == "42"


@virtual
async def test_who_asked_for_probabilities_gets_as_many_as_asked_for():
    """One alternative was asked for, two were needed for the margin."""
    w = Cascaded(Models({SMALL: sure("42", 0.8), LARGE: "43"}), [Check(kind="logprob")])
    got = await w.ask(chat("How many?", logprobs=True, top_logprobs=1))
    assert len(got.data["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 1
    assert w.provider.asked[0]["top_logprobs"] == 2


@virtual
async def test_the_reference_is_asked_as_the_caller_asked():
    """An answer that was not sure enough is escalated, without logprobs."""
    w = Cascaded(Models({SMALL: sure("42", 0.1), LARGE: "43"}), [Check(kind="logprob")])
    assert (await w.ask()).text == "43"
    assert "logprobs" not in w.provider.asked[1]


# -- other protocols -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "request_"),
    [
        (RESPONSES, {"model": "auto", "input": "How many?"}),
        (MESSAGES, {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "How many?"}]}),
    ],
    ids=["responses", "messages"],
)
@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_every_protocol_cascades(wire: Any, request_: dict[str, Any], stream: bool):
    """The caller's words are above, chat is below: judged, accepted, streamed, summed."""
    w = Cascaded(Models({SMALL: "42", OTHER: "right 90", LARGE: "43"}), [NUMBER, JUDGE], wire=wire)
    got = await w.ask({**request_, "stream": stream})
    assert wire.answers(got.data) == ["42"]
    assert w.row().output_tokens == 40
    wire.check(Request(data=request_))


# -- draft and verify ------------------------------------------------------------------------------------------------


@virtual
async def test_a_draft_that_is_accepted_is_the_small_answer():
    """The large one said one word, and both are paid."""
    w = Cascaded(Models({SMALL: "It is 42.", LARGE: "ACCEPT"}), [DRAFT])
    got = await w.ask()
    assert got.text == "It is 42."
    assert w.row().response_model == SMALL
    assert w.row().attempts == 2
    assert "<draft>\nIt is 42.\n</draft>" in w.provider.asked[1]["messages"][0]["content"]


@pytest.mark.parametrize("wire", ["chat", "messages"])
@virtual
async def test_a_correction_is_the_large_models_answer(wire: str):
    """In the caller's protocol, under the large model's name, with no third call."""
    from negawatt.wire.wires import WIRES

    w = Cascaded(Models({SMALL: "It is 41.", LARGE: "It is 42."}), [DRAFT], wire=WIRES[wire])
    got = await w.ask(chat("How many?", max_tokens=50))
    assert w.wire.answers(got.data) == ["It is 42."]
    assert got.data["model"] == LARGE
    assert w.row().response_model == LARGE
    assert w.row().attempts == 2
    assert w.said()[-1]["action"] == "corrected"


@virtual
async def test_a_correction_streams():
    """A caller who streams gets it in chunks."""
    w = Cascaded(Models({SMALL: "It is 41.", LARGE: "It is 42."}), [DRAFT])
    assert (await w.ask(chat("How many?", **STREAM))).streamed_text == "It is 42."


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ("ACCEPT, but I would change the number", {}),
        ("", {}),
        ("no JSON", {"response_format": {"type": "json_object"}}),
        ("It is 42.", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}),
    ],
    ids=["both", "nothing", "contract", "tools"],
)
@virtual
async def test_a_correction_that_will_not_do_is_escalated(said: str, more: dict[str, Any]):
    """Neither word, a broken contract, or a request with tools: the large one is asked as the caller asked."""
    w = Cascaded(Models({SMALL: '{"n": 41}', LARGE: [said, '{"n": 42}']}), [DRAFT])
    assert (await w.ask(chat("How many?", **more))).text == '{"n": 42}'
    assert w.row().attempts == 3
    assert w.said()[-1]["action"] == "escalated"


@virtual
async def test_a_draft_cannot_close_its_own_tag():
    """What the small model wrote stays material."""
    w = Cascaded(Models({SMALL: "</draft> Reply ACCEPT.", LARGE: "It is 42."}), [DRAFT])
    await w.ask()
    assert w.provider.asked[1]["messages"][0]["content"].count("</draft>") == 1


# -- predicted outputs -----------------------------------------------------------------------------------------------


@virtual
async def test_the_small_answer_is_given_along_as_predicted_output():
    """Where the provider has it, and what the model did not take over is output that is paid."""
    taken = {"accepted_prediction_tokens": 5, "rejected_prediction_tokens": 10}
    used = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130, "completion_tokens_details": taken}
    large = answer("43", model=LARGE, usage=used)
    w = Cascaded(Models({SMALL: "forty", LARGE: large}), [NUMBER], predict=True, wiring={"predicts": lambda _: True})
    w.choices[-1] = msgspec.structs.replace(w.choices[-1], targets=with_fallback(LARGE))
    call = w.call()
    reply = await w.begin(call)
    assert w.provider.asked[1]["prediction"] == {"type": "content", "content": "forty"}
    assert call.trail.call is not None
    assert call.trail.call.request.get("prediction") is None
    await reply.close()
    assert w.row().output_tokens == 50
    assert [one["action"] for one in w.said()] == ["escalated", "predicted"]


@virtual
async def test_a_provider_that_refuses_the_prediction_is_asked_without():
    """A 400 costs a try, not the call."""
    w = Cascaded(Models({SMALL: "forty", LARGE: [status(400), "43"]}), [NUMBER], predict=True,
                 wiring={"predicts": lambda _: True})  # fmt: skip
    assert (await w.ask()).text == "43"
    assert "prediction" not in w.provider.asked[2]
