"""The export of a ledger, from its file to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

from negawatt.economics.accounts import Accounts
from negawatt.exports.charges import COLUMNS, Row
from negawatt.exports.focus import focus_rows
from negawatt.exports.openmetrics import OpenMetricsSink
from negawatt.exports.periods import DAY_S, HOUR_S, Period, Total, periods
from negawatt.exports.sinks import CsvSink, ParquetSink, Sink
from negawatt.ledger.export import export_lines, usd
from negawatt.ledger.sqlite import read_columns

Format = Literal["focus-csv", "focus-parquet", "jsonl", "openmetrics"]
FORMATS: tuple[Format, ...] = ("focus-csv", "focus-parquet", "jsonl", "openmetrics")
SPANS = {"hour": HOUR_S, "day": DAY_S}
Told = Callable[[int], None]


class Wanted(NamedTuple):
    """What is to be exported: of the ledger at *path* what was received in [since, until), seconds since 1970."""

    path: Path
    since: float
    until: float
    format: Format
    by: str = "day"
    account: str = "negawatt"
    savings: bool = True


def export(wanted: Wanted, accounts: Accounts, file: IO[bytes], told: Told = lambda _: None) -> dict[str, Any]:
    """Write what is *wanted* to *file*; return what it came to, for people and as JSON.

    *told* hears of the number of calls so far. Raises `InputError` for a file that is no ledger.
    """
    if wanted.format == "jsonl":
        calls = write_lines(wanted.path, wanted.since, wanted.until, file, told)
        return {"calls": calls, "lines": calls}
    total = Total()
    rows = _told(map(Row._make, read_columns(wanted.path, COLUMNS, wanted.since, wanted.until)), told)
    found = periods(rows, accounts, SPANS[wanted.by], total, savings=wanted.savings)
    lines = _metrics(found, file) if wanted.format == "openmetrics" else _focus(found, wanted, file)
    return {
        "calls": total.calls, "lines": lines, "billed_usd": usd(total.pusd), "unpriced_calls": total.unpriced,
        "spared_usd": usd(total.spared_pusd), "spared_unpriced": total.spared_unpriced,
    }  # fmt: skip


def write_lines(path: Path, since: float, until: float, file: IO[bytes], told: Told = lambda _: None) -> int:
    """Write each row of the ledger at *path* as a line of JSON; return how many."""
    count = 0
    for line in _told(export_lines(path, since, until), told):
        file.write(orjson.dumps(line) + b"\n")
        count += 1
    return count


def _focus(found: Iterator[Period], wanted: Wanted, file: IO[bytes]) -> int:
    sink: Sink = CsvSink(file) if wanted.format == "focus-csv" else ParquetSink(file)
    lines = 0
    for period in found:
        lines += sink.write(focus_rows(period, wanted.account))
    sink.close()
    return lines


def _metrics(found: Iterator[Period], file: IO[bytes]) -> int:
    sink = OpenMetricsSink(file)
    lines = sum(sink.write(period) for period in found)
    sink.close()
    return lines


def _told(rows: Iterable[Any], told: Told) -> Iterator[Any]:
    count = 0
    for row in rows:
        yield row
        count += 1
        if count % 1000 == 0:
            told(count)
    told(count)
