"""An answer that should be JSON, mended where there is one way to mend it.

No value is ever chosen: what was cut off, or can be read in two ways, is refused with the reason. What is JSON already
comes back as it is.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from negawatt.schemas import broken
from negawatt.shape.completeness import complete
from negawatt.shape.lenient import Reader, Refused

_STRUCTURE = re.compile(r"""[{\[}\]]|["'“”‘’][\w\s.$-]{1,60}["'“”‘’]\s*:""")
_SPACE = " \t\n\r\u00a0\ufeff\u200b"
_MOST = 4_000_000


class Repaired(NamedTuple):
    """*text* is JSON, or None where there is no one way to read the answer; *changes* names what was mended.

    *reason*: why there is no text, or why it breaks the schema all the same; None: all is well.
    """

    text: str | None
    changes: tuple[str, ...] = ()
    reason: str | None = None


def repair(text: str, schema: Any = None, *, cut: bool | None = None) -> Repaired:
    """Return *text* as JSON that keeps *schema* (None: any).

    *cut*: whether the model was stopped by its limit of tokens; None: not known. Brackets that are missing at the end
    are put in where it was not, or where by *schema* nothing can be missing before them.
    """
    try:
        value = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return _checked(_mended(text, schema, cut), schema)
    if schema is None or (problem := broken(schema, value)) is None:
        return Repaired(text)
    if isinstance(value, str):  # JSON, written as a text of JSON
        try:
            if broken(schema, orjson.loads(value)) is None:
                return Repaired(value, ("unwrapped",))
        except orjson.JSONDecodeError:
            return Repaired(text, (), problem)
    return Repaired(text, (), problem)


def _checked(found: Repaired, schema: Any) -> Repaired:
    """Return *found* only if it is JSON, with what *schema* says of it."""
    if found.text is None:
        return found
    try:
        value = orjson.loads(found.text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        return Repaired(None, (), f"it is no JSON even so: {error}"[:200])
    return found if schema is None else found._replace(reason=broken(schema, value))


def _mended(text: str, schema: Any, cut: bool | None) -> Repaired:
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if start < 0:
        return Repaired(None, (), "there is no object or list in it")
    if len(text) > _MOST:
        return Repaired(None, (), f"it is longer than {_MOST:,} characters")
    before = text[:start].strip(_SPACE)
    if before and (_STRUCTURE.search(before) or before[-1] in ",\"'“”" or re.search(r"[\"'“”]\s*:$", before)):
        return Repaired(None, (), "there are parts of an object before its bracket")
    try:
        read = Reader(text, start).read()
    except Refused as refused:
        return Repaired(None, (), str(refused))
    if read.open and cut is not False and (read.number_last or not complete(schema, read.open)):
        return Repaired(None, (), "its end is missing, and what stood there is not known")
    behind = text[read.end :].strip(_SPACE)
    changes = set(read.changes)
    if behind and not before and set(behind) <= {"}"} and len(behind) == 1 and text[start] == "{":
        changes.add("one bracket too many")
    elif behind and (_STRUCTURE.search(behind) or behind[0] in ",:\"'“”"):
        return Repaired(None, (), "there is more than one value in it")
    elif before or behind or not changes:
        changes.add("text around")
    return Repaired(read.text, tuple(sorted(changes)))
