"""Reading requests that are to be translated: what is not of the right kind is refused by its path."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from negawatt.errors import InvalidRequest
from negawatt.translate.table import Field, check_fields, refuse


def object_at(value: Any, where: str) -> dict[str, Any]:
    """Return *value*, which must be an object."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: expected an object", param=where)
    return value


def objects_at(value: Any, where: str) -> list[dict[str, Any]]:
    """Return *value*, which must be a list of objects; null is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest(f"{where}: expected a list", param=where)
    return [object_at(entry, f"{where}[{place}]") for place, entry in enumerate(value)]


def text_at(value: Any, where: str) -> str:
    """Return *value*, which must be a string."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}: expected a string", param=where)
    return value


def kind_at(entry: Mapping[str, Any], name: str, known: Collection[str], where: str, target: str) -> str:
    """Return the kind that the field *name* of *entry* says, one of *known*."""
    kind = text_at(entry.get(name), f"{where}.{name}")
    if kind not in known:
        raise refuse(f"{where}.{name}", target, f"it is one of {', '.join(sorted(known))} there, not {kind!r}")
    return kind


def only(entry: Mapping[str, Any], names: Collection[str], target: str, where: str) -> None:
    """Raise `Untranslatable` for a field of *entry* that is not one of *names*: nothing would become of it."""
    check_fields(entry, {name: Field("same") for name in names}, target, where)


def said(data: Mapping[str, Any], nothing: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """Return the fields of *data* that say something: not null, and not what *nothing* knows to be the default."""
    return {
        name: value
        for name, value in data.items()
        if value is not None and not (name in nothing and nothing[name](value))
    }


def check_kind(
    entry: Mapping[str, Any], kind: str, content: Mapping[str, Field], basics: Collection[str], target: str, where: str
) -> None:  # fmt: skip
    """Raise `Untranslatable` for a field of *entry* that the rows ``KIND.FIELD`` of *content* refuse or do not know.

    *basics* are those without which there is no entry of this kind; they have no rows.
    """
    rows = {name.removeprefix(f"{kind}."): field for name, field in content.items() if name.startswith(f"{kind}.")}
    check_fields({name: value for name, value in entry.items() if name not in basics}, rows, target, where)
