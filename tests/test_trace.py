"""Reading and writing traces."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.errors import InputError
from negawatt.proof.trace import FORMATS, TraceEntry, read_trace, write_trace

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
DOCS = Path(__file__).parent.parent / "docs" / "replay.md"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"


@pytest.fixture
def file(tmp_path):
    """Return a function that writes lines (objects or text) to a file and returns its path."""

    def write(*lines, name="trace.jsonl"):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def refused(path, **options):
    """Return what reading *path* says is wrong, without the folder."""
    with pytest.raises(InputError) as caught:
        read_trace(path, **options)
    return caught.value.message.replace(f"{Path(path).parent}/", "")


def test_our_own_format_keeps_every_field(file):
    """What a line says about a request is what the entry says."""
    line = {
        "arrival_s": 1.5, "request": BODY, "tenant": "t", "user": "u", "class": "faq", "session": "s", "task": "k",
        "corpus_version": "v", "permissions": "a,b", "expected": "hi", "synthetic": True,
    }  # fmt: skip
    trace = read_trace(file(line))
    assert trace.format == "negawatt" and trace.notes == () and trace.duration_s == 1.5
    assert trace.entries == [
        TraceEntry(
            arrival_s=1.5, request=BODY, tenant="t", user="u", request_class="faq", session="s", task="k",
            corpus_version="v", permissions="a,b", expected="hi", synthetic=True,
        )
    ]  # fmt: skip


def test_timestamps_in_milliseconds_count_from_the_earliest(file):
    """A trace that says when, in milliseconds since some moment, begins at 0 seconds."""
    moments = (1_795_424_400_250, 1_795_424_401_500)
    trace = read_trace(file(*({"timestamp": moment, "request": BODY} for moment in moments)))
    assert [entry.arrival_s for entry in trace.entries] == [0.0, 1.25]


def test_arrivals_out_of_order_are_sorted_and_said_so(file):
    """Requests come in the order of their arrival whatever the order of the lines, and equal times keep the file's."""
    lines = [{"arrival_s": at, "request": {**BODY, "seed": n}} for n, at in enumerate([2.0, 1.0, 3.0, 1.0])]
    trace = read_trace(file(*lines))
    assert [(e.arrival_s, e.request["seed"]) for e in trace.entries] == [(1.0, 1), (1.0, 3), (2.0, 0), (3.0, 2)]
    assert trace.notes == ("lines that arrived before the line above them, sorted: 2",)


def test_bodies_and_batch_lines_arrive_at_the_stated_interval(file):
    """A file of OpenAI bodies has no times, so the reader spaces them and says so."""
    batch = {"custom_id": "j1", "method": "POST", "url": "/v1/chat/completions", "body": {**BODY, "user": "u"}}
    trace = read_trace(file(BODY, batch), interval_s=0.5)
    assert trace.format == "openai"
    assert [(e.arrival_s, e.task, e.user) for e in trace.entries] == [(0.0, None, None), (0.5, "j1", "u")]
    assert trace.notes == ("requests without times, one put every 0.5 s: 2",)


def test_ledger_calls_without_content_stay_repeats_of_each_other(file):
    """Two calls with one fingerprint become two equal requests; their lengths are those without the levers."""
    row = {"received_at": 100.0, "tenant": "t", "class": "faq", "model": "m", "fingerprint": "f1", "request": None}
    trace = read_trace(
        file(
            {**row, "input_tokens": 12, "output_tokens": 30, "id": "a", "upstream_s": 1.0},
            {**row, "received_at": 101.5, "input_tokens": 0, "output_tokens": 0, "baseline_input_tokens": 12,
             "baseline_output_tokens": 30, "stream": True},
            {**row, "received_at": 102.0, "fingerprint": "f2", "cache": "bypass"},
        )
    )  # fmt: skip
    first, second, third = trace.entries
    assert (trace.format, second.arrival_s, second.tenant, second.request_class) == ("ledger", 1.5, "t", "faq")
    assert first.request["messages"] == second.request["messages"] != third.request["messages"]
    assert first.request["metadata"] == second.request["metadata"] == {"input_tokens": "12", "output_tokens": "30"}
    assert second.request["stream"] is True and "temperature" not in third.request and third.request["metadata"] == {}
    assert trace.synthetic and trace.notes[0].startswith("calls without kept content")


def test_ledger_calls_with_content_are_replayed_as_they_were(file):
    """Kept content is the request; calls that cannot be replayed are counted, not guessed."""
    row = {"received_at": 100.0, "tenant": None, "model": "m", "fingerprint": "f"}
    lost = {**row, "request": None, "fingerprint": None}
    trace = read_trace(file({**row, "request": BODY}, {**row, "request": {"model": "m"}}, lost))
    assert [entry.request for entry in trace.entries] == [BODY]
    assert not trace.synthetic and trace.entries[0].tenant == "default"
    assert trace.notes == (
        "calls left out, request not valid: 1",
        "calls left out, neither content nor fingerprint known: 1",
    )


def test_azure_rows_become_stand_ins_of_their_length(file):
    """Seven decimals, Windows line ends and gzip are read; each row is a request of its own."""
    text = AZURE + "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,0"
    for name in ("trace.csv", "trace.csv.gz"):
        trace = read_trace(file(text, name=name), model="big")
        first, second = trace.entries
        assert (trace.format, first.arrival_s, second.arrival_s) == ("azure", 0.0, 4.314579)
        assert first.request["model"] == "big" and first.synthetic
        assert first.request["metadata"] == {"input_tokens": "374", "output_tokens": "44"}
        assert first.request["max_tokens"] == 44 and "max_tokens" not in second.request
        assert first.request["messages"] != second.request["messages"]


def test_equal_mooncake_blocks_make_equal_requests(file):
    """Rows with the same blocks are repeats, also where the answers differed in length; other blocks are not."""
    row = {"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [0, 7]}
    trace = read_trace(file(row, {**row, "timestamp": 3500, "output_length": 6}, {**row, "hash_ids": [0, 8]}))
    one, other, repeat = trace.entries
    without = [{name: value for name, value in e.request.items() if name != "metadata"} for e in (one, other, repeat)]
    assert trace.format == "mooncake" and repeat.arrival_s == 3.5
    assert without[0] == without[2] != without[1]
    assert repeat.request["metadata"]["output_tokens"] == "6"


def test_lines_end_at_newlines_only(file):
    """A line separator inside a text does not end the line; blank lines and a byte order mark are skipped."""
    text = json.dumps({**BODY, "messages": [{"role": "user", "content": "a\u2028b\x85c"}]}, ensure_ascii=False)
    trace = read_trace(file("\ufeff" + text, "  ", ""))
    assert trace.entries[0].request["messages"][0]["content"] == "a\u2028b\x85c"


def test_a_limit_reads_no_further(file):
    """What comes after the limit is not even looked at."""
    assert len(read_trace(file(BODY, BODY, "not json"), limit=2).entries) == 2


BAD = {
    "not JSON": (["{"], "trace.jsonl:1: not valid JSON: "),
    "no trace": ([{"hello": 1}], "trace.jsonl:1: not the first line of a trace that we know; known formats: negawatt"),
    "a recording": ([{"request": BODY, "response": {}, "timing": {}}], "trace.jsonl:1: this is a line of a recording"),
    "no time": ([{"request": BODY}], "trace.jsonl:1: arrival_s: expected either this (seconds) or timestamp"),
    "two clocks": (
        [{"arrival_s": 0, "request": BODY}, {"timestamp": 5, "request": BODY}],
        "trace.jsonl:2: timestamp: expected arrival_s, as in the lines above",
    ),
    "negative time": ([{"arrival_s": -1, "request": BODY}], "trace.jsonl:1: arrival_s: Expected float >= 0"),
    "time as text": ([{"timestamp": "5", "request": BODY}], "trace.jsonl:1: timestamp: expected a number"),
    "misspelt": ([{"arrival_s": 0, "request": BODY, "tenent": "t"}], "trace.jsonl:1: tenent: there is no such field"),
    "bad tenant": ([{"arrival_s": 0, "request": BODY, "tenant": 3}], "trace.jsonl:1: tenant: Expected str, got int"),
    "bad request": (
        [{"arrival_s": 0, "request": BODY}, {"arrival_s": 0, "request": {"model": "m"}}],
        "trace.jsonl:2: request.messages: this field is required",
    ),
    "bad body": ([BODY, {"body": {**BODY, "temperature": "hot"}}], "trace.jsonl:2: body.temperature: expected float"),
    "too deep": (
        [json.dumps({"arrival_s": 0, "request": {**BODY, "x": 0}}).replace("0}}", "[" * 500 + "]" * 500 + "}}")],
        "trace.jsonl:1: request: cannot be sent: Recursion limit reached",
    ),
    "other endpoint": (
        [{"body": BODY, "url": "/v1/images"}],
        "trace.jsonl:1: url: expected one of /v1/chat/completions",
    ),
    "ledger tokens": ([{"received_at": 1, "input_tokens": -1}], "trace.jsonl:1: input_tokens: Expected int >= 0"),
    "mooncake blocks": (
        [{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["x"]}],
        "trace.jsonl:1: hash_ids[0]: Expected int, got str",
    ),
    "azure columns": (["TIMESTAMP,ContextTokens"], "trace.jsonl:1: GeneratedTokens: this column is missing"),
    "azure cells": ([AZURE + "2023-11-16 18:15:46,1"], "trace.jsonl:2: expected 3 columns, got 2"),
    "azure tokens": ([AZURE + "2023-11-16 18:15:46,x,1"], "trace.jsonl:2: ContextTokens: expected a number of"),
    "azure time": ([AZURE + "yesterday,1,1"], "trace.jsonl:2: TIMESTAMP: expected a time such as 2023-"),
    "empty": ([], "trace.jsonl: no request to replay: it is empty"),
    "left out": ([{"received_at": 1}], "trace.jsonl: no request to replay: calls left out, neither"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(file, case):
    """Each error says which file, which line, which field and what was expected there."""
    lines, message = BAD[case]
    assert refused(file(*lines)).startswith(message)


def test_a_named_format_is_held_to(file):
    """A format that is named is not guessed, and an unknown name lists the known ones."""
    assert "arrival_s" in refused(file(BODY), format="negawatt")
    assert refused(file(BODY), format="csv") == (
        "format: there is no trace format 'csv'; known: negawatt, openai, ledger, azure, mooncake"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """A missing file and damaged gzip are bad input, not a traceback."""
    assert refused(tmp_path / "none.jsonl") == "none.jsonl: cannot be read: No such file or directory"
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"\n" * 3 + json.dumps(BODY).encode())[:-12])
    assert re.match(r"cut.gz:\d+: the gzip data are damaged", refused(cut))


TEXT = st.text(max_size=8)
MAYBE = st.none() | TEXT
ENTRIES = st.lists(
    st.builds(
        TraceEntry, arrival_s=st.floats(0, 1e6), tenant=TEXT, user=MAYBE, request_class=MAYBE, session=MAYBE,
        task=MAYBE, corpus_version=MAYBE, permissions=MAYBE, expected=MAYBE, synthetic=st.booleans(),
        request=st.builds(lambda text: {**BODY, "messages": [{"role": "user", "content": text}]}, TEXT),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@given(entries=ENTRIES, suffix=st.sampled_from(["jsonl", "jsonl.gz"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, entries, suffix):
    """Writing and reading a trace gives the same entries, in the order of arrival; writing twice, the same bytes."""
    path, again = tmp_path / f"trace.{suffix}", tmp_path / f"again.{suffix}"
    assert write_trace(path, entries) == write_trace(again, entries) == len(entries)
    assert path.read_bytes() == again.read_bytes()
    assert read_trace(path).entries == sorted(entries, key=lambda entry: entry.arrival_s)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([
    "arrival_s", "timestamp", "request", "messages", "model", "body", "received_at", "hash_ids", "input_length",
    "output_length", "fingerprint", "tenant", "class", "metadata",
])  # fmt: skip


@given(lines=st.lists(st.dictionaries(NAMES, JSON, max_size=5).map(json.dumps) | TEXT, max_size=3),
       format=st.none() | st.sampled_from(list(FORMATS)))  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_file_the_reader_reads_it_or_says_what_is_wrong(tmp_path, lines, format):
    """No content makes the reader fail in any other way than with an error that names the file."""
    path = tmp_path / "any"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        assert read_trace(path, format=format).entries
    except InputError as error:
        assert str(path) in error.message


@pytest.mark.parametrize("name", FORMATS)
def test_a_documented_format_is_read(tmp_path, name):
    """The example of each format in docs/replay.md is read as that format, two requests each."""
    block = re.search(rf"^### {name}\n.*?```(?:jsonl|csv)\n(.*?)```", DOCS.read_text(), re.M | re.S)
    assert block is not None
    path = tmp_path / "example"
    path.write_text(block[1])
    trace = read_trace(path)
    assert (trace.format, len(trace.entries)) == (name, 2)
