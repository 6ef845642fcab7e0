"""Tool schemas: what is wrong in them, and what in them tells a model nothing but is paid for with every call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from negawatt.checks.findings import Finding, found
from negawatt.checks.measure import Measured
from negawatt.checks.surfaces import Surface, function_of, tool_name
from negawatt.schemas import no_schema

_WORD = re.compile(r"[a-z0-9]+")
_NOISE = frozenset(
    {"the", "a", "an", "of", "to", "this", "parameter", "argument", "field", "value", "tool", "function"}
)
_KEYS = ("parameters", "input_schema", "inputSchema")


def lint_tools(measured: Measured) -> Iterator[Finding]:
    """Yield what is wrong with the tools of each surface."""
    described: dict[str, tuple[Surface, str]] = {}
    for surface in measured.surfaces:
        seen: set[str] = set()
        for block, tool in zip(surface.blocks, surface.tools, strict=False):
            name = tool_name(tool) or ""
            for what, remedy, error in _problems(tool, name):
                yield found("tool-schema", "error" if error else "warning", surface, surface.at(block), what, remedy)
            if name in seen:
                what = f"the tool {name!r} is defined twice"
                yield found("tool-schema", "error", surface, surface.at(block), what, "keep one of them")
            seen.add(name)
            description = " ".join(_WORD.findall(str(function_of(tool).get("description", "")).lower()))
            if description in described and described[description][1] != name:
                other, called = described[description]
                what = f"the tool {name!r} has the same description as {called!r} ({other.path}): no model can choose"
                yield found("tool-schema", "warning", surface, surface.at(block), what, "say how they differ")
            elif description:
                described[description] = (surface, name)


def _problems(tool: Mapping[str, Any], name: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (what, remedy, whether it is an error) of one tool."""
    inside = function_of(tool)
    if not inside.get("description"):
        yield f"the tool {name!r} has no description", "say in a sentence when to call it", False
    elif _empty(str(inside["description"]), name):
        yield f"the description of the tool {name!r} only repeats its name", "say when to call it", False
    schema = next((inside[key] for key in _KEYS if key in inside), None)
    if schema is None:
        return
    if no_schema(schema) is not None:
        yield f"the schema of the tool {name!r} is not a valid JSON Schema", "mend it; providers refuse it", True
        return
    text = repr(schema)
    for key in ("$defs", "definitions"):
        definitions = schema.get(key) if isinstance(schema, Mapping) else None
        for definition in definitions if isinstance(definitions, Mapping) else ():
            if f"#/{key}/{definition}" not in text:
                yield f"{name}: nothing refers to {key}/{definition}", "leave it out: it is sent with every call", False
    yield from _inside(schema, name)


def _inside(schema: Any, where: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the problems of *schema*, which stands at *where*, and of the schemas in it."""
    if isinstance(schema, list):
        for one in schema:
            yield from _inside(one, where)
    if not isinstance(schema, Mapping):
        return
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        required = schema.get("required")
        names = [one for one in required if isinstance(one, str)] if isinstance(required, list) else []
        for missing in [one for one in names if one not in properties]:
            yield (
                f"{where}: {missing!r} is required, and not among its properties",
                "add it, or do not require it",
                True,
            )
        said: dict[str, str] = {}
        for name, one in properties.items():
            description = one.get("description") if isinstance(one, Mapping) else None
            if not isinstance(description, str):
                continue
            if _empty(description, name):
                yield f"{where}.{name}: its description only repeats its name", "leave it out, or say more", False
            elif said.get(description) is not None:
                what = f"{where}.{name}: its description is that of {said[description]!r}"
                yield what, "say it once, or say how they differ", False
            said.setdefault(description, name)
    for word, one in schema.items():
        if word == "properties" and isinstance(one, Mapping):
            for name, value in one.items():
                yield from _inside(value, f"{where}.{name}")
        elif word in ("items", "anyOf", "oneOf", "allOf", "additionalProperties", "prefixItems"):
            yield from _inside(one, where)
        elif word in ("$defs", "definitions") and isinstance(one, Mapping):
            for name, value in one.items():
                yield from _inside(value, f"{where}.{word}.{name}")


def _empty(description: str, name: str) -> bool:
    """True when *description* has no word that *name* has not."""
    spoken = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return not set(_WORD.findall(description.lower())) - set(_WORD.findall(spoken.lower())) - _NOISE
