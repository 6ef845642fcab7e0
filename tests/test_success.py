"""Tasks, their verdicts and what a success costs: against a plain account of the same, in Python."""

from __future__ import annotations

import itertools
import json
import math
import random
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from report_world import PUSD, START, a_row

from negawatt.config import parse_config
from negawatt.errors import ConfigError, InvalidRequest
from negawatt.governing import Judged
from negawatt.ledger import sql_success
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import SqliteLedger, opened, read_rows, update_rows
from negawatt.ledger.words import kept
from negawatt.success import keeping
from negawatt.success.figures import BY, Figures, figures
from negawatt.success.keeping import Beside, Keeper, catch_up, keep_up
from negawatt.success.listing import Task, history, tasks
from negawatt.success.rules import Rule, rules_of

NOW = START + 10_000_000.0
RULES = (
    Rule("patient", True, False, False, 300.0, None),
    Rule("schema", False, True, True, None, None),
    Rule("scored", False, False, False, None, 0.7),
    Rule("simple", True, False, False, None, None),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def write(path: Path, rows: Iterable[Outcome] = (), words: Iterable[Feedback] = ()) -> None:
    """Put *rows* and *words* on disk, and roll nothing up."""
    ledger = SqliteLedger(path)
    for row in rows:
        ledger.append(row)
    for one in words:
        ledger.record(one).result(10)
    ledger.close()


def rolled(
    path: Path, rows: Iterable[Outcome] = (), words: Iterable[Feedback] = (), now: float = NOW
) -> dict[str, Task]:
    """Return the tasks of *rows* and *words*, by name."""
    write(path, rows, words)
    catch_up(path, RULES, now=lambda: now)
    return {one.id: one for one in tasks(path, most=100_000)}


def word(about: str, success: bool | None = True, kind: Any = "task", **fields: Any) -> Feedback:
    return Feedback(**{"at": START, "tenant": "default", "kind": kind, "about": about, "success": success, **fields})


def decided(lever: str, action: str, verdicts: Sequence[str] | None = ("judge",), **fields: Any) -> dict[str, Any]:
    detail = {} if verdicts is None else {"detail": {"model": "small", "verdicts": [{"kind": one} for one in verdicts]}}
    return {"lever": lever, "action": action, **detail, **fields}


def verdict(path: Path, **fields: Any) -> tuple[bool | None, str | None]:
    """Return the verdict on one call of such *fields*, and its basis."""
    decisions = fields.pop("decisions", [])
    (found,) = rolled(path, [a_row(0, decisions=json.dumps(decisions), **fields)]).values()
    return found.success, found.basis


# -- verdicts ------------------------------------------------------------------------------------------------------

NOBODY = (None, None)
GOOD, BAD = (True, "verifier"), (False, "verifier")
SAID = {
    "nothing": ([], NOBODY),
    "accepted": ([decided("route", "accepted")], GOOD),
    "accepted by nobody": ([decided("route", "accepted", ())], NOBODY),
    "verified afterwards": ([decided("route", "trusted", None), decided("route", "verified")], GOOD),
    "doubted afterwards": ([decided("route", "trusted", None), decided("route", "doubted")], BAD),
    "the verifier failed": ([decided("route", "doubted", None)], NOBODY),
    "escalated to the reference": ([decided("route", "escalated")], NOBODY),
    "accepted at the second": ([decided("route", "escalated"), decided("route", "accepted")], GOOD),
    "corrected": ([decided("route", "corrected")], NOBODY),
    "chosen": ([decided("route", "chose", None), decided("route", "instead", None)], NOBODY),
    "broken JSON": ([decided("structure", "broken", None)], BAD),
    "valid JSON": ([decided("structure", "kept", None)], NOBODY),
    "accepted and then broken": ([decided("route", "accepted"), decided("structure", "broken", None)], BAD),
    "broken and asked again": ([decided("structure", "asked again", None), decided("structure", "kept", None)], NOBODY),
    "another lever": ([decided("cap", "accepted"), decided("exact_cache", "broken")], NOBODY),
}  # fmt: skip


@pytest.mark.parametrize(("decisions", "expected"), SAID.values(), ids=SAID)
def test_verifiers_speak_through_the_decisions_of_the_row(path: Path, decisions: Any, expected: Any):
    """What was accepted by a verifier succeeded, what was doubted or broken failed; of the rest nobody knows."""
    assert verdict(path, decisions=decisions) == expected


YES, NO = (True, "heuristic"), (False, "heuristic")
KEPT, REPAIRED, PASSED = ([decided("structure", action, None)] for action in ("kept", "repaired", "passed"))
DECLARED = {
    "of no rule, delivered": ({"request_class": "default"}, NOBODY),
    "of no rule, failed": ({"request_class": "default", "ending": "upstream_error"}, NOBODY),
    "delivered": ({"request_class": "simple"}, YES),
    "from a cache": ({"request_class": "simple", "ending": "cached", "cache": "exact"}, YES),
    "refused": ({"request_class": "simple", "ending": "refused"}, NO),
    "failed": ({"request_class": "simple", "ending": "failed"}, NO),
    "broken off": ({"request_class": "simple", "ending": "upstream_broken"}, NO),
    "its caller left": ({"request_class": "simple", "ending": "cancelled"}, NOBODY),
    "its caller had left": ({"request_class": "simple", "ending": "abandoned"}, NOBODY),
    "valid": ({"request_class": "schema", "decisions": KEPT}, YES),
    "mended": ({"request_class": "schema", "decisions": REPAIRED}, YES),
    "a tool call": ({"request_class": "schema", "decisions": PASSED}, NOBODY),
    "nobody looked": ({"request_class": "schema"}, NOBODY),
    "kept as valid": ({"request_class": "schema", "ending": "cached", "cache": "exact"}, YES),
    "an invalid one": ({"request_class": "schema", "decisions": SAID["broken JSON"][0]}, BAD),
    "not asked again": ({"request_class": "patient", "user_id": "ann"}, YES),
    "by session": ({"request_class": "patient", "session_id": "s"}, YES),
    "nobody knows by whom": ({"request_class": "patient"}, NOBODY),
    "nobody knows what": ({"request_class": "patient", "user_id": "ann", "fingerprint": None}, NOBODY),
    "too early to say": ({"request_class": "patient", "user_id": "ann", "received_at": NOW - 200.0}, NOBODY),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), DECLARED.values(), ids=DECLARED)
def test_a_class_judges_by_what_it_declares(path: Path, fields: Any, expected: Any):
    """All of it has to hold; what cannot be seen leaves it open; a class that declares nothing judges nothing."""
    assert verdict(path, **fields) == expected


def test_asking_the_same_again_counts_against_the_answer(path: Path):
    """By the same user, within the time, after the answer; not by another, nor later, nor of another tenant."""
    ask = {"request_class": "patient", "fingerprint": "f"}
    rows = [
        a_row(0, user_id="ann", **ask), a_row(200, user_id="ann", **ask),  # again after 199 s, and then no more
        a_row(1000, user_id="bob", **ask), a_row(1302, user_id="bob", **ask),  # too late to count
        a_row(2000, user_id="cid", **ask), a_row(2100, user_id="dan", **ask),
        a_row(2200, user_id="cid", tenant="other", **ask), a_row(2201, user_id="cid", **{**ask, "fingerprint": "g"}),
        a_row(3000, user_id="eve", duration_s=10.0, **ask), a_row(3005, user_id="eve", **ask),  # before the answer
        a_row(4000, user_id="fay", **ask), a_row(4100, user_id="fay", aside_for="call-4000", **ask),  # not by her
    ]  # fmt: skip
    found = rolled(path, rows)
    assert {name: one.success for name, one in found.items()} == {
        "call-0": False, "call-200": True, "call-1000": True, "call-1302": True, "call-2000": True, "call-2100": True,
        "call-2200": True, "call-2201": True, "call-3000": True, "call-3005": True, "call-4000": True,
    }  # fmt: skip


def test_time_that_passes_makes_a_verdict(path: Path):
    """Within the five minutes it is open; when they are over it is a success, unless the same was asked again."""
    ask = {"request_class": "patient", "user_id": "ann"}
    assert rolled(path, [a_row(0, **ask), a_row(1, **ask)], now=START + 100)["call-0"].success is None
    again = [a_row(90, **{**ask, "fingerprint": "prompt-1"})]
    found = rolled(path, again, now=START + 301)
    assert (found["call-0"].success, found["call-1"].success, found["call-90"].success) == (True, False, None)
    found = rolled(path, now=START + 1000)
    assert found["call-90"].success is True


@pytest.mark.parametrize("most", [1, 7, 100])
def test_who_asked_what_is_known_however_much_of_it_is_kept_already(
    path: Path, most: int, monkeypatch: pytest.MonkeyPatch
):
    """A call that asks again is seen, whoever took in the one before: this process, or another that was stopped."""
    monkeypatch.setattr(keeping, "ASKS", most)
    monkeypatch.setattr(keeping, "CHUNK", 3)
    ask = {"request_class": "patient", "user_id": "ann"}
    for start in range(0, 10, 5):
        write(path, [a_row(at, **ask, fingerprint=f"f{at}") for at in range(start, start + 5)])
        catch_up(path, RULES, now=lambda: NOW)
    write(path, [a_row(100 + at, **ask, fingerprint=f"f{at}") for at in range(0, 10, 3)])
    catch_up(path, now=lambda: NOW)
    assert [one.id for one in tasks(path) if one.success is False] == ["call-9", "call-6", "call-3", "call-0"]
    with closing(sqlite3.connect(path)) as connection:
        kept_asks = connection.execute("SELECT count(*) FROM task_ask").fetchone()[0]
    assert kept_asks == {1: 14, 7: 8, 100: 0}[most]


def test_two_that_keep_a_ledger_up_know_what_the_other_took_in(path: Path, monkeypatch: pytest.MonkeyPatch):
    """In turns, each finds that a call asks again what the other took in, by rules that one of them brings."""
    monkeypatch.setattr(keeping, "ASKS", 4)
    ask = {"request_class": "patient", "user_id": "ann"}
    with closing(opened(path)) as one, closing(opened(path)) as other:
        first, second = Keeper(None, now=lambda: NOW), Keeper(RULES, now=lambda: NOW)
        write(path, [a_row(0, **ask, fingerprint="f0")])
        keep_up(one, first)  # there are no rules yet
        for at in range(1, 12):
            write(path, [a_row(10 * at, **ask, fingerprint=f"f{at // 2}")])
            keep_up(*((one, first) if at % 3 else (other, second)))
        keep_up(other, second)
    assert {task.id for task in tasks(path) if task.success is False} == {f"call-{at}" for at in range(0, 120, 20)}


def test_a_ledger_that_keeps_all_who_asked_goes_on(path: Path):
    """Where nothing says of which rows it is kept who asked what, it is kept of all that were taken in."""
    ask = {"request_class": "patient", "user_id": "ann", "fingerprint": "f"}
    rolled(path, [a_row(0, **ask)])
    with closing(opened(path)) as connection:
        connection.execute("DELETE FROM task_state WHERE name = 'asked'")
        connection.execute(
            "INSERT INTO task_ask VALUES ('f', 'default', 'uann', ?, 'call-0', ?, 'call-0')", (START, START + 1)
        )
    found = rolled(path, [a_row(100, **ask)])
    assert (found["call-0"].success, found["call-100"].success) == (False, True)


def test_explicit_beats_inferred_and_the_task_beats_its_calls(path: Path):
    """Feedback over verifiers over what the class declares; of one basis the last call; the task's word over all."""
    accepted = json.dumps([decided("route", "accepted")])
    rows = [a_row(1, task_id="t", request_class="simple", decisions=accepted),
            a_row(2, task_id="t", request_class="simple", ending="upstream_error"),
            a_row(3, task_id="t")]  # fmt: skip
    found = rolled(path, rows)["t"]
    assert (found.success, found.basis, found.latency_to_success_s) == (True, "verifier", 1.0)
    found = rolled(path, words=[word("call-1", False, "call")])["t"]
    assert (found.success, found.basis, found.latency_to_success_s) == (False, "feedback", None)
    found = rolled(path, words=[word("call-3", True, "call")])["t"]
    assert (found.success, found.latency_to_success_s) == (True, 3.0)
    assert rolled(path, words=[word("call-2", False, "call")])["t"].success is True  # it is not the last
    assert rolled(path, words=[word("t", False)])["t"].success is False
    found = rolled(path, words=[word("t", None, score=0.1, useful_tokens=7), word("t")])["t"]
    assert (found.success, found.useful_tokens, found.calls) == (True, 7, 3)


def test_a_score_is_a_verdict_only_where_the_class_says_from_which_on(path: Path):
    """Beside an explicit word it is none; the newest that says anything counts."""
    rows = [a_row(0, request_class="scored"), a_row(1), a_row(2, request_class="scored", task_id="t")]
    words = [
        word("call-0", None, "call", score=0.7),
        word("call-1", None, "call", score=0.9),
        word("t", None, score=0.69),
    ]
    found = rolled(path, rows, words)
    assert (found["call-0"].success, found["call-1"].success, found["t"].success) == (True, None, False)
    assert rolled(path, words=[word("t", True, score=0.0)])["t"].success is True


def test_only_the_same_tenant_and_permissions_are_heard(path: Path):
    """Words of others are kept with their own tenant and change nothing."""
    rows = [a_row(0, task_id="t", permissions="p"), a_row(1, task_id="t", permissions="p+q", received_at=START),
            a_row(2, task_id="u", permissions="+q"), a_row(3, task_id="t", tenant="other")]  # fmt: skip
    deaf = [word("t", tenant="third"), word("t", permissions="p+r"), word("t", permissions="q"),
            word("u", permissions="p"), word("call-0", kind="call", permissions=""),
            word("call-2", kind="call", permissions="+r")]  # fmt: skip
    write(path, rows, deaf)
    catch_up(path, now=lambda: NOW)
    assert {(one.tenant, one.id, one.success) for one in tasks(path)} == {
        ("default", "t", None), ("default", "u", None), ("other", "t", None)}  # fmt: skip
    write(path, words=[word("t", permissions="p"), word("u", False), word("call-3", False, "call", tenant="other")])
    catch_up(path, now=lambda: NOW)
    assert {(one.tenant, one.id, one.success) for one in tasks(path)} == {
        ("default", "t", True), ("default", "u", False), ("other", "t", False)}  # fmt: skip


def test_who_counts_tokens_attempts_nothing(path: Path):
    """It is no task, turns no failure into a success, and asks for nothing anew."""
    counting = {"operation": "count_tokens", "protocol": "count_tokens", "cost_pusd": 0, "input_tokens": 0}
    rows = [
        a_row(0, request_class="simple", **counting),
        a_row(1, task_id="t", request_class="simple", ending="upstream_error"),
        a_row(2, task_id="t", request_class="simple", **counting),
        a_row(3, task_id="u", request_class="patient", user_id="ann", fingerprint="same"),
        a_row(5, task_id="u", request_class="patient", user_id="ann", fingerprint="same", **counting),
    ]
    found = rolled(path, rows)
    assert {name: (one.calls, one.success) for name, one in found.items()} == {"t": (1, False), "u": (1, True)}
    (figure,) = figures(path)
    assert (figure.tasks, figure.calls, figure.cost_usd) == (2, 2, pytest.approx(0.002))


def test_what_the_gateway_asked_beside_a_call_belongs_to_its_task(path: Path):
    """It costs, and is neither a verdict nor the end; also where it comes before its call, or the call has a task."""
    beside = {"request_class": "simple"}
    write(path, [a_row(1, aside_for="call-0", **beside), a_row(5, task_id="t", aside_for="call-4", **beside)])
    catch_up(path, RULES, now=lambda: NOW)
    assert [(one.id, one.calls, one.asides, one.success) for one in tasks(path)] == [
        ("t", 0, 1, None),
        ("call-0", 0, 1, None),
    ]
    found = rolled(path, [a_row(0), a_row(4, task_id="t")], [word("t"), word("call-0", False, "call")])
    one, other = found["t"], found["call-0"]
    assert (one.calls, one.asides, one.cost_usd, one.latency_to_success_s) == (1, 1, 0.002, 1.0)
    assert (other.calls, other.asides, other.cost_usd, other.success) == (1, 1, 0.002, False)
    assert len(found) == 2


# -- figures -------------------------------------------------------------------------------------------------------


def some_traffic(seed: int, n: int = 400) -> tuple[list[Outcome], list[Feedback]]:
    """Return calls of tasks, some of them alone, some without a price, some judged, over a fortnight; in any order."""
    rng = random.Random(seed)
    rows, words = [], []
    for i in range(n):
        at = START + rng.random() * 14 * 86_400
        known = rng.random() > 0.1
        rows.append(a_row(
            i, received_at=at, tenant=rng.choice(["a", "b"]), task_id=rng.choice([None, f"t{rng.randrange(n // 4)}"]),
            request_class=rng.choice(["default", "simple", "patient", "schema"]), user_id=rng.choice([None, "u", "v"]),
            response_model=rng.choice(["m", "n", None]), template=rng.choice([None, "x", "y"]),
            template_version=rng.choice(["1", "2"]), prompt_version=rng.choice([None, "p"]),
            fingerprint=f"f{rng.randrange(20)}", ending=rng.choice(["answered"] * 2 + ["cached", "upstream_error"]),
            cost_pusd=rng.randrange(10**9) if known else None, energy_j=rng.random() * 9 if known else None,
            duration_s=rng.random() * 30,
        ))  # fmt: skip
        if rng.random() < 0.3:
            kind, about = rng.choice([("call", f"call-{rng.randrange(n)}"), ("task", f"t{rng.randrange(n // 4)}")])
            words.append(word(about, rng.random() < 0.7, kind, tenant=rng.choice(["a", "b"])))
    rng.shuffle(rows)
    return rows, words


def counts(one: Figures) -> tuple[Any, ...]:
    return (one.tasks, one.calls, one.judged, one.successes, one.by_feedback, one.by_verifier, one.by_heuristic,
            one.unpriced_tasks, round(one.cost_usd * PUSD), round(one.judged_cost_usd * PUSD))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_the_tasks_whatever_one_groups_by(path: Path, seed: int):
    """Sums over groups are the whole's, to the pico-dollar; and all of them are what the single tasks come to."""
    rows, words = some_traffic(seed)
    rolled(path, rows, words)
    listed = tasks(path, most=10_000)
    assert len({(row.tenant, row.task_id or row.id) for row in rows}) == len(listed)
    (total,) = figures(path)
    assert round(total.cost_usd * PUSD) == sum(row.cost_pusd or 0 for row in rows)
    assert total.calls == len(rows)
    judged = [one for one in listed if one.success is not None]
    assert (total.tasks, total.judged, total.successes) == (
        len(listed),
        len(judged),
        sum(one.success is True for one in judged),
    )
    priced = [one for one in judged if not one.unpriced_calls]
    cost = sum(round((one.cost_usd or 0) * PUSD) for one in priced) / sum(one.success is True for one in priced) / PUSD
    assert total.cost_per_success_usd.mean == pytest.approx(cost, rel=1e-9)
    times = [one.latency_to_success_s for one in judged if one.latency_to_success_s is not None]
    assert total.latency_to_success_s.mean == pytest.approx(sum(times) / len(times), rel=1e-6)
    assert total.latency_to_success_p50_s == pytest.approx(
        float(np.quantile(times, 0.5, method="inverted_cdf")), rel=0.06
    )
    for by in BY:
        groups = [counts(one) for one in figures(path, by=by)]
        assert tuple(map(sum, zip(*groups, strict=True))) == pytest.approx(counts(total), abs=len(groups)), by


@pytest.mark.parametrize("seed", range(3))
def test_a_period_is_exact_to_the_second(path: Path, seed: int):
    """Blocks within it and what lies at its ends come to what the tasks that began in it do; parts add up."""
    rows, words = some_traffic(seed)
    rolled(path, rows, words)
    listed = tasks(path, most=10_000)
    rng = random.Random(seed)
    cuts = sorted(START + rng.random() * 14 * 86_400 for _ in range(4))
    cuts = [0.0, *cuts, cuts[-1] + 1.0, math.inf]
    parts = []
    for since, until in itertools.pairwise(cuts):
        within = [one for one in listed if since <= one.first_at < until]
        found = figures(path, since, until)
        parts.append(counts(found[0]) if found else (0,) * 10)
        assert parts[-1][0] == len(within) and parts[-1][3] == sum(one.success is True for one in within)
    assert tuple(map(sum, zip(*parts, strict=True)))[:9] == counts(figures(path)[0])[:9]


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_to_the_same_in_whatever_order_and_steps_it_is_taken_in(
    path: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
):
    """Rows and words one by one, words before rows, rules and prices that change: as if all at once."""
    rows, words = some_traffic(seed, 120)
    rolled(path, rows, words)
    other = tmp_path / "other.sqlite"
    monkeypatch.setattr(keeping, "CHUNK", 7)
    rng = random.Random(seed)
    steps: list[Any] = [*rows, *words]
    order = {id(one): i for i, one in enumerate(words)}
    rng.shuffle(steps)
    said = iter(sorted((one for one in steps if isinstance(one, Feedback)), key=lambda one: order[id(one)]))
    wrong = [msgspec.structs.replace(row, cost_pusd=1) for row in rows]
    with closing(opened(other)) as connection:
        ledger = SqliteLedger(other)
        keeper = Keeper((), now=lambda: START)
        for step in steps:
            if isinstance(step, Feedback):
                kept(connection, [next(said)])
            else:
                ledger.append(wrong[rows.index(step)])
                ledger.flush()
            if rng.random() < 0.5:
                keeper.round(connection)
        ledger.close()
        update_rows(other, rows)
        keep_up(connection, Keeper(RULES, now=lambda: NOW))
    for table in ("task_sum", "task_latency", "task"):
        assert dump(other, table) == dump(path, table), table


def dump(path: Path, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of *table* without the buckets, which depend on the order, and without those that are nothing."""
    of_sums = ", ".join(["grouping, block, name", *(f"sum({name})" for name in sql_success.MEASURES)])
    of_task = "tenant, id, first_at, request_class, model, prompt, calls, cost_pusd, success, basis, latency_ms, due_at"
    statements = {
        "task": f"SELECT {of_task} FROM task ORDER BY 1, 2",
        "task_sum": f"SELECT {of_sums} FROM task_sum GROUP BY 1, 2, 3 HAVING sum(tasks) ORDER BY 1, 2, 3",
        "task_latency": "SELECT * FROM task_latency WHERE tasks ORDER BY 1, 2, 3, 4",
    }  # fmt: skip
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statements[table]).fetchall()


def test_a_task_that_nobody_judged_changes_no_rate(path: Path):
    """Neither the success rate nor what a success costs; only the share that is not known, and the cost of all."""
    rolled(path, [a_row(i, task_id=f"t{i}") for i in range(8)], [word(f"t{i}", i % 4 > 0) for i in range(8)])
    (before,) = figures(path)
    rolled(path, [a_row(100 + i, cost_pusd=7 * PUSD) for i in range(24)])
    (after,) = figures(path)
    for name in ("success_rate", "judged", "successes", "judged_cost_usd", "energy_per_success_j", "by_feedback"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.cost_per_success_usd.mean == before.cost_per_success_usd.mean == pytest.approx(0.008 / 6)
    assert (before.unknown_share, after.unknown_share) == (0.0, 0.75)
    assert (before.success_possible, after.success_possible) == ((0.75, 0.75), (6 / 32, 30 / 32))
    assert (after.cost_per_judged_task_usd, after.cost_per_unknown_task_usd) == (
        pytest.approx(0.001),
        pytest.approx(7.0),
    )


def test_without_a_success_it_is_undefined_and_without_a_verdict_unknown(path: Path):
    """Never 0 and never infinite; no task at all gives no figures."""
    write(path)
    catch_up(path)
    assert figures(path) == []
    rolled(path, [a_row(0), a_row(1)])
    (found,) = figures(path)
    assert (found.success_rate.mean, found.cost_per_success_usd.mean, found.energy_per_success_j) == (None, None, None)
    rolled(path, words=[word("call-0", False, "call")])
    (found,) = figures(path)
    assert found.success_rate.mean == 0.0 and found.success_rate.high is not None and found.success_rate.high < 1.0
    assert (found.cost_per_success_usd.mean, found.latency_to_success_s.mean) == (None, None)
    rolled(path, words=[word("call-0", True, "call")])
    (found,) = figures(path)
    assert (found.cost_per_success_usd.mean, found.cost_per_success_usd.low) == (0.001, None)  # one bounds nothing


def test_tasks_without_a_price_are_left_out_and_counted(path: Path):
    """On both sides of the cost of one; a free call is no call without a price."""
    rows = [a_row(0, task_id="a"), a_row(1, task_id="a", cost_pusd=None), a_row(2, task_id="b"), a_row(3, cost_pusd=0)]
    found = rolled(path, rows, [word("a"), word("b"), word("call-3", True, "call")])
    assert [found[name].unpriced_calls for name in ("a", "b", "call-3")] == [1, 0, 0]
    (total,) = figures(path)
    assert (total.unpriced_tasks, total.successes) == (1, 3)
    assert total.cost_per_success_usd.mean == pytest.approx(0.0005)
    assert total.cost_usd == pytest.approx(0.002)
    energy = total.energy_per_success_j
    assert energy is not None and energy[1] == pytest.approx(4 * 3.6 / 3)


def test_useful_tokens_are_a_share_of_those_of_the_tasks_they_were_said_of(path: Path):
    """Of a task, or of its calls one by one; 50 tokens each."""
    rows = [a_row(0, task_id="a"), a_row(1, task_id="a"), a_row(2), a_row(3)]
    rolled(path, rows, [word("call-0", None, "call", useful_tokens=10), word("call-2", None, "call", useful_tokens=50)])
    (found,) = figures(path)
    assert found.useful_share == pytest.approx(60 / 150)
    rolled(path, words=[word("a", None, useful_tokens=100)])
    assert figures(path)[0].useful_share == 1.0


def test_groups_are_named_by_what_they_are_of(path: Path):
    """Class, template and prompt of the first call; the model of the one that decided; without any: no name."""
    rows = [
        a_row(0, task_id="a", request_class="x", template="faq", template_version="1", response_model="small"),
        a_row(1, task_id="a", request_class="y", template="faq", template_version="2", response_model="large"),
        a_row(2, prompt_version="7", response_model=None),
    ]
    rolled(path, rows, [word("call-0", False, "call")])
    names = {by: {one.name for one in figures(path, by=by)} for by in BY}
    assert names == {"all": {""}, "class": {"x", "default"}, "tenant": {"default"}, "model": {"small", "gpt-4o-mini"},
                     "template": {"faq", ""}, "prompt": {"faq@1", "@7"}}  # fmt: skip
    with pytest.raises(ValueError, match="by: expected one of all, class"):
        figures(path, by="user")  # type: ignore[arg-type]


def test_the_interval_of_the_cost_of_one_holds_the_truth(tmp_path: Path):
    """Tasks of one to four calls of log-normal cost, seven of ten succeed: 95 % of 60 samples, with room for luck."""
    held = 0
    for sample in range(60):
        rng = np.random.default_rng(sample)
        rows, words = [], []
        for task in range(120):
            for _ in range(rng.integers(1, 5)):
                cost = round(float(rng.lognormal(0, 0.8)) * 1e9)
                rows.append(a_row(len(rows), task_id=f"t{task}", cost_pusd=cost))
            words.append(word(f"t{task}", bool(rng.random() < 0.7)))
        found = in_memory(rows, words)
        interval = found.cost_per_success_usd
        assert interval.low is not None and interval.high is not None
        held += interval.low <= 2.5 * math.exp(0.32) * 1e-3 / 0.7 <= interval.high
    assert 51 <= held <= 60


def in_memory(rows: Sequence[Outcome], words: Sequence[Feedback]) -> Figures:
    with closing(keeping.in_memory(rows, words)) as connection:
        from negawatt.success.figures import figures_in

        return figures_in(connection, 0.0, math.inf, "all")[0]


# -- on pages ------------------------------------------------------------------------------------------------------


def test_figures_that_took_long_are_shown_again_for_a_while_and_those_of_tasks_that_stay_for_good(path: Path):
    """What is new is seen once they have been good for twenty times as long as it took to work them out."""
    clock = itertools.count()  # each look at it is a second later
    judged = Judged(path, lambda: float(next(clock)))
    write(path, [a_row(0)], [word("call-0", True, "call")])
    catch_up(path)
    assert judged(0, NOW, classes=False)["succeeded"] == 1
    write(path, [], [word("call-0", False, "call")])
    catch_up(path)
    assert judged(0, NOW, classes=False)["succeeded"] == 1
    assert judged(0, NOW, classes=True)["default"]["succeeded"] == 0, "other figures are made of what there is"
    for _ in range(20):
        next(clock)
    assert judged(0, NOW, classes=False)["succeeded"] == 0
    for _ in range(100):
        next(clock)
    before = next(clock)
    assert judged(0, NOW, classes=False)["succeeded"] == 0
    assert next(clock) == before + 2, "nothing has changed, so nothing was worked out"


# -- keeping -------------------------------------------------------------------------------------------------------


def test_a_thread_beside_the_ledger_keeps_the_roll_up(path: Path):
    """Without anybody asking: new rows, words, and the verdicts on what came after the start, counted by class."""
    ledger = SqliteLedger(path)
    ledger.append(a_row(0, request_class="old"))
    ledger.flush()
    keeper = Keeper((), now=lambda: NOW)
    beside = Beside(path, keeper)
    beside.start()
    wait_for(lambda: len(tasks(path)) == 1)
    ledger.append(a_row(1))
    wait_for(lambda: len(tasks(path)) == 2)
    ledger.record(word("call-1", False, "call")).result(10)
    wait_for(lambda: tasks(path)[0].success is False)
    ledger.record(word("call-1", True, "call")).result(10)
    wait_for(lambda: tasks(path)[0].success is True)
    wait_for(lambda: keeper.verdicts["default", "success"] == 1)
    beside.close()
    ledger.close()
    assert dict(keeper.verdicts) == {
        ("default", "unknown"): 1, ("default", "failure"): 1, ("default", "success"): 1}  # fmt: skip


def test_what_is_old_at_the_start_is_not_counted_and_all_that_follows_is(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where there is always something new, as on a busy day."""
    monkeypatch.setattr(keeping, "CHUNK", 2)
    write(path, [a_row(i) for i in range(3)], [word("call-0", kind="call")])
    keeper = Keeper((), now=lambda: NOW)
    with closing(opened(path)) as connection:
        assert keeper.round(connection) and keeper.round(connection)
        assert not keeper.verdicts
        for i in range(3, 7):
            write(path, [a_row(i)], [word(f"call-{i}", i > 3, "call")])
            assert keeper.round(connection)
    assert dict(keeper.verdicts) == {("default", "success"): 3, ("default", "failure"): 1}


def test_a_round_that_fails_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The failure is in the log; nothing of the round is left, and the next one has all of it."""
    monkeypatch.setattr(keeping, "_FAILED_S", 0.01)
    write(path, [a_row(i) for i in range(3)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON task_sum BEGIN SELECT RAISE(ABORT, 'no room'); END")
        beside = Beside(path, Keeper((), now=lambda: NOW))
        beside.start()
        wait_for(lambda: sum("no room" in record.message for record in caplog.records) >= 2)
        assert tasks(path) == [] and figures(path) == []
        other.execute("DROP TRIGGER full")
    wait_for(lambda: len(tasks(path)) == 3)
    beside.close()
    assert figures(path)[0].tasks == 3


def test_closing_does_not_wait_for_a_round(path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is broken off, and leaves nothing behind."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    monkeypatch.setattr(keeping.sql, "TASKS", endless)
    write(path, [a_row(0)])
    beside = Beside(path, Keeper((), now=lambda: NOW))
    beside.start()
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as other:
        wait_for(lambda: is_locked(other))
        beside.close()
        assert not is_locked(other)
    assert tasks(path) == []
    beside.close()  # once more does no harm


def is_locked(connection: sqlite3.Connection) -> bool:
    """True while somebody else is writing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    connection.execute("ROLLBACK")
    return False


def test_two_processes_keep_one_ledger_up_as_one_does(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each looks at the same rows and words at the same time, while they are written: none is added twice, or lost."""
    monkeypatch.setattr(keeping, "CHUNK", 5)
    monkeypatch.setattr(keeping, "_LEAST_S", 0.0)
    monkeypatch.setattr(keeping, "_REST", 0)
    rows, words = some_traffic(7, 120)
    ledger = SqliteLedger(path)
    pair = [Beside(path, Keeper(RULES, now=lambda: NOW)) for _ in range(2)]
    for one in pair:
        one.start()
    for row in rows:
        ledger.append(row)
    ledger.flush()
    for said in words:
        ledger.record(said).result(10)
    with closing(sqlite3.connect(path)) as other:
        wait_for(lambda: not other.execute(keeping.sql.WAITING, (NOW,)).fetchone()[0])
    for one in pair:
        one.close()
    ledger.close()
    alone = tmp_path / "alone.sqlite"
    rolled(alone, rows, words)
    for table in ("task_sum", "task_latency", "task"):
        assert dump(path, table) == dump(alone, table), table


def test_what_another_process_has_overtaken_is_thrown_away(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tasks made from words that have been replaced since do not take the place of newer ones."""
    write(path, [a_row(0)], [word("call-0", True, "call")])
    made = keeping._made

    def overtaken(connection: sqlite3.Connection, now: float) -> Any:
        found = made(connection, now)
        monkeypatch.undo()
        write(path, words=[word("call-0", False, "call")])
        catch_up(path)
        return found

    monkeypatch.setattr(keeping, "_made", overtaken)
    with closing(opened(path)) as connection:
        keep_up(connection, Keeper())
    assert [one.success for one in tasks(path)] == [False]
    assert (figures(path)[0].judged, figures(path)[0].successes) == (1, 0)


def wait_for(condition: Any, timeout_s: float = 20.0) -> None:
    import time

    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_a_ledger_of_before_is_brought_up_to_date(path: Path):
    """One of schema 3, with rows and without any of these tables: it opens, and its calls are tasks."""
    write(path, [a_row(i, task_id="t") for i in range(3)])
    with closing(sqlite3.connect(path)) as connection:
        ours = "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL AND name NOT IN ('outcome', 'content')"
        for kind, name in sorted(connection.execute(ours).fetchall()):  # indexes first
            connection.execute(f"DROP {kind} {name}")
        connection.execute("ALTER TABLE outcome DROP COLUMN aside_for")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    assert [row.aside_for for row in read_rows(path)] == [None] * 3
    (found,) = rolled(path, words=[word("t")]).values()
    assert (found.calls, found.success) == (3, True)


def test_pricing_anew_reaches_the_tasks(path: Path):
    """Also those that were rolled up long ago."""
    rows = [a_row(i, task_id="t") for i in range(3)]
    assert rolled(path, rows)["t"].cost_usd == pytest.approx(0.003)
    update_rows(path, [msgspec.structs.replace(rows[1], cost_pusd=None)])
    assert rolled(path)["t"].unpriced_calls == 1
    assert round(figures(path)[0].cost_usd, 9) == 0.002


def test_one_task_is_shown_with_all_that_was_said(path: Path):
    """Its rows, those beside them included, and every word, the replaced ones too."""
    rows = [a_row(0, task_id="t"), a_row(1, task_id="t"), a_row(2, task_id="t", tenant="other"), a_row(3)]
    words = [word("t", False, at=1.0), word("call-1", True, "call", at=2.0), word("t", True, at=3.0, reason="better")]
    rolled(path, rows, words)
    found, calls, said = history(path, "t", "default")
    assert found is not None and found.success is True
    assert [row.id for row in calls] == ["call-0", "call-1"]
    assert said == words
    assert history(path, "nothing", "default") == (None, [], [])


# -- the ledgers' words, and the configuration ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_both_ledgers_keep_a_word_once(path: Path, kind: str):
    """By key for good, by content where it is the newest about the same; keys are a tenant's, for one content each."""
    ledger: Any = MemoryLedger() if kind == "memory" else SqliteLedger(path)
    one, two = word("t", idempotency_key="k"), word("t", False)
    told = [ledger.record(each).result(10) for each in (one, one, two, two, one, word("t"), word("t", permissions="p"))]
    assert told == [True, False, True, False, False, True, True]
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        ledger.record(word("u", idempotency_key="k")).result(10)
    assert ledger.record(word("u", idempotency_key="k", tenant="other")).result(10)
    assert ledger.record(word("t", None, "call", score=0.5)).result(10)
    ledger.close()


def test_words_wait_for_a_disk_that_does_not_take_them(path: Path):
    """As rows do: nothing is lost, and whoever told it hears of it when it is kept."""
    ledger = SqliteLedger(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger._connection.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        ledger.append(a_row(0))
        told = ledger.record(word("t"))
        assert not told.done()
        other.execute("ROLLBACK")
    assert told.result(20) is True
    ledger.close()
    assert len(list(read_rows(path))) == 1


def test_the_configuration_declares_by_class():
    """Each class its own; one that declares nothing is refused, as is JSON that nobody looks at."""
    schema = {"type": "object"}
    classes = {"a": {"success": {"schema_valid": True}, "schema": schema}, "b": {}, "c": {"success": {"answered": True,
               "no_retry_within_s": 60, "least_score": 0.5}}}  # fmt: skip
    levers = {"structure": {"mode": "on"}}
    found = rules_of(parse_config({"classes": classes, "levers": levers}))
    assert found == (Rule("a", False, True, True, None, None), Rule("c", True, False, False, 60.0, 0.5))
    for wrong, where in (
        ({"success": {}}, r"classes\.a\.success"),
        ({"success": {"answered": False}}, r"classes\.a\.success"),
        ({"success": {"no_retry_within_s": 0}}, r"classes\.a\.success\.no_retry_within_s"),
        ({"success": {"valid": True}}, r"classes\.a\.success\.valid"),
        ({"success": {"schema_valid": True}, "levers": {"structure": "off"}}, r"classes\.a\.success\.schema_valid"),
    ):
        with pytest.raises(ConfigError, match=where):
            parse_config({"classes": {"a": wrong}, "levers": levers})
