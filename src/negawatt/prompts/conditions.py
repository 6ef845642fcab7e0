"""The language of `when`: names, literals, ``not``, ``and``, ``or``, ``==``, ``!=``, ``in`` and parentheses.

It is read by the few rules below and by nothing else: nothing in a template is ever run as code.

    tier == "gold" and not (language in ["de", "fr"])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]
_Term = Callable[[Values], Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"\\\n]*"|'[^'\\\n]*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<mark>==|!=|[()\[\],]))"""
)
_WORDS = frozenset({"not", "and", "or", "in", "true", "false"})
_DEEPEST = 20  # parentheses and `not` inside of one another
_LONGEST = 1_000  # characters


class BadCondition(ValueError):
    """What is wrong with a condition, in words."""


class Condition:
    """One condition. *names*: the variables that it looks at. Raises `BadCondition` for one that cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._names: set[str] = set()
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._holds = self._either()
        if self._at < len(self._tokens):
            raise BadCondition(f"{self._tokens[self._at][1]!r} is not expected here, in {text!r}")

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def holds(self, values: Values) -> bool:
        """Return whether the condition is true of *values*. What is None, empty or 0 counts as false."""
        return bool(self._holds(values))

    def _either(self) -> _Term:
        terms = [self._both()]
        while self._took("or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda values: any(term(values) for term in terms)

    def _both(self) -> _Term:
        terms = [self._not()]
        while self._took("and"):
            terms.append(self._not())
        return terms[0] if len(terms) == 1 else lambda values: all(term(values) for term in terms)

    def _not(self) -> _Term:
        if not self._took("not"):
            return self._compared()
        self._deeper()
        term = self._not()
        self._depth -= 1
        return lambda values: not term(values)

    def _compared(self) -> _Term:
        left = self._operand()
        if self._took("=="):
            right = self._operand()
            return lambda values: same(left(values), right(values))
        if self._took("!="):
            right = self._operand()
            return lambda values: not same(left(values), right(values))
        if self._took("in"):
            right = self._operand()
            return lambda values: _within(left(values), right(values))
        return left

    def _operand(self) -> _Term:
        if self._at >= len(self._tokens):
            raise BadCondition(f"something is missing at the end of {self.text!r}")
        kind, word = self._tokens[self._at]
        self._at += 1
        if kind == "name" and word not in _WORDS:
            self._names.add(word)
            return lambda values: values.get(word)
        if word == "(":
            self._deeper()
            inner = self._either()
            self._depth -= 1
            self._need(")")
            return inner
        if word == "[":
            return self._list()
        self._at -= 1
        found = self._literal()
        return lambda values: found

    def _list(self) -> _Term:
        found: list[Any] = []
        while not self._took("]"):
            if found:
                self._need(",")
            found.append(self._literal())
        return lambda values: found

    def _literal(self) -> Any:
        if self._at >= len(self._tokens):
            raise BadCondition(f"something is missing at the end of {self.text!r}")
        kind, word = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return word[1:-1]
        if kind == "number":
            return float(word) if "." in word else int(word)
        if word in ("true", "false"):
            return word == "true"
        raise BadCondition(f"expected a name or a value before {word!r}, in {self.text!r}")

    def _took(self, word: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][1] == word:
            self._at += 1
            return True
        return False

    def _need(self, word: str) -> None:
        if not self._took(word):
            raise BadCondition(f"expected {word!r} in {self.text!r}")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BadCondition(f"nested more than {_DEEPEST} deep")


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > _LONGEST:
        raise BadCondition(f"longer than {_LONGEST} characters")
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadCondition(f"{text[at:].strip()[:20]!r} is not part of the language of conditions")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    if not found:
        raise BadCondition("a condition is empty")
    return found


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal, of the same kind: 1 is 1.0, and not true. Dates are as they are written."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(_plain(left) == _plain(right))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _within(item: Any, group: Any) -> bool:
    if isinstance(group, str):
        return isinstance(item, str) and item in group
    if isinstance(group, Mapping):
        return isinstance(item, str) and item in group
    return isinstance(group, list | tuple) and any(same(item, one) for one in group)
