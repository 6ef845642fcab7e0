"""Prompts in Python: constants of modules, and what functions return, read from their source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from negawatt.checks.holes import cut, cut_percent
from negawatt.checks.plan import Group, Plan
from negawatt.checks.surfaces import Block, Hole, Surface, files, read_text
from negawatt.errors import InputError

_STRIPS = frozenset({"strip", "lstrip", "rstrip", "dedent", "cleandoc", "format", "format_map"})
_DEEPEST = 100  # also of the terms of a sum


class _Text(NamedTuple):
    text: str
    holes: tuple[Hole, ...] = ()


def constants(plan: Plan, group: Group, said: str, where: str) -> Iterator[Surface]:
    """Yield the prompts that *said* (``FILE.py:NAME``, ``module:NAME``) names. Raises `ConfigError`, `InputError`."""
    module, _, wanted = said.rpartition(":")
    if not module or not wanted:
        raise plan.refused(where, f"expected FILE.py:NAME or module:NAME, got {said!r}")
    found = 0
    for path in _files(plan, module, where):
        source = read_text(path)
        try:
            reader = _Reader(ast.parse(source), source)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid Python: {error}") from error
        for name, line, blocks in reader.named(wanted):
            found += 1
            shown = plan.relative(path)
            yield Surface(f"{shown}:{name}", "constant", shown, line, tuple(blocks), group)
    if not found:
        raise plan.refused(where, f"there is no prompt {wanted!r} in {module}: no text, list of messages, or function")


def _files(plan: Plan, module: str, where: str) -> list[Path]:
    if module.endswith(".py"):
        return files(plan, module, where)
    inside = Path(*module.split("."))
    tried = [
        root / place for root in (Path("src"), Path()) for place in (inside.with_suffix(".py"), inside / "__init__.py")
    ]
    for path in tried:
        if (plan.folder / path).is_file():
            return [plan.folder / path]
    raise plan.refused(where, f"there is no module {module!r}; looked for {', '.join(map(str, tried))}")


class _Reader:
    """One module's source."""

    def __init__(self, tree: ast.Module, source: str) -> None:
        self._lines = source.splitlines()
        self._values: dict[str, ast.expr] = {}
        self._functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._functions[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self._values[node.target.id] = node.value
            elif isinstance(node, ast.Assign):
                self._values |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}

    def named(self, wanted: str) -> Iterator[tuple[str, int, list[Block]]]:
        """Yield name, line and blocks of every prompt that *wanted* names; what has no text in it is none."""
        for name, value in self._values.items():
            if fnmatchcase(name, wanted):
                blocks = self._blocks(value)
                if blocks:
                    yield name, value.lineno, blocks
        for name, function in self._functions.items():
            if fnmatchcase(name, wanted):
                returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
                returned.sort(key=lambda one: one.lineno)
                parts = [part for value in returned for part in self._blocks(value, "return")]
                blocks = [part._replace(name=f"return {at}") for at, part in enumerate(parts, 1)]
                if blocks:
                    yield name, function.lineno, blocks

    def _blocks(self, value: ast.expr, name: str = "text") -> list[Block]:
        """Return the texts in *value*: itself, or the items of a list, or of an object, messages among them."""
        found: list[Block] = []
        if isinstance(value, ast.List | ast.Tuple):
            for at, item in enumerate(value.elts):
                found += self._blocks(item, f"{name} {at}")
        elif (said := _fields(value)) is not None:
            role = said.pop("role", None)
            speaker = role.value if isinstance(role, ast.Constant) else None
            for key, one in said.items():
                known = speaker if isinstance(speaker, str) and key == "content" else key
                found += self._blocks(one, f"{name} {known}")
        else:
            text = self._text(value, 0)
            if text is not None and text.text.strip():
                whole = text.text.encode("utf-8", "replace").decode()  # half characters cannot be sent
                found.append(Block(name, whole, value.lineno, self._source(value), text.holes))
        return found

    def _source(self, node: ast.expr) -> str:
        return "\n".join(self._lines[node.lineno - 1 : node.end_lineno])

    def _text(self, node: ast.expr, depth: int) -> _Text | None:
        """Return the text that *node* makes, with a hole for whatever is known only at run time; None for no text."""
        if depth > _DEEPEST:
            return None
        if isinstance(node, ast.Constant):
            return self._literal(node) if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return _joined([self._part(one, depth) for one in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._sum(node, depth)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            said = node.left.value if isinstance(node.left, ast.Constant) else None
            return _Text(*cut_percent(said, node.left.lineno)) if isinstance(said, str) else None
        if isinstance(node, ast.Name) and node.id in self._values:
            return self._text(self._values[node.id], depth + 1)
        if isinstance(node, ast.IfExp):
            either = [self._text(one, depth + 1) for one in (node.body, node.orelse)]
            return max(either, key=lambda text: -1 if text is None else len(text.text))
        return self._called(node, depth) if isinstance(node, ast.Call) else None

    def _sum(self, node: ast.BinOp, depth: int) -> _Text | None:
        left, right = self._text(node.left, depth + 1), self._text(node.right, depth + 1)
        if left is None and right is None:
            return None
        return _joined([left or self._hole(node.left), right or self._hole(node.right)])

    def _called(self, node: ast.Call, depth: int) -> _Text | None:
        """Return the text of ``"...".format(...)``, ``dedent("...")`` and ``"...".join([...])``."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        inner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in ("dedent", "cleandoc") and node.args:
            inner = node.args[0]
        if name in _STRIPS and inner is not None:
            return self._text(inner, depth + 1)
        items = node.args[0] if name == "join" and node.args else None
        if not isinstance(items, ast.List | ast.Tuple) or not isinstance(inner, ast.Constant):
            return None
        parts: list[_Text] = []
        for one in items.elts:
            parts += [_Text(str(inner.value)), self._text(one, depth + 1) or self._hole(one)]
        return _joined(parts[1:])

    def _part(self, node: ast.expr, depth: int) -> _Text:
        if isinstance(node, ast.FormattedValue):
            known = self._text(node.value, depth + 1) if isinstance(node.value, ast.Name) else None
            return self._hole(node.value) if known is None else known
        return _Text(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else self._hole(node)

    def _hole(self, node: ast.expr) -> _Text:
        return _Text("", (Hole(0, ast.unparse(node), node.lineno),))

    def _literal(self, node: ast.Constant) -> _Text:
        text, holes = cut(str(node.value))
        return _Text(text, tuple(hole._replace(line=self._line(node, hole.said)) for hole in holes))

    def _line(self, node: ast.Constant, said: str) -> int:
        """Return the line of the hole *said*. A backslash may join lines, so that the text has fewer."""
        lines = enumerate(self._lines[node.lineno - 1 : node.end_lineno], node.lineno)
        return next((at for at, line in lines if f"{{{said}" in line.replace(" ", "")), node.lineno)


def _fields(node: ast.expr) -> dict[str, ast.expr] | None:
    """Return the values of ``{"role": ...}`` or ``dict(role=...)`` by their keys; None for anything else."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: one for key, one in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and node.keywords:
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    return None


def _joined(parts: list[_Text]) -> _Text:
    text, holes = "", []
    for part in parts:
        holes += [hole._replace(at=hole.at + len(text)) for hole in part.holes]
        text += part.text
    return _Text(text, tuple(holes))
