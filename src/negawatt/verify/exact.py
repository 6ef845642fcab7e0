"""Is an answer the one that was expected?"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def matches(expected: str, text: str) -> bool:
    """True when *text* says *expected*: the same but for case and space, or, for a number, as its last number.

    The last number is where worked answers put their result, with commas and a trailing point allowed.
    """
    if _plain(expected) == _plain(text):
        return True
    wanted = _number(expected.strip())
    if wanted is None:
        return False
    found = _NUMBER.findall(text)
    return bool(found) and _number(found[-1]) == wanted


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _number(text: str) -> float | None:
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else None
