"""The run file: what an evaluation has found so far, a line for each answer and each verdict, in the order they came.

Each line is written and flushed before the next question is asked, so a run that is killed loses what was in flight
and nothing else; the next run takes up the file and asks only what is missing. What was asked is part of each line
(*asked*: a digest of the request, its model, effort and source), so lines of an earlier form of the suite are not
mistaken for answers to this one.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import orjson

from negawatt.errors import InputError


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What one candidate said to one case, and what it took. None is unknown; money in pico-dollars."""

    candidate: str
    case: str
    repeat: int
    asked: str
    ending: str
    data: dict[str, Any] | None  # the whole answer, in the protocol of the case; None: the call failed
    error: str | None = None
    model: str | None = None  # as the provider names it
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_basis: str | None = None
    cost_pusd: int | None = None
    energy_j: tuple[float, float, float] | None = None  # low, central, high
    energy_basis: str | None = None
    duration_s: float | None = None
    first_chunk_s: float | None = None
    attempts: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        return self.candidate, self.case, self.repeat


class Judged(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """What one verifier said of an answer. *by* is a digest of the verifier and of what it compared with."""

    candidate: str
    case: str
    repeat: int
    asked: str  # of the answer
    by: str
    kind: str
    passed: bool
    score: float
    reason: str | None = None
    cost_pusd: int | None = 0  # of the calls that the verifier made
    calls: int = 0


Line = Answer | Judged
_decode = msgspec.json.Decoder(Line).decode


class RunFile:
    """The lines of *path*, and more to come. Opens it for appending; raises `InputError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[tuple[str, str, int], Answer] = {}
        self.verdicts: dict[tuple[tuple[str, str, int], str, str], Judged] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._file = path.open("ab")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _read(self) -> None:
        if not self.path.exists():
            return
        whole = self.path.read_bytes()
        kept = whole.rfind(b"\n") + 1
        if kept < len(whole):  # the last line was being written when the run was killed
            with self.path.open("r+b") as file:
                file.truncate(kept)
        for number, line in enumerate(whole[:kept].split(b"\n")[:-1], 1):
            try:
                self._take(_decode(line))
            except msgspec.DecodeError as error:
                what = "not a line of an evaluation's run; name another folder by --out"
                raise InputError(f"{self.path}:{number}: {what}: {error}") from error

    def _take(self, line: Line) -> None:
        if isinstance(line, Answer):
            self.answers[line.key] = line
        else:
            self.verdicts[(line.candidate, line.case, line.repeat), line.asked, line.by] = line

    def append(self, line: Line) -> None:
        """Keep *line*. It is with the operating system when this returns."""
        self._take(line)
        self._file.write(orjson.dumps(msgspec.to_builtins(line)) + b"\n")
        self._file.flush()

    def answer(self, key: tuple[str, str, int], asked: str) -> Answer | None:
        """Return what was answered to exactly this, None if it was not asked yet."""
        found = self.answers.get(key)
        return found if found is not None and found.asked == asked else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()
