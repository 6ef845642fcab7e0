"""The roll-ups are kept up exactly once: through kills, repricing, several writers, and amounts beyond all bounds."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from raw_figures import any_row
from report_world import START, a_row

from negawatt.ledger import sql
from negawatt.ledger.histograms import GROWTH, LEAST_S, bucket_of, middle_of, text_of, together
from negawatt.ledger.rollup_reader import TAIL_MOST, Reader, parts_of
from negawatt.ledger.rollup_tables import CALLS, MOST, SPANS, TENANTS
from negawatt.ledger.rollups import RollupWriter
from negawatt.ledger.sqlite import SqliteLedger, opened, update_rows

EVER = [(0, 4_102_444_800)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def counted(path: Path) -> tuple[int, int]:
    """Return how many calls the roll-ups hold, and how many rows the ledger has."""
    connection = sqlite3.connect(path)
    try:
        rolled = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM rollup_calls WHERE grain = 'total' AND span = 900"
        )
        return rolled.fetchone()[0], connection.execute("SELECT count(*) FROM outcome").fetchone()[0]
    finally:
        connection.close()


def rolled(path: Path, now: float = START + 1e7) -> RollupWriter:
    """Make the roll-ups of the ledger at *path*, all of them."""
    writer = RollupWriter(opened(path), path, clock=lambda: now)
    writer._due()
    while writer.step():
        pass
    return writer


def contents(path: Path) -> dict[str, list[tuple]]:
    """Return all that is in the roll-ups, amounts rounded."""
    connection = sqlite3.connect(path)
    names = ("calls", "groups", "levers", "lever_groups", "actions", "blocks", "tenants", "templates", "times", "dirty")
    found = {}
    for name in names:
        rows = connection.execute(f"SELECT * FROM rollup_{name}").fetchall()
        found[name] = sorted(tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows)
    connection.close()
    return found


def test_rows_are_rolled_up_while_the_ledger_is_open(path):
    """Within moments, by the writer's own thread."""
    ledger = SqliteLedger(path)
    for i in range(50):
        ledger.append(a_row(i))
    until(lambda: counted(path) == (50, 50))
    ledger.append(a_row(50))
    until(lambda: counted(path) == (51, 51))
    ledger.close()


def test_an_old_ledger_is_worked_through_in_the_background(path):
    """Its rows are rolled up when a server opens it, and rows that come meanwhile are written all the same."""
    SqliteLedger(path).close()
    connection = sqlite3.connect(path)
    rows = [any_row(i, START + i * 60, random.Random(i)) for i in range(3000)]
    connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'rollup%'").fetchall():
        connection.execute(f"DROP TABLE {name}")
    connection.execute("PRAGMA user_version = 3")
    connection.commit()
    connection.close()
    ledger = SqliteLedger(path)
    reader = Reader(path)
    with reader.snapshot() as snapshot:
        behind = snapshot.progress.behind
    assert behind > TAIL_MOST or counted(path)[0] > 0
    ledger.append(a_row(9999))
    ledger.flush()
    until(lambda: counted(path) == (3001, 3001))
    ledger.close()
    with reader.snapshot() as snapshot:
        assert snapshot.progress.rows == 3001 and snapshot.progress.share == 1.0
    reader.close()


def test_a_killed_process_counts_no_row_twice(path):
    """Killed at any moment while it writes and sums, then opened again: each row that is there counts once."""
    program = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent)]!r}
        from pathlib import Path
        from report_world import a_row
        from negawatt.ledger import rollups
        from negawatt.ledger.sqlite import SqliteLedger
        rollups.EVERY_S = 0.0
        ledger = SqliteLedger(Path({str(path)!r}))
        print("open", flush=True)
        for i in range(10**9):
            ledger.append(a_row(i, id=f"nw-{{sys.argv[1]}}-{{i}}"))
            if i % 20 == 0:
                ledger.flush()
    """)
    rng = random.Random(3)
    for life in range(4):
        child = subprocess.Popen([sys.executable, "-c", program, str(life)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.1, 0.6))
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
    rolled(path)
    found, rows = counted(path)
    assert found == rows > 0


def test_what_is_made_in_steps_is_what_is_made_at_once(path, tmp_path):
    """However rows are cut into steps; and hours and days hold what their quarters do."""
    rows = [any_row(i, START + i * 400, random.Random(i)) for i in range(500)]
    other = tmp_path / "other.sqlite"
    for file, steps in ((path, (1, 3, 50)), (other, (1000,))):
        SqliteLedger(file).close()
        connection = opened(file)
        connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
        writer = RollupWriter(connection, file, clock=lambda: START + 1e7)
        writer._due()
        for nth in range(10_000):
            if not writer.step(steps[nth % len(steps)]):
                break
        connection.close()
    one, two = contents(path), contents(other)
    assert one == two and one["dirty"] == []
    connection = sqlite3.connect(path)
    sums = {
        span: connection.execute("SELECT grain, sum(calls), sum(cost_pusd), sum(hits) FROM rollup_calls "
                                 "WHERE span = ? GROUP BY grain ORDER BY grain", (span,)).fetchall()
        for span in SPANS
    }  # fmt: skip
    assert sums[900] == sums[3600] == sums[86_400] != []
    connection.close()


def test_repriced_rows_are_rolled_up_anew(path):
    """By another process, too: what it changed is noted, and the sums become what the rows say."""
    ledger = SqliteLedger(path)
    rows = [a_row(i, received_at=START + i * 1000) for i in range(200)]
    for row in rows:
        ledger.append(row)
    until(lambda: counted(path)[0] == 200)
    changed = [msgspec.structs.replace(row, cost_pusd=7) for row in rows[50:60]]
    update_rows(path, changed)
    wanted = sum(row.cost_pusd or 0 for row in rows[:50] + rows[60:]) + 70

    def cost() -> int:
        reader = Reader(path)
        with reader.snapshot() as snapshot:
            found = snapshot.sums(CALLS, ("cost_pusd",), EVER, grain="total")
            complete = snapshot.progress.complete
        reader.close()
        return found[0,][0] if complete else -1

    until(lambda: cost() == wanted)
    ledger.close()


def test_two_processes_may_write_one_ledger(path):
    """Each row counts once, whoever sums it."""
    ledgers = [SqliteLedger(path), SqliteLedger(path)]
    for i in range(400):
        ledgers[i % 2].append(a_row(i))
    until(lambda: counted(path) == (400, 400))
    for ledger in ledgers:
        ledger.close()
    assert counted(path) == (400, 400)


def test_names_beyond_a_number_are_counted_together(path):
    """So that callers who make up names cannot make the roll-ups grow; no call is lost."""
    SqliteLedger(path).close()
    connection = opened(path)
    most = MOST["tenant"]
    rows = [a_row(i, tenant=f"t{i}", request_model=f"m{i}", response_model=f"m{i}") for i in range(most + 300)]
    connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
    connection.close()
    rolled(path)
    reader = Reader(path)
    with reader.snapshot() as snapshot:
        tenants = snapshot.sums(TENANTS, ("calls",), EVER, by=("tenant",))
        models = snapshot.sums(CALLS, ("calls",), EVER, grain="answerers", by=("model",))
    reader.close()
    assert len(tenants) == most + 1 and tenants[0, "other"] == [300]
    assert len(models) == MOST["model"] + 1 and models[0, "other"] == [most + 300 - MOST["model"]]
    assert sum(calls for (calls,) in models.values()) == most + 300


def test_an_amount_beyond_all_bounds_stops_nothing(path, caplog):
    """Rows of absurd amounts are summed as long as they can be; the others count as ever."""
    SqliteLedger(path).close()
    connection = opened(path)
    rows = [a_row(i, cost_pusd=2**62 if i in (3, 4, 5) else 10) for i in range(20)]
    connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
    connection.close()
    rolled(path)
    found, total = counted(path)
    assert found == total == 20


def test_when_nothing_is_written_nothing_is_done(path):
    """The file is left alone, and the roll-ups are not looked at, until there is something to do."""
    ledger = SqliteLedger(path)
    ledger.append(a_row(0, received_at=time.time()))  # its hour is not over
    until(lambda: counted(path) == (1, 1))
    until(lambda: not ledger._rollups._more)
    steps: list[int] = []
    ledger._rollups.step = lambda limit=0: steps.append(limit) or False  # type: ignore[method-assign]
    before = path.with_name(path.name + "-wal").stat()
    beats = threading_beats(ledger)
    assert beats > 20 and steps == []
    after = path.with_name(path.name + "-wal").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    ledger.close()


def threading_beats(ledger: SqliteLedger) -> int:
    """Return how often the writer looked whether there is something to do, while it looked 21 times."""
    seen: list[bool] = []
    work = ledger._rollups.work

    def counting() -> bool:
        ledger._rollups._next = 0.0  # as if a second had passed
        seen.append(True)
        return work()

    ledger._rollups.work = counting  # type: ignore[method-assign]
    until(lambda: len(seen) > 20)
    return len(seen)


def test_a_disk_that_refuses_does_not_end_the_writer(path, caplog):
    """The rows go on being written when the roll-ups cannot be; it is said, and tried again."""
    ledger = SqliteLedger(path)
    other = sqlite3.connect(path)
    other.execute("DROP TABLE rollup_state")
    other.commit()
    ledger.append(a_row(0))
    until(lambda: "could not be kept up" in caplog.text)
    ledger.append(a_row(1))
    ledger.flush()
    assert other.execute("SELECT count(*) FROM outcome").fetchone() == (2,)
    other.close()
    ledger.close()


def test_a_row_whose_decisions_are_not_ours_is_left_out(path, caplog):
    """Of the sums of decisions; its cost counts."""
    SqliteLedger(path).close()
    connection = opened(path)
    rows = [a_row(0, decisions='[{"lever": 5}]'), a_row(1, decisions='[{"lever":"route","action":"small"}]')]
    connection.executemany(sql.insert(1), [msgspec.structs.astuple(row) for row in rows])
    connection.close()
    rolled(path)
    assert contents(path)["actions"] and counted(path) == (2, 2)
    assert "1 ledger rows are left out" in caplog.text


def test_a_period_is_covered_once_by_the_largest_that_fit():
    """Days where they are over, hours beside them, quarters at the ends; what is not made yet is read finer."""
    day = 1_790_035_200 // 86_400 * 86_400
    since, until_ = day - 5_400, day + 2 * 86_400 + 3_600 + 900
    dirty = frozenset({(86_400, day + 86_400), (3_600, day + 86_400 + 7_200)})
    parts = parts_of([(since, until_)], dirty)
    covered = sorted((part.since, part.until) for part in parts)
    assert covered[0][0] == since and covered[-1][1] == until_
    assert all(one[1] == other[0] for one, other in itertools.pairwise(covered))
    assert {(part.span, part.since) for part in parts} >= {(900, since), (3_600, day - 3_600), (86_400, day)}
    assert not any(part.span == 86_400 and part.since <= day + 86_400 < part.until for part in parts)
    hour = day + 86_400 + 7_200
    assert [part.span for part in parts if part.since <= hour < part.until] == [900]


def test_times_are_kept_to_within_five_percent():
    """The middle of a bucket is near all that is in it, and sums of counts are counts of sums."""
    rng = random.Random(1)
    for _ in range(2000):
        seconds = 10 ** rng.uniform(-4.9, 5)
        assert middle_of(bucket_of(seconds)) == pytest.approx(seconds, rel=GROWTH**0.5 - 1 + 1e-9)
    assert bucket_of(0.0) == bucket_of(LEAST_S / 2) == 0
    counts = [{3: 1, 9: 2}, {0: 4}, {9: 1, 10: 7}]
    assert together(map(text_of, counts)) == {3: 1, 9: 3, 0: 4, 10: 7}
