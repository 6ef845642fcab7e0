"""Reading a folder of templates: `*.md` and `*.toml`. What is wrong is named with file and line.

    +++
    description = "Answers of the support desk"
    [variables]
    question = { type = "str", max_chars = 2000 }
    tier = { one_of = ["basic", "gold"], default = "basic" }
    +++
    ::: base role
    You answer questions about orders.

    ::: base refunds when tier == "gold"
    Refunds are given at once.

    ::: include shared/tone

    ::: task answer
    {{ question }}

A block lasts until the next line that begins with ``:::``. A file without any is one base block. ``\\{{`` is ``{{``.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from negawatt.config_types import Section
from negawatt.errors import ConfigError, InvalidRequest
from negawatt.prompts.conditions import BadCondition, Condition
from negawatt.prompts.template import PARTS, BlockSource, Insertion, Part, Prompts, Rendered, Template
from negawatt.prompts.variables import NAME, Variable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_OPENING = re.compile(r":::[ \t]*(?P<head>[^\n]*)")
_INSERTION = re.compile(r"(?P<escaped>\\\{\{)|\{\{(?P<name>[^{}\n]*)\}\}|(?P<bad>\{\{)")
_MOST_BYTES = 4 * 1024 * 1024  # of one file
_MOST_FILES = 5_000
_DEEPEST = 20  # templates inside of one another


class _Block(Section, frozen=True):
    """A block in a TOML file: of its own, or all those of another template."""

    name: str | None = None
    part: Part | None = None
    text: str | None = None
    include: str | None = None
    when: str | None = None


class _Head(Section, frozen=True):
    description: str | None = None
    variables: Mapping[str, Variable] = {}
    blocks: tuple[_Block, ...] = ()


class _Include(msgspec.Struct, frozen=True):
    name: str
    line: int
    when: Condition | None


class _Source(msgspec.Struct, frozen=True):
    """A file as it stands, before what it includes is put in."""

    name: str
    path: str
    digest: str
    head: _Head
    blocks: tuple[BlockSource | _Include, ...]


def load_prompts(folder: Path | str) -> Prompts:
    """Return the templates in *folder* and the folders in it, named by their path without the ending.

    Raises `ConfigError`: ``file:line: what is wrong``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"{root}: there is no such folder of prompt templates")
    files = sorted(path for path in root.rglob("*") if path.suffix in (".md", ".toml") and path.is_file())
    if len(files) > _MOST_FILES:
        raise ConfigError(f"{root}: {len(files)} files; at most {_MOST_FILES} templates are read")
    sources: dict[str, _Source] = {}
    for path in files:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name.rpartition("/")[2].upper() == "README" or any(part.startswith(".") for part in name.split("/")):
            continue
        if not _NAME.fullmatch(name):
            _refuse(str(path), 1, f"{name!r} is no name for a template: letters, digits, '_', '.', '-' and folders")
        if name in sources:
            raise ConfigError(f"{path}: {sources[name].path} has the same name, {name!r}")
        sources[name] = _read(path, name)
    whole: dict[str, Template] = {}
    for name in sources:
        _put_together(name, sources, whole, ())
    return Prompts(whole)


def render(
    name: str, variables: Mapping[str, Any] | None = None, *, folder: Path | str = "prompts", version: str | None = None
) -> Rendered:
    """Return the template *name* of *folder* with *variables* in it; the folder is read anew at each call.

    Raises `ConfigError` for a folder that cannot be read, `InvalidRequest` for a name or a variable.
    """
    return load_prompts(folder).render(name, variables, version)


# -- one file --------------------------------------------------------------------------------------------------


def _read(path: Path, name: str) -> _Source:
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes; a template has at most {_MOST_BYTES}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    if path.suffix == ".toml":
        head = _head(str(path), text, 1)
        return _Source(name, str(path), digest, head, _of_table(str(path), text, head))
    matter, body, line = _apart(str(path), text)
    head = _head(str(path), matter, 2)
    if head.blocks:
        _refuse(str(path), 1, "blocks: in a .md file they stand below the front matter, each under a line ':::'")
    return _Source(name, str(path), digest, head, _of_text(str(path), body, line, head))


def _apart(path: str, text: str) -> tuple[str, str, int]:
    """Return front matter, body, and the line on which the body begins."""
    if not text.startswith("+++\n"):
        return "", text, 1
    end = re.compile(r"^\+\+\+[ \t]*$", re.M).search(text, 4)
    if end is None:
        _refuse(path, 1, "the front matter has no end: a second line '+++'")
    return text[4 : end.start()], text[end.end() :].removeprefix("\n"), text.count("\n", 0, end.end()) + 2


def _head(path: str, text: str, first: int) -> _Head:
    try:
        head = msgspec.convert(tomllib.loads(text), _Head)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        _refuse(path, first - 1 + int(found[1]) if found else first, f"not valid TOML: {error}", error)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.rstrip("`").removeprefix(".")
        _refuse(path, first, f"{place or 'top level'}: {what.replace('`', '')}", error)
    for name, variable in head.variables.items():
        line = first + _line_of(text, name)
        if not NAME.fullmatch(name) or name in ("not", "and", "or", "in", "true", "false", "item"):
            _refuse(path, line, f"variables.{name}: not a name for a variable")
        if variable.one_of and variable.type != "str":
            _refuse(path, line, f"variables.{name}.one_of: only of type str")
        if variable.default is not msgspec.UNSET:
            try:
                variable.checked(variable.default, f"variables.{name}.default")
            except InvalidRequest as error:
                _refuse(path, line, error.message, error)
    return head


def _line_of(text: str, name: str) -> int:
    """Return how many lines of *text* stand before the one that declares *name*; 0 where it is not found."""
    found = re.search(rf"^\s*(?:\[variables\.)?[\"']?{re.escape(name)}\b", text, re.M)
    return 0 if found is None else text.count("\n", 0, found.end())


def _of_table(path: str, whole: str, head: _Head) -> tuple[BlockSource | _Include, ...]:
    lines = [at for at, text in enumerate(whole.splitlines(), 1)
             if re.match(r"\s*\[\[\s*blocks\s*\]\]", text)]  # fmt: skip
    found: list[BlockSource | _Include] = []
    for place, block in enumerate(head.blocks):
        line = lines[place] if place < len(lines) else 1
        where = f"blocks[{place}]"
        when = None if block.when is None else _condition(path, line, block.when, head)
        if block.include is not None:
            if block.name is not None or block.part is not None or block.text is not None:
                _refuse(path, line, f"{where}: expected include, or name, part and text")
            found.append(_Include(block.include, line, when))
            continue
        if block.name is None or block.part is None or block.text is None:
            _refuse(path, line, f"{where}: expected name, part and text, or include")
        found.append(_block(path, line, (block.name, block.part, when), block.text, head))
    return _distinct(path, found)


def _of_text(path: str, body: str, first: int, head: _Head) -> tuple[BlockSource | _Include, ...]:
    """Return the blocks of a Markdown file."""
    found: list[BlockSource | _Include] = []
    opening: tuple[str, int] | None = None
    said: list[str] = []

    def close() -> None:
        if opening is not None:
            found.append(_opened(path, opening, "\n".join(said), head))
        elif "".join(said).strip():
            _refuse(path, first, "text outside of any block: begin one with a line such as '::: base role'")
        said.clear()

    lines = body.split("\n")
    if not any(_OPENING.match(line) for line in lines):
        return (_block(path, first, ("base", "base", None), body, head),)
    for at, line in enumerate(lines, first):
        match = _OPENING.match(line)
        if match is None:
            said.append(line)
            continue
        close()
        opening = (match["head"].strip(), at) if match["head"].strip() else None
        first = at + 1
    close()
    return _distinct(path, found)


def _opened(path: str, opening: tuple[str, int], text: str, head: _Head) -> BlockSource | _Include:
    """Return the block that a line such as ``::: base role when tier`` opens."""
    said, line = opening
    words, asked, rest = said.partition(" when ")
    when = _condition(path, line, rest, head) if asked else None
    names = words.split()
    if len(names) != 2 or names[0] not in (*PARTS, "include"):
        _refuse(path, line, f"expected '::: PART NAME' with PART one of {', '.join(PARTS)}, or '::: include TEMPLATE'")
    if names[0] == "include":
        if text.strip():
            _refuse(path, line + 1, "text under '::: include': begin a block of its own for it")
        return _Include(names[1], line, when)
    return _block(path, line, (names[1], names[0], when), text, head, below=1)


def _block(
    path: str, line: int, head: tuple[str, Any, Condition | None], text: str, declared: _Head, below: int = 0
) -> BlockSource:
    name, part, when = head
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        _refuse(path, line, f"{name!r} is no name for a block: letters, digits, '_' and '-'")
    pieces: list[str | Insertion] = []
    at = 0
    for match in _INSERTION.finditer(text):
        here = line + below + text.count("\n", 0, match.start())
        pieces.append(text[at : match.start()])
        at = match.end()
        if match["escaped"]:
            pieces.append("{{")
            continue
        wanted = (match["name"] or "").strip()
        if match["bad"] or not NAME.fullmatch(wanted):
            _refuse(path, here, r"expected {{ name of a variable }}; write \{{ for two braces")
        if wanted not in declared.variables:
            _refuse(path, here, f"variable {wanted!r} is not declared; known: {_listed(declared)}")
        pieces.append(Insertion(wanted, _alone(text, match)))
    pieces.append(text[at:])
    kept = tuple(piece for piece in pieces if piece)
    return BlockSource(name=name, part=part, pieces=kept, path=path, line=line, when=() if when is None else (when,))


def _alone(text: str, match: re.Match[str]) -> bool:
    begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    return not text[begin : match.start()].strip() and not text[match.end() : len(text) if end < 0 else end].strip()


def _condition(path: str, line: int, text: str, head: _Head) -> Condition:
    try:
        found = Condition(text)
    except BadCondition as error:
        _refuse(path, line, f"when: {error}", error)
    for name in sorted(found.names):
        if name not in head.variables:
            _refuse(path, line, f"when: variable {name!r} is not declared; known: {_listed(head)}")
    return found


def _listed(head: _Head) -> str:
    return ", ".join(sorted(head.variables)) or "none"


def _distinct(path: str, blocks: list[BlockSource | _Include]) -> tuple[BlockSource | _Include, ...]:
    seen: dict[str, int] = {}
    for block in blocks:
        if isinstance(block, BlockSource):
            if block.name in seen:
                _refuse(path, block.line, f"block {block.name!r} is there already, on line {seen[block.name]}")
            seen[block.name] = block.line
    return tuple(blocks)


# -- includes --------------------------------------------------------------------------------------------------


def _put_together(
    name: str, sources: Mapping[str, _Source], whole: dict[str, Template], above: tuple[str, ...]
) -> Template:
    """Return the template *name* with the blocks of those that it includes. *above*: who is including it."""
    if name in whole:
        return whole[name]
    source = sources[name]
    blocks: list[BlockSource] = []
    variables = dict(source.head.variables)
    digest = hashlib.sha256(source.digest.encode())
    included: list[str] = []
    for one in source.blocks:
        if isinstance(one, BlockSource):
            blocks.append(one)
            continue
        if one.name not in sources:
            _refuse(source.path, one.line, f"there is no template {one.name!r}; known: {', '.join(sorted(sources))}")
        chain = (*above, name, one.name)
        if one.name in chain[:-1]:
            circle = " -> ".join(chain[chain.index(one.name) :])
            _refuse(source.path, one.line, f"the template includes itself: {circle}")
        if len(chain) > _DEEPEST:
            _refuse(source.path, one.line, f"templates inside of templates, more than {_DEEPEST} deep")
        other = _put_together(one.name, sources, whole, (*above, name))
        included.append(one.name)
        digest.update(other.digest.encode())
        for known, variable in other.variables.items():
            if variables.setdefault(known, variable) != variable:
                _refuse(source.path, one.line, f"variable {known!r} is declared otherwise in template {one.name!r}")
        when = () if one.when is None else (one.when,)
        blocks += [
            msgspec.structs.replace(block, name=f"{one.name}.{block.name}", when=(*when, *block.when))
            for block in other.blocks
        ]
    _once(source.path, blocks)
    whole[name] = Template(
        name=name, path=source.path, digest=digest.hexdigest(), blocks=tuple(blocks), variables=variables,
        description=source.head.description, includes=tuple(included),
    )  # fmt: skip
    return whole[name]


def _once(path: str, blocks: list[BlockSource]) -> None:
    names = [block.name for block in blocks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        _refuse(path, 1, f"block {twice!r} comes twice: its template is included twice")


def _refuse(path: str, line: int, what: str, cause: BaseException | None = None) -> NoReturn:
    raise ConfigError(f"{path}:{line}: {what}") from cause
