"""Templates that have been read, and what is made of them.

A template is a row of blocks in three parts: *base* (instructions that stay the same, the system prompt), *context*
(what this request is about) and *task* (what is asked of it, and its limits). Whatever their order in the file, base
comes first, then context, then task: providers' prefix caches end at the first difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from negawatt.errors import InvalidRequest
from negawatt.prompts.conditions import Condition
from negawatt.prompts.variables import Delimiters, Variable

Part = Literal["base", "context", "task"]
PARTS: tuple[Part, ...] = ("base", "context", "task")
_SHOWN = 20  # names in an error
_LONGEST_VERSION = 64


class Insertion(NamedTuple):
    """The place of a variable. *alone*: nothing else is on its line, which goes where there is no value."""

    name: str
    alone: bool


class BlockSource(msgspec.Struct, frozen=True, kw_only=True):
    """A block as it is written. *pieces* are texts and insertions in order; all of *when* must hold."""

    name: str
    part: Part
    pieces: tuple[str | Insertion, ...]
    path: str
    line: int
    when: tuple[Condition, ...] = ()

    @property
    def stable(self) -> bool:
        """True when it is the same in every request."""
        return not self.when and not any(isinstance(piece, Insertion) for piece in self.pieces)


class Block(msgspec.Struct, frozen=True):
    """A block as it was rendered. *tokens* None: not counted."""

    name: str
    part: Part
    text: str
    tokens: int | None = None


class Rendered(msgspec.Struct, frozen=True):
    """A template with its values. *messages* are of Chat Completions: at most one of system and one of user."""

    name: str
    version: str  # short
    messages: tuple[dict[str, str], ...]
    blocks: tuple[Block, ...]

    @property
    def instructions(self) -> str:
        """The base instructions; "" where there are none."""
        return next((one["content"] for one in self.messages if one["role"] == "system"), "")

    @property
    def turn(self) -> str:
        """Context and task; "" where there are none."""
        return next((one["content"] for one in self.messages if one["role"] == "user"), "")


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template with everything that it includes. *digest*: SHA-256 of what it and they say."""

    name: str
    path: str
    digest: str
    blocks: tuple[BlockSource, ...]
    variables: Mapping[str, Variable]
    description: str | None = None
    includes: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the digest."""
        return self.digest[:12]

    def values(self, given: Mapping[str, Any], where: str = "variables") -> dict[str, Any]:
        """Return a value, or None, for each variable. Raises `InvalidRequest` that names *where* and the variable."""
        for name in given:
            if name not in self.variables:
                raise _unknown(f"{where}.{name[:100]}", f"template {self.name!r} has no such variable", self.variables)
        found: dict[str, Any] = {}
        for name, variable in self.variables.items():
            place = f"{where}.{name}"
            value = given.get(name)
            if value is not None:
                found[name] = variable.checked(value, place)
            elif variable.needed:
                message = f"{place}: template {self.name!r} needs this variable, {variable.expected}"
                raise InvalidRequest(message, param=place)
            else:
                unset = variable.default is msgspec.UNSET
                found[name] = None if unset else variable.checked(variable.default, place)
        return found

    def render(self, given: Mapping[str, Any], *, without: Collection[str] = (), where: str = "variables") -> Rendered:
        """Return the prompt with the values *given*, *without* the blocks so named. Raises `InvalidRequest`."""
        names = [block.name for block in self.blocks]
        for name in without:
            if name not in names:
                raise _unknown("without", f"template {self.name!r} has no block {name!r}", names)
        values = self.values(given, where)
        delimiters = Delimiters(self.variables)
        blocks: list[Block] = []
        for part in PARTS:
            for source in self.blocks:
                if source.part == part and source.name not in without and all(c.holds(values) for c in source.when):
                    text = self._text(source, values, delimiters)
                    if text:
                        blocks.append(Block(source.name, part, text))
        base = "\n\n".join(block.text for block in blocks if block.part == "base")
        turn = "\n\n".join(block.text for block in blocks if block.part != "base")
        said = (("system", base), ("user", turn))
        messages = tuple({"role": role, "content": text} for role, text in said if text)
        return Rendered(self.name, self.version, messages, tuple(blocks))

    def _text(self, source: BlockSource, values: Mapping[str, Any], delimiters: Delimiters) -> str:
        told: list[str] = []
        gone = False  # the line of the insertion before went: so does the end of that line
        for piece in source.pieces:
            if isinstance(piece, str):
                told.append(piece.removeprefix("\n") if gone else piece)
                gone = False
                continue
            value = values[piece.name]
            gone = piece.alone and value is None
            told.append(delimiters.stand(piece.name, self.variables[piece.name], value, alone=piece.alone))
        return "".join(told).strip()


class Prompts:
    """The templates of one folder, by name."""

    def __init__(self, templates: Mapping[str, Template]) -> None:
        self._templates = dict(templates)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._templates))

    def __iter__(self) -> Iterator[Template]:
        return (self._templates[name] for name in self.names)

    def template(self, name: str, version: str | None = None, *, under: str = "") -> Template:
        """Return the template *name*. Raises `InvalidRequest` where there is none, or none of this *version*.

        *version*: the digest, or a beginning of it of at least 6 digits. *under*: what the error puts before the field.
        """
        found = self._templates.get(name)
        if found is None:
            raise _unknown(f"{under}template", f"there is no template {name[:100]!r}", self.names)
        if version is not None and not (6 <= len(version) <= _LONGEST_VERSION and found.digest.startswith(version)):
            there = f"template {name!r} has version {found.version}, not {version[:_LONGEST_VERSION]!r}"
            raise InvalidRequest(f"{under}version: {there}", param=f"{under}version")
        return found

    def render(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        version: str | None = None,
        *,
        without: Collection[str] = (),
    ) -> Rendered:
        """Return the template *name* with *variables* in it. Raises `InvalidRequest`, which names what is wrong."""
        return self.template(name, version).render(variables or {}, without=without)


def _unknown(where: str, what: str, known: Collection[str]) -> InvalidRequest:
    there = ", ".join(sorted(known)[:_SHOWN]) or "none"
    return InvalidRequest(f"{where}: {what}; known: {there}", param=where)
