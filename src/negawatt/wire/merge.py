"""Joining what a stream sends in fragments. One rule for every field, known or not."""

from __future__ import annotations

from typing import Any

_REPLACED = frozenset({"role", "type", "id", "index", "name", "finish_reason", "object", "created", "model"})

_DEEPEST = 100
_BUNDLE = 256


class Unfaithful(Exception):
    """Two fragments that cannot be joined without losing something."""


class Text:
    """A string in the making: an answer may come in 100,000 parts.

    They are joined when it is asked for, and on the way in bundles, since a small string weighs several times its text.
    """

    __slots__ = ("_bundles", "_parts")

    def __init__(self, *parts: str) -> None:
        self._bundles: list[str] = []
        self._parts = list(parts)

    def append(self, part: str) -> None:
        self._parts.append(part)
        if len(self._parts) == _BUNDLE:
            self._bundles.append("".join(self._parts))
            self._parts.clear()

    def __str__(self) -> str:
        return "".join(self._bundles) + "".join(self._parts)


def join(old: Any, new: Any, name: str = "") -> Any:
    """Return *old* followed by *new*: strings are joined, objects merged, lists extended, numbers replaced.

    Entries of lists that carry an ``index`` are merged with the entry of the same index (tool calls). Names and ids
    are sent once, some servers repeat them: they are replaced, not joined. Null adds nothing.
    Raises `Unfaithful` when the two are of different kinds. What comes back may hold `Text`: see `plain`.
    """
    if old is None or new is None:
        return old if new is None else own(new)
    kind = type(new)
    if kind is str and type(old) is Text:
        old.append(new)
        return old
    if kind is str and type(old) is str:
        if name in _REPLACED:
            return new or old
        return Text(old, new)
    if kind is dict and type(old) is dict:
        merge_into(old, new)
        return old
    if kind is list and type(old) is list:
        return _join_lists(old, new)
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return new
    raise Unfaithful(f"{name or 'a field'} changed its type in the middle of the stream")


def merge_into(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Merge the fields of *new* into *old*, in place."""
    for name, value in new.items():
        old[name] = join(old[name], value, name) if name in old else own(value)


def plain(value: Any) -> Any:
    """Return *value* as JSON knows it: a copy in which every `Text` is a string."""
    if type(value) is Text:
        return str(value)
    if type(value) is dict:
        return {name: plain(inner) for name, inner in value.items()}
    if type(value) is list:
        return [plain(inner) for inner in value]
    return value


def _join_lists(old: list[Any], new: list[Any], room: int = _DEEPEST) -> list[Any]:
    for entry in new:
        index = entry.get("index") if isinstance(entry, dict) else None
        same = None
        if index is not None:
            same = next((one for one in old if isinstance(one, dict) and one.get("index") == index), None)
        if same is None:
            old.append(own(entry, room))
        else:
            merge_into(same, entry)
    return old


def own(value: Any, room: int = _DEEPEST) -> Any:
    """Return a copy deep enough that merging into it leaves the chunk it came from alone.

    Raises `Unfaithful` for what is nested so deeply that no honest answer is.
    """
    if isinstance(value, dict):
        if not room:
            raise Unfaithful(f"nested more than {_DEEPEST} levels deep")
        return {name: own(inner, room - 1) for name, inner in value.items()}
    if isinstance(value, list):
        if not room:
            raise Unfaithful(f"nested more than {_DEEPEST} levels deep")
        # Through the list rule, so that two fragments of one entry in the same chunk become one entry.
        return _join_lists([], value, room - 1)
    return value
