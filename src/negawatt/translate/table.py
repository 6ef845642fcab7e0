"""What becomes of each field when a request is put into another protocol. The documentation prints these tables.

Nothing is lost in silence: a field that is in no table is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from negawatt.errors import InvalidRequest

How = Literal["same", "renamed", "converted", "left out", "refused"]


class Field(NamedTuple):
    """What becomes of one field, or of one kind of content.

    *note* says what it becomes (renamed, converted), or why it is left out or refused. ``left out`` is only for what
    cannot change the answer, or what this protocol's callers send to everybody.
    """

    how: How
    note: str = ""


class Untranslatable(InvalidRequest):
    """The request asks for something that the provider's protocol has no word for."""

    code = "untranslatable"


def refuse(where: str, target: str, why: str) -> Untranslatable:
    """Return the error that names the feature *where*, which *target* cannot carry."""
    return Untranslatable(f"{where}: the model's provider speaks {target}: {why}", param=where)


def check_fields(data: Mapping[str, Any], fields: Mapping[str, Field], target: str, path: str = "") -> None:
    """Raise `Untranslatable` for a field of *data* that *fields* refuses, or that it does not know. Null is absent."""
    for name, value in data.items():
        if value is None:
            continue
        field = fields.get(name)
        where = f"{path}.{name}" if path else name
        if field is None:
            raise refuse(where, target, "this field is not known here, and there is no telling what would be lost")
        if field.how == "refused":
            raise refuse(where, target, field.note)
