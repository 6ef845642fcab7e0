"""Rows of the ledger as lines of JSON, for people, for other programs, and for replay."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.errors import InputError
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import read_with_content

_JSON = ("decisions", "attempt_log", "versions")
_MONEY = {"cost_pusd": "cost_usd", "baseline_cost_pusd": "baseline_cost_usd"}


def shown(row: Outcome) -> dict[str, Any]:
    """Return *row* with its JSON unpacked and its money as decimal strings of dollars. Raises `InputError`."""
    line = msgspec.structs.asdict(row)
    for name in _JSON:
        try:
            line[name] = orjson.loads(line[name])
        except orjson.JSONDecodeError as error:
            raise InputError(f"{name} of the row {row.id} cannot be read: {error}") from error
    for name, plain in _MONEY.items():
        amount = line.pop(name)
        line[plain] = None if amount is None else usd(amount)
    return line


def usd(pusd: int) -> str:
    """Return whole pico-dollars as dollars, exactly."""
    amount = Decimal(pusd).scaleb(-12).normalize()
    return format(amount, "f")


def export_lines(path: Path, since: float, until: float) -> Iterator[dict[str, Any]]:
    """Give each row of the ledger at *path* as a line of the export. Raises `InputError`."""
    for row, content in read_with_content(path, since, until):
        line = shown(row)
        line["user"] = line.pop("user_id")
        line["class"] = line.pop("request_class")
        line["task"] = line.pop("task_id")
        line["session"] = line.pop("session_id")
        line["model"] = line.pop("request_model")
        line["request"] = None if content is None else _loaded(content.request)
        line["response"] = None if content is None or content.response is None else _loaded(content.response)
        yield line


def _loaded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
