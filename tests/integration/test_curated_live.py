"""Curated answers, live: given in every protocol to those they are for; an embedder elsewhere that comes and goes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from taught import KEYS, MODEL, asking, client, counts, decided, guessing, negawatt, opened, said, words_of
from world import HERE, Gateway, Json, Process, Upstream, toml, until

HOURS = "When are you open?"
OPEN = "Monday to Friday, 9 to 17."
CURATED = f"""
[[answer]]
id = "hours"
questions = ["{HOURS}", "What are your opening hours?"]
answer = "{OPEN}"

[[answer]]
id = "discount"
questions = ["Which discount do partners get?"]
answer = "Fifteen per cent."
tenants = ["ann"]

[[answer]]
id = "margin"
questions = ["What is our own margin there?"]
answer = "A third."
permissions = ["staff"]
"""


def curating(folder: Path, upstream: Upstream, embedder: str = "hashing:", text: str = CURATED) -> Json:
    """Return the configuration of a gateway with curated answers."""
    (folder / "curated.toml").write_text(text, encoding="utf-8")
    index = f"sqlite:///{folder / 'index.sqlite'}"
    return guessing(folder, upstream, recall={"embedder": embedder, "index": index, "curated": "curated.toml"})


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("curated")
    one = opened(folder, curating(folder, upstream))
    yield one
    one.stop()


def in_chat(gateway: Gateway, task: str, stream: bool) -> str:
    sdk = client(gateway, task)
    if stream:
        return words_of(list(sdk.chat.completions.create(**asking(HOURS, stream=True))))
    return str(sdk.chat.completions.create(**asking(HOURS)).choices[0].message.content)


def in_responses(gateway: Gateway, task: str, stream: bool) -> str:
    sdk = client(gateway, task)
    if stream:
        with sdk.responses.stream(model=MODEL, input=HOURS, temperature=0) as events:
            return str(events.get_final_response().output_text)
    return str(sdk.responses.create(model=MODEL, input=HOURS, temperature=0).output_text)


def in_messages(gateway: Gateway, task: str, stream: bool) -> str:
    headers = {"x-negawatt-task": task}
    sdk = anthropic.Anthropic(base_url=gateway.url, api_key=KEYS["ANN"], max_retries=0, default_headers=headers)
    said_: Any = [{"role": "user", "content": HOURS}]
    fields: Any = {"model": MODEL, "max_tokens": 50, "messages": said_, "extra_body": {"temperature": 0}}
    if stream:
        with sdk.messages.stream(**fields) as events:
            return str(events.get_final_text())
    return str(sdk.messages.create(**fields).content[0].text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", [in_chat, in_responses, in_messages])
def test_it_is_given_in_every_protocol(
    gateway: Gateway, upstream: Upstream, task: str, protocol: Callable[..., str], stream: bool
) -> None:
    """From the first call, without any evidence; nothing is asked upstream, and what that spared is estimated."""
    calls = upstream.stats()["calls"]
    assert protocol(gateway, task, stream) == OPEN
    assert upstream.stats()["calls"] == calls
    row = gateway.one_row(task)
    assert (row["cache"], row["ending"], row["cost_pusd"], row["stream"]) == ("semantic", "cached", 0, int(stream))
    assert row["baseline_cost_pusd"] > 0 and row["baseline_input_tokens"] > 0 and row["baseline_output_tokens"] > 0
    [hit] = decided(row)
    assert (hit["detail"]["tier"], hit["detail"]["id"], hit["saved"]["basis"]) == ("curated", "hours", "estimated")


def test_those_it_is_not_for_ask_the_model(gateway: Gateway) -> None:
    """Another tenant, other permissions; and a question that differs in a fact."""
    ann, eve = client(gateway), client(gateway, who="EVE")
    staff = client(gateway, who="EVE", **{"x-negawatt-permissions": "staff"})
    partners, margin = "Which discount do partners get?", "What is our own margin there?"
    assert said(ann, partners) == ("semantic", "Fifteen per cent.")
    assert said(eve, partners)[0] == "miss"
    assert said(staff, margin) == ("semantic", "A third.")
    assert {said(sdk, margin)[0] for sdk in (ann, eve)} == {"miss"}
    assert said(ann, "When are you not open?")[0] == "miss"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[answer]]\nid = "a"\nquestions = ["q"]\nanswr = "x"\n', "answer[0].answr: there is no such field"),
        ('[[answer]]\nid = "a"\nquestions = ["q"]\n', "answer[0].answer: this field is required"),
        ('[[answer]]\nid = "a"\nquestions = []\nanswer = "x"\n', "answer[0].questions"),
        ('[[answer]]\nid = "a"\nquestions = ["q"]\nanswer = "x"\nuntil = "soon"\n', "answer[0].until"),
        ("[[answer]]\nid = \n", "not valid TOML"),
        (f"{CURATED}{CURATED}", "answer[3].id: 'hours' is there twice"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_a_bad_file_is_refused_at_the_start(
    upstream: Upstream, tmp_path: Path, text: str, words: str, check: bool
) -> None:
    """Exit code 2, one line with the file and the field; `serve --check` says the same."""
    (tmp_path / "negawatt.toml").write_text(toml(curating(tmp_path, upstream, text=text)), encoding="utf-8")
    done = negawatt(tmp_path, "serve", "--port", "0", *(["--check"] if check else []))
    [line] = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2 and done.stdout == ""
    assert "curated.toml" in line and words in line


# -- an embedder elsewhere ---------------------------------------------------------------------------------------------


class Embedder(Process):
    """An endpoint in the form of OpenAI's (`embedder.py`); *port* to come back where it was."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        log = folder / f"embedder-{len(list(folder.glob('embedder-*')))}.txt"
        super().__init__([sys.executable, str(HERE / "embedder.py"), str(port)], log)
        self.port = self.announced(r"PORT (\d+)")

    def url(self, dimensions: int = 24) -> str:
        return f"http://127.0.0.1:{self.port}/v1?model=m&dimensions={dimensions}&timeout_s=5"


@pytest.fixture
def embedder(tmp_path: Path) -> Iterator[Embedder]:
    one = Embedder(tmp_path)
    yield one
    one.stop()


def test_vectors_come_from_an_endpoint(upstream: Upstream, embedder: Embedder, tmp_path: Path, task: str) -> None:
    """Curated answers are found by them, and what is learned is kept under the endpoint's name."""
    gateway = opened(tmp_path, curating(tmp_path, upstream, embedder.url()))
    try:
        assert said(client(gateway), HOURS) == ("semantic", OPEN)
        assert said(client(gateway, task), "How do I reset my password?")[0] == "miss"
        assert "reason" not in decided(gateway.one_row(task))[0], "nothing was near, and nothing failed"
        until(lambda: counts(tmp_path)[0] == 1)
    finally:
        gateway.stop()


def test_an_endpoint_that_is_down_makes_misses(
    upstream: Upstream, embedder: Embedder, tmp_path: Path, task: str
) -> None:
    """Never errors; the decision says why, and when it is back so are the answers."""
    gateway = opened(tmp_path, curating(tmp_path, upstream, embedder.url()))
    try:
        embedder.stop()
        asked = "What are your opening hours?"
        assert [said(client(gateway, task), f"{asked} {i}")[0] for i in range(3)] == ["miss"] * 3
        for row in gateway.settled_rows(task, 3):
            assert (row["status"], row["ending"]) == (200, "answered")
            assert decided(row)[0]["reason"].startswith("the embedder failed")
        again = Embedder(tmp_path, embedder.port)
        try:
            assert said(client(gateway), asked) == ("semantic", OPEN)
        finally:
            again.stop()
    finally:
        gateway.stop()


def test_a_silent_endpoint_is_waited_for_once(upstream: Upstream, tmp_path: Path, task: str) -> None:
    """It takes connections and never answers: the first call waits as long as is allowed, those after it do not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1?model=m&dimensions=24&timeout_s=0.5"
        gateway = opened(tmp_path, curating(tmp_path, upstream, url))  # to start it, it was asked
        try:
            until(lambda: said(client(gateway), "Is it awake?")[0] == "exact")
            for number in range(5):
                assert said(client(gateway, task), f"{HOURS} {number}")[0] == "miss"
            reasons = [decided(row)[0]["reason"] for row in gateway.settled_rows(task, 5)]
            assert any("left alone for a while, for it was silent" in reason for reason in reasons)
            assert all(reason.startswith("the embedder failed") for reason in reasons)
        finally:
            gateway.stop()


def test_an_endpoint_may_come_after_the_gateway(upstream: Upstream, embedder: Embedder, tmp_path: Path) -> None:
    """It starts, says that curated answers are not given yet, and gives them once the endpoint is there."""
    embedder.stop()
    gateway = opened(tmp_path, curating(tmp_path, upstream, embedder.url()))
    try:
        assert "curated answers are not given until the embedder works" in gateway.output
        assert said(client(gateway), HOURS)[0] == "miss"
        again = Embedder(tmp_path, embedder.port)
        try:
            assert said(client(gateway), "What are your opening hours?") == ("semantic", OPEN)
        finally:
            again.stop()
    finally:
        gateway.stop()


def test_an_endpoint_with_other_vectors_is_not_believed(
    upstream: Upstream, embedder: Embedder, tmp_path: Path, task: str
) -> None:
    """Vectors of another dimension than the configuration says: misses, which name the endpoint and both numbers."""
    gateway = opened(tmp_path, curating(tmp_path, upstream, embedder.url(32)))
    try:
        assert said(client(gateway, task), HOURS)[0] == "miss"
        reason = decided(gateway.one_row(task))[0]["reason"]
        assert f"127.0.0.1:{embedder.port}" in reason and "a vector of 32 numbers, got 24 numbers" in reason
        assert counts(tmp_path)[0] == 0, "nothing was kept"
    finally:
        gateway.stop()


def test_an_endpoint_needs_its_name_and_dimensions(upstream: Upstream, tmp_path: Path) -> None:
    """Or the start is refused: vectors of unknown models cannot be compared."""
    for url, words in [
        ("http://127.0.0.1:9/v1", "needs model=NAME"),
        ("http://127.0.0.1:9/v1?model=m", "needs dimensions=N, a number above 0\n"),
    ]:
        (tmp_path / "negawatt.toml").write_text(toml(curating(tmp_path, upstream, url)), encoding="utf-8")
        done = negawatt(tmp_path, "serve", "--port", "0")
        assert done.returncode == 2 and f"recall.embedder: {words}" in done.stderr
