"""What is sought of a model that is to answer with JSON, and an answer read by it.

Code fills the fields that it can, the model is asked for the rest, with short keys where that is wanted; an answer is
mended, given its long keys, put together with what code filled, and validated as one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from negawatt.schemas import broken
from negawatt.shape.contract import MARK, Compact, fields, fill, merged, without
from negawatt.shape.repair import repair

log = logging.getLogger(__name__)
Extract = Callable[[str, str], Sequence[Any] | None]
_DEEP = "the answer is nested too deeply"
_NO_OBJECT = "the answer is not the JSON object that was asked for"


class Read(NamedTuple):
    """An answer. *text* is what to pass on; *changes* names what was mended; *problem*: how it breaks the contract.

    *objection* is the problem in the words of the schema that the model was shown.
    """

    text: str
    changes: tuple[str, ...] = ()
    problem: str | None = None
    objection: str | None = None


class Sought(NamedTuple):
    """*schema* is the contract (None: any object), *shown* what the model is asked for.

    *values*: what code has filled, by path; *left*: why the model has to fill a marked field after all. *compact* None:
    keys are as they are; *long*: why, where short ones were wanted.
    """

    schema: Any
    shown: Any
    mend: bool = True
    compact: Compact | None = None
    values: Mapping[tuple[str, ...], Any] = {}
    left: Mapping[tuple[str, ...], str] = {}
    long: str | None = None

    @property
    def altered(self) -> bool:
        """True when the model's answer, as it stands, is not the caller's."""
        return self.compact is not None or bool(self.values)

    def read(self, text: str, *, cut: bool | None) -> Read:
        """Return the answer *text*, mended if that is allowed. *cut*: as for `negawatt.shape.repair.repair`."""
        mended, changes, objection = self._mended(text, cut)
        if mended is None:
            return Read(text, (), objection, objection)
        try:
            whole = self._whole(mended) if self.altered else mended
        except RecursionError:
            return Read(text, (), _DEEP, _DEEP)
        problem = self._problem(whole)
        if problem is not None:
            return Read(whole if self.altered else text, (), problem, objection or problem)
        return Read(whole, changes)

    def _mended(self, text: str, cut: bool | None) -> tuple[str | None, tuple[str, ...], str | None]:
        if self.mend:
            found = repair(text, self.shown, cut=cut)
            return found.text, found.changes, found.reason
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return None, (), f"the answer is no JSON: {error}"[:200]
        return text, (), None if self.shown is None else broken(self.shown, value)

    def _whole(self, text: str) -> str:
        # Not by orjson: it makes floats of large whole numbers.
        value = json.loads(text)
        if self.compact is not None:
            value = self.compact.expand(value)
        value = merged(value, self.values, self.schema)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def _problem(self, text: str) -> str | None:
        value = orjson.loads(text)
        if self.schema is None:
            return None if isinstance(value, dict) else _NO_OBJECT
        return broken(self.schema, value)


def found_by_code(kind: str, text: str) -> Sequence[Any] | None:
    """Return all values of *kind* in *text*; None where code is not certain, or knows of no such kind."""
    from negawatt.offloads.identifiers import KINDS, extract

    if kind not in KINDS:
        return None
    try:
        return extract(kind, text)
    except Exception as error:
        # Whatever a library raises over some text, or that it is not installed: the model fills the field.
        log.info("fields of kind %s are left to the model: %s: %s", kind, type(error).__name__, error)
        return None


def sought(schema: Any, *, mend: bool, compact: bool, words: str | None, extract: Extract) -> Sought:
    """Return what to seek so that an answer keeps *schema* (None: any object).

    *words*: where code looks for the fields that are marked; None: it does not. Marks are taken out in any case, since
    providers do not know them. *compact*: short keys, where the schema allows them.
    """
    found = () if schema is None or words is None else fields(schema)
    filled = fill(found, words or "", extract) if found else None
    values = {} if filled is None else filled.values
    shown = without(schema, list(values)) if values or _marked(schema) else schema
    short = Compact(shown) if compact and schema is not None else None
    reason = None if short is None else short.reason
    if short is not None and reason is None and short.schema is not shown:
        return Sought(schema, short.schema, mend, short, values, {} if filled is None else filled.left)
    return Sought(schema, shown, mend, None, values, {} if filled is None else filled.left, reason)


def _marked(schema: Any) -> bool:
    return schema is not None and f'"{MARK}"'.encode() in orjson.dumps(schema)
