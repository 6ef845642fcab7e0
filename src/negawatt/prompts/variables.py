"""Variables of templates: what they may be, and how their values stand in a prompt.

What a caller wrote freely (text, lists, JSON) stands between tags named after the variable, and cannot close them:
where the value has such a tag, its ``<`` is written ``&lt;`` (in JSON ``\\u003c``). Numbers, dates, true and false, and
texts of a closed list stand as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from math import isfinite
from typing import Any, Literal

import msgspec
import orjson

from negawatt.call import json_name
from negawatt.config_types import Count, Section
from negawatt.errors import InvalidRequest

Kind = Literal["str", "int", "float", "bool", "date", "list[str]", "json"]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EXPECTED = {
    "str": "a string", "int": "an integer", "float": "a number", "bool": "true or false",
    "date": "a date such as 2026-11-01", "list[str]": "a list of strings", "json": "JSON",
}  # fmt: skip
MOST_CHARS = 1_000_000  # of a value whose variable says nothing of its length


class Variable(Section, frozen=True):
    """What is declared of one variable. Without a default it is required, unless it says that it is not."""

    type: Kind = "str"
    required: bool | None = None
    default: Any = msgspec.UNSET
    max_chars: Count = MOST_CHARS  # of text; of a list all together; of JSON as written
    one_of: tuple[str, ...] = ()  # of type str: the only values
    description: str | None = None

    @property
    def needed(self) -> bool:
        return self.default is msgspec.UNSET if self.required is None else self.required

    @property
    def expected(self) -> str:
        """What a value is, in words."""
        return _EXPECTED[self.type]

    def checked(self, value: Any, where: str) -> Any:
        """Return *value* as it is of this type. Raises `InvalidRequest` that names *where* and what was expected."""
        found = _AS[self.type](value)
        if found is None:
            what = value if isinstance(value, str) else json_name(value)
            shown = f"{what[:50]!r}" if self.type == "date" and isinstance(value, str) else json_name(value)
            raise InvalidRequest(f"{where}: expected {_EXPECTED[self.type]}, got {shown}", param=where)
        if self.one_of and found not in self.one_of:
            known = ", ".join(self.one_of)
            raise InvalidRequest(f"{where}: expected one of {known}, got {str(found)[:50]!r}", param=where)
        size = _size(found)
        if size > self.max_chars:
            message = f"{where}: at most {self.max_chars} characters, got {size}"
            raise InvalidRequest(message, param=where)
        return found

    def read(self, text: str, where: str) -> Any:
        """Return *text*, as typed into a terminal, as a value of this type. Raises `InvalidRequest`."""
        if self.type in ("str", "date"):
            return self.checked(text, where)
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"{where}: expected {_EXPECTED[self.type]}, got {text[:50]!r}", param=where) from error
        return self.checked(value, where)


def _date(value: Any) -> date | None:
    if isinstance(value, datetime):
        return None
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _texts(value: Any) -> list[str] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        return None
    return list(value)


def _json(value: Any) -> Any:
    """Return *value* if it can be written as JSON, and is not null: what is not there is left out."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None
    return value


_AS: dict[str, Callable[[Any], Any]] = {
    "str": lambda value: value if isinstance(value, str) else None,
    "int": lambda value: value if isinstance(value, int) and not isinstance(value, bool) else None,
    "float": lambda value: (
        value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None
    ),
    "bool": lambda value: value if isinstance(value, bool) else None,
    "date": _date,
    "list[str]": _texts,
    "json": _json,
}


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return sum(map(len, value))
    return len(orjson.dumps(value).decode()) if isinstance(value, list | dict) else 0


class Delimiters:
    """Puts values between tags that they cannot close. *names*: of all variables whose tags may be in the prompt."""

    def __init__(self, names: Iterable[str]) -> None:
        listed = "|".join(map(re.escape, sorted({*names, "item"}, key=len, reverse=True)))
        self._tags = re.compile(rf"<(?=\s*/?\s*(?:{listed})\b)", re.IGNORECASE)

    def stand(self, name: str, variable: Variable, value: Any, *, alone: bool) -> str:
        """Return how *value* stands in a prompt. *alone*: on a line of its own, so the tags have their own lines."""
        if value is None:
            return ""
        if variable.one_of or variable.type in ("int", "float", "bool", "date"):
            return _bare(value)
        if variable.type == "json":
            inner = self._tags.sub(r"\\u003c", orjson.dumps(value).decode())
        elif variable.type == "list[str]":
            inner = "\n".join(f"<item>{self._tags.sub('&lt;', one)}</item>" for one in value)
        else:
            inner = self._tags.sub("&lt;", value)
        between = "\n" if alone or variable.type == "list[str]" else ""
        return f"<{name}>{between}{inner}{between}</{name}>"


def _bare(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)
