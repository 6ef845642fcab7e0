"""Recordings: reading, writing, looking up and judging recorded answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.errors import InputError
from negawatt.providers.recording import RecordedAnswer, Recording, Timing, write_recording

DOCS = Path(__file__).parent.parent / "docs" / "replay.md"


def asking(text="hello", **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def answered(content, request=None, *, correct=None, id="id"):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    request = request or asking()
    response = {"id": id, "object": "chat.completion", "model": request["model"], "choices": [choice], "usage": usage}
    return RecordedAnswer(
        request=request,
        response=response,
        timing=Timing(first_chunk_s=0.1, duration_s=0.5, basis="measured"),
        provider="openai",
        correct=correct,
    )


def line(**fields):
    """Return a line of a recording, with some fields changed."""
    timing = {"first_chunk_s": 0.1, "duration_s": 0.5, "basis": "measured"}
    return {"request": asking(), "response": answered("hi").response, "timing": timing, **fields}


def row(**fields):
    """Return a line of the ledger's export, with some fields changed."""
    return {
        "received_at": 1_795_424_400.0, "id": "c", "tenant": "t", "request": asking(), "provider": "openai",
        "response": answered("hi").response, "upstream_s": 0.8, "time_to_first_chunk_s": 0.9, "ending": "answered",
        **fields,
    }  # fmt: skip


def load(tmp_path, *lines):
    path = tmp_path / "recording.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return Recording.load(path)


def test_an_answer_is_found_by_what_was_asked(tmp_path):
    """The same request finds its answer whatever the order of its keys and however it is to be sent."""
    recording = load(tmp_path, line(provider="openai", correct=True, note="n"))
    found = recording.lookup({"stream": True, "user": "u", "messages": asking()["messages"], "model": "m", "n": 1})
    assert found is not None and (found.text, found.model, found.correct, found.note) == ("hi", "m", True, "n")
    assert (found.first_chunk_s, found.duration_s, found.timing.basis) == (0.1, 0.5, "measured")
    assert recording.models == {"m": "openai"} and len(recording) == 1


@pytest.mark.parametrize(
    "other",
    [asking("hello!"), asking(model="other"), asking(tools=[]), asking(response_format={"type": "text"}),
     asking(n=2), asking(reasoning_effort="low")],
)  # fmt: skip
def test_another_question_is_not_recorded(other):
    """Whatever can change the answer must be the same; fields that we do not know may change it."""
    assert Recording([answered("hi")]).lookup(other) is None


def test_sampling_parameters_matter_only_where_they_tell_answers_apart():
    """A request drawn in another way still finds the answer; one drawn in the recorded way finds only its own."""
    cold, warm = asking(temperature=0), asking(temperature=0.7, max_tokens=9)
    recording = Recording([answered("cold", cold), answered("warm", warm)])
    assert [recording.lookup(warm).text for _ in range(2)] == ["warm", "warm"]
    assert recording.lookup(asking(temperature=0.0)).text == "cold"
    assert [recording.lookup(asking(top_p=0.5)).text for _ in range(3)] == ["cold", "warm", "cold"]


def test_several_answers_are_given_in_turn_and_a_fresh_copy_begins_again():
    """Answers to one request come in the order of the file, then from the first; every replay arm has its own turn."""
    recording = Recording([answered("a"), answered("b")])
    assert [recording.lookup(asking()).text for _ in range(3)] == ["a", "b", "a"]
    fresh = recording.fresh()
    assert [fresh.lookup(asking()).text, recording.lookup(asking()).text] == ["a", "b"]


def test_an_answer_is_judged_by_what_was_recorded_for_that_question():
    """Text and id give the recorded verdict, anything else is wrong, and nothing is known of other questions."""
    recording = Recording([
        answered("4", asking("2+2"), correct=True, id="x"),
        answered("5", asking("2+2"), correct=False, id="y"),
        answered("nice", asking("hi")),
    ])  # fmt: skip
    judge = recording.verdict
    assert (judge(asking("2+2"), "4"), judge(asking("2+2"), "5")) == (True, False)
    assert (judge(asking("2+2"), "x"), judge(asking("2+2"), "y")) == (True, False)
    assert judge(asking("2+2", temperature=1, stream=True), "nice") is False
    assert judge(asking("hi"), "nice") is None and judge(asking("hi"), "4") is None
    assert judge(asking("3+3"), "6") is None


def test_an_answer_of_another_model_keeps_its_own_verdict():
    """A call that fell back to another model is right if that model was; the asked model's verdict is first."""
    small, large = asking("2+2"), {**asking("2+2"), "model": "large"}
    recording = Recording([
        answered("four", small, correct=False),
        answered("4", large, correct=True),
        answered("four", large, correct=True),
    ])  # fmt: skip
    assert recording.verdict(small, "4") is True
    assert (recording.verdict(small, "four"), recording.verdict(large, "four")) == (False, True)


def test_the_ledgers_export_is_a_recording_of_what_upstream_answered(tmp_path):
    """Rows with content and time upstream become answers; what a cache gave, or was not kept, is left out."""
    recording = load(
        tmp_path,
        row(usage_basis="estimated"),
        row(ending="cached", request=asking("cached")),
        row(upstream_s=0.0),
        row(response=None),
        row(ending="upstream_broken"),
    )
    assert len(recording) == 1
    assert recording.notes == ("ledger lines left out, without an answer from upstream: 4",)
    answer = recording.lookup(asking())
    assert answer is not None and answer.timing == Timing(first_chunk_s=0.8, duration_s=0.8, basis="measured")
    assert (answer.provider, answer.usage_basis, answer.correct) == ("openai", "estimated", None)


def test_an_unknown_first_chunk_comes_with_the_end(tmp_path):
    """Where the file does not say when the answer began, a stream begins when it ends."""
    answer = load(tmp_path, line(timing={"duration_s": 2, "basis": "modelled"})).lookup(asking())
    assert answer is not None and answer.timing.first_chunk_s is None and answer.first_chunk_s == 2


WHOLE = answered("hi").response
TIMING = {"duration_s": 1, "basis": "measured"}
BAD = {
    "not JSON": ("[1", "1: not valid JSON"),
    "no object": ("[1]", "1: expected a JSON object, got an array"),
    "no response": ({"request": asking(), "timing": TIMING}, "1: response: this field is required"),
    "no timing": ({"request": asking(), "response": WHOLE}, "1: timing: this field is required"),
    "misspelt": (line(corect=True), "1: corect: there is no such field"),
    "verdict": (line(correct="yes"), "1: correct: Expected bool | null, got str"),
    "basis": (line(timing={**TIMING, "basis": "guessed"}), "1: timing.basis: Invalid enum value 'guessed'"),
    "negative time": (line(timing={**TIMING, "duration_s": -1}), "1: timing.duration_s: Expected float >= 0"),
    "late first chunk": (
        line(timing={**TIMING, "first_chunk_s": 1.5}), "1: timing.first_chunk_s: expected at most timing.duration_s"
    ),
    "no id": (line(response={"model": "m", "choices": WHOLE["choices"]}), "1: response.id: this field is required"),
    "no choice": (line(response={**WHOLE, "choices": []}), "1: response.choices: Expected array of length >= 1"),
    "no message": (line(response={**WHOLE, "choices": [{}]}), "1: response.choices[0].message: this field is required"),
    "bad request": (line(request={"model": "m", "messages": []}), "1: request.messages: expected list of length >= 1"),
    "bad row": (row(response={}), "1: response.id: this field is required"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(tmp_path, case):
    """Each error says which file, which line, which field and what was expected there."""
    bad, message = BAD[case]
    with pytest.raises(InputError) as caught:
        load(tmp_path, bad)
    assert caught.value.message.startswith(f"{tmp_path}/recording.jsonl:{message}")


def test_a_file_without_answers_is_refused(tmp_path):
    """An empty file, and an export without content, are bad input that says why."""
    with pytest.raises(InputError, match=r"no recorded answer: it is empty"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"none of its 2 ledger lines holds a request and its answer"):
        load(tmp_path, row(request=None), row(response=None))


TEXT = st.text(max_size=6)
ANSWERS = st.lists(
    st.builds(
        lambda content, question, correct, temperature: answered(
            content, asking(question, temperature=temperature), correct=correct
        ),
        TEXT, TEXT, st.none() | st.booleans(), st.sampled_from([0, 0.5]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(answers=ANSWERS, suffix=st.sampled_from(["jsonl", "jsonl.gz"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back_and_every_answer_is_found(tmp_path, answers, suffix):
    """Writing and reading gives the same answers, each of which is given to a request equal to its own."""
    path = tmp_path / f"recording.{suffix}"
    assert write_recording(path, answers) == len(answers)
    recording = Recording.load(path)
    assert list(recording.answers) == answers
    for request in {json.dumps(answer.request): answer.request for answer in answers}.values():
        own = [answer for answer in answers if answer.request == request]
        assert [recording.lookup(request) for _ in own] == own


def test_the_example_in_the_documentation_is_a_recording(tmp_path):
    """The line shown in docs/replay.md is read, and answers its own request."""
    block = re.search(r"^## Recordings\n.*?```jsonl\n(.*?)```", DOCS.read_text(), re.M | re.S)
    assert block is not None
    recording = load(tmp_path, block[1])
    answer = recording.answers[0]
    assert recording.lookup(answer.request) == answer and recording.verdict(answer.request, answer.text) is True
