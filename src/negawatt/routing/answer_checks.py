"""What can be seen of a worked answer without asking anybody: checks that need no model.

The arithmetic written in it is done again, its numbers are looked up in the question, and its form is looked at. None
of it is a verdict: `answer_checks` returns named numbers, which a `negawatt.routing.gain.GainModel` may weigh as its
*extra* columns, and so scores the answer of the small model in a cascade.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext

from negawatt.verify.agreement import worked_answer

NAMES = (
    "length", "lines", "numbers", "equations", "wrong_equations", "any_wrong_equation", "broken_results", "has_final",
    "final_size", "final_whole", "final_negative", "final_in_question", "final_computed", "final_last",
    "numbers_unused", "numbers_invented", "hedges", "repeated_lines", "unfinished", "steps_for_numbers",
)  # fmt: skip

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_DIGITS = r"(?:\d[\d,]{0,15}+(?:\.\d{1,12}+)?|\.\d{1,12}+)"
_ATOM = rf"\({{0,4}}-?\({{0,4}}{_DIGITS}%?\){{0,4}}"
_EQUATION = re.compile(rf"(?<![\d.,(])({_ATOM}(?:[-+*/x×÷]{_ATOM}){{1,12}})=(-?)({_DIGITS})(%?)")
_BETWEEN_NUMBERS = re.compile(r",\s|(?<=[\d)])[ \t]++(?=[\d(])")
_FILLING = {ord(letter): None for letter in " \t$\\"}
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|[-+*/()%]")
_HEDGE = re.compile(
    r"\b(?:however|assum\w*|approximately|about|roughly|cannot|can't|unclear|unknown|not possible|impossible|seems|"
    r"might|perhaps|probably|sorry|actually|wait|mistake|but)\b",
    re.IGNORECASE,
)
_LOOKED_AT = 8000  # characters of an answer and of a question
_CLOSE = Decimal("0.011")  # of a result: answers round to cents
_SMALLEST = Decimal("1e-9")


def answer_checks(question: str, answer: str) -> list[float]:
    """Return one number for each of `NAMES`, whatever the texts hold. Linear in their length."""
    question, answer = question[:_LOOKED_AT], answer[:_LOOKED_AT]
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    asked = {_plain(n) for n in _NUMBER.findall(question)}
    said = [_plain(n) for n in _NUMBER.findall(answer)]
    checked = equations(answer)
    results = {_plain(stated) for _, stated, _ in checked}
    wrong = sum(right is False for _, _, right in checked)
    final = worked_answer(answer)
    plain = None if final is None else _plain(final.lstrip("-"))
    tail = answer.rstrip()
    broken = sum("." in result for result in results)
    ends = bool(tail) and (tail[-1].isdigit() or tail[-1] in ".!>)}$%*")
    return [
        math.log1p(len(answer)), math.log1p(len(lines)), math.log1p(len(said)), math.log1p(len(checked)),
        math.log1p(wrong), float(wrong > 0), math.log1p(broken), float(final is not None),
        0.0 if plain is None else math.log1p(min(float(plain), 1e12)), float(plain is not None and "." not in plain),
        float(final is not None and final.startswith("-")), float(plain in asked), float(plain in results),
        float(bool(said) and said[-1] == plain), _share(len(asked - set(said)), len(asked)),
        _share(len(set(said) - asked - results), len(set(said))), math.log1p(len(_HEDGE.findall(answer))),
        math.log1p(len(lines) - len(set(lines))), float(bool(tail) and not ends),
        len(checked) / (1 + len(asked)),
    ]  # fmt: skip


def equations(text: str) -> list[tuple[str, str, bool | None]]:
    """Return the equations written in *text*: (left side, stated result, whether it is right; None: undefined)."""
    found = []
    # Without spaces, currency and escapes; two numbers side by side, or in a list, stay two.
    for match in _EQUATION.finditer(_BETWEEN_NUMBERS.sub("\n", text[:_LOOKED_AT]).translate(_FILLING)):
        left, sign, stated, percent = match.groups()
        value = _value(left)
        result = Decimal(stated.replace(",", "")) * (-1 if sign else 1)
        if value is None:
            right = None
        else:
            near = [result, result / 100] if percent else [result]
            right = any(abs(value - one) <= max(_CLOSE, abs(one) * Decimal("0.005")) for one in near)
        found.append((left, stated, right))
    return found


def _value(left: str) -> Decimal | None:
    """Return the value of an expression of numbers, + - * / and brackets; None where it has none."""
    tokens = _TOKEN.findall(left.translate({ord("x"): "*", ord("×"): "*", ord("÷"): "/", ord(","): None}))
    tokens = tokens[:60]
    # Brackets that the pattern has cut in half are left out: the value is then that of the flat expression.
    if tokens.count("(") != tokens.count(")"):
        tokens = [token for token in tokens if token not in "()"]
    try:
        with localcontext() as context:
            context.prec = 28
            value, rest = _sum(tokens)
    except (InvalidOperation, DivisionByZero, IndexError, RecursionError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Decimal, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        sign, (other, tokens) = tokens[0], _product(tokens[1:])
        value = value + other if sign == "+" else value - other
    return value, tokens


def _product(tokens: list[str]) -> tuple[Decimal, list[str]]:
    value, tokens = _factor(tokens)
    while tokens and tokens[0] in "*/":
        sign, (other, tokens) = tokens[0], _factor(tokens[1:])
        value = value * other if sign == "*" else value / other
    return value, tokens


def _factor(tokens: list[str]) -> tuple[Decimal, list[str]]:
    first, tokens = tokens[0], tokens[1:]
    if first == "-":
        value, tokens = _factor(tokens)
        return -value, tokens
    if first == "(":
        value, tokens = _sum(tokens)
        if tokens[0] != ")":
            raise IndexError
        tokens = tokens[1:]
    else:
        value = Decimal(first)
    if tokens and tokens[0] == "%":
        return value / 100, tokens[1:]
    return value, tokens


def _plain(number: str) -> str:
    """Return *number* without commas and trailing zeros, so that equal ones are equal strings."""
    number = number.replace(",", "")
    return (number.rstrip("0").rstrip(".") if "." in number else number).lstrip("0") or "0"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
