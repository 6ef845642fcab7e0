"""Traces: which requests came, and when. Five formats are read, one is written; docs/replay.md shows each.

- ``negawatt``: our own, one JSON object per line: the request, and what came with it.
- ``openai``: one chat body per line, or one line of the Batch API's input.
- ``ledger``: what ``negawatt ledger export`` wrote.
- ``azure`` (CSV) and ``mooncake`` (JSONL): token counts only. Their requests are stand-ins, for the modelled provider.

Every reader takes one line at a time, plain or gzip, and raises `InputError` with ``file:line: field: what``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from negawatt.errors import InputError
from negawatt.lines import Place, read_lines, write_lines
from negawatt.wire.wires import WIRES

SAMPLES = Path(__file__).parent / "samples"  # the sample workload that ships with the package

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class TraceEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One request of a trace; a line of our own format.

    *request* is the body that was sent, in the words of *protocol*. *expected* is the right answer, where the trace
    knows it. *synthetic* requests stand for real ones whose content is not in the trace: their number, times and
    lengths are real, their text is not.
    """

    arrival_s: Seconds  # from the start of the trace
    request: dict[str, Any]
    protocol: str = "chat"
    tenant: str = "default"
    user: str | None = None
    request_class: str | None = msgspec.field(default=None, name="class")
    session: str | None = None
    task: str | None = None
    corpus_version: str | None = None
    permissions: str | None = None  # names, separated by commas
    expected: str | None = None
    synthetic: bool = False


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order of their arrival; *notes* is what its reader has to say about them."""

    entries: list[TraceEntry]
    source: str
    format: str
    notes: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the trace to the last arrival."""
        return self.entries[-1].arrival_s if self.entries else 0.0

    @property
    def synthetic(self) -> bool:
        """True when any request in it is a stand-in."""
        return any(entry.synthetic for entry in self.entries)


def read_trace(
    path: Path | str,
    *,
    format: str | None = None,
    model: str = "gpt-4o-mini",
    interval_s: float = 1.0,
    limit: int | None = None,
) -> Trace:
    """Return the trace in the file *path*, whose *format* is known by its first line unless it is named.

    *model* is asked where the trace names none; *interval_s* lies between requests that have no times; *limit* is
    how many requests to read at most. Raises `InputError` for a bad line, an unknown format, and a file that holds
    no request.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise InputError(f"format: there is no trace format {format!r}; known: {', '.join(FORMATS)}", param="format")
    reading = _Reading(model=model, interval_s=interval_s)
    entries: list[TraceEntry] = []
    for place, raw in read_lines(path):
        if limit is not None and len(entries) >= limit:
            break
        format = format or _detected(place, raw)
        entry = FORMATS[format](place, raw, reading)
        if entry is not None:
            entries.append(entry)
            reading.entries += 1
    if not entries:
        why = "; ".join(reading.notes())
        raise InputError(f"{path}: no request to replay: {why or 'it is empty'}")
    if not reading.from_start:
        start = min(entry.arrival_s for entry in entries)
        entries = [msgspec.structs.replace(e, arrival_s=round(e.arrival_s - start, 6)) for e in entries]
    late = sum(after.arrival_s < before.arrival_s for before, after in pairwise(entries))
    if late:
        reading.tally["lines that arrived before the line above them, sorted"] += late
        entries.sort(key=lambda entry: entry.arrival_s)
    return Trace(entries=entries, source=str(path), format=format or "", notes=tuple(reading.notes()))


def write_trace(path: Path | str, entries: Iterable[TraceEntry]) -> int:
    """Write *entries* in our own format; gzip where *path* ends in ``.gz``. Return how many there were."""
    return write_lines(Path(path), (msgspec.to_builtins(entry) for entry in entries))


@dataclass(kw_only=True)
class _Reading:
    """What the line readers share while one file is read."""

    model: str
    interval_s: float
    entries: int = 0  # so far
    columns: list[str] = field(default_factory=list)  # of a CSV file
    clock: str | None = None  # the field that says when a request arrived; one for the whole file
    tally: Counter[str] = field(default_factory=Counter)  # what to say about how many lines

    @property
    def from_start(self) -> bool:
        """True when the file counts time from its own start."""
        return self.clock == "arrival_s"

    def notes(self) -> Iterator[str]:
        for text, count in self.tally.items():
            yield f"{text}: {count}"


LineReader = Callable[[Place, bytes, _Reading], TraceEntry | None]
_PATHS = {f"/v1{wire.path}": wire.name for wire in WIRES.values()}


def _detected(place: Place, raw: bytes) -> str:
    if raw.startswith(b"{"):
        names = place.parse(raw).keys()
        if {"request", "response", "timing"} <= names:
            raise place.error("this is a line of a recording, which does not say when its requests came")
        signs = (
            ("received_at", "ledger"), ("request", "negawatt"), ("arrival_s", "negawatt"), ("hash_ids", "mooncake"),
            ("input_length", "mooncake"), ("messages", "openai"), ("body", "openai"),
        )  # fmt: skip
        for name, format in signs:
            if name in names:
                return format
    elif b"TIMESTAMP" in raw:
        return "azure"
    raise place.error(f"not the first line of a trace that we know; known formats: {', '.join(FORMATS)}")


def _own(place: Place, raw: bytes, reading: _Reading) -> TraceEntry:
    data = place.parse(raw)
    clocks = [name for name in ("arrival_s", "timestamp") if name in data]
    if len(clocks) != 1:
        raise place.error("expected either this (seconds) or timestamp (milliseconds)", "arrival_s")
    if reading.clock not in (None, clocks[0]):
        raise place.error(f"expected {reading.clock}, as in the lines above", clocks[0])
    reading.clock = clocks[0]
    if "timestamp" in data:
        data["arrival_s"] = _number(place, data.pop("timestamp"), "timestamp") / 1000
    entry = place.convert(data, TraceEntry)
    place.check(entry.request, entry.protocol, "request")
    return entry


def _number(place: Place, value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise place.error(f"expected a number of milliseconds, 0 or more, got {value!r}", name)
    return float(value)


class _BatchLine(msgspec.Struct, kw_only=True):
    body: dict[str, Any]
    custom_id: str | None = None
    method: str = "POST"
    url: str = "/v1/chat/completions"


def _openai(place: Place, raw: bytes, reading: _Reading) -> TraceEntry:
    body = place.parse(raw)
    task, where, protocol = None, "", "chat"
    if "body" in body and "messages" not in body:
        line = place.convert(body, _BatchLine)
        if line.method != "POST":
            raise place.error(f"expected POST, got {line.method!r}", "method")
        if line.url not in _PATHS:
            raise place.error(f"expected one of {', '.join(_PATHS)}, got {line.url!r}", "url")
        body, task, where, protocol = line.body, line.custom_id, "body", _PATHS[line.url]
    place.check(body, protocol, where)
    reading.tally[f"requests without times, one put every {reading.interval_s:g} s"] += 1
    arrival_s = reading.entries * reading.interval_s
    user = body.get("user")
    return TraceEntry(
        arrival_s=arrival_s, request=body, protocol=protocol, task=task, user=user if isinstance(user, str) else None
    )


class _LedgerLine(msgspec.Struct, kw_only=True):
    """What a replay needs of a line of the ledger's export; it has further fields.

    The baseline tokens, where they are there, are preferred to those billed: a cached call was billed none.
    """

    received_at: Seconds  # since 1970
    tenant: str | None = None
    user: str | None = None
    request_class: str | None = msgspec.field(default=None, name="class")
    session: str | None = None
    task: str | None = None
    corpus_version: str | None = None
    permissions: str | None = None
    request: dict[str, Any] | None = None
    protocol: str = "chat"
    model: str | None = None
    fingerprint: str | None = None
    stream: bool | None = None
    cache: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    baseline_input_tokens: Count | None = None
    baseline_output_tokens: Count | None = None


def _ledger(place: Place, raw: bytes, reading: _Reading) -> TraceEntry | None:
    line = place.convert(place.parse(raw), _LedgerLine)
    request = line.request
    if request is None:
        if line.fingerprint is None or line.model is None:
            reading.tally["calls left out, neither content nor fingerprint known"] += 1
            return None
        reading.tally["calls without kept content, replayed as stand-ins, equal where fingerprints are"] += 1
        request = _of_fingerprint(line, line.fingerprint, line.model)
    else:
        try:
            place.check(request, line.protocol, "request")
        except InputError:  # it reached the gateway and was refused there: true of the traffic, no fault of the file
            reading.tally["calls left out, request not valid"] += 1
            return None
    return TraceEntry(
        arrival_s=line.received_at,
        request=request,
        protocol="chat" if line.request is None else line.protocol,  # stand-ins are chats
        tenant=line.tenant or "default",
        user=line.user,
        request_class=line.request_class,
        session=line.session,
        task=line.task,
        corpus_version=line.corpus_version,
        permissions=line.permissions,
        synthetic=line.request is None,
    )


def _of_fingerprint(line: _LedgerLine, fingerprint: str, model: str) -> dict[str, Any]:
    input_tokens = line.input_tokens if line.baseline_input_tokens is None else line.baseline_input_tokens
    output_tokens = line.output_tokens if line.baseline_output_tokens is None else line.baseline_output_tokens
    request = _stand_in(model, fingerprint, input_tokens, output_tokens)
    if line.cache == "bypass":
        del request["temperature"]  # the cache was not for it then, so it is not now
    return {**request, "stream": True} if line.stream else request


def _azure(place: Place, raw: bytes, reading: _Reading) -> TraceEntry | None:
    cells = [cell.strip(' "') for cell in raw.decode("utf-8", "replace").split(",")]
    if not reading.columns:
        missing = [name for name in ("TIMESTAMP", "ContextTokens", "GeneratedTokens") if name not in cells]
        if missing:
            raise place.error("this column is missing from the header", missing[0])
        reading.columns = cells
        return None
    if len(cells) != len(reading.columns):
        raise place.error(f"expected {len(reading.columns)} columns, got {len(cells)}")
    row = dict(zip(reading.columns, cells, strict=True))
    input_tokens, output_tokens = (_cell(place, row, name) for name in ("ContextTokens", "GeneratedTokens"))
    reading.tally[f"stand-ins asked of {reading.model}, as the trace holds token counts only"] += 1
    request = _stand_in(reading.model, f"Row {reading.entries + 1} of the trace.", input_tokens, output_tokens)
    if output_tokens:
        request["max_tokens"] = output_tokens
    return TraceEntry(arrival_s=_seconds(place, row["TIMESTAMP"]), request=request, synthetic=True)


def _cell(place: Place, row: dict[str, str], name: str) -> int:
    if not re.fullmatch(r"\d{1,12}", row[name], re.ASCII):
        raise place.error(f"expected a number of tokens, got {row[name]!r}", name)
    return int(row[name])


def _seconds(place: Place, text: str) -> float:
    """Return the seconds since 1970; naive times are UTC. Digits beyond microseconds are cut off."""
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError as error:
        what = f"expected a time such as 2023-11-16 18:15:46.6805900, got {text!r}"
        raise place.error(what, "TIMESTAMP") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class _MooncakeLine(msgspec.Struct, kw_only=True):
    timestamp: Seconds  # milliseconds
    input_length: Count
    output_length: Count
    hash_ids: Annotated[list[int], Meta(min_length=1)]


def _mooncake(place: Place, raw: bytes, reading: _Reading) -> TraceEntry:
    line = place.convert(place.parse(raw), _MooncakeLine)
    reading.tally[f"stand-ins asked of {reading.model}, as the trace holds token counts only"] += 1
    # No max_tokens: rows with equal blocks are repeats, and their answers differ in length.
    blocks = " ".join(map(str, line.hash_ids))
    request = _stand_in(reading.model, f"Blocks {blocks}", line.input_length, line.output_length)
    return TraceEntry(arrival_s=line.timestamp / 1000, request=request, synthetic=True)


def _stand_in(model: str, content: str, input_tokens: int | None, output_tokens: int | None) -> dict[str, Any]:
    """Return a request of which only the model, the lengths (for the modelled provider) and equality are real."""
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    known = {name: str(count) for name, count in counts.items() if count is not None}
    message = {"role": "user", "content": content}
    return {"model": model, "messages": [message], "temperature": 0, "metadata": known}


FORMATS: dict[str, LineReader] = {
    "negawatt": _own,
    "openai": _openai,
    "ledger": _ledger,
    "azure": _azure,
    "mooncake": _mooncake,
}
