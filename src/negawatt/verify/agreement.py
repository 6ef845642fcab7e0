"""Do answers of several models say the same? The cheapest sign that an answer can be trusted.

An answer stands for its *final answer*: the first number in it, without commas and without what stands beside it. Give
this the answer field of a structured answer; of prose, the first number is seldom the result: `worked_answer` finds
it there. Agreement is not correctness: models that learned from the same texts are wrong alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARKED = re.compile(r"####|\\boxed\{|\banswers?\b(?:\s+(?:is|are))?", re.IGNORECASE)
_BEHIND = 60  # characters behind a marker
_LONGEST = 400  # digits and commas of a number: what is longer is compared as text
_ROUNDED_APART = 200  # a number and the same rounded differ by at most one part in so many


def final_answer(text: str) -> str | None:
    """Return what *text* says, so that equal strings are equal answers; None where it says nothing.

    The first number where there is one, written in one way: ``"$1,234.50 each"`` and ``"1234.5"`` are ``"1234.5"``.
    Otherwise the text itself, without regard to case, space, quotes and a last full stop.
    """
    found = _NUMBER.search(text)
    if found is not None and len(found.group()) <= _LONGEST:
        return _written(found.group())
    plain = " ".join(text.casefold().split()).strip(" .\"'`")
    return plain or None


def worked_answer(text: str) -> str | None:
    """Return the final answer of a worked *text*: the number behind its last marker, else its last number.

    Markers are ``####``, ``\\boxed{`` and the word "answer". None where *text* has no number.
    """
    for mark in reversed(list(_MARKED.finditer(text))):
        behind = _NUMBER.search(text, mark.end(), mark.end() + _BEHIND)
        if behind is not None:
            return final_answer(behind.group())
    numbers = _NUMBER.findall(text)
    return final_answer(numbers[-1]) if numbers else None


def agree(answers: Sequence[str], *, rounded: bool = True) -> bool:
    """True when there are at least two *answers* and all say the same; one that says nothing never agrees.

    *rounded*: a number agrees with the same one rounded to fewer decimals (7.998 and 8, 66.7 and 66.6667), if that
    changes it by at most half a percent (not 2.5 and 3).
    """
    finals = [final_answer(answer) for answer in answers]
    if len(finals) < 2 or None in finals:
        return False
    known = [final for final in finals if final is not None]
    return all(a == b or (rounded and _is_rounded(a, b)) for i, a in enumerate(known) for b in known[:i])


def _written(number: str) -> str:
    """Return *number* in one way: ``1,000``, ``1000.0`` and ``1000`` are one."""
    digits = number.replace(",", "")
    whole, _, part = digits.lstrip("-").partition(".")
    part = part.rstrip("0")
    whole = whole.lstrip("0") or "0"
    value = f"{whole}.{part}" if part else whole
    return f"-{value}" if digits.startswith("-") and value != "0" else value


def _is_rounded(a: str, b: str) -> bool:
    """True when the one of fewer decimals is the other one, rounded."""
    if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)):
        return False
    coarse, fine = sorted((a, b), key=lambda number: len(number.partition(".")[2]))
    unit = Decimal(1).scaleb(-len(coarse.partition(".")[2]))
    apart = abs(Decimal(coarse) - Decimal(fine))
    return apart * 2 <= unit and apart * _ROUNDED_APART <= abs(Decimal(coarse))
