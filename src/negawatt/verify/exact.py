"""Is an answer the one that was expected?"""

from __future__ import annotations

import re

from negawatt.verify.verdict import Case, Verdict

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


class ExactVerifier:
    """Passes the expected answer. Only an evaluation knows it: without, nothing passes."""

    kind = "exact"

    async def __call__(self, case: Case) -> Verdict:
        if case.expected is None:
            return Verdict(False, 0.0, "what answer is expected is not known", self.kind)
        right = bool(case.answers) and all(matches(case.expected, answer) for answer in case.answers)
        return Verdict(right, float(right), None if right else "it is not the expected answer", self.kind)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _number(text: str) -> float | None:
    return float(text.replace(",", "")) if _NUMBER.fullmatch(text) else None
