"""Where rows in the shape of FOCUS go: CSV, or Parquet through pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import IO, Any, Protocol

from negawatt.errors import ConfigError
from negawatt.exports.focus import COLUMNS, VERSION

# Also in the wide forms that some spreadsheets take for the narrow ones (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BATCH = 10_000  # rows of a Parquet file that are held at once: one row group


class Sink(Protocol):
    """Takes rows, and is closed when there are no more."""

    def write(self, rows: Iterable[dict[str, Any]]) -> int:
        """Write *rows*; return how many."""
        ...

    def close(self) -> None: ...


class CsvSink:
    """Comma-separated, as RFC 4180 has it: UTF-8, one line of names, money and amounts as exact decimals."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def write(self, rows: Iterable[dict[str, Any]]) -> int:
        count = 0
        for row in rows:
            self._writer.writerow([_text(row[name]) for name in COLUMNS])
            count += 1
        return count

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


class ParquetSink:
    """Apache Parquet: money is decimal128(38, 12), times are in UTC. Raises `ConfigError` without pyarrow."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError("Parquet is written by pyarrow: pip install 'negawatt[parquet]'") from error
        types = {
            "text": pyarrow.string(), "money": pyarrow.decimal128(38, 12), "amount": pyarrow.decimal128(38, 3),
            "count": pyarrow.int64(), "number": pyarrow.float64(), "time": pyarrow.timestamp("us", tz="UTC"),
        }  # fmt: skip
        schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        self._schema = schema.with_metadata({"focus_version": VERSION})
        self._arrow = pyarrow
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def write(self, rows: Iterable[dict[str, Any]]) -> int:
        count = 0
        for row in rows:
            self._waiting.append(row)
            count += 1
            if len(self._waiting) >= _BATCH:
                self._write_batch()
        return count

    def close(self) -> None:
        if self._waiting:
            self._write_batch()
        self._writer.close()

    def _write_batch(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value else "0"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return _plain(value) if isinstance(value, str) else repr(value)


def _plain(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula: names of models and keys are others' words."""
    return f"'{text}" if text.startswith(_FORMULA) else text
