"""`negawatt cache review`, `learned` and `report`: what people and scripts see of the caches, and how they judge."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from cache_folder import CONFIG, QUESTIONS, ROOT, begin, chat, negawatt, opened, serve_all, worked
from recalls import evidence

from negawatt.indexes import Case


def waiting(folder: Path) -> list[Case]:
    return msgspec.json.decode(negawatt("cache", "review", "--json", cwd=folder).stdout, type=list[Case])


def kept(folder: Path) -> dict[str, tuple[bool | None, str | None]]:
    """Return what stands in the index of each case: wrong, and who said so."""
    with sqlite3.connect(folder / "index.sqlite") as file:
        rows = file.execute("SELECT id, wrong, basis FROM learned_case").fetchall()
    return {id: (None if wrong is None else bool(wrong), basis) for id, wrong, basis in rows}


# -- review ----------------------------------------------------------------------------------------------------


async def test_a_person_judges_what_waits(tmp_path: Path):
    """Question, the question it was taken for, and the answer; right, wrong or skipped; the skipped one comes again."""
    folder = await worked(tmp_path)
    first, second, third = waiting(folder)
    done = negawatt("cache", "review", cwd=folder, said="r\nw\ns\n")
    assert done.stdout.index(QUESTIONS[1]) < done.stdout.index(QUESTIONS[2]) < done.stdout.index("From ten to four.")
    assert f"taken for: {QUESTIONS[0]}" in done.stdout
    assert "class default, learned, served" in done.stdout and "class default, curated, served" in done.stdout
    assert (kept(folder)[first.id], kept(folder)[second.id]) == ((False, "human"), (True, "human"))
    assert [case.id for case in waiting(folder)] == [third.id]


async def test_quitting_leaves_the_rest(tmp_path: Path):
    """And an end of input judges nothing either."""
    folder = await worked(tmp_path)
    negawatt("cache", "review", cwd=folder, said="w\nq\n")
    assert len(waiting(folder)) == 2
    negawatt("cache", "review", cwd=folder, said="", expect=130)
    assert len(waiting(folder)) == 2


async def test_a_slip_of_the_finger_is_asked_again(tmp_path: Path):
    """Neither taken for a judgement nor the end of the review."""
    folder = await worked(tmp_path)
    done = negawatt("cache", "review", "--limit", 1, cwd=folder, said="x\nr\n")
    assert "'x' is not one of" in done.stdout + done.stderr
    assert len(waiting(folder)) == 2


async def test_the_limit_holds(tmp_path: Path):
    """The oldest come first."""
    folder = await worked(tmp_path)
    every = [case.id for case in waiting(folder)]
    shown = json.loads(negawatt("cache", "review", "--json", "--limit", 2, cwd=folder).stdout)
    assert [case["id"] for case in shown] == every[:2]
    negawatt("cache", "review", "--limit", 0, cwd=folder, expect=2)


async def test_a_script_judges_by_id(tmp_path: Path):
    """Several at once, and again: a person's newer word replaces their older one."""
    folder = await worked(tmp_path)
    first, second, _ = (case.id for case in waiting(folder))
    done = negawatt("cache", "review", "--label", first, "right", "--label", second, "wrong", cwd=folder)
    assert done.stdout == "2 judged\n"
    assert (kept(folder)[first], kept(folder)[second]) == ((False, "human"), (True, "human"))
    negawatt("cache", "review", "--label", first, "wrong", cwd=folder)
    assert kept(folder)[first] == (True, "human")


async def test_bad_labels_judge_nothing(tmp_path: Path):
    """A word that is none, an id that is not there: exit code 2, and which."""
    folder = await worked(tmp_path)
    first = waiting(folder)[0].id
    done = negawatt("cache", "review", "--label", first, "right", "--label", first, "perhaps", cwd=folder, expect=2)
    assert "'perhaps' is neither right nor wrong" in done.stderr
    assert kept(folder)[first] == (None, None)
    done = negawatt("cache", "review", "--label", "nw-nothing", "right", cwd=folder, expect=2)
    assert "there is no case nw-nothing" in done.stderr and "Traceback" not in done.stderr


async def test_when_nothing_waits_it_says_how_that_is_set(tmp_path: Path):
    """An index with no case drawn: no question, no error."""
    folder = begin(tmp_path, CONFIG.replace("review = 1", "review = 0"))
    async with opened(folder) as gateway:
        await gateway.chat(chat("a"))
    assert "levers.semantic_cache.review" in negawatt("cache", "review", cwd=folder).stdout
    assert waiting(folder) == []


@pytest.mark.parametrize("verb", ["review", "learned"])
def test_an_index_that_cannot_be_looked_into_is_refused(tmp_path: Path, verb: str):
    """A memory index lives in its server; a file that is not there is not begun by looking for it."""
    begin(tmp_path, "[recall]\nindex = 'memory:'\n")
    done = negawatt("cache", verb, cwd=tmp_path, expect=2)
    assert "a memory index lives in its server; use sqlite:///FILE" in done.stderr
    begin(tmp_path)
    done = negawatt("cache", verb, cwd=tmp_path, expect=2)
    assert "there is no file index.sqlite" in done.stderr
    assert not (tmp_path / "index.sqlite").exists()


# -- while a gateway runs --------------------------------------------------------------------------------------


async def test_a_judgement_reaches_a_running_gateway(tmp_path: Path):
    """It has the same file open; what is judged beside it is heard when it next reads the cases."""
    folder = begin(tmp_path)
    async with opened(folder) as gateway:
        for case in evidence(600):
            await gateway.learner.record(case)
        rule = await gateway.learner.rule("default")
        features = evidence(1)[0].features
        before = rule.risk(features)
        labels = [word for i in range(0, 60, 2) for word in ("--label", f"c{i}", "wrong")]
        assert negawatt("cache", "review", *labels, cwd=folder).stdout == "30 judged\n"
        last = gateway.learner._read["default", "learned"]
        gateway.learner._read["default", "learned"] = last._replace(at=last.at - 61)  # a minute later
        await gateway.learner.rule("default")
        await gateway.background.drain()
        rule = await gateway.learner.rule("default")
        assert rule.risk(features) > 2 * before
        await gateway.chat(chat("it still answers and learns"))
        await gateway.background.drain()
    assert kept(folder)["c0"] == (True, "human")


def test_a_served_gateway_can_be_reviewed(tmp_path: Path):
    """A real server with the index open, a review beside it, more calls after it: neither is in the other's way."""
    folder = begin(tmp_path)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "negawatt", "serve", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(60, server.kill)
    watchdog.start()
    try:
        line = server.stdout.readline()
        address = re.search(r"http://[\d.]+:\d+", line)[0]
        assert asked(address, "when are you open on holidays") == ("semantic", "From ten to four.")
        (case,) = drawn(folder)
        assert negawatt("cache", "review", "--label", case.id, "right", cwd=folder).stdout == "1 judged\n"
        assert asked(address, "and something else")[0] == "miss"
        done = negawatt("cache", "report", "--json", cwd=folder)
        assert json.loads(done.stdout)["learned"][0]["human"] == 1
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
        watchdog.cancel()
    assert kept(folder)[case.id] == (False, "human")


def asked(address: str, text: str) -> tuple[str, str]:
    """Ask over HTTP; return who answered, and what."""
    import urllib.request

    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(chat(text)).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        said = json.load(answer)["choices"][0]["message"]["content"]
        return answer.headers["x-negawatt-cache"], said


def drawn(folder: Path) -> list[Case]:
    """Return what waits; a case is written behind the answer, so ask again for a while."""
    for _ in range(20):
        found = waiting(folder)
        if found:
            return found
    raise AssertionError("no case was written")


# -- learned ---------------------------------------------------------------------------------------------------


async def test_what_was_learned_is_told_by_class_and_tier(tmp_path: Path):
    """Budget, estimate with its interval, and what they rest on; of curated answers what people said."""
    folder = begin(tmp_path)
    async with opened(folder) as gateway:
        serve_all(gateway, "careful")
        for case in evidence(600):
            await gateway.learner.record(case)
            other = {"id": f"other-{case.id}", "request_class": "careful", "action": "served"}
            await gateway.learner.record(msgspec.structs.replace(case, **other))
        await gateway.chat(chat("when are you open on holidays"))
    (hours,) = waiting(folder)
    negawatt("cache", "review", "--label", hours.id, "right", cwd=folder)
    rows = json.loads(negawatt("cache", "learned", "--json", cwd=folder).stdout)
    assert [(row["class"], row["tier"], row["budget"]) for row in rows] == [
        ("careful", "learned", 0.001), ("default", "curated", None), ("default", "learned", 0.01),
    ]  # fmt: skip
    careful, curated, default = rows
    assert default["wrong_share"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert (default["requests"], default["served"], default["compared"]) == (600, 0, 600)
    assert (careful["served"], careful["requests"]) == (600, 600)
    assert 0 <= careful["wrong_share"]["low"] <= careful["wrong_share"]["mean"] <= careful["wrong_share"]["high"]
    assert (curated["human"], curated["requests"], curated["waiting"]) == (1, None, 0)
    assert curated["wrong_share"]["mean"] == 0.0 and curated["wrong_share"]["high"] > 0.5
    text = negawatt("cache", "learned", cwd=folder).stdout
    assert "default (curated): wrong 0.00% [0.00%, " in text and "of 1 judged by people" in text
    assert "default (learned): wrong 0.00% [0.00%, 0.00%] of 600 requests (estimated), budget 1.00%" in text


async def test_nothing_learned_is_said(tmp_path: Path):
    """An index without cases."""
    folder = begin(tmp_path)
    async with opened(folder):
        pass
    assert negawatt("cache", "learned", cwd=folder).stdout == "nothing yet\n"
    assert json.loads(negawatt("cache", "learned", "--json", cwd=folder).stdout) == []


# -- report ----------------------------------------------------------------------------------------------------


async def test_the_report_of_the_caches(tmp_path: Path):
    """Who looked, who answered, what that saved, how old it was, and how often it may have been wrong."""
    folder = await worked(tmp_path)
    text = negawatt("cache", "report", cwd=folder).stdout
    assert all(word in text for word in ("exact_cache", "semantic_cache", "75 %", "Curated answers"))
    assert "How often the semantic cache was wrong" in text and "1.00 %" in text
    assert max(map(len, text.splitlines())) <= 80
    report = json.loads(negawatt("cache", "report", "--json", cwd=folder).stdout)
    assert set(report) == {"requests", "caches", "learned", "learned_note"}
    assert report["requests"] == 5
    assert {name: (one["calls"], one["hits"]) for name, one in report["caches"].items()} == {
        "exact_cache": (5, 1), "item_cache": (0, 0), "coalesce": (None, 0), "semantic_cache": (4, 3),
    }  # fmt: skip
    assert report["caches"]["exact_cache"]["cost_usd"] > 0
    assert [row["tier"] for row in report["learned"]] == ["curated", "learned"]


async def test_the_whole_report_has_the_same_figures(tmp_path: Path):
    """`negawatt report` says no other thing, in JSON and on its page."""
    folder = await worked(tmp_path)
    part = json.loads(negawatt("cache", "report", "--json", cwd=folder).stdout)
    whole = json.loads(negawatt("report", "--json", "--html", "page.html", cwd=folder).stdout)
    assert {name: whole[name] for name in ("requests", "caches", "learned", "learned_note")} == part
    assert "<h3>How often the semantic cache was wrong</h3>" in (folder / "page.html").read_text("utf-8")


async def test_a_report_of_no_calls(tmp_path: Path):
    """Nothing was asked, or nothing since then: that is said, and it is no error."""
    folder = await worked(tmp_path)
    done = negawatt("cache", "report", "--since", "2099-01-01", cwd=folder)
    assert "No cache looked at any of 0 calls." in done.stdout
    none = json.loads(negawatt("cache", "report", "--json", "--since", "2099-01-01", cwd=folder).stdout)
    assert (none["requests"], none["caches"]["exact_cache"]["hits"]) == (0, 0)


async def test_a_report_whose_index_is_elsewhere_says_so(tmp_path: Path):
    """Figures of the ledger all the same; where the semantic cache is off, nobody expects an estimate."""
    folder = await worked(tmp_path)
    on = CONFIG.replace("sqlite:///index.sqlite", "memory:")
    begin(folder, on)
    done = negawatt("cache", "report", cwd=folder)
    assert "not known here: recall.index: a memory index" in " ".join(done.stdout.split())
    begin(folder, on.replace('mode = "on"', 'mode = "off"'))
    assert "semantic cache was wrong" not in negawatt("cache", "report", cwd=folder).stdout
    report = json.loads(negawatt("cache", "report", "--json", cwd=folder).stdout)
    assert (report["learned"], report["learned_note"]) == ([], "")


def test_a_ledger_that_is_not_there_is_named(tmp_path: Path):
    """Exit code 2 and no traceback."""
    done = negawatt("cache", "report", "-l", "nothing.sqlite", cwd=tmp_path, expect=2)
    assert "nothing.sqlite" in done.stderr and "Traceback" not in done.stderr
