"""What can be seen of a prompt without a model: its length, its form, what kinds of signs and words it holds.

No word counts as such, so that what is learned from one subject holds for others. Counts are on a logarithmic scale.
"""

from __future__ import annotations

import math
import re
from collections import Counter

NAMES = (
    "characters", "words", "word_length", "lines", "longest_line", "other_lines", "first_line", "numbers",
    "digit_share", "operators", "blanks", "quotes", "brackets", "commas", "stops", "questions", "colons",
    "upper_share", "negations", "person_share", "asking_share", "distinct_share", "foreign",
)  # fmt: skip

_LOOKED_AT = 6000  # characters; the length is that of the whole text
_WORD = re.compile(r"[^\W\d_]+|\d+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# "n't" is cut into two words, the second of which is "t".
_NEGATIONS = frozenset(
    ("not", "no", "never", "except", "least", "false", "incorrect", "neither", "nor", "without", "cannot", "t")
)
_PERSONS = frozenset(("i", "me", "my", "you", "your", "we", "he", "she", "his", "her", "they", "them"))
_ASKING = frozenset(("which", "what", "who", "when", "where", "why", "how"))


def prompt_features(text: str) -> list[float]:
    """Return one number for each of `NAMES`. Linear in *text*, of which the first 6,000 characters are looked at."""
    length = len(text)
    text = text[:_LOOKED_AT]
    signs = Counter(text)
    size = len(text) or 1
    lines = [len(line) for line in text.split("\n") if line.strip()] or [0]
    words = _WORD.findall(text.lower())
    many = len(words) or 1
    count = Counter(words)
    return [
        math.log1p(length), math.log1p(many), sum(map(len, words)) / many, math.log1p(len(lines)),
        math.log1p(max(lines)), math.log1p(sum(lines[1:]) / max(1, len(lines) - 1)), math.log1p(lines[0]),
        math.log1p(len(_NUMBER.findall(text))), sum(signs[digit] for digit in "0123456789") / size,
        _log(signs, "+-*/=^<>\\$%"), _log(signs, "_"), _log(signs, "\"'"), _log(signs, "("), _log(signs, ","),
        _log(signs, "."), _log(signs, "?"), _log(signs, ":"),
        sum(times for sign, times in signs.items() if sign.isupper()) / size, math.log1p(_of(count, _NEGATIONS)),
        _of(count, _PERSONS) / many, _of(count, _ASKING) / many, len(count) / many, float(not text.isascii()),
    ]  # fmt: skip


def _log(signs: Counter[str], wanted: str) -> float:
    return math.log1p(sum(signs[sign] for sign in wanted))


def _of(count: Counter[str], wanted: frozenset[str]) -> int:
    return sum(count[word] for word in wanted)
