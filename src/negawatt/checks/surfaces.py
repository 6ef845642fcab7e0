"""What a repository sends to models: its surfaces, each of blocks, found without importing or running anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from negawatt.checks.plan import Group, Plan
from negawatt.errors import InputError

Kind = Literal["template", "constant", "tools", "few-shots"]
_MANY = "*?["


class Hole(NamedTuple):
    """A place where something is put in: *at* so many characters of its block, what is said there, on which line."""

    at: int
    said: str
    line: int


class Place(NamedTuple):
    """A line of a file, whose path is from the folder of the check's file."""

    path: str
    line: int


class Block(NamedTuple):
    """A part of a surface: its *text* without what is put into its *holes*, and the *source* from *line* on.

    *path*: the file that it comes from, where that is another than its surface's. *stable* False: it is meant to be
    another one each time, as are the context and the task of a template.
    """

    name: str
    text: str
    line: int
    source: str = ""
    holes: tuple[Hole, ...] = ()
    path: str | None = None
    stable: bool = True

    def line_of(self, words: str) -> int:
        """Return the line of the file in which *words* first stand; the block's first where they are not found."""
        for at, line in enumerate(self.source.splitlines()):
            if words in line:
                return self.line + at
        return self.line


class Surface(NamedTuple):
    """One thing that is sent: *name* is its path, and of a constant also its name.

    *tools* are those of a schema; *template* is what requests call a template.
    """

    name: str
    kind: Kind
    path: str
    line: int
    blocks: tuple[Block, ...]
    group: Group
    tools: tuple[Mapping[str, Any], ...] = ()
    template: str | None = None

    @property
    def place(self) -> Place:
        return Place(self.path, self.line)

    def at(self, block: Block, line: int | None = None) -> Place:
        """Return the place of *line*, or of the first line, of *block*."""
        return Place(self.path if block.path is None else block.path, block.line if line is None else line)


def read_surfaces(plan: Plan) -> list[Surface]:
    """Return every surface that *plan* names, by name. Raises `ConfigError`, `InputError`: which, and why not."""
    from negawatt.checks.constants import constants
    from negawatt.checks.templates import templates

    found: dict[str, Surface] = {}
    for at, group in enumerate(plan.file.surfaces):
        where = f"surfaces[{at}]"
        many: list[Surface] = []
        if group.templates is not None:
            many += templates(plan, group, f"{where}.templates")
        for i, said in enumerate(group.constants):
            many += constants(plan, group, said, f"{where}.constants[{i}]")
        for field, patterns, read in (("tools", group.tools, _tools), ("few_shots", group.few_shots, _few_shots)):
            for i, pattern in enumerate(patterns):
                many += [read(plan, group, path) for path in files(plan, pattern, f"{where}.{field}[{i}]")]
        for one in many:
            if one.name in found:
                raise plan.refused(where, f"the surface {one.name} is named twice")
            found[one.name] = one
    _known(plan, found)
    return [found[name] for name in sorted(found)]


def files(plan: Plan, pattern: str, where: str) -> list[Path]:
    """Return the files that *pattern*, a path or a glob, names. Raises `ConfigError` where there is none."""
    many = any(sign in pattern for sign in _MANY)
    try:
        found = sorted(path for path in plan.folder.glob(pattern) if path.is_file()) if many else []
    except (ValueError, NotImplementedError) as error:
        raise plan.refused(where, f"{pattern!r} is no path below {plan.folder}: {error}") from error
    if not many and (plan.folder / pattern).is_file():
        found = [plan.folder / pattern]
    if not found:
        raise plan.refused(where, f"there is no file {pattern!r}")
    return found


def read_text(path: Path) -> str:
    """Return what is in *path*. Raises `InputError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8") from error


def fits(pattern: str) -> Callable[[str], bool]:
    """Return whether a name is *pattern*, in which * stands for anything."""
    return lambda name: name == pattern or fnmatchcase(name, pattern)


def _known(plan: Plan, found: Mapping[str, Surface]) -> None:
    """Raise `ConfigError` where a budget, or an exception from a rule, is for what is not there."""
    wanted = [(f"budgets[{at}]", one.surface, one.block) for at, one in enumerate(plan.file.budgets)]
    wanted += [(f"ignore[{at}]", one.surface, None) for at, one in enumerate(plan.file.ignore)
               if one.rule not in ("replay", "live")]  # fmt: skip
    for field, name, block in wanted:
        meant = [surface for called, surface in found.items() if fits(name)(called)]
        if not meant:
            known = ", ".join(sorted(found)[:8]) + (", ..." if len(found) > 8 else "")
            raise plan.refused(f"{field}.surface", f"there is no surface {name!r}; there are: {known}")
        if block is not None and not any(fits(block)(part.name) for surface in meant for part in surface.blocks):
            names = ", ".join(part.name for part in meant[0].blocks)
            raise plan.refused(f"{field}.block", f"there is no block {block!r}; {meant[0].name} has: {names}")


def _tools(plan: Plan, group: Group, path: Path) -> Surface:
    source = read_text(path)
    try:
        data = orjson.loads(source)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("tools"), list):
        data = data["tools"]
    tools = data if isinstance(data, list) else [data]
    blocks: list[Block] = []
    for at, tool in enumerate(tools):
        name = tool_name(tool)
        if name is None:
            raise InputError(f"{path}: [{at}]: expected a tool, an object with a name")
        try:
            text = orjson.dumps(tool).decode()
        except orjson.JSONEncodeError as error:  # reading allows for deeper nesting than writing
            raise InputError(f"{path}: [{at}]: cannot be sent: {error}") from error
        blocks.append(Block(_free(name, blocks), text, _line_of(source, f'"{name}"'), source="", holes=()))
    if not blocks:
        raise InputError(f"{path}: there is no tool in it")
    name = plan.relative(path)
    return Surface(name, "tools", name, 1, tuple(blocks), group, tuple(tools))


def tool_name(tool: Any) -> str | None:
    """Return the name of *tool*, whichever provider it is written for; None where it has none."""
    inside = function_of(tool)
    name = inside.get("name")
    return name if isinstance(name, str) and name else None


def function_of(tool: Any) -> Mapping[str, Any]:
    """Return what *tool* says of itself: name, description, and its schema."""
    if not isinstance(tool, Mapping):
        return {}
    inside = tool.get("function")
    return inside if isinstance(inside, Mapping) else tool


def _few_shots(plan: Plan, group: Group, path: Path) -> Surface:
    from negawatt.lines import read_lines

    blocks = []
    for place, raw in read_lines(path):
        try:
            text = "\n".join(_texts(place.parse(raw)))
        except RecursionError as error:
            raise place.error("too many objects inside of one another") from error
        blocks.append(Block(f"line {place.line}", text, place.line, text))
    if not blocks:
        raise InputError(f"{path}: there is no example in it")
    name = plan.relative(path)
    return Surface(name, "few-shots", name, 1, tuple(blocks), group)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in *value* that is not a key, nor a role."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            if key not in ("role", "type", "id"):
                yield from _texts(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _texts(inside)


def _free(name: str, blocks: list[Block]) -> str:
    """Return *name*, with a number behind it where a block has it already."""
    taken = {block.name for block in blocks}
    names = (name if at == 1 else f"{name} #{at}" for at in range(1, len(blocks) + 2))
    return next(one for one in names if one not in taken)


def _line_of(source: str, words: str) -> int:
    at = source.find(words)
    return 1 if at < 0 else source.count("\n", 0, at) + 1
