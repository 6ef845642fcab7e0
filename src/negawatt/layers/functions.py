"""What a call of a function is asked of a layer as: its arguments as canonical JSON, its scope and its tags."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import orjson

from negawatt.caller import Scope
from negawatt.keys import digests_of, divided
from negawatt.layers.values import Asked
from negawatt.recall.policy import checked_tags

_BASES: tuple[type[Any], ...] = (str, int, float, dict, list, tuple)
Value = Any  # text or a number, or a function that takes any of the cached function's parameters by name


class Options(TypedDict, total=False):
    """What may be said of a cached function. Of a `Value` that is a function, the result counts, call by call."""

    key: Callable[..., Any]  # what of the arguments counts; default: all of them
    ignore: Iterable[str]  # names of parameters that do not count
    version: str | int  # of the function itself: another one leaves the old entries behind
    ttl: float  # seconds; shorter than the layer's
    tags: Mapping[str, Value]
    tenant: Value
    user: Value
    permissions: Value  # names, or text with commas
    corpus_version: Value
    prompt_version: Value
    tool_digests: Value  # as permissions


class Function:
    """One function, as its layer sees it. Raises `TypeError` for one that cannot be cached."""

    def __init__(self, function: Callable[..., Any], layer: str, options: Options) -> None:
        if not inspect.isfunction(function):
            raise TypeError(f"{function!r} is not a plain function; put @cached nearest to it, below @classmethod")
        self.name = f"{_module(function)}.{function.__qualname__}"
        if function.__name__ == "<lambda>":
            raise TypeError(f"{self.name}: a lambda has no name of its own; use def")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{self.name}: a generator gives its values once; return a list of them")
        for name in options:
            if name not in Options.__annotations__:
                raise TypeError(
                    f"{self.name}: there is no option {name!r}; known: {', '.join(Options.__annotations__)}"
                )
        self.layer = layer
        self.own_tag = f"function={self.name}"
        self._signature = inspect.signature(function)
        self._key = self._resolver("key", options["key"]) if "key" in options else None
        self._ignored = frozenset(options.get("ignore", ()))
        self._version = options.get("version", "")
        self._ttl_s = self._seconds(options.get("ttl"))
        scope = ("tenant", "user", "permissions", "corpus_version", "prompt_version", "tool_digests")
        self._scope = {name: self._resolver(name, options.get(name)) for name in scope}
        self._tags = {name: self._resolver(f"tags[{name!r}]", value) for name, value in options.get("tags", {}).items()}
        self._check_parameters()

    def asked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Asked:
        """Return what a call with these arguments asks for. Raises `TypeError`, which names the argument."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        return Asked(
            layer=self.layer, scope=self._scope_of(arguments), material=self._material(arguments),
            tags=(self.own_tag, *self._tags_of(arguments)), ttl_s=self._ttl_s,
        )  # fmt: skip

    def returns(self, function: Callable[..., Any]) -> Any:
        """Return the type that *function* says it returns; `Any` where it does not, or where that leads nowhere."""
        try:
            return typing.get_type_hints(function).get("return", Any)
        except (NameError, TypeError, AttributeError):  # only type checkers can see it
            return Any

    # -- at the beginning --------------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        names = list(self._signature.parameters)
        for name in self._ignored:
            if name not in names:
                raise TypeError(f"{self.name}: ignore: there is no parameter {name!r}")
        if names and names[0] in ("self", "cls") and names[0] not in self._ignored and self._key is None:
            raise TypeError(
                f"{self.name}: what of {names[0]!r} counts? Say it with key=lambda {', '.join(names)}: ..., or "
                f"ignore=({names[0]!r},) where all objects would return the same"
            )

    def _resolver(self, option: str, value: Any) -> Callable[[Mapping[str, Any]], Any]:
        """Return what gives the value of *option* for some arguments."""
        if not callable(value):
            return lambda _: value
        try:
            names = list(inspect.signature(value).parameters)
        except ValueError:
            raise TypeError(f"{self.name}: {option}: {value!r} does not say what it takes") from None
        for name in names:
            if name not in self._signature.parameters:
                raise TypeError(f"{self.name}: {option}: takes {name!r}, which is no parameter of the function")
        return lambda arguments: value(**{name: arguments[name] for name in names})

    def _seconds(self, ttl: float | None) -> float | None:
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not ttl > 0):
            raise TypeError(f"{self.name}: ttl: expected seconds above 0, got {ttl!r}")
        return None if ttl is None else float(ttl)

    # -- call by call ------------------------------------------------------------------------------------------

    def _material(self, arguments: Mapping[str, Any]) -> bytes:
        if self._key is not None:
            counts: dict[str, Any] = {"key": self._part("key", self._key(arguments))}
        else:
            named = {name: self._part(name, one) for name, one in arguments.items() if name not in self._ignored}
            counts = {"arguments": named}
        material = {"function": self.name, "version": self._version, **counts}
        return orjson.dumps(material, option=orjson.OPT_SORT_KEYS)

    def _part(self, name: str, value: Any) -> orjson.Fragment:
        """Return *value* as JSON that stands for it alone."""
        try:
            return orjson.Fragment(orjson.dumps(canonical(value), option=orjson.OPT_SORT_KEYS))
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"{self.name}: {name!r} cannot be written as JSON, as a part of the key: {error}; say what of it "
                f"counts with key=, or leave it out with ignore=({name!r},)"
            ) from error

    def _scope_of(self, arguments: Mapping[str, Any]) -> Scope:
        given = {name: resolve(arguments) for name, resolve in self._scope.items()}
        permissions, digests = given["permissions"], given["tool_digests"]
        return Scope(
            tenant=self._text("tenant", given["tenant"]) or "default",
            permissions="" if permissions is None else divided("", self._names("permissions", permissions)),
            user=self._text("user", given["user"]),
            corpus_version=self._text("corpus_version", given["corpus_version"]),
            prompt_version=self._text("prompt_version", given["prompt_version"]),
            tool_digests=None if digests is None else digests_of(self._names("tool_digests", digests)),
        )

    def _tags_of(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        tags = []
        for name, resolve in self._tags.items():
            value = resolve(arguments)
            values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
            tags += [f"{name}={text}" for one in values if (text := self._text(f"tags[{name!r}]", one)) is not None]
        return checked_tags(tags, f"{self.name}: tags")

    def _text(self, option: str, value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise TypeError(f"{self.name}: {option}: expected text or a whole number, got {type(value).__name__}")

    def _names(self, option: str, value: Any) -> list[str]:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple, set, frozenset)) or not all(isinstance(one, str) for one in names):
            raise TypeError(f"{self.name}: {option}: expected names, got {type(value).__name__}")
        if any("\0" in one for one in names):
            raise TypeError(f"{self.name}: {option}: a name with a zero in it")
        return list(names)


def canonical(value: Any) -> Any:
    """Return what JSON can say of *value*, so that two values come to the same only where they are the same.

    Lists and tuples are the same. Raises `TypeError` for what has no such form.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):
            raise TypeError(f"{value} is not a number to JSON")
        return value
    if kind in (list, tuple):
        return [canonical(one) for one in value]
    if kind is dict:
        for name in value:
            if type(name) is not str or name.startswith("\0"):
                raise TypeError(f"{name!r} is not a name of a JSON object")
        return {name: canonical(one) for name, one in value.items()}
    return {f"\0{kind.__module__}.{kind.__qualname__}": _inside(value)}


def _inside(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: canonical(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (set, frozenset)):
        return sorted(orjson.dumps(canonical(one), option=orjson.OPT_SORT_KEYS).decode() for one in value)
    for base in () if isinstance(value, enum.Enum) else _BASES:
        if isinstance(value, base):  # a kind of it
            return canonical(base(value))
    return canonical(msgspec.to_builtins(value))


def _module(function: Callable[..., Any]) -> str:
    """Return the module of *function*; of a script its file, since every script calls itself the same."""
    if function.__module__ != "__main__":
        return function.__module__
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return str(spec.name) if spec is not None else str(Path(file).resolve()) if file else "__main__"
