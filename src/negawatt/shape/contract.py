"""What is asked of a model that is to answer with JSON, and how little of it.

Where a provider takes no schema, `instruction` says it in words. `Compact` gives long keys short names and gives the
long ones back. `fields` finds what code can fill (``"x-negawatt-extract": "email"``), `without` leaves that out of the
schema that the model sees, and `merged` puts both together in the schema's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, product
from string import ascii_lowercase
from typing import Any, NamedTuple

import orjson

from negawatt.schemas import broken

MARK = "x-negawatt-extract"
_SILENT = frozenset({"title", "$schema", "$id", "$comment", "examples", "default", MARK})
_PLAIN = frozenset({
    "type", "enum", "const", "description", "title", "format", "pattern", "minLength", "maxLength", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems", "required",
    "$schema", "$comment", "$ref", "additionalProperties", "nullable", MARK,
})  # fmt: skip
_INSIDE = {"items": "one", "anyOf": "list", "oneOf": "list", "allOf": "list", "prefixItems": "list",
           "$defs": "named", "definitions": "named", "properties": "named"}  # fmt: skip


def instruction(schema: Any) -> str:
    """Return what to say to a model whose provider takes no schema (None: any object)."""
    if schema is None:
        return "Answer with one JSON object and nothing else: no Markdown, no words around it."
    said = orjson.dumps(_silenced(schema)).decode()
    return (
        "Answer with JSON that keeps the schema below, and nothing else: no Markdown, no words around it, no keys that "
        f"it does not have.\n<schema>\n{said}\n</schema>"
    )


def strictly(schema: Any) -> bool:
    """True where a provider can be told to keep *schema* word for word: its objects are closed and require all."""
    return _open_at(schema, "") is None and _requires_all(schema)


class Compact:
    """Short names for the keys of *schema*, and back. Its *schema* has the long name as the title of each.

    *reason*: why there are none: only a schema all of whose objects are closed (``additionalProperties: false``) can
    have them, since a key that it does not name could not be told from a short name. Values, enums too, stay.
    """

    def __init__(self, schema: Any) -> None:
        self.reason = _open_at(schema, "")
        self._long: dict[str, str] = {}
        if self.reason is None:
            self._long = _short_names([name for one in _objects(schema) for name in one])
        self._short = {long: short for short, long in self._long.items()}
        self.schema = self._renamed(schema) if self._long else schema

    def expand(self, answer: Any) -> Any:
        """Return *answer*, which has short keys, with the long ones."""
        return _rekeyed(answer, self._long)

    def shrink(self, value: Any) -> Any:
        """Return *value*, which has long keys, with the short ones: for examples in a prompt."""
        return _rekeyed(value, self._short)

    def _renamed(self, schema: Any) -> Any:
        if not isinstance(schema, Mapping):
            return schema
        found: dict[str, Any] = {}
        for word, inside in schema.items():
            if word == "properties":
                found[word] = {self._short.get(name, name): self._titled(name, one) for name, one in inside.items()}
            elif word == "required":
                found[word] = [self._short.get(name, name) for name in inside]
            else:
                found[word] = _inside(word, inside, self._renamed)
        return found

    def _titled(self, name: str, schema: Any) -> Any:
        renamed = self._renamed(schema)
        return {"title": name, **renamed} if name in self._short and isinstance(renamed, Mapping) else renamed


class Field(NamedTuple):
    """A property that code can fill: where it is, what it is, and its schema."""

    path: tuple[str, ...]
    kind: str
    schema: Any


def fields(schema: Any, above: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """Return the properties of *schema* that are marked, also of objects within it; not of items of lists."""
    found: list[Field] = []
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, one in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(one, Mapping) and isinstance(one.get(MARK), str):
            found.append(Field((*above, name), one[MARK], one))
        else:
            found += fields(one, (*above, name))
    return tuple(found)


class Filled(NamedTuple):
    """*values* by path, and of each field that the model has to fill after all, why."""

    values: dict[tuple[str, ...], Any]
    left: dict[tuple[str, ...], str]


def fill(found: Sequence[Field], text: str, extract: Callable[[str, str], Sequence[Any] | None]) -> Filled:
    """Fill *found* from *text*. ``extract(kind, text)`` returns all values of a kind; None: it cannot be certain.

    A field of one value is filled where there is exactly one, a list where there is any, and both only with what their
    own schema allows.
    """
    values: dict[tuple[str, ...], Any] = {}
    left: dict[tuple[str, ...], str] = {}
    for field in found:
        many = extract(field.kind, text)
        if many is None:
            left[field.path] = f"code is not certain of the {field.kind} in it"
            continue
        whole = field.schema.get("type") == "array"
        if not many or (len(many) > 1 and not whole):
            left[field.path] = f"there are {len(many)} of kind {field.kind} in it"
            continue
        value = list(many) if whole else many[0]
        problem = broken(_silenced(field.schema), value)
        if problem is None:
            values[field.path] = value
        else:
            left[field.path] = problem
    return Filled(values, left)


def without(schema: Any, paths: Sequence[tuple[str, ...]]) -> Any:
    """Return *schema* without the properties at *paths*, and without marks, which providers do not know."""
    if not isinstance(schema, Mapping):
        return schema
    gone = {path[0] for path in paths if len(path) == 1}
    found: dict[str, Any] = {}
    for word, inside in schema.items():
        if word == "properties" and isinstance(inside, Mapping):
            found[word] = {
                name: without(one, [path[1:] for path in paths if path[0] == name and len(path) > 1])
                for name, one in inside.items()
                if name not in gone
            }
        elif word == "required" and isinstance(inside, list):
            found[word] = [name for name in inside if name not in gone]
        elif word != MARK:
            found[word] = _inside(word, inside, lambda one: without(one, ()))
    return found


def merged(answer: Any, values: Mapping[tuple[str, ...], Any], schema: Any) -> Any:
    """Return *answer* with *values* in their places, keys in the order of *schema*; then to be validated as one.

    Where *answer* has no object to put a value into, the value is left out, and the validation says so.
    """
    if not isinstance(answer, Mapping) or not values:
        return answer
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    properties = properties if isinstance(properties, Mapping) else {}
    own = {path[0]: value for path, value in values.items() if len(path) == 1}
    found: dict[str, Any] = {}
    for name in dict.fromkeys([*(n for n in properties if n in answer or n in own), *answer, *own]):
        below = {path[1:]: value for path, value in values.items() if path[0] == name and len(path) > 1}
        found[name] = own[name] if name in own else merged(answer[name], below, properties.get(name))
    return found


def _inside(word: str, inside: Any, each: Callable[[Any], Any]) -> Any:
    """Apply *each* to the schemas under *word*."""
    kind = _INSIDE.get(word)
    if kind == "list" and isinstance(inside, list):
        return [each(one) for one in inside]
    if kind == "named" and isinstance(inside, Mapping):
        return {name: each(one) for name, one in inside.items()}
    return each(inside) if kind == "one" or (word == "additionalProperties" and isinstance(inside, Mapping)) else inside


def _silenced(schema: Any) -> Any:
    """Return *schema* without what says nothing to a model."""
    if not isinstance(schema, Mapping):
        return schema
    return {
        word: _inside(word, inside, _silenced)
        for word, inside in schema.items()
        if word not in _SILENT or word == "title"
    }


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    for word, kind in _INSIDE.items():
        inside = schema.get(word)
        if inside is not None:
            yield from [inside] if kind == "one" else inside.values() if isinstance(inside, Mapping) else inside


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the properties of every object in *schema*."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("properties"), Mapping):
            yield schema["properties"]
        for one in _subschemas(schema):
            yield from _objects(one)


def _requires_all(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return True
    if not set(schema.get("properties") or ()) <= set(schema.get("required") or ()):
        return False
    return all(_requires_all(one) for one in _subschemas(schema)) and all(
        _requires_all(one) for one in (schema.get("properties") or {}).values()
    )


def _open_at(schema: Any, where: str) -> str | None:
    """Return where *schema* allows keys that it does not name, None where it does not."""
    here = where or "the schema"
    if not isinstance(schema, Mapping):
        return f"{here} allows anything"
    unknown = sorted(set(schema) - _PLAIN - set(_INSIDE))
    if unknown:
        return f"{here} has {unknown[0]}"
    for values in (schema.get("enum", ()), [schema.get("const")]):
        if any(isinstance(value, dict | list) for value in values):
            return f"{here} has constants with keys of their own"
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    closed = schema.get("additionalProperties") is False and isinstance(schema.get("properties"), Mapping)
    if ("object" in kinds or "properties" in schema) and not closed:
        return f"{here} allows other keys"
    if "array" in kinds and "items" not in schema:
        return f"{here} allows any items"
    if not kinds & {"object", "array", "string", "number", "integer", "boolean", "null"} and not (
        set(schema) & {"enum", "const", "$ref", "anyOf", "oneOf", "allOf"}
    ):
        return f"{here} allows anything"
    return next((reason for one in _subschemas(schema) if (reason := _open_at(one, here)) is not None), None)


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Return short names by which long ones go; none for names that are as short already."""
    taken = set(names)
    fresh = ("".join(letters) for length in count(1) for letters in product(ascii_lowercase, repeat=length))
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if len(name) > 2:
            short = next(one for one in fresh if one not in taken)
            if len(short) < len(name):
                found[short] = name
    return found


def _rekeyed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {names.get(name, name): _rekeyed(one, names) for name, one in value.items()}
    return [_rekeyed(one, names) for one in value] if isinstance(value, list) else value
