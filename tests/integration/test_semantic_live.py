"""The semantic cache, live: a real gateway learns from a real provider, then answers through unmodified SDKs."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from desk import TOPICS, answer_to, questions
from taught import (
    KEYS,
    MODEL,
    TAUGHT,
    asking,
    client,
    counts,
    decided,
    guessing,
    metric,
    needs_minilm,
    negawatt,
    opened,
    said,
    teach,
    words_of,
)
from world import Caller, Gateway, Upstream, ask, in_thread, many_connections, until

pytestmark = needs_minilm
NEW = questions()[TAUGHT:]  # in words that the gateway has not been asked in
Told = tuple[Gateway, Path, list[str]]


@pytest.fixture(scope="module")
def taught(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A gateway that has been asked until it guesses, its folder, and which cache answered each question."""
    folder = tmp_path_factory.mktemp("taught")
    gateway = opened(folder, guessing(folder, upstream))
    try:
        yield gateway, folder, teach(gateway)
    finally:
        gateway.stop()


@pytest.fixture
def copied(taught: Told, tmp_path: Path) -> Path:
    """A folder with a copy of what the gateway has learned."""
    source = sqlite3.connect(taught[1] / "index.sqlite")
    target = sqlite3.connect(tmp_path / "index.sqlite")
    source.backup(target)
    source.close()
    target.close()
    return tmp_path


def test_it_starts_cold_and_answers_once_there_is_evidence(taught: Told) -> None:
    """Nothing before 60 candidates have been compared; then nearly everything, and never with a wrong answer."""
    _, folder, caches = taught
    assert set(caches[:60]) == {"miss"}
    assert caches[-20:].count("semantic") >= 15
    until(lambda: counts(folder)[1] == len(caches))


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
async def test_other_words_are_answered_whole(taught: Told, upstream: Upstream, kind: type[Any], task: str) -> None:
    """Nothing is asked upstream; header, row and decision say so, and what was spared."""
    gateway = taught[0]
    question, answer = NEW[0]
    sdk, calls = client(gateway, task, kind=kind), upstream.stats()["calls"]
    raw = await _awaited(sdk.chat.completions.with_raw_response.create(**asking(question)))
    assert (raw.headers["x-negawatt-cache"], raw.parse().choices[0].message.content) == ("semantic", answer)
    assert float(raw.headers["x-negawatt-saved-usd"]) > 0 == float(raw.headers["x-negawatt-cost-usd"])
    assert raw.parse().usage.completion_tokens == len(answer.split(" "))
    assert upstream.stats()["calls"] == calls
    row = await in_thread(lambda: gateway.one_row(task))
    assert (row["cache"], row["ending"], row["attempts"], row["cost_pusd"]) == ("semantic", "cached", 0, 0)
    assert row["baseline_cost_pusd"] > 0 and row["baseline_input_tokens"] == 10
    [hit] = decided(row)
    assert hit["action"] == "hit" and hit["saved"]["basis"] == "measured"
    assert hit["detail"]["tier"] == "learned" and 0 <= hit["detail"]["risk"] < 0.5
    assert hit["detail"]["similarity"] > 0.5 and hit["detail"]["age_s"] >= 0


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
async def test_other_words_are_answered_streamed(taught: Told, kind: type[Any], task: str) -> None:
    """The same entry in chunks, the usage and what it spared in the last one."""
    gateway = taught[0]
    question, answer = NEW[1]
    made = client(gateway, task, kind=kind).chat.completions.create(
        **asking(question, stream=True, stream_options={"include_usage": True})
    )
    stream = await _awaited(made)
    chunks = [c async for c in stream] if kind is openai.AsyncOpenAI else list(stream)
    assert words_of(chunks) == answer
    last = chunks[-1]
    assert last.usage.total_tokens == 10 + len(answer.split(" ")) and last.choices == []
    assert last.negawatt["cache"] == "semantic" and float(last.negawatt["saved_usd"]) > 0
    row = await in_thread(lambda: gateway.one_row(task))
    assert (row["cache"], row["stream"], row["ending"]) == ("semantic", 1, "cached")


async def _awaited(made: Any) -> Any:
    return await made if asyncio.iscoroutine(made) or hasattr(made, "__await__") else made


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_sdk_is_answered_in_its_own_protocol(taught: Told, task: str, stream: bool) -> None:
    """From what was answered in that protocol: entries of another one are never given."""
    gateway = taught[0]
    sdk = anthropic.Anthropic(
        base_url=gateway.url, api_key=KEYS["ANN"], max_retries=0, default_headers={"x-negawatt-task": task}
    )
    topic = list(TOPICS)[int(stream)]
    forms = ["How do I {}?", "How can I {}?", "how to {}", "Please tell me how to {}.", "What is the way to {}?"]
    got = []
    for form in forms:
        words: Any = [{"role": "user", "content": form.format(topic)}]
        fields: Any = {"model": MODEL, "max_tokens": 100, "messages": words, "extra_body": {"temperature": 0}}
        if stream:
            with sdk.messages.stream(**fields) as events:
                got.append(events.get_final_message())
        else:
            got.append(sdk.messages.create(**fields))
        gateway.settled_rows(task, len(got))  # by then it has been learned from
    assert {one.content[0].text for one in got} == {TOPICS[topic]}
    rows = gateway.settled_rows(task, len(forms))
    assert rows[0]["cache"] == "miss", "what was learned from Chat Completions is not given in Messages"
    assert rows[-1]["cache"] == "semantic" and rows[-1]["protocol"] == "messages"
    assert got[-1].usage.output_tokens == len(TOPICS[topic].split(" "))


@pytest.mark.parametrize(
    ("question", "guard"),
    [
        ("How do I reset my password in 3 steps?", "numbers"),
        ("How do I not reset my password?", "negation"),
        ("How do I reset my password for https://a.example/b?", "names"),
    ],
)
def test_what_differs_in_a_fact_goes_upstream(taught: Told, task: str, question: str, guard: str) -> None:
    """Near as they are, a number, a negation or an address is not what was asked; the decision names the guard."""
    gateway = taught[0]
    cache, _ = said(client(gateway, task), question)
    assert cache == "miss"
    assert decided(gateway.one_row(task))[0]["reason"] == f"{guard} differ"


@pytest.mark.parametrize(
    ("who", "headers"),
    [("EVE", {}), ("ANN", {"x-negawatt-permissions": "staff"}), ("ANN", {"x-negawatt-corpus-version": "2"})],
)
def test_what_one_may_see_is_not_shown_to_another(taught: Told, who: str, headers: dict[str, str], task: str) -> None:
    """Another tenant, permissions or corpus: asked upstream; the same words by the same caller are answered."""
    gateway = taught[0]
    question = NEW[2][0]
    assert said(client(gateway, task, who=who, **headers), question)[0] == "miss"
    assert said(client(gateway), question)[0] == "semantic"


def test_shadow_in_a_header_learns_and_serves_nothing(taught: Told, task: str) -> None:
    """``x-negawatt-mode: shadow``: the model answers, and what the cache would have done is on the row."""
    gateway = taught[0]
    sdk = client(gateway, task, **{"x-negawatt-mode": "shadow"})
    assert said(sdk, NEW[3][0])[0] in ("bypass", "miss")
    [decision] = decided(gateway.one_row(task))
    assert (decision["mode"], decision["action"]) == ("shadow", "explored")


def test_what_it_does_is_to_be_seen(taught: Told, task: str) -> None:
    """/readyz names the index; /metrics has its state, the budget, the estimate and the counts."""
    gateway, _, caches = taught
    assert gateway.get("/readyz").json["checks"]["index"] == "ok"
    bearer = {"authorization": f"Bearer {KEYS['ANN']}"}
    text = gateway.get("/metrics", bearer).body.decode()
    assert metric(text, "negawatt_up", 'part="index"') == 1
    labels = ('request_class="default"', 'tier="learned"')
    assert metric(text, "negawatt_semantic_budget", *labels) == 0.05
    bounds = [
        metric(text, "negawatt_semantic_wrong_share", *labels, f'bound="{b}"') for b in ("low", "central", "high")
    ]
    assert None not in bounds and 0 <= bounds[0] <= bounds[1] <= bounds[2] <= 0.2  # type: ignore[operator]
    hits = metric(text, "negawatt_cache_decisions_total", 'cache="semantic_cache"', 'action="hit"')
    assert hits is not None and hits >= caches.count("semantic")


def test_people_judge_while_it_runs(copied: Path, upstream: Upstream) -> None:
    """``cache review`` shows what was answered, a word is written down, and ``learned`` counts it."""
    gateway = opened(copied, guessing(copied, upstream))
    try:
        said(client(gateway), NEW[4][0])
        judge(copied)
        assert said(client(gateway), NEW[6][0]) == ("semantic", NEW[6][1]), "it goes on answering"
    finally:
        gateway.stop()


def judge(folder: Path) -> None:
    """Look through what waits for review, and say of one that it was right, of another that it was wrong."""
    shown = negawatt(folder, "cache", "review", "--json", "--limit", "500")
    assert shown.returncode == 0, shown.stderr
    waiting = json.loads(shown.stdout)
    assert len(waiting) > 30
    case = waiting[0]
    assert case["action"] == "served" and case["question"] and case["matched"] and case["answer"] in TOPICS.values()
    judged = negawatt(folder, "cache", "review", "--label", case["id"], "right", "--label", waiting[1]["id"], "wrong")
    assert (judged.returncode, judged.stdout.strip()) == (0, "2 judged")
    left = json.loads(negawatt(folder, "cache", "review", "--json", "--limit", "500").stdout)
    assert {one["id"] for one in waiting[:2]}.isdisjoint(one["id"] for one in left)
    unknown = negawatt(folder, "cache", "review", "--label", "nw-none", "right")
    assert unknown.returncode == 2 and "there is no case nw-none" in unknown.stderr
    [row] = json.loads(negawatt(folder, "cache", "learned", "--json").stdout)
    assert (row["class"], row["human"], row["budget"]) == ("default", 2, 0.05) and row["served"] >= 30


def test_the_report_counts_what_it_saved(taught: Told) -> None:
    """``cache report``: hits, money, ages, and the estimated share of wrong ones with its interval."""
    _, folder, caches = taught
    found = json.loads(negawatt(folder, "cache", "report", "--json").stdout)
    semantic = found["caches"]["semantic_cache"]
    assert semantic["hits"] >= caches.count("semantic") and semantic["cost_usd"] > 0
    assert semantic["age_s"]["p50"] is not None
    share = found["learned"][0]["wrong_share"]
    assert 0 <= share["low"] <= share["mean"] <= share["high"] <= 1
    text = negawatt(folder, "cache", "report")
    assert text.returncode == 0 and "How often the semantic cache was wrong" in text.stdout


def test_some_are_asked_anyway_and_stand_in_the_ledger(copied: Path, upstream: Upstream, task: str) -> None:
    """Explored: the model answers, its answer is compared, and the case keeps the probability of asking."""
    gateway = opened(copied, guessing(copied, upstream, semantic={"explore": 0.9}))
    try:
        for question, answer in NEW[:20]:
            assert said(client(gateway, task), question)[1] == answer
        rows = gateway.settled_rows(task, 20)
        actions = [decided(row)[0]["action"] for row in rows]
        assert {"explored"} <= set(actions) <= {"explored", "hit", "miss"}
        explored = next(row for row in rows if decided(row)[0]["action"] == "explored")
        assert (explored["attempts"], explored["cache"], explored["ending"]) == (1, "miss", "answered")
        assert decided(explored)[0]["reason"] == "asked anyway, to compare"
        [row] = json.loads(negawatt(copied, "cache", "learned", "--json").stdout)
        assert row["explored"] >= actions.count("explored")
    finally:
        gateway.stop()


def test_the_control_group_passes_by(copied: Path, upstream: Upstream, task: str) -> None:
    """A call of the holdout is asked upstream, though it would have been answered, and teaches nothing."""
    before = counts(copied)
    gateway = opened(copied, guessing(copied, upstream, holdout={"share": 1.0}))
    try:
        assert said(client(gateway, task), NEW[0][0])[0] == "bypass"
        row = gateway.one_row(task)
        assert (row["holdout"], row["attempts"], decided(row)) == (1, 1, [])
    finally:
        gateway.stop()
    assert counts(copied) == before


# -- what is lost, and what is not -------------------------------------------------------------------------------------


def test_what_was_learned_outlives_a_kill(copied: Path, upstream: Upstream, task: str) -> None:
    """kill -9 under load: no torn file, every entry and case that was there, and it answers from the first call."""
    config = guessing(copied, upstream)
    first, before = opened(copied, config), len(_ids(copied))
    for number in range(20, 40):
        said(client(first), f"How do I reset my password in {number} steps?")
    kept = until(lambda: found if len(found := _ids(copied)) == before + 40 else None)
    busy = [threading.Thread(target=_hammer, args=(first, start)) for start in (100, 1100)]
    for thread in busy:
        thread.start()
    until(lambda: len(_ids(copied)) > len(kept) + 20)
    first.signal(signal.SIGKILL)
    first.wait()
    for thread in busy:
        thread.join(20)
    second = opened(copied, config)
    try:
        assert "damaged" not in second.output
        assert kept <= _ids(copied)
        text = second.get("/metrics", {"authorization": f"Bearer {KEYS['ANN']}"}).body.decode()
        assert metric(text, "negawatt_semantic_wrong_share", 'bound="high"') is not None, "known before the first call"
        assert said(client(second, task), NEW[5][0]) == ("semantic", NEW[5][1])
        connection = sqlite3.connect(copied / "index.sqlite")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    finally:
        second.stop()


def _hammer(gateway: Gateway, start: int) -> None:
    """Ask what is not known, again and again, until the gateway is gone."""
    sdk = client(gateway)
    try:
        for number in range(start, start + 1000):
            said(sdk, f"How do I reset my password in {number} steps?")
    except openai.APIConnectionError:
        return


def _ids(folder: Path) -> set[str]:
    """Return the names of all entries and cases in the index file."""
    connection = sqlite3.connect(f"file:{folder / 'index.sqlite'}?mode=ro", uri=True, timeout=5.0)
    found = {row[0] for row in connection.execute("SELECT key FROM entry UNION SELECT id FROM learned_case")}
    connection.close()
    return found


@pytest.mark.parametrize("hard", [False, True])
def test_who_hangs_up_teaches_nothing(copied: Path, upstream: Upstream, task: str, hard: bool) -> None:
    """A stream that its caller left in the middle is neither kept nor compared."""
    gateway = opened(copied, guessing(copied, upstream))
    try:
        before = counts(copied)
        script = json.dumps({"gap_s": 0.2, "tag": task, "text": " ".join(["word"] * 50)})
        # By a number it differs from all that is known, so it is a miss with a candidate that was declined.
        body = {**asking("How do I reset my password in 12 steps?", stream=True), "metadata": {"script": script}}
        caller = Caller(gateway, body, task, authorization=f"Bearer {KEYS['ANN']}")
        caller.read_until(b"word")
        caller.hang_up(hard=hard)
        assert gateway.one_row(task)["ending"] == "cancelled"
        until(lambda: upstream.tag(task)["open"] == 0)
    finally:
        gateway.stop()
    entries, cases = counts(copied)
    assert entries == before[0]
    assert cases <= before[1] + 1, "that somebody asked is counted; nothing was compared"
    assert "12 steps" not in str(_values(copied))


def _values(folder: Path) -> list[bytes]:
    connection = sqlite3.connect(f"file:{folder / 'index.sqlite'}?mode=ro", uri=True, timeout=5.0)
    found = [row[0] for row in connection.execute("SELECT value FROM entry")]
    connection.close()
    return found


async def test_many_at_once_before_a_slow_provider(copied: Path, upstream: Upstream, task: str) -> None:
    """200 questions in flight, misses and hits: no error, a row each, and /healthz answers meanwhile."""
    gateway = await in_thread(lambda: opened(copied, guessing(copied, upstream)))
    try:
        bearer = {"authorization": f"Bearer {KEYS['ANN']}", "x_negawatt_task": task}
        gated = {"metadata": {"script": json.dumps({"gate": task, "tag": task})}}
        asked = [
            NEW[i % len(NEW)][0] if i % 2 else f"How do I reset my password in {i + 20} steps?" for i in range(200)
        ]
        async with many_connections() as session:
            calls = [asyncio.ensure_future(ask(session, gateway.url, {**asking(q), **gated}, **bearer)) for q in asked]
            await in_thread(lambda: until(lambda: upstream.tag(task)["open"] >= 100, 20))
            assert (await in_thread(lambda: gateway.get("/healthz"))).status == 200
            await in_thread(lambda: upstream.open_gate(task))
            answers = await asyncio.gather(*calls)
        assert {answer.status for answer in answers} == {200}
        caches = [answer.headers["x-negawatt-cache"] for answer in answers]
        assert set(caches[::2]) == {"miss"} and set(caches[1::2]) == {"semantic", "coalesced"}
        assert [a.text for a in answers] == [answer_to(q) for q in asked]
        rows = await in_thread(lambda: gateway.settled_rows(task, 200, within_s=20))
        assert {row["ending"] for row in rows} <= {"answered", "cached", "coalesced"}
    finally:
        await in_thread(gateway.stop)
