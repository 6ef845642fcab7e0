"""What every ledger does: one row for each call, back as it went in; and what the one on disk survives."""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from backends import EPOCH, ManualClock, outcome

from negawatt.errors import ConfigError, InputError
from negawatt.ledger import Ledger, sql
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import ENDINGS, FIELDS, Content
from negawatt.ledger.sqlite import SqliteLedger, read_content, read_rows, update_rows
from negawatt.registry import LEDGERS, open_backend

Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path: Path) -> Iterator[Ledger]:
    opened: Ledger = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_a_row_comes_back_as_it_went_in(ledger: Ledger):
    """Every column, full and empty, for every ending."""
    rows = [outcome(f"nw-{i}", received_at=EPOCH + i, ending=ending) for i, ending in enumerate(ENDINGS)]
    optional = {field.name: None for field in msgspec.structs.fields(type(rows[0])) if type(None) in _arms(field.type)}
    assert len(optional) > 25
    rows.append(outcome("nw-empty", received_at=EPOCH + 90, **optional))
    rows.append(
        outcome("nw-odd", received_at=EPOCH + 91, error_message="a\0b 'ключ' \n", cost_pusd=2**62, stream=False)
    )
    for row in rows:
        ledger.append(row)
    assert list(ledger.rows()) == rows
    assert ledger.lost == 0


def _arms(kind: object) -> tuple[object, ...]:
    return getattr(kind, "__args__", ())


def test_rows_are_given_by_time(ledger: Ledger):
    """From *since* on, up to but without *until*, oldest first, whatever the order in which calls ended."""
    order = list(range(20))
    random.Random(1).shuffle(order)
    for i in order:
        ledger.append(outcome(f"nw-{i:02}", received_at=EPOCH + i))
    assert [row.id for row in ledger.rows()] == [f"nw-{i:02}" for i in range(20)]
    assert [row.id for row in ledger.rows(EPOCH + 5, EPOCH + 8)] == ["nw-05", "nw-06", "nw-07"]
    assert list(ledger.rows(EPOCH + 20)) == []
    assert [row.id for row in ledger.rows(until=EPOCH + 1)] == ["nw-00"]


def test_every_size_of_batch_arrives(ledger: Ledger):
    """One row, a few, hundreds: none is left over between the statements."""
    count = 0
    for size in (1, 9, 11, 99, 100, 101, 345):
        for _ in range(size):
            ledger.append(outcome(f"nw-{count:05}", received_at=EPOCH + count))
            count += 1
        ledger.flush()
        assert sum(1 for _ in ledger.rows()) == count


def test_content_is_kept_where_it_is_given(ledger: Ledger):
    """Request and answer byte for byte; an answer that was not whole is None."""
    ledger.append(outcome("nw-1"), Content("nw-1", b'{"a": 1}', b'{"b": 2}'))
    ledger.append(outcome("nw-2"), Content("nw-2", b"\xff\x00", None))
    ledger.append(outcome("nw-3"))
    ledger.flush()
    assert ledger.content("nw-1") == Content("nw-1", b'{"a": 1}', b'{"b": 2}')
    assert ledger.content("nw-2") == Content("nw-2", b"\xff\x00", None)
    assert ledger.content("nw-3") is None
    assert ledger.content("nw-4") is None


def test_appending_from_many_threads_loses_nothing(ledger: Ledger):
    """While the writer takes what has gathered, others go on adding."""

    def add(thread: int) -> None:
        for i in range(400):
            ledger.append(outcome(f"nw-{thread}-{i}", received_at=EPOCH))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({row.id for row in ledger.rows()}) == 1_600


def test_opened_by_url(tmp_path: Path, monkeypatch):
    """`memory:` and `sqlite:///`; another scheme is refused by name."""
    monkeypatch.chdir(tmp_path)
    for url in ("memory:", "sqlite:///ledger.sqlite"):
        opened: Ledger = open_backend(LEDGERS, "negawatt.ledgers", url, "ledger.url", ManualClock())
        opened.append(outcome())
        assert len(list(opened.rows())) == 1
        opened.close()
    with pytest.raises(ConfigError, match=r"ledger\.url: no backend for 'postgres'"):
        open_backend(LEDGERS, "negawatt.ledgers", "postgres://x", "ledger.url", ManualClock())


# -- only SQLite: what concerns its file ---------------------------------------------------------------------------


def sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    finally:
        connection.close()


def test_rows_are_on_disk_within_100_ms(path: Path):
    """Nobody has to flush. (Measured ten times; the best counts, since the machine may be busy.)"""
    ledger = SqliteLedger(path)
    times = []
    for i in range(10):
        began = time.monotonic()
        ledger.append(outcome(f"nw-{i}"))
        until(lambda i=i: sum(1 for _ in read_rows(path)) == i + 1)
        times.append(time.monotonic() - began)
    assert min(times) < 0.1
    ledger.close()


def test_closing_writes_what_waits(path: Path):
    """And closing twice is closing once."""
    ledger = SqliteLedger(path)
    for i in range(1_000):
        ledger.append(outcome(f"nw-{i}"))
    ledger.close()
    ledger.close()
    assert sum(1 for _ in read_rows(path)) == 1_000


CHILD = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from backends import outcome
    from negawatt.ledger.sqlite import SqliteLedger

    ledger = SqliteLedger(Path(sys.argv[1]))
    i = 0
    while True:
        for _ in range(20):
            ledger.append(outcome(f"nw-{i:06}", received_at=float(i)))
            i += 1
        print(i, time.monotonic(), flush=True)
        time.sleep(0.002)
""")


@pytest.mark.parametrize("lives_s", [0.35, 0.6])
def test_a_killed_process_loses_at_most_its_last_rows(path: Path, lives_s: float):
    """kill -9 in the middle of writing: what was appended over 100 ms earlier is there, and the file is sound."""
    here = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), here], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert child.stdout is not None
    told: list[tuple[int, float]] = []
    end = None
    for line in child.stdout:
        count, at = line.split()
        told.append((int(count), float(at)))
        end = end or told[0][1] + lives_s
        if told[-1][1] >= end:
            break
    child.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    told += [(int(c), float(t)) for c, t in (line.split() for line in child.stdout.read().splitlines() if " " in line)]
    assert child.wait(timeout=10) == -signal.SIGKILL
    child.stdout.close()

    assert sound(path)
    ids = [row.id for row in read_rows(path)]
    assert ids == [f"nw-{i:06}" for i in range(len(ids))], "no gaps: what is lost is the end"
    # 100 ms before the kill, and the same again for a machine that was doing something else.
    due = max((count for count, at in told if at < killed_at - 0.2), default=0)
    assert due > 0, "the child had time to write"
    assert len(ids) >= due
    reopened = SqliteLedger(path)
    reopened.append(outcome("nw-after"))
    reopened.close()
    assert sum(1 for _ in read_rows(path)) == len(ids) + 1


def test_a_disk_that_refuses_keeps_the_rows_waiting(path: Path, caplog, monkeypatch):
    """They are written, in their order, as soon as it takes them again; none is lost."""
    ledger = SqliteLedger(path)
    ledger._connection.execute("PRAGMA busy_timeout = 1")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.ERROR):
        for i in range(50):
            ledger.append(outcome(f"nw-{i:02}", received_at=EPOCH + i))
        until(lambda: "could not be written" in caplog.text)
        ledger.append(outcome("nw-50", received_at=EPOCH + 50))
        assert list(read_rows(path)) == []
        blocker.execute("ROLLBACK")
        blocker.close()
        ledger.flush()
    assert [row.id for row in read_rows(path)] == [f"nw-{i:02}" for i in range(51)]
    assert ledger.lost == 0
    ledger.close()


def test_a_disk_that_refuses_for_too_long_loses_the_oldest_and_says_how_many(path: Path, caplog, monkeypatch):
    """Memory is bounded; what is given up is counted, for `/readyz`."""
    monkeypatch.setattr("negawatt.ledger.sqlite._MAX_WAITING", 30)
    ledger = SqliteLedger(path)
    ledger._connection.execute("PRAGMA busy_timeout = 1")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.ERROR):
        for i in range(50):
            ledger.append(outcome(f"nw-{i:02}", received_at=EPOCH + i))
        until(lambda: ledger.lost > 0)
    blocker.execute("ROLLBACK")
    blocker.close()
    ledger.flush()
    kept = [row.id for row in read_rows(path)]
    assert len(kept) + ledger.lost == 50
    assert kept == [f"nw-{i:02}" for i in range(50 - len(kept), 50)]
    ledger.close()


@pytest.mark.parametrize("bad", [{"cost_pusd": 2**70}, {"tenant": "\ud800"}, {"duration_s": float("nan")}])
def test_a_row_that_no_disk_can_hold_costs_only_itself(path: Path, caplog, bad: dict):
    """The others of its batch are written, and so are those that follow."""
    ledger = SqliteLedger(path)
    with caplog.at_level(logging.ERROR):
        for i in range(30):
            ledger.append(outcome(f"nw-{i:02}", received_at=EPOCH + i, **(bad if i == 13 else {})))
        ledger.flush()
        ledger.append(outcome("nw-30", received_at=EPOCH + 30))
        ledger.flush()
    assert [row.id for row in read_rows(path)] == [f"nw-{i:02}" for i in range(31) if i != 13]
    assert ledger.lost == 1
    assert "nw-13" in caplog.text
    ledger.close()


def test_appending_does_not_wait_for_the_disk(path: Path):
    """While the disk is busy, a row is taken in microseconds."""
    ledger = SqliteLedger(path)
    ledger._connection.execute("PRAGMA busy_timeout = 1")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    row = outcome()
    began = time.monotonic()
    for _ in range(1_000):
        ledger.append(row)
    spent_s = time.monotonic() - began
    blocker.execute("ROLLBACK")
    blocker.close()
    ledger.close()
    assert spent_s < 0.25


def test_the_columns_are_the_fields_of_an_outcome(path: Path):
    """One place names them; what may be unknown may be null, and nothing else."""
    SqliteLedger(path).close()
    connection = sqlite3.connect(path)
    columns = {row[1]: bool(row[3]) for row in connection.execute("PRAGMA table_info(outcome)")}
    connection.close()
    assert tuple(columns) == FIELDS
    for field in msgspec.structs.fields(type(outcome())):
        assert columns[field.name] is (type(None) not in _arms(field.type)), field.name


def test_repricing_changes_only_what_is_priced(path: Path):
    """The other columns are history."""
    ledger = SqliteLedger(path)
    row = outcome()
    ledger.append(row)
    ledger.close()
    changed = msgspec.structs.replace(row, cost_pusd=1, energy_j=None, ending="failed")
    update_rows(path, [changed])
    assert list(read_rows(path)) == [msgspec.structs.replace(changed, ending=row.ending)]
    assert set(sql.REPRICED) < set(FIELDS)


def test_a_file_that_is_no_ledger_is_refused(path: Path, tmp_path: Path):
    """With its name, whether it is to be written or read; it is not touched."""
    path.write_bytes(b"hello, this is no database" * 50)
    for work in (lambda: SqliteLedger(path), lambda: list(read_rows(path)), lambda: read_content(path, "x")):
        with pytest.raises(InputError, match=r"ledger\.sqlite: not a ledger"):
            work()
    assert path.read_bytes() == b"hello, this is no database" * 50
    with pytest.raises(InputError, match="there is no ledger here"):
        list(read_rows(tmp_path / "none.sqlite"))
    with pytest.raises(InputError, match="cannot be opened"):
        SqliteLedger(tmp_path / "no" / "folder" / "f")


def test_a_ledger_of_another_schema_is_refused(path: Path):
    """Rather than written into wrongly."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InputError, match=f"schema 99; this version knows {sql.VERSION}"):
        SqliteLedger(path)


def test_a_ledger_of_an_older_version_is_brought_up_to_date(path: Path):
    """Its rows stay, the new columns say nothing of them, and every protocol was chat then; reading is enough."""
    older = [column for name, column in sql.COLUMNS.items() if name not in SINCE_2]
    old = outcome("nw-old", response_id=None)
    for touch in (lambda: None, lambda: SqliteLedger(path).close()):
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute(f"CREATE TABLE outcome ({', '.join(older)})")
        values = [getattr(old, name) for name in FIELDS if name not in SINCE_2]
        connection.execute(f"INSERT INTO outcome VALUES ({', '.join('?' * len(values))})", values)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.close()
        touch()
        assert list(read_rows(path)) == [old]
        ledger = SqliteLedger(path)
        ledger.append(outcome("nw-new", received_at=EPOCH + 1, response_id="r"))
        assert [row.id for row in ledger.rows()] == ["nw-old", "nw-new"]
        ledger.close()


SINCE_2 = ("protocol", "key_headers", "response_id", "counted_input_tokens", "count_basis")


async def test_an_answer_is_found_by_its_id(ledger: Ledger):
    """The newest call that a provider gave it to; nothing for an id that nobody was given."""
    for i, name in enumerate(("a", "b", "a")):
        ledger.append(outcome(f"nw-{i}", received_at=EPOCH + i, protocol="responses", response_id=name))
    found = await ledger.answered("a")
    assert found is not None and found.id == "nw-2"
    assert await ledger.answered("c") is None
