"""Sums: "What is 12 * (3 + 4)?", "15% of 80", "2 to the power of 10".

Exact: fractions throughout, and no answer where the result is no finite decimal number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from negawatt.offloads.asking import plain
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_LEAD = re.compile(
    r"^(?P<lead>what(?:'s| is| does)(?: the (?:value|result) of)?|how much (?:is|are)|calculate|compute|evaluate"
    r"|work out|solve|add up)?\s*:?\s*(?P<sum>.+?)\s*(?:=|equals?(?: to)?|is)?\s*$",
    re.IGNORECASE,
)
_WORDS = {
    r"\bplus\b": "+", r"\bminus\b": "-", r"\b(?:times|multiplied by)\b": "*", r"\bdivided by\b": "/",
    r"\b(?:to the power of|raised to(?: the power of)?)\b": "^", r"\bsquared\b": "^2", r"\bcubed\b": "^3",
    r"\bper ?cent of\b": "% of", r"(?<=\d)\s+x\s+(?=[\d(])": "*", "[×·]": "*", "÷": "/", "[−–]": "-",
}  # fmt: skip
_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)|(% of\b)|(\*\*|[-+*/^()]))", re.ASCII)
_VERBS = ("calculate", "compute", "evaluate", "work out")
_DIGITS, _POWER, _DECIMALS, _TOKENS = 40, 1000, 12, 100


class _NoSum(Exception):
    """The text is no sum, or one that cannot be told; the message says why."""


class Arithmetic:
    """Answers a request that is a sum and nothing else."""

    name = "arithmetic"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        match = _LEAD.match(plain(ask.text))
        if match is None or "\n" in ask.text.strip():
            return Declined("it is no sum")
        text = match["sum"].lower()
        for words, sign in _WORDS.items():
            text = re.sub(words, sign, text)
        try:
            tokens = _tokens(text)
            _check(tokens, text, (match["lead"] or "").lower())
            value = _Parser(tokens).whole()
            return Answered(written(value), value)
        except _NoSum as error:
            return Declined(str(error))


def written(value: Fraction) -> str:
    """Return *value* in digits. Raises where they do not end, or are too many."""
    if value.denominator == 1:
        if len(str(abs(value.numerator))) > _DIGITS:
            raise _NoSum("the result is too long")
        return str(value.numerator)
    shifted = value * 10**_DECIMALS
    if shifted.denominator != 1:
        raise _NoSum("the result is no short decimal number")
    return format((Decimal(shifted.numerator).scaleb(-_DECIMALS)).normalize(), "f")


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or len(found) >= _TOKENS:
            raise _NoSum("it is no sum")
        number = match[1]
        if number is not None and (re.match(r"0\d", number) or len(number) > _DIGITS):
            raise _NoSum("a number in it is no plain one")
        found.append((number or match[2] or match[3]).replace(",", "").replace("**", "^"))
        at = match.end()
    return found


def _check(tokens: list[str], text: str, lead: str) -> None:
    """Refuse what looks like a sum and may be a date, a name, a range or a score: "9/11", "24/7", "3-2"."""
    signs = [token for at, token in enumerate(tokens) if token in "+-*/^" and at and tokens[at - 1] not in "+-*/^("]
    if not signs and "% of" not in tokens:
        raise _NoSum("there is nothing to work out in it")
    loose = re.search(r"\s[-/]\s", text)
    if set(signs) <= {"-", "/"} and "% of" not in tokens and lead not in _VERBS and not (lead and loose):
        raise _NoSum("it may be no sum but a date, a range or a name")


class _Parser:
    """Recursive descent over *tokens*; powers bind from the right."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._at = 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self._next():
            raise _NoSum("it is no sum")
        return value

    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self, *signs: str) -> str | None:
        if self._next() in signs:
            self._at += 1
            return self._tokens[self._at - 1]
        return None

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while sign := self._take("*", "/", "% of"):
            other = self._power()
            if sign == "/" and other == 0:
                raise _NoSum("it divides by zero")
            value = value / other if sign == "/" else value * other / (100 if sign == "% of" else 1)
        return value

    def _power(self) -> Fraction:
        negative = self._take("-") is not None
        value = self._atom()
        if self._take("^"):
            if negative:
                raise _NoSum("whether the minus belongs to the power cannot be told")
            power = self._power()
            if power.denominator != 1 or abs(power) > _POWER or (value == 0 and power < 0):
                raise _NoSum("a power in it is none that is worked out here")
            if max(len(str(value.numerator)), len(str(value.denominator))) * abs(power) > 4 * _POWER:
                raise _NoSum("the result is too long")
            value = value ** int(power)
        return -value if negative else value

    def _atom(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise _NoSum("a bracket is missing in it")
            return value
        token = self._next()
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise _NoSum("it is no sum")
        self._at += 1
        return Fraction(token)
