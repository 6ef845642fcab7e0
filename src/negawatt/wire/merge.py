"""Joining what a stream sends in fragments. One rule for every field, known or not."""

from __future__ import annotations

from typing import Any

_REPLACED = frozenset({"role", "type", "id", "index", "name", "finish_reason", "object", "created", "model"})


class Unfaithful(Exception):
    """Two fragments that cannot be joined without losing something."""


def join(old: Any, new: Any, name: str = "") -> Any:
    """Return *old* followed by *new*: strings are joined, objects merged, lists extended, numbers replaced.

    Entries of lists that carry an ``index`` are merged with the entry of the same index (tool calls). Names and ids
    are sent once, some servers repeat them: they are replaced, not joined. Null adds nothing.
    Raises `Unfaithful` when the two are of different kinds.
    """
    if old is None or new is None:
        return old if new is None else new
    if isinstance(old, str) and isinstance(new, str):
        if name in _REPLACED:
            return new or old
        return old + new
    if isinstance(old, dict) and isinstance(new, dict):
        merge_into(old, new)
        return old
    if isinstance(old, list) and isinstance(new, list):
        return _join_lists(old, new)
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return new
    raise Unfaithful(f"{name or 'a field'} changed its type in the middle of the stream")


def merge_into(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Merge the fields of *new* into *old*, in place."""
    for name, value in new.items():
        old[name] = join(old[name], value, name) if name in old else _own(value)


def _join_lists(old: list[Any], new: list[Any]) -> list[Any]:
    for entry in new:
        index = entry.get("index") if isinstance(entry, dict) else None
        same = None
        if index is not None:
            same = next((one for one in old if isinstance(one, dict) and one.get("index") == index), None)
        if same is None:
            old.append(_own(entry))
        else:
            merge_into(same, entry)
    return old


def _own(value: Any) -> Any:
    """Return a copy deep enough that merging into it leaves the chunk it came from alone."""
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    if isinstance(value, list):
        # Through the list rule, so that two fragments of one entry in the same chunk become one entry.
        return _join_lists([], value)
    return value
