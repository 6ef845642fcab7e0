"""What similarity does not see: two questions may be close in meaning and differ in the one word that matters.

A `negawatt.recall.reading.Reading` holds what one text says; `conflict` names the guard that objects to taking one text
for the other. The guards know words, not meaning: where they are silent, nothing is proven. What they do not see:

- a name in lower case, or at the beginning of a sentence;
- who is meant: me or him;
- what two texts deny, where both deny something: "I cannot pay without it" passes for "I can pay without it";
- opposites that are not in the lists, and negations that no word carries;
- anything after the first 20,000 characters, and directions after the first 2,000.
"""

from __future__ import annotations

from collections.abc import Callable

from negawatt.recall.quantities import Amount, Quantities
from negawatt.recall.reading import Reading, read, stem
from negawatt.recall.words import Pair, words

__all__ = ["GUARDS", "Reading", "conflict", "read"]

GUARDS = (
    "language", "code", "numbers", "units", "dates", "names", "negation", "comparatives", "antonyms", "direction"
)  # fmt: skip


def conflict(one: Reading, other: Reading) -> str | None:
    """Return the name of the guard that objects to taking *one* for *other*; None when none does. Symmetric."""
    if one is other or one == other:
        return None
    if one.language is not None and other.language is not None and one.language != other.language:
        return "language"
    if one.code != other.code:
        return "code"
    for guard, differ in _DIFFER.items():
        if differ(one, other):
            return guard
    return None


def _numbers(one: Reading, other: Reading) -> bool:
    a, b = one.amounts, other.amounts
    if a.ordinals and b.ordinals and a.ordinals != b.ordinals:
        return True
    return not (a.numbers - b.numbers <= b.perhaps and b.numbers - a.numbers <= a.perhaps)


def _units(one: Reading, other: Reading) -> bool:
    a, b = one.amounts, other.amounts
    if not (a.units - b.units <= b.perhaps and b.units - a.units <= a.perhaps):
        return True
    return any(
        dimension == other_dimension and (dimension, size) not in b.units | b.perhaps
        for dimension, size in _vague(a)
        for other_dimension, other_size in _vague(b)
        if (other_dimension, other_size) not in a.units | a.perhaps
    )


def _vague(amounts: Quantities) -> list[Amount]:
    """Return the amounts such as "an hour", which may be no amounts at all."""
    return [unit for unit in amounts.perhaps if isinstance(unit, tuple)]


def _named(one: Reading, other: Reading) -> bool:
    """True when one text names what the other does not."""
    if one.exact != other.exact:
        return True
    return any(
        not all(_name_in(name, a, b) for name in a.names)
        or not all(_code_in(code, b) for code in a.codes)
        or not all(quote in b.quoted or quote in b.squashed for quote in a.quoted)
        for a, b in ((one, other), (other, one))
    )


def _name_in(name: str, its: Reading, other: Reading) -> bool:
    """True when the other text has *name*, as a name or a word (it may be in lower case), whole or by its initials."""
    return (
        name in other.names
        or name in other.words
        or (len(name) > 4 and name in other.squashed)  # in two words there, or in one
        or (len(name) < 5 and name in other.initials)
        or any(name in run and "".join(word[0] for word in run) in other.words for run in its.runs)
    )


def _code_in(code: str, other: Reading) -> bool:
    """True when the other text has *code*, in one word or in several."""
    return code in other.codes or code in other.pieces or (code.isalpha() and code in other.squashed)


def _negation(one: Reading, other: Reading) -> bool:
    """True when only one text denies anything, and the other says just that."""
    if one.denied and other.denied:
        return False  # both deny something; what, is a matter of words
    return not (one.denied.isdisjoint(other.affirmed) and other.denied.isdisjoint(one.affirmed))


def _opposite(pairs: tuple[Pair, ...], one: frozenset[str], other: frozenset[str]) -> bool:
    """True when the texts stand on different sides of a pair, and neither on both."""
    if not one or not other:
        return False
    for pair in pairs:
        sides = [(bool(said & pair.one), bool(said & pair.other)) for said in (one, other)]
        if sides in ([(True, False), (False, True)], [(False, True), (True, False)]):
            return True
    return False


def _comparatives(one: Reading, other: Reading) -> bool:
    return _opposite(words().comparatives, one.compared, other.compared)


def _antonyms(one: Reading, other: Reading) -> bool:
    return _opposite(words().antonyms, one.opposed, other.opposed) or _turned(one, other) or _turned(other, one)


def _turned(one: Reading, other: Reading) -> bool:
    """True when *one* has "unhappy" where *other* has "happy"; not for "not unhappy"."""
    for word in one.words - other.words:
        for prefix in words().prefixes:
            rest = word.removeprefix(prefix.prefix)
            turned = len(prefix.prefix) + len(rest) == len(word) and len(rest) >= prefix.least
            if turned and rest in other.words - one.words and rest.endswith(prefix.endings) and word not in prefix.but:
                return stem(word) not in one.denied
    return False


def _direction(one: Reading, other: Reading) -> bool:
    return any((there, here) in other.directions for here, there in one.directions if here != there)


_DIFFER: dict[str, Callable[[Reading, Reading], bool]] = {
    "numbers": _numbers,
    "units": _units,
    "dates": lambda one, other: one.dates != other.dates,
    "names": _named,
    "negation": _negation,
    "comparatives": _comparatives,
    "antonyms": _antonyms,
    "direction": _direction,
}
