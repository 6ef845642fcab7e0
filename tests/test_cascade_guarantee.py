"""What a cascade promises: thresholds from calibration files, abstention, and what it does when the world changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from cascades import LARGE, OTHER, SMALL, Cascaded, Models, choice, targets_of
from worlds import answer, settled, virtual

from negawatt.asides import Asides
from negawatt.call import Call, Request, Trail
from negawatt.config import RequestClass
from negawatt.config_routes import Candidate, Cascade, Check, Match, Policy
from negawatt.errors import ConfigError, UpstreamError
from negawatt.reply import Reply
from negawatt.routing.calibration import Calibration, bar_of, load_calibration, write_calibration
from negawatt.routing.cascades import check_cascade
from negawatt.routing.exploring import comparing
from negawatt.wire.chat import CHAT

JUDGE = Check(kind="judge", model=OTHER)
WHERE = "policies.cheap.cascade.calibration"


def calibration(n: int = 400, **fields: Any) -> Calibration:
    """Return one whose scores above one half are right, and whose others are not."""
    scores = tuple((place + 0.5) / n for place in range(n))
    usual = {"policy": "cheap", "model": SMALL, "checks": (JUDGE,), "scores": scores,
             "right": tuple(score > 0.5 for score in scores), "date": "2026-11-27", "suite": "support"}  # fmt: skip
    return Calibration(**{**usual, **fields})


def kept(folder: Path, *calibrations: Calibration) -> str:
    path = folder / "calibration.json"
    write_calibration(path, calibrations)
    return str(path)


@pytest.mark.parametrize(("sure", "text"), [(95, "42"), (20, "43")])
@virtual
async def test_the_threshold_of_the_calibration_decides(tmp_path: Path, sure: int, text: str):
    """From the score on that the file allows, an answer is accepted, and the decision names score and threshold."""
    w = Cascaded(Models({SMALL: "42", OTHER: f"right {sure}", LARGE: "43"}), [JUDGE],
                 calibration=kept(tmp_path, calibration()))  # fmt: skip
    assert (await w.ask()).text == text
    detail = w.said()[0]["detail"]
    assert detail["score"] == sure / 100
    assert 0.3 < detail["threshold"] < 0.55


@virtual
async def test_too_few_rows_are_an_honest_no(tmp_path: Path):
    """The small model is not asked at all, and the reason says how many rows it would take."""
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [JUDGE], calibration=kept(tmp_path, calibration(20)))
    assert (await w.ask()).text == "43"
    assert w.provider.models == [LARGE]
    (said,) = w.said()
    assert said["action"] == "abstained"
    assert "59 without any error are needed" in said["reason"]


def test_scores_that_say_nothing_are_an_honest_no():
    """Where right and wrong have the same scores, no threshold keeps the promise."""
    rng = random.Random(1)
    scores = [rng.random() for _ in range(500)]
    right = [rng.random() < 0.7 for _ in range(500)]
    assert bar_of(scores, right, Cascade()).accepts == "nothing"


@virtual
async def test_a_model_without_calibration_is_not_accepted_where_others_have_one(tmp_path: Path):
    """What is promised of one model must not be broken by another."""
    file = kept(tmp_path, calibration(model="gpt-4.1-mini"))
    models = Models({SMALL: "42", "gpt-4.1-mini": "7", OTHER: "right 99", LARGE: "43"})
    w = Cascaded(models, [JUDGE], small=[SMALL, "gpt-4.1-mini"], calibration=file)
    assert (await w.ask()).text == "7"
    assert SMALL not in w.provider.models
    assert "no calibration of gpt-4o-mini" in w.said()[0]["reason"]


def test_what_is_written_is_read(tmp_path: Path):
    """One as an object, several as a list."""
    one, other = calibration(), calibration(model="gpt-4.1-mini at low", date=None)
    assert load_calibration(Path(kept(tmp_path, one)), WHERE) == [one]
    assert load_calibration(Path(kept(tmp_path, one, other)), WHERE) == [one, other]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", None),
        ('{"format": 2}', "is of format 2, and this version reads 1"),
        ('"words"', "is of format None"),
        ('{"format": 1, "policy": "cheap"}', "missing required field"),
        ('{"format": 1, "policy": "cheap", "model": "m", "checks": [], "scores": [2], "right": [true]}', "<= 1"),
        ('{"format": 1, "policy": "cheap", "model": "m", "checks": [], "scores": [1], "right": []}', "1 scores and 0"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_remedy(tmp_path: Path, text: str | None, says: str | None):
    """Nothing is guessed from half a file."""
    path = tmp_path / "calibration.json"
    if text is not None:
        path.write_text(text)
    if says is None:
        assert load_calibration(path, WHERE) == []
        return
    with pytest.raises(ConfigError, match=says) as caught:
        load_calibration(path, WHERE)
    assert caught.value.param == WHERE
    assert "calibration.json" in caught.value.message
    assert "negawatt eval" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"policy": "dear"}, "of policy 'dear', not of 'cheap'"),
        ({"checks": (Check(kind="logprob"),)}, "with the checks"),
    ],
)
@virtual
async def test_a_calibration_of_something_else_is_refused(tmp_path: Path, fields: dict[str, Any], says: str):
    """Other verifiers have other scores."""
    with pytest.raises(ConfigError, match=says):
        Cascaded(Models({}), [JUDGE], calibration=kept(tmp_path, calibration(**fields)))


# -- drift -----------------------------------------------------------------------------------------------------------


def exploring(right: str, share: float = 1.0) -> dict[str, Any]:
    """Return the settings under which accepted answers are compared with *right*."""
    asked: list[str] = []

    async def ask_reference(call: Call, targets: Any) -> Reply:
        asked.append(targets[0].model)
        return Reply(CHAT, body=orjson.dumps(answer(right)))

    return {"explore": share, "wiring": {"ask_reference": ask_reference, "compare": comparing(None, lambda _: None)},
            "asked": asked}  # fmt: skip


NUMBER = Check(kind="regex", pattern=r"^\d+$")


async def many(w: Cascaded, times: int) -> list[str]:
    return [(await w.ask()).text for _ in range(times)]


@virtual
async def test_a_drift_stops_the_small_model_and_raises_an_alert():
    """When too many accepted answers turn out wrong, the reference answers from then on."""
    settings = exploring("43")
    asked = settings.pop("asked")
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER], max_error=0.05, **settings)
    texts = await many(w, 20)
    assert texts[0] == "42"
    assert texts[-1] == "43"
    assert set(asked) == {LARGE}
    ((name, about, message),) = w.alerts
    assert (name, about) == ("route_drift", "cheap")
    assert SMALL in message
    stopped = texts.index("43")
    assert len(asked) == stopped
    last = orjson.loads(w.ledger.outcomes[-1].decisions)[0]
    assert last["action"] == "abstained"
    assert "turned out wrong" in last["reason"]


@virtual
async def test_right_answers_are_no_drift():
    """They are compared, and nothing changes."""
    settings = exploring("The answer is 42.")
    asked = settings.pop("asked")
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER], **settings)
    assert set(await many(w, 20)) == {"42"}
    assert len(asked) == 20
    assert w.alerts == []


@virtual
async def test_only_a_share_is_explored():
    """A tenth of the accepted answers, drawn at random, costs a second call."""
    settings = exploring("42", share=0.1)
    asked = settings.pop("asked")
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER], **settings)
    await many(w, 200)
    assert 8 <= len(asked) <= 35


@virtual
async def test_what_cannot_be_compared_counts_for_nobody():
    """Two long texts in other words, and nobody to judge them."""
    compare = comparing(None, lambda _: None)
    call = Cascaded(Models({}), [NUMBER]).call()
    assert await compare(call, "Why?", "Because of this. " * 9, "For another reason. " * 9) is None
    assert await compare(call, "Which?", "Paris", "Rome") is True
    assert await compare(call, "Which?", "Paris", "paris.") is False


@pytest.mark.parametrize(("word", "wrong"), [(True, False), (False, True), (None, None)])
@virtual
async def test_a_judge_compares_what_is_long(word: bool | None, wrong: bool | None):
    """What the judge does not know is not held against anybody."""

    async def judge(question: str, one: str, other: str) -> bool | None:
        return word

    call = Cascaded(Models({}), [NUMBER]).call()
    said = await comparing(None, lambda _: judge)(call, "Why?", "Because of this. " * 9, "For another reason. " * 9)
    assert said is wrong


@virtual
async def test_what_is_explored_has_a_row_of_its_own():
    """The caller's row has what the caller's answer took; the reference's call names the call that it was made for."""
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER])

    def new_call(body: bytes, hints: Any = None, *, wire: Any = CHAT) -> Call:
        trail = Trail(w.clock)
        call = Call(id="call-2", wire=wire, request=Request(body), trail=trail, received_at=w.clock.time(),
                    started=w.clock.monotonic())  # fmt: skip
        trail.call = call
        return call

    asides = Asides(new_call, w.meter, alarms=w.alarms, deadline_s=60.0)
    call = w.call()
    reply = await asides.ask_beside(call, targets_of(LARGE), w.below)
    assert CHAT.answers(reply.data) == ["43"]
    await settled()
    assert w.row().id == "call-2"
    assert w.said()[0]["detail"] == {"for": "call-1"}
    assert w.row().tenant == "default"


@virtual
async def test_an_exploration_that_fails_hurts_nobody():
    """The caller has the answer; nothing is learned."""

    async def ask_reference(call: Call, targets: Any) -> Reply:
        raise UpstreamError("no")

    wiring = {"ask_reference": ask_reference, "compare": comparing(None, lambda _: None)}
    w = Cascaded(Models({SMALL: "42", LARGE: "43"}), [NUMBER], explore=1.0, wiring=wiring)
    assert set(await many(w, 3)) == {"42"}
    assert w.alerts == []


# -- what cannot run -------------------------------------------------------------------------------------------------


def checked(*checks: Check, classes: dict[str, RequestClass] | None = None, speaks: str = "chat", **more: Any):
    settings = Cascade(verify=checks, **more)
    choices = [choice(SMALL, 1), choice(LARGE, 2)]
    policy = Policy(candidates=(Candidate(model=SMALL), Candidate(model=LARGE)), cascade=settings, how="cascade")
    return check_cascade("cheap", policy, classes or {}, choices, (targets_of, lambda _: {speaks}))


ONLY_PROSE = {"chat": RequestClass(policy="cheap", match=(Match(schema=False),))}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (lambda: checked(), "a cascade needs at least one check"),
        (lambda: checked(Check(kind="exact")), "no live request says what answer it expects"),
        (
            lambda: checked(Check(kind="schema"), classes=ONLY_PROSE),
            "class chat matches requests without a schema",
        ),
        (lambda: checked(Check(kind="logprob"), speaks="messages"), "no provider of gpt-4o-mini tells probabilities"),
        (lambda: checked(Check(kind="agreement", with_models=(SMALL,))), "a model agrees with itself"),
        (lambda: checked(Check(kind="agreement", with_models=("nobody",))), "no provider here serves 'nobody'"),
        (lambda: checked(Check(kind="judge", model="nobody")), "no provider here serves 'nobody'"),
        (lambda: checked(Check(kind="draft", model=SMALL)), "it drafts itself"),
        (lambda: checked(Check(kind="draft"), Check(kind="draft")), "drafts once"),
    ],
)
def test_a_cascade_that_cannot_run_is_refused(found: Any, says: str):
    """Before a socket opens, with the path and the remedy."""
    with pytest.raises(ConfigError, match=says) as caught:
        found()
    assert caught.value.message.startswith("policies.cheap.cascade.verify")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (lambda: checked(Check(kind="judge", model=SMALL)), "judges its own answers"),
        (lambda: checked(Check(kind="schema"), classes={"a": RequestClass(policy="cheap")}), "all go to the reference"),
        (lambda: checked(Check(kind="groundedness"), classes={"a": RequestClass(policy="cheap", path="reason")}),
         "of path reason"),
        (lambda: checked(Check(kind="judge"), stream="trust"), "streams carry no guarantee"),
        (lambda: checked(Check(kind="judge")), "without one, accepted answers carry no guarantee"),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_said(found: Any, says: str):
    """It may be meant so."""
    assert any(says in doubt for doubt in found())
