"""The cases of a suite: from JSONL and CSV files, and from the ledger of a gateway, with the consent of the class."""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.errors import ConfigError, InputError
from negawatt.ledger.sqlite import read_content, read_rows
from negawatt.lines import Place, read_lines
from negawatt.proof.suite import COLUMNS, Dataset, Suite, no_cases
from negawatt.registry import Url
from negawatt.wire.wires import WIRES

_WITH_CONTEXT = "{context}\n\n{prompt}"
_MADE_BY_CALLERS = ("model", "stream", "stream_options", "user", "store", "metadata")
csv.field_size_limit(2**27)


class SuiteCase(msgspec.Struct, frozen=True, kw_only=True):
    """One question. *request* is its body without a model; *expected* and *context* are for the verifiers."""

    id: str
    dataset: int  # place in the suite
    request: dict[str, Any]
    question: str  # what is asked, in words: what a router sees
    protocol: str = "chat"
    expected: str | None = None
    context: str | None = None
    group: str | None = None
    request_class: str | None = None
    tags: tuple[str, ...] = ()


def read_cases(suite: Suite, limit: int | None = None) -> list[SuiteCase]:
    """Return the cases of *suite*, only *limit* first ones of each dataset. Raises `InputError` or `ConfigError`."""
    found: list[SuiteCase] = []
    known: dict[str, str] = {}
    for place, dataset in enumerate(suite.file.datasets):
        where = f"datasets[{place}]"
        read = _from_ledger if dataset.ledger is not None else _from_file
        cases = read(suite, dataset, place)
        cases = cases[: dataset.limit] if dataset.ledger is None else cases
        if dataset.sample is not None and dataset.sample < len(cases):
            drawn = random.Random(f"{suite.file.seed}:{dataset.called}").sample(range(len(cases)), dataset.sample)
            cases = [cases[i] for i in sorted(drawn)]
        if not cases:
            raise no_cases(suite, where, f"{dataset.called} is empty")
        _judgeable(suite, dataset, where, cases)
        for case in cases[:limit]:
            if case.id in known:
                raise InputError(
                    f"{suite.path}: {where}: the id {case.id!r} is also in {known[case.id]}: ids are unique"
                )
            known[case.id] = dataset.called
            found.append(case)
    return found


def _judgeable(suite: Suite, dataset: Dataset, where: str, cases: list[SuiteCase]) -> None:
    """Raise `ConfigError` where the cases lack what the verifiers compare with."""
    expected = sum(case.expected is not None for case in cases)
    if not dataset.verify and not expected:
        what = "nothing to judge by: there is neither a column `expected` nor a verifier"
        raise ConfigError(f"{suite.path}: {where}.verify: {what}", param=f"{where}.verify")
    for i, check in enumerate(dataset.verify):
        compared = {"exact": "expected", "groundedness": "context"}.get(check.kind)
        if compared is not None and all(getattr(case, compared) is None for case in cases):
            message = (
                f"a verifier of kind {check.kind} compares with `{compared}`, which no case of {dataset.called} has"
            )
            raise ConfigError(f"{suite.path}: {where}.verify[{i}]: {message}", param=f"{where}.verify[{i}]")
        contracts = (WIRES[c.protocol].contract(_request(c)) for c in cases)
        if check.kind == "schema" and all(contract is None for contract in contracts):
            message = f"a verifier of kind schema needs a column `schema`, which no case of {dataset.called} has"
            raise ConfigError(f"{suite.path}: {where}.verify[{i}]: {message}", param=f"{where}.verify[{i}]")


def _request(case: SuiteCase) -> Any:
    from negawatt.call import Request

    return Request(data={"model": "any", **case.request})


# -- files -------------------------------------------------------------------------------------------------------------


def _from_file(suite: Suite, dataset: Dataset, place: int) -> list[SuiteCase]:
    path = suite.beside(dataset.file or "")
    rows = _csv(path) if path.name.removesuffix(".gz").endswith(".csv") else _jsonl(path)
    columns = {name: dataset.columns.get(name, name) for name in COLUMNS}  # type: ignore[call-overload]
    cases: list[SuiteCase] = []
    ids: dict[str, Place] = {}
    for number, (at, row) in enumerate(rows):
        if dataset.limit is not None and number >= dataset.limit:
            break
        if number == 0:
            _has_columns(dataset, columns, at, row)
        case = _case(suite, dataset, place, at, {name: row.get(column) for name, column in columns.items()})
        if case.id in ids:
            raise at.error(f"the id {case.id!r} is there already, in line {ids[case.id].line}", columns["id"])
        ids[case.id] = at
        cases.append(case)
    return cases


def _has_columns(dataset: Dataset, columns: Mapping[str, str], at: Place, row: Mapping[str, Any]) -> None:
    there = ", ".join(str(name) for name in row) or "none"
    for column in dataset.columns.values():
        if column not in row:
            raise at.error(f"there is no column {column!r}; there: {there}")
    if columns["prompt"] not in row and columns["messages"] not in row:
        raise at.error(f"neither a column {columns['prompt']!r} nor {columns['messages']!r}; there: {there}")


def _case(suite: Suite, dataset: Dataset, place: int, at: Place, row: Mapping[str, Any]) -> SuiteCase:
    prompt, context = _text(at, row, "prompt"), _text(at, row, "context")
    messages = _json(at, row, "messages")
    if (prompt is None) == (messages is None):
        raise at.error("expected one of prompt and messages", "prompt")
    if messages is None:
        template = dataset.template or (_WITH_CONTEXT if context else "{prompt}")
        said = template.replace("{context}", context or "").replace("{prompt}", prompt or "")
        messages = [{"role": "user", "content": said}]
    if dataset.system is not None:
        messages = [{"role": "system", "content": dataset.system}, *messages]
    request: dict[str, Any] = {"messages": messages}
    schema = _json(at, row, "schema")
    if schema is not None:
        form = {"name": "answer", "schema": schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    at.check({"model": "any", **request}, "chat")
    tags = row["tags"]
    return SuiteCase(
        id=_text(at, row, "id") or f"{dataset.called}:{at.line}",
        dataset=place,
        request=request,
        question=prompt if prompt is not None else _asked(request, "chat"),
        expected=_text(at, row, "expected"),
        context=context,
        group=_text(at, row, "group"),
        request_class=_text(at, row, "class") or dataset.request_class,
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else tuple((tags or "").split()),
    )


def _text(at: Place, row: Mapping[str, Any], name: str) -> str | None:
    value = row[name]
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and name in ("id", "expected", "group"):
        return str(value)
    if name == "expected":
        return orjson.dumps(value).decode()
    raise at.error("expected a text", name)


def _json(at: Place, row: Mapping[str, Any], name: str) -> Any:
    """Return what stands in a column of JSON: as it is in JSONL, as text in CSV."""
    value = row[name]
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value else None
    except orjson.JSONDecodeError as error:
        raise at.error(f"not valid JSON: {error}", name) from error


def _jsonl(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    for at, raw in read_lines(path):
        yield at, at.parse(raw)


def _csv(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    import gzip

    opener = gzip.open if path.suffix == ".gz" else open
    line = 1
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                line = reader.line_num
                if None in row or None in row.values():
                    raise Place(path, line).error("this row has not as many fields as the first line names")
                yield Place(path, line), row
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise Place(path, line).error(f"not valid CSV: {error}") from error


# -- the ledger --------------------------------------------------------------------------------------------------------


def _from_ledger(suite: Suite, dataset: Dataset, place: int) -> list[SuiteCase]:
    where = f"datasets[{place}]"
    url = Url.parse(dataset.ledger or "", f"{suite.path}: {where}.ledger")
    if url.scheme != "sqlite" or not url.path:
        raise ConfigError(f"{suite.path}: {where}.ledger: expected sqlite:///FILE, got {dataset.ledger!r}", param=where)
    classes = {name for name, one in suite.config.classes.items() if one.evaluate}
    wanted = dataset.request_class
    if wanted is not None and wanted not in classes:
        raise _no_consent(suite, f"{where}.class", f"class {wanted!r}")
    path, since = suite.beside(url.path), _since(suite, dataset, f"{where}.since")
    seen = without = kept = 0
    cases: dict[str, SuiteCase] = {}
    for row in read_rows(path, since):
        seen += 1
        if row.request_class not in (classes if wanted is None else {wanted}) or row.ending != "answered":
            continue
        without += 1
        content = read_content(path, row.id)
        if content is None or content.response is None:
            continue
        kept += 1
        case = _kept(suite, dataset, place, row, content)
        if case is not None and (dataset.limit is None or len(cases) < dataset.limit):
            cases.setdefault(row.fingerprint or row.id, case)
    if not cases and seen and not without:
        raise _no_consent(suite, f"{where}.class", "any class of its rows")
    if not cases:
        why = f"{path} has {seen} rows, {without} of classes that consent and answered, {kept} with their content"
        raise no_cases(suite, where, f"{why}; ledger.keep_content = true keeps it")
    return list(cases.values())


def _since(suite: Suite, dataset: Dataset, where: str) -> float:
    """Return from when on rows count, in seconds since 1970."""
    text, units = dataset.since, {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    if text is None:
        return 0.0
    if text[:-1].isdigit() and text[-1] in units:
        return time.time() - int(text[:-1]) * units[text[-1]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        what = f"{text!r} is neither a span (24h, 7d) nor a date (2026-11-01)"
        raise ConfigError(f"{suite.path}: {where}: {what}", param=where) from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _no_consent(suite: Suite, where: str, what: str) -> ConfigError:
    name = what.partition("'")[2].rstrip("'") or "NAME"
    remedy = f"its owner gives it by `evaluate = true` under [classes.{name}]"
    return ConfigError(f"{suite.path}: {where}: no consent to use the kept requests of {what}; {remedy}", param=where)


def _kept(suite: Suite, dataset: Dataset, place: int, row: Any, content: Any) -> SuiteCase | None:
    """Return the case that a row of the ledger makes; None where it cannot be asked anew."""
    wire = WIRES.get(row.protocol)
    asked: dict[str, Any] = orjson.loads(content.request)
    if wire is None or wire.operation != "chat" or asked.get("previous_response_id") or asked.get("conversation"):
        return None
    request = {name: value for name, value in asked.items() if name not in _MADE_BY_CALLERS}
    expected = None
    if dataset.expected == "kept" and suite.reference.model in (row.request_model, row.response_model):
        expected = wire.text_of(orjson.loads(content.response))
    question = _asked(request, row.protocol)
    return None if not question else SuiteCase(
        id=row.id, dataset=place, request=request, question=question, protocol=row.protocol, expected=expected,
        request_class=row.request_class,
    )  # fmt: skip


def _asked(request: Mapping[str, Any], protocol: str) -> str:
    """Return what a person asked last, or all that they said where that is no text."""
    from negawatt.call import Request

    wire = WIRES[protocol]
    body = Request(data={"model": "any", **request})
    question = wire.question(body)
    if question is not None:
        return question.text
    said = [
        one.get("content") for one in wire.prompt(body).messages if isinstance(one, dict) and one.get("role") == "user"
    ]
    return next((text for text in reversed(said) if isinstance(text, str)), "")
