"""Business rules from a table: a request that is one of its phrases gets the answer that stands beside it.

[[rules]]
name = "return-window"
asks = ["Can I return an order after {days:int} days?"]
when = ["days <= 30"]
answer = "Yes: returns are taken for 30 days."
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from negawatt.errors import ConfigError
from negawatt.offloads.asking import plain
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_KINDS = {"int": r"\d{1,15}", "number": r"\d{1,15}(?:\.\d{1,9})?", "word": r"[^\W_]{1,40}"}
_HOLE = re.compile(r"\{(?P<name>[a-z_]\w{0,30}):(?P<kind>[a-z]+)\}")
_WHEN = re.compile(r"(?P<name>[a-z_]\w*) *(?P<sign><=|>=|==|!=|<|>) *(?P<value>.+)")
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*asks*: phrases, with holes such as ``{days:int}`` (int, number, word). *when*: conditions, all of which hold."""

    name: str
    asks: tuple[str, ...]
    answer: str
    when: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: tuple[Rule, ...]


class Rules:
    """Answers what is one of the phrases of exactly one rule whose conditions hold."""

    name = "rules"

    def __init__(self, rules: Sequence[Rule], where: str = "rules") -> None:
        """Raises `ConfigError` that names the rule, for a phrase or a condition that is none."""
        self._rules = [(rule, [_phrase(ask, rule, where) for ask in rule.asks]) for rule in rules]
        for rule in rules:
            _check(rule, where)

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        text = _folded(plain(ask.text))
        found = [
            (rule, match.groupdict())
            for rule, phrases in self._rules
            if (match := next((m for phrase in phrases if (m := phrase.fullmatch(text))), None))
            and all(_holds(condition, match.groupdict()) for condition in rule.when)
        ]
        if len(found) != 1:
            names = ", ".join(rule.name for rule, _ in found)
            return Declined(f"several rules hold: {names}" if found else "no rule holds")
        rule, values = found[0]
        return Answered(_HOLE.sub(lambda hole: values[hole["name"]], rule.answer), rule.name)


def read_rules(path: Path) -> Rules:
    """Return the rules in the TOML file at *path*. Raises `ConfigError`, with the file and what was expected."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Rules(msgspec.convert(data, _File).rules, str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _phrase(ask: str, rule: Rule, where: str) -> re.Pattern[str]:
    """Return *ask* as a pattern over folded text without its end mark."""
    parts, at = [], 0
    text = plain(ask)
    for hole in _HOLE.finditer(text):
        if hole["kind"] not in _KINDS:
            known = ", ".join(_KINDS)
            raise ConfigError(f"{where}: rule {rule.name}: no holes of kind {hole['kind']!r}; known: {known}")
        parts += [_fixed(text[at : hole.start()]), f"(?P<{hole['name']}>{_KINDS[hole['kind']]})"]
        at = hole.end()
    try:
        return re.compile("".join([*parts, _fixed(text[at:])]))
    except re.error as error:
        raise ConfigError(f"{where}: rule {rule.name}: {ask!r} is no phrase: {error}") from error


def _fixed(text: str) -> str:
    return re.sub(r"(?:\\?\s)+", " ", re.escape(text.casefold()))


def _check(rule: Rule, where: str) -> None:
    holes = [{hole["name"] for hole in _HOLE.finditer(ask)} for ask in rule.asks]
    if not rule.asks:
        raise ConfigError(f"{where}: rule {rule.name} has no asks")
    everywhere = set.intersection(*holes)
    used = {hole["name"] for hole in _HOLE.finditer(rule.answer)}
    for condition in rule.when:
        match = _WHEN.fullmatch(condition)
        if match is None:
            raise ConfigError(f"{where}: rule {rule.name}: {condition!r} is no condition such as days <= 30")
        used.add(match["name"])
    if used - everywhere:
        raise ConfigError(f"{where}: rule {rule.name}: {sorted(used - everywhere)[0]} is not a hole of all of its asks")


def _holds(condition: str, values: Mapping[str, str]) -> bool:
    match = _WHEN.fullmatch(condition)
    if match is None:
        return False
    value, wanted = values[match["name"]], match["value"].strip().strip("'\"").casefold()
    if re.fullmatch(_KINDS["number"], value) and re.fullmatch(_KINDS["number"], wanted):
        return _SIGNS[match["sign"]](Decimal(value), Decimal(wanted))
    return match["sign"] in ("==", "!=") and _SIGNS[match["sign"]](value, wanted)
