"""The sample workload that ships with the package, and the converter of real data."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from negawatt.economics.prices import Prices
from negawatt.proof.trace import SAMPLES, read_trace
from negawatt.providers.recording import Recording

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("support.trace.jsonl", "support.recording.jsonl")
SMALL, LARGE = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def run(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def trace():
    return read_trace(SAMPLES / NAMES[0])


@pytest.fixture(scope="module")
def recording():
    return Recording.load(SAMPLES / NAMES[1])


def body(entry):
    return orjson.dumps(entry.request)


def test_the_script_writes_the_shipped_files(tmp_path):
    """The files in the package are what examples/support_desk.py writes, byte for byte, and small."""
    done = run("support_desk.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes()
    assert sum((SAMPLES / name).stat().st_size for name in NAMES) < 600_000


def test_another_seed_gives_another_morning(tmp_path):
    """The seed and the number of requests are used."""
    assert run("support_desk.py", "--out", tmp_path, "--seed", 1, "--requests", 150).returncode == 0
    other = read_trace(tmp_path / NAMES[0])
    assert len(other.entries) == 150
    assert (tmp_path / NAMES[0]).read_bytes()[:2000] != (SAMPLES / NAMES[0]).read_bytes()[:2000]


def test_every_request_has_an_answer_whose_verdict_holds(trace, recording):
    """Nothing in the sample is refused, and the answer that is given is judged as it was recorded."""
    for entry in trace.entries:
        answer = recording.lookup(entry.request)
        assert answer is not None
        assert recording.verdict(entry.request, answer.text) is answer.correct
        assert answer.timing.basis == "modelled" and answer.usage_basis == "estimated" and answer.note


def test_every_model_of_the_sample_has_a_price(recording):
    """The cost of each recorded answer can be computed."""
    prices, at = Prices(), datetime(2026, 11, 23, tzinfo=UTC)
    assert set(recording.models) == {"gpt-4o-mini", "gpt-4o"}
    assert all(prices.rate(provider, model, at) is not None for model, provider in recording.models.items())


def test_the_sample_has_what_the_levers_work_on(trace):
    """There are repeats in a tenant, equal questions at one moment, equal questions across tenants, and drafts."""
    entries = trace.entries
    assert len(entries) == 400 and trace.format == "negawatt" and trace.notes == ()
    tenants, times = defaultdict(set), defaultdict(list)
    for entry in entries:
        tenants[body(entry)].add(entry.tenant)
        times[entry.tenant, body(entry)].append(entry.arrival_s)
    repeats = sum(len(at) - 1 for at in times.values())
    together = sum(b - a < 0.5 for at in times.values() for a, b in pairwise(at))
    assert repeats == 200  # the figure that docs/replay.md gives
    assert together >= 20 and sum(len(names) > 1 for names in tenants.values()) >= 20
    classes = Counter(entry.request_class for entry in entries)
    assert set(classes) == {"faq", "order_status", "summarise", "classify", "draft"}
    assert all(entry.request["temperature"] == 0.7 for entry in entries if entry.request_class == "draft")
    assert 100 < sum(entry.request.get("stream", False) for entry in entries) < 300
    assert {entry.tenant for entry in entries} == {"alder", "birch", "cedar"}


def test_an_order_is_asked_after_by_its_own_users_only(trace):
    """Order questions stay in one tenant; some are shared by two users, so that personal answers have a case."""
    askers = defaultdict(set)
    for entry in trace.entries:
        if entry.request_class == "order_status":
            askers[body(entry)].add((entry.tenant, entry.user))
    assert all(len({tenant for tenant, _ in who}) == 1 and len(who) <= 2 for who in askers.values())
    assert any(len(who) == 2 for who in askers.values())


@pytest.fixture
def data(tmp_path):
    """Return a folder with ten questions in the shape of the real data, and twenty arrivals."""
    folder = tmp_path / "data"
    for name in ("routellm", "azure-llm-2023"):
        (folder / name).mkdir(parents=True)
    with gzip.open(folder / "routellm" / "gsm8k_gsm8k_responses.csv.gz", "wt", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", SMALL, LARGE, f"{SMALL}_response", f"{LARGE}_response"])
        for n in range(10):
            rows.writerow([f"What is {n} + {n}?", n % 2 == 0, True, f" It is\n{n}", f"It is, \u2028 {2 * n}."])
    with gzip.open(folder / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv.gz", "wt", newline="") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\r\n")
        file.writelines(f"2023-11-16 18:15:{n:02}.5000000,9,9\r\n" for n in range(20))
    return folder


def test_real_data_become_a_trace_and_a_recording(data, tmp_path):
    """Every question is asked, the stated share is repeats, and the answers and verdicts are those of the data."""
    out = tmp_path / "out"
    done = run("gsm8k_replay.py", "--data", data, "--out", out, "--repeats", 0.5, "--large-share", 0.3)
    assert done.returncode == 0, done.stderr
    trace, recording = read_trace(out / "trace.jsonl"), Recording.load(out / "recording.jsonl")
    questions = Counter(entry.request["messages"][0]["content"] for entry in trace.entries)
    assert len(trace.entries) == 20 and len(questions) == 10 and trace.duration_s == 19.0
    models = {e.request["messages"][0]["content"]: e.request["model"] for e in trace.entries}
    assert Counter(models.values()) == {"gpt-4-1106-preview": 3, "open-mixtral-8x7b": 7}
    assert len(recording) == 20 and sum(answer.correct is True for answer in recording.answers) == 15
    third = {"model": "open-mixtral-8x7b", "messages": [{"role": "user", "content": "What is 3 + 3?"}]}
    answer = recording.lookup(third)
    assert answer is not None and (answer.text, answer.correct) == (" It is\n3", False)
    assert all(recording.lookup(entry.request) is not None for entry in trace.entries)
    prices, at = Prices(), datetime(2026, 11, 23, tzinfo=UTC)
    assert all(prices.rate(provider, model, at) is not None for model, provider in recording.models.items())


def test_the_same_seed_converts_to_the_same_files(data, tmp_path):
    """Two runs write the same bytes; another seed asks in another order."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("gsm8k_replay.py", "--data", data, "--out", tmp_path / name, "--seed", seed).returncode == 0
    one, same, other = ((tmp_path / name / "trace.jsonl").read_bytes() for name in "abc")
    assert one == same != other


def test_wrong_data_are_refused_in_one_line(data, tmp_path):
    """An absent folder, a wrong file and too few arrivals end with status 2 and one line that says which."""
    missing = run("gsm8k_replay.py", "--data", tmp_path / "none", "--out", tmp_path / "out")
    few = run("gsm8k_replay.py", "--data", data, "--out", tmp_path / "out", "--repeats", 0.6)
    with gzip.open(data / "routellm" / "gsm8k_gsm8k_responses.csv.gz", "wt") as file:
        file.write("subject,prompt\n")
    wrong = run("gsm8k_replay.py", "--data", data, "--out", tmp_path / "out")
    header = f"{LARGE}: this column is missing from the header"
    for done, what in ((missing, "no such folder"), (few, "25 arrivals are needed"), (wrong, header)):
        assert done.returncode == 2 and what in done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_sample_suite_is_what_its_script_writes(tmp_path):
    """The same seed gives the same cases, answers and suite, byte for byte."""
    assert run("evaluation_sample.py", tmp_path).returncode == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in SAMPLES.glob("evaluation.*"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), name
