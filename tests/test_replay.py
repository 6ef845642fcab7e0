"""Replay: the same path on a virtual clock, with and without levers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from negawatt.call import Request
from negawatt.config import Config, parse_config
from negawatt.economics.counting import TokenCounter
from negawatt.errors import ConfigError, InputError
from negawatt.proof.replay import Plan, arm_configs, replay
from negawatt.proof.summary import summarise
from negawatt.proof.trace import Trace, TraceEntry
from negawatt.providers.recording import RecordedAnswer, Timing, write_recording
from negawatt.wire.chat import CHAT

MODELLED = "modelled:?a=1&b=0.01"


def ask(arrival_s: float, text: str, **fields: object) -> TraceEntry:
    request = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "metadata": {"input_tokens": "100", "output_tokens": "50"},
    }
    return TraceEntry(arrival_s=arrival_s, request=request, **fields)


def plan(*entries: TraceEntry, **fields: object) -> Plan:
    trace = Trace(entries=list(entries), source="here.jsonl", format="negawatt")
    return Plan(trace=trace, provider=MODELLED, **fields)


def arms(result) -> dict:
    return {arm.name: arm for arm in result.arms}


def test_an_hour_of_waiting_takes_no_time():
    """The clock is virtual: calls an hour apart are replayed at once, and the latencies are those of the model."""
    began = time.monotonic()
    result = replay(plan(ask(0, "a"), ask(3600, "b"), ask(7200, "c")))
    assert time.monotonic() - began < 20
    assert [row.duration_s for row in arms(result)["none"].outcomes] == pytest.approx([1.5, 1.5, 1.5])


def test_without_levers_every_call_goes_upstream():
    """The arm none saves nothing; the arm all asks once for what was asked before."""
    result = arms(replay(plan(ask(0, "a"), ask(10, "a"), ask(20, "b"))))
    assert (result["none"].upstream_calls, result["all"].upstream_calls) == (3, 2)
    assert [row.ending for row in result["all"].outcomes] == ["answered", "cached", "answered"]
    assert all(row.baseline_cost_pusd == row.cost_pusd for row in result["none"].outcomes)


def test_what_is_left_out_is_missing():
    """Equal calls at one moment are coalesced, not cached; without coalescing both go upstream."""
    result = arms(replay(plan(ask(0, "a"), ask(0, "a"))))
    assert sorted(row.ending for row in result["all"].outcomes) == ["answered", "coalesced"]
    assert result["without_coalesce"].upstream_calls == 2
    assert result["without_exact_cache"].upstream_calls == 1


def test_the_baseline_of_all_is_the_cost_of_none():
    """What the decisions say was saved, and what the arm without levers cost, are the same money."""
    entries = [ask(i * 3.0, "abcabd"[i % 6]) for i in range(30)]
    result = arms(replay(plan(*entries)))
    assert sum(row.baseline_cost_pusd for row in result["all"].outcomes) == sum(
        row.cost_pusd for row in result["none"].outcomes
    )


def test_the_same_seed_gives_the_same_replay():
    """Twice the same plan, twice the same rows."""
    entries = [ask(i * 0.4, "abcab"[i % 5], tenant="xy"[i % 2]) for i in range(40)]
    one, other = (replay(plan(*entries, seed=7)) for _ in range(2))
    for name, arm in arms(one).items():
        seen = [(row.ending, row.duration_s, row.cost_pusd) for row in arm.outcomes]
        assert seen == [(row.ending, row.duration_s, row.cost_pusd) for row in arms(other)[name].outcomes]


def test_tenants_of_a_trace_share_nothing():
    """The same question of another tenant goes upstream."""
    result = arms(replay(plan(ask(0, "a", tenant="x"), ask(10, "a", tenant="y"))))
    assert result["all"].upstream_calls == 2


def test_speedup_makes_calls_meet():
    """Ten times faster, calls that were apart are in flight together."""
    entries = (ask(0, "a"), ask(10, "a"))
    assert arms(replay(plan(*entries)))["without_exact_cache"].upstream_calls == 2
    assert arms(replay(plan(*entries, speedup=10)))["without_exact_cache"].upstream_calls == 1


def test_an_expected_answer_is_a_verdict():
    """What the trace expects is compared with what came; without it success is unknown."""
    result = arms(replay(plan(ask(0, "a", expected="something else"), ask(1, "b"))))
    assert list(result["none"].success) == [False, None]


def test_a_modelled_replay_says_so_first():
    """The first line of a report names what is not real."""
    summary = summarise(replay(plan(ask(0, "a"))))
    assert summary["simulated"] is True
    assert "modelled" in summary["first_line"].lower()


SHAPING = {
    "levers": {
        "compress": {"mode": "shadow", "least_tokens": 50},
        "offload": {"mode": "shadow", "handlers": ["arithmetic"]},
    },
    "classes": {"desk": {"offload": ["arithmetic"]}},
}


def test_shaping_has_an_arm_where_it_is_turned_on_and_none_where_it_is_not():
    """Off, compress and offload take no part; in shadow, each is in `all` and left out in an arm of its own."""
    names = {"without_offload", "without_compress"}
    assert names.isdisjoint(arm_configs(Config(), ["leave-one-out"]))
    assert names <= set(arm_configs(parse_config(SHAPING), ["leave-one-out"]))


def test_a_recorded_replay_books_what_was_left_out_of_prompts(tmp_path: Path):
    """The answer is that to the whole prompt, its input is less, and baseline and cost differ by what was saved."""
    rows = json.dumps([{"town": f"town {i}", "mills": i} for i in range(40)], indent=4)
    called = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    asked = {"role": "user", "content": "How many mills has town 3?"}
    messages = [asked, {"role": "assistant", "tool_calls": [called]},
                {"role": "tool", "tool_call_id": "1", "content": rows}]  # fmt: skip
    requests = [
        {"model": "gpt-4o-mini", "messages": messages, "temperature": 0},
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0},
    ]
    counter, timing = TokenCounter(budget=None), Timing(duration_s=1.0, basis="measured")
    sizes = [counter.count("gpt-4o-mini", CHAT.prompt(Request(data=one))).tokens for one in requests]
    answers = [
        RecordedAnswer(request=request, response=said(text, tokens), timing=timing)
        for request, text, tokens in zip(requests, ("3", "five"), sizes, strict=True)
    ]
    write_recording(tmp_path / "answers.jsonl", answers)
    trace = [TraceEntry(arrival_s=i * 9.0, request=one, request_class="desk") for i, one in enumerate(requests)]
    found = replay(Plan(
        trace=Trace(entries=trace, source="here.jsonl", format="negawatt"), config=parse_config(SHAPING),
        provider=f"recorded:{tmp_path / 'answers.jsonl'}",
    ))  # fmt: skip
    result = arms(found)
    whole, plain = result["all"].outcomes[0], result["none"].outcomes[0]
    assert (plain.input_tokens, plain.usage_basis) == (sizes[0], "measured")
    assert whole.input_tokens < 0.8 * sizes[0]
    assert whole.usage_basis == "estimated"
    assert whole.baseline_input_tokens == pytest.approx(sizes[0], rel=0.1)
    assert [arm.outcomes[1].attempts for arm in (result["all"], result["without_offload"])] == [0, 1]
    assert {"compress", "offload"} <= set(summarise(found)["levers"])
    assert any("shortened prompts got the answers to the whole ones" in note for note in found.notes)


def said(text: str, tokens: int) -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5},
    }  # fmt: skip


def test_a_class_that_is_switched_off_stays_off():
    """A class's own word holds in every arm: its answers are not shared."""
    config = parse_config({"classes": {"secret": {"cache": "never"}}})
    entries = (ask(0, "a", request_class="secret"), ask(10, "a", request_class="secret"))
    assert arms(replay(plan(*entries, config=config)))["all"].upstream_calls == 2


@pytest.mark.parametrize("name", ["al", "without_meter", "without_"])
def test_an_unknown_arm_is_refused_with_the_known_ones(name: str):
    """The error names what there is."""
    with pytest.raises(ConfigError, match="leave-one-out"):
        arm_configs(Config(), [name])


def test_a_recording_that_is_not_there_is_named(tmp_path: Path):
    """No file, no replay: the message says which."""
    missing = tmp_path / "answers.jsonl"
    with pytest.raises(InputError, match=r"answers\.jsonl"):
        replay(Plan(trace=plan(ask(0, "a")).trace, provider=f"recorded:{missing}"))
