"""What was taken out of a text, where, and how to put it back.

Whatever shortens a text returns a `Shaped`: the text, its edits, and the pieces that were removed under their SHA-256.
Kept in any store, the pieces make the original again, character by character (`restore`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec


class Cut(msgspec.Struct, frozen=True):
    """``text[start:end]`` is replaced by *put*. *kind* says why, in a word."""

    start: int
    end: int
    put: str
    kind: str


class Edit(msgspec.Struct, frozen=True):
    """In the new text, *put* stands at offset *at*, in place of the piece *id* of *length* characters."""

    at: int
    put: str
    id: str
    length: int
    kind: str


class Shaped(msgspec.Struct, frozen=True):
    """A shortened text. *removed*: the pieces by id. *abstained*: why nothing was done, or None."""

    text: str
    edits: tuple[Edit, ...] = ()
    removed: Mapping[str, str] = {}
    abstained: str | None = None

    @property
    def saved(self) -> int:
        """How many characters shorter it is; never negative."""
        return sum(edit.length - len(edit.put) for edit in self.edits)


def id_of(piece: str) -> str:
    """Return the SHA-256 of *piece* in UTF-8, in hex; lone surrogates count as they stand."""
    return hashlib.sha256(piece.encode("utf-8", "surrogatepass")).hexdigest()


def unchanged(text: str, why: str | None = None) -> Shaped:
    """Return *text* as it is; *why*: the reason, where it might have been shortened."""
    return Shaped(text, abstained=why)


def apply(text: str, cuts: Iterable[Cut]) -> Shaped:
    """Return *text* with *cuts* made. Raises ValueError where two of them overlap or one lies outside."""
    parts: list[str] = []
    edits: list[Edit] = []
    removed: dict[str, str] = {}
    place = at = 0
    for cut in sorted(cuts, key=lambda one: (one.start, one.end)):
        if not place <= cut.start <= cut.end <= len(text):
            raise ValueError(f"a cut from {cut.start} to {cut.end} overlaps another or lies outside the text")
        piece = text[cut.start : cut.end]
        if piece == cut.put:
            continue
        parts += [text[place : cut.start], cut.put]
        at += cut.start - place
        edit = Edit(at, cut.put, id_of(piece), len(piece), cut.kind)
        at += len(cut.put)
        place = cut.end
        edits.append(edit)
        removed[edit.id] = piece
    return Shaped("".join([*parts, text[place:]]), tuple(edits), removed)


def restore(text: str, edits: Sequence[Edit], get: Callable[[str], str | None]) -> str:
    """Return the original of *text*. *get* returns a piece by its id.

    Raises KeyError where *get* has not a piece, ValueError where one is not what was removed, or *text* is not what
    the edits made.
    """
    for edit in reversed(edits):
        piece = get(edit.id)
        if piece is None:
            raise KeyError(edit.id)
        end = edit.at + len(edit.put)
        if text[edit.at : end] != edit.put or id_of(piece) != edit.id:
            raise ValueError(f"the text at {edit.at} is not what was put there")
        text = text[: edit.at] + piece + text[end:]
    return text
