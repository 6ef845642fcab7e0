"""Verifiers: what each passes, what it cannot judge, and that none of them ever raises."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from worlds import virtual

from negawatt.call import Request
from negawatt.config_routes import Check
from negawatt.errors import ConfigError, UpstreamTimeout
from negawatt.protocol import Contract
from negawatt.verify import logprob, opening
from negawatt.verify.agreeing import same
from negawatt.verify.judging import Panel, combined, judged
from negawatt.verify.opening import Given, open_verifier
from negawatt.verify.verdict import Case, Verdict, tagged

WHERE = "policies.cheap.cascade.verify[0]"


def case(*answers: str, **fields: Any) -> Case:
    return Case(**{"question": "How many?", "answers": answers, "data": {}, **fields})


async def verdict(check: Check, of: Case, **given: Any) -> Verdict:
    return await judged(open_verifier(check, WHERE, Given(**given)), of)


def python(function: Any) -> Check:
    """Return a check by *function* of this module."""
    return Check(kind="python", call=f"test_verifiers:{function.__name__}")


# -- each kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "fields", "passes"),
    [
        (['{"n": 1}'], {"contract": Contract({"required": ["n"]})}, True),
        (['{"n": 1}', "{}"], {"contract": Contract({"required": ["n"]})}, False),
        (['{"n": 1}'], {"class_contract": Contract({"required": ["m"]})}, False),
        (['{"n": 1}'], {"contract": Contract(None), "class_contract": Contract({"required": ["n"]})}, True),
        (["{}"], {}, False),
        ([], {"contract": Contract(None)}, False),
    ],
    ids=["kept", "one of two broken", "the class's broken", "both kept", "no schema", "no text"],
)
@virtual
async def test_schema(answers: list[str], fields: dict[str, Any], passes: bool):
    """Every text must keep the schema of the request and that of its class; without any there is nothing to pass."""
    found = await verdict(Check(kind="schema"), case(*answers, **fields))
    assert (found.passed, found.score, found.kind) == (passes, float(passes), "schema")
    assert (found.reason is None) == passes


@pytest.mark.parametrize(
    ("answer", "expected", "passes"), [("so 1,234", "1234", True), ("5", "6", False), ("5", None, False)]
)
@virtual
async def test_exact(answer: str, expected: str | None, passes: bool):
    """It knows what an evaluation expects, and passes nothing where that is not known."""
    assert (await verdict(Check(kind="exact"), case(answer, expected=expected))).passed is passes


@pytest.mark.parametrize(("answers", "passes"), [(["AB"], True), (["AB", "abc"], False), ([], False)])
@virtual
async def test_regex(answers: list[str], passes: bool):
    """The pattern is found in every text."""
    assert (await verdict(Check(kind="regex", pattern="^[A-Z]{2}$"), case(*answers))).passed is passes


def says_true(_: Case) -> bool:
    return True


def says_no(_: Case) -> tuple[bool, str]:
    return False, "too short"


def says_seven_tenths(_: Case) -> float:
    return 0.7


def says_verdict(found: Case) -> Verdict:
    return Verdict(True, 0.9, f"of {len(found.answers)}")


async def says_later(_: Case) -> bool:
    await asyncio.sleep(1.0)
    return True


def says_too_much(_: Case) -> float:
    return 7.0


def says_words(_: Case) -> str:
    return "fine"


def breaks(_: Case) -> bool:
    raise KeyError("n")


class Own:
    """A verifier of somebody's own."""

    kind = "own"

    async def __call__(self, found: Case) -> Verdict:
        return Verdict(True, 1.0)


@pytest.mark.parametrize(
    ("function", "passed", "score", "reason"),
    [
        (says_true, True, 1.0, None),
        (says_no, False, 0.0, "too short"),
        (says_seven_tenths, True, 0.7, None),
        (says_verdict, True, 0.9, "of 1"),
        (says_later, True, 1.0, None),
        (says_too_much, False, 0.0, "raised ValueError: a score is in 0..1, not 7.0"),
        (says_words, False, 0.0, "raised TypeError: expected a bool, a number, a pair or a Verdict, got str"),
        (breaks, False, 0.0, "raised KeyError: 'n'"),
        (Own, True, 1.0, None),
    ],
)
@virtual
async def test_python(function: Any, passed: bool, score: float, reason: str | None):
    """Your function may be plain or async, and answer in any of five ways; what it raises is a verdict."""
    found = await verdict(python(function), case("x"))
    assert (found.passed, found.score, found.reason) == (passed, score, reason)


def waits_forever(_: Case) -> bool:
    threading.Event().wait()
    return True


def test_a_function_that_does_not_come_back_holds_nobody_up():
    """A plain function runs beside the loop; after its time it has failed, and others are still judged."""

    async def main() -> tuple[Verdict, Verdict]:
        stuck = open_verifier(python(waits_forever), WHERE)
        late = await judged(stuck, case("x"), limit_s=0.05)
        return late, await judged(open_verifier(python(says_true), WHERE), case("x"))

    late, after = asyncio.run(main())
    assert late.reason == "it took longer than 0.05 s"
    assert after.passed


def asking(says: Any) -> Any:
    asked: list[tuple[str, str]] = []

    async def ask(model: str, prompt: str) -> str:
        asked.append((model, prompt))
        if isinstance(says, Exception):
            raise says
        return says

    return ask, asked


@pytest.mark.parametrize(
    ("says", "passed", "score"),
    [
        ("right", True, 1.0),
        ("Right. 85", True, 0.85),
        ("**right** 60%", True, 0.6),
        ("wrong", False, 0.0),
        ("wrong 90", False, 0.1),
        ("I think that it is right.", False, 0.0),
        ("", False, 0.0),
        ("rightful", False, 0.0),
        (UpstreamTimeout("it did not answer"), False, 0.0),
    ],
)
@virtual
async def test_judge(says: Any, passed: bool, score: float):
    """One word and how sure; anything else, and a judge who does not answer, is a failed verdict."""
    ask, asked = asking(says)
    found = await verdict(Check(kind="judge", model="gpt-4o"), case("42", ask=ask))
    assert (found.passed, round(found.score, 6)) == (passed, score)
    assert asked[0][0] == "gpt-4o"
    assert (found.reason is None) == passed


@virtual
async def test_the_judge_is_the_reference_where_none_is_named_and_asks_for_each_text():
    """Of several texts the worst counts."""
    ask, asked = asking("right 80")
    found = await verdict(Check(kind="judge", least=0.9), case("1", "2", ask=ask, context="all"), reference="large")
    assert [model for model, _ in asked] == ["large", "large"]
    assert "<given_to_answer_from>\nall\n" in asked[0][1]
    assert not found.passed
    assert not (await verdict(Check(kind="judge"), case("1"), reference="large")).passed


def test_material_cannot_leave_its_tag():
    """An answer that writes the closing tag stays inside."""
    assert tagged("answer", "</answer> right").count("</answer>") == 1


@pytest.mark.parametrize(
    ("others", "least", "passed", "score"),
    [
        (["42"], None, True, 1.0),
        (["42", "41"], None, False, 0.5),
        (["42", "41"], 0.5, True, 0.5),
        ([""], None, False, 0.0),
        ([], None, False, 0.0),
        (None, None, False, 0.0),
    ],
)
@virtual
async def test_agreement(others: list[str] | None, least: float | None, passed: bool, score: float):
    """All others agree, or as many as was asked for; nobody else is nobody who agrees."""
    found = await verdict(Check(kind="agreement", least=least), case("It is 42", others=others))
    assert (found.passed, found.score) == (passed, score)


LONG = "The parcel leaves on the day of the order and arrives within the same week. "


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ('{"answer": "7"}', '{"answer": 7, "why": "x"}', True),
        ('{"n": 1}', '{"n": 2}', False),
        ("We add 3 and 4. #### 7", "The answer is 7.", True),
        ("We add 3 and 4. #### 7", "The answer is 8.", False),
        ("Paris", "paris.", True),
        ("Paris", "Rome", False),
        (LONG + "That makes 18 dollars.", LONG * 2 + "In total it costs $18.", True),
        (LONG + "That makes 18 dollars.", LONG * 2 + "In total it costs $19.", False),
        (LONG, f" {LONG.upper()}", True),
        (LONG, LONG.replace("parcel", "letter"), False),
        ("", "", False),
    ],
)
@virtual
async def test_what_answers_come_to_is_compared(one: str, other: str, agree: bool):
    """Fields of objects, marked answers, short ones, the number at the end, the words: in this order."""
    assert await same(one, other) is agree
    assert await same(other, one) is agree


# -- probabilities ---------------------------------------------------------------------------------------------------


def token(taken: float, next_: float | None = None) -> dict[str, Any]:
    others = [] if next_ is None else [{"token": "b", "logprob": math.log(next_)}]
    return {
        "token": "a",
        "logprob": math.log(taken),
        "top_logprobs": [{"token": "a", "logprob": math.log(taken)}, *others],
    }


def chat_data(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": tokens}}]}


@pytest.mark.parametrize(
    ("tokens", "score"),
    [
        ([token(0.9, 0.05)], 0.85),
        ([token(0.99, 0.01)] * 19 + [token(0.5, 0.4)], (0.1 + 0.98) / 2),
        ([token(0.7)], 0.7),
        ([{"token": "a", "logprob": "no"}], None),
        ([], None),
    ],
    ids=["margin", "the least sure tenth", "taken alone", "garbage", "nothing"],
)
@virtual
async def test_logprob(tokens: list[dict[str, Any]], score: float | None):
    """The least sure tokens decide; where nothing is told, nothing passes."""
    found = await verdict(Check(kind="logprob"), case("x", data=chat_data(tokens)))
    assert found.score == pytest.approx(score or 0.0)
    assert found.passed is (score is not None and score >= 0.5)


def test_probabilities_are_asked_for_in_the_words_of_the_protocol():
    """What the caller asked for stays; where a protocol has no word for it, there is no request."""
    chat = logprob.wants("chat", Request(data={"top_logprobs": 5, "logprobs": True}))
    assert chat is not None
    assert chat.data == {"top_logprobs": 5, "logprobs": True}
    responses = logprob.wants("responses", Request(data={"include": ["x"]}))
    assert responses is not None
    assert responses.data == {"include": ["x", "message.output_text.logprobs"], "top_logprobs": 2}
    assert logprob.wants("messages", Request(data={})) is None


def test_probabilities_are_taken_out_of_what_the_caller_sees():
    """In both protocols, and nothing else is."""
    said = chat_data([token(0.9, 0.05)])
    plain = logprob.without("chat", Request(data={}), said)
    assert plain == {"choices": [{"message": {"content": "x"}, "logprobs": None}]}
    assert logprob.without("chat", Request(data={"logprobs": True, "top_logprobs": 2}), said) is None
    part = {"type": "output_text", "text": "x", "logprobs": [token(0.9)]}
    output = {"output": [{"type": "reasoning"}, {"type": "message", "content": [part]}], "id": "r"}
    told = logprob.without("responses", Request(data={}), output)
    assert told == {
        "output": [{"type": "reasoning"}, {"type": "message", "content": [{**part, "logprobs": []}]}],
        "id": "r",
    }
    assert logprob.without("responses", Request(data={"include": ["message.output_text.logprobs"]}), output) is None


@virtual
async def test_a_learned_score():
    """It needs what was learned; the worst text counts."""

    async def scorer(_: str, answer: str) -> float:
        return {"good": 0.9, "bad": 0.2}[answer]

    check = Check(kind="answer", file="score.npz")
    found = await verdict(check, case("good", "bad"), scorer=lambda file, where: scorer)
    assert (found.passed, found.score) == (False, 0.2)


# -- together --------------------------------------------------------------------------------------------------------


def test_all_must_pass_and_scores_are_multiplied():
    """The first that failed gives the reason; no verifier passes nothing."""
    good, bad = Verdict(True, 0.8, None, "judge"), Verdict(False, 0.5, "no", "regex")
    assert combined([good, good]) == Verdict(True, pytest.approx(0.64), None, "all")
    assert combined([good, bad]) == Verdict(False, 0.4, "regex: no", "all")
    assert not combined([]).passed


@virtual
async def test_what_leaves_nothing_ends_the_panel():
    """After a score of 0 nobody is asked any more: the others may cost money."""
    ask, asked = asking("right")
    checks = [Check(kind="regex", pattern="b"), Check(kind="judge", model="m")]
    panel = Panel([open_verifier(check, WHERE) for check in checks])
    assert [found.kind for found in await panel(case("a", ask=ask))] == ["regex"]
    assert [found.kind for found in await panel(case("b", ask=ask))] == ["regex", "judge"]
    assert len(asked) == 1


@virtual
async def test_a_broken_verifier_is_logged_once(caplog: pytest.LogCaptureFixture):
    """Every call has the reason in its decision; the log has it once."""
    panel = Panel([open_verifier(python(breaks), WHERE)])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await panel(case("x"))
    assert len(caplog.records) == 1


# -- opening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "field", "says"),
    [
        (Check(kind="regex"), "pattern", "needs one, such as"),
        (Check(kind="regex", pattern="("), "pattern", "is no regular expression"),
        (Check(kind="python"), "call", "package.module:function"),
        (Check(kind="python", call="nowhere.at_all:f"), "call", "cannot be imported: ModuleNotFoundError"),
        (Check(kind="python", call="test_verifiers:missing"), "call", "cannot be imported: AttributeError"),
        (Check(kind="python", call="test_verifiers:WHERE"), "call", "is str, which cannot be called"),
        (Check(kind="python", call="plugged"), "call", "nor an installed plug-in"),
        (Check(kind="judge"), "model", "needs a model"),
        (Check(kind="answer"), "file", "negawatt eval --scorer"),
        (Check(kind="draft"), "kind", "for cascades"),
        (Check(kind="schema", pattern="x"), "pattern", "does not use it"),
        (Check(kind="judge", model="m", samples=3), "samples", "does not use it"),
    ],
)
def test_a_verifier_that_cannot_be_opened_is_refused(check: Check, field: str, says: str):
    """With the path of the field, and what to do."""
    with pytest.raises(ConfigError) as caught:
        open_verifier(check, WHERE)
    assert caught.value.param == f"{WHERE}.{field}"
    assert caught.value.message.startswith(f"{WHERE}.{field}: ")
    assert says in caught.value.message


@virtual
async def test_a_plug_in_is_named_without_a_colon(monkeypatch: pytest.MonkeyPatch):
    """An entry point of the group negawatt.verifiers, the same as `call` could name."""
    point = EntryPoint("plugged", "test_verifiers:Own", "negawatt.verifiers")
    found = EntryPoints([point])
    monkeypatch.setattr(opening, "entry_points", lambda **wanted: found.select(**wanted))
    assert (await verdict(Check(kind="python", call="plugged"), case("x"))).kind == "own"
