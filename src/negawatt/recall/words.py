"""The word lists of the guards, read from ``guards.toml`` once."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec


class Pair(msgspec.Struct, frozen=True):
    """Two sets of words of which the one asks for the opposite of the other."""

    one: frozenset[str]
    other: frozenset[str]


class Prefix(msgspec.Struct, frozen=True):
    """A beginning that turns a word into its opposite."""

    prefix: str
    least: int  # letters after it
    endings: tuple[str, ...]
    but: frozenset[str]


class Words(msgspec.Struct, frozen=True):
    """All lists."""

    negations: frozenset[str]
    no_negations: tuple[str, ...]
    inverted: frozenset[str]  # auxiliaries that ask a question rather than deny, before one of *asked*
    asked: frozenset[str]
    failing: tuple[str, ...]  # phrases that say "not"
    ceasing: frozenset[str]  # words that deny a verb in -ing
    carriers: frozenset[str]  # small words between a negation and what it denies
    antonyms: tuple[Pair, ...]
    prefixes: tuple[Prefix, ...]
    comparatives: tuple[Pair, ...]
    opposed: frozenset[str]  # every word of the antonyms
    compared: frozenset[str]  # and of the comparatives
    numbers: dict[str, float]
    perhaps: dict[str, float]  # words that may stand for a number
    ordinals: dict[str, float]
    doubtful: dict[str, frozenset[str]]  # ordinals that are one only after these words
    multipliers: dict[str, float]
    units: dict[str, tuple[str, float]]  # to dimension, and how many of its first unit
    dates: dict[str, str]  # to the full name
    relative: frozenset[str]
    spans: frozenset[str]
    languages: dict[str, frozenset[str]]
    ordinary: frozenset[str]
    headline: frozenset[str]  # small words that have a capital letter in headlines only


@cache
def words() -> Words:
    """Return the lists."""
    data: dict[str, Any] = tomllib.loads(files("negawatt.recall").joinpath("guards.toml").read_text(encoding="utf-8"))
    antonyms, comparatives = _pairs(data["antonyms"]), _pairs(data["comparatives"])
    return Words(
        negations=frozenset(data["negations"]),
        no_negations=tuple(data["no_negations"]),
        inverted=frozenset(data["questions"]["inverted"]),
        asked=frozenset(data["questions"]["asked"]),
        failing=tuple(data["failing"]),
        ceasing=frozenset(data["ceasing"]),
        carriers=frozenset(data["carriers"]),
        antonyms=antonyms,
        prefixes=msgspec.convert(tuple(data["prefixes"]), tuple[Prefix, ...]),
        comparatives=comparatives,
        opposed=frozenset().union(*(pair.one | pair.other for pair in antonyms)),
        compared=frozenset().union(*(pair.one | pair.other for pair in comparatives)),
        numbers={name: float(value) for name, value in data["numbers"].items()},
        perhaps={name: float(value) for name, value in data["perhaps"].items()},
        ordinals={name: float(value) for name, value in data["ordinals"].items()},
        doubtful={name: frozenset(before) for name, before in data["doubtful"].items()},
        multipliers={name: float(value) for name, value in data["multipliers"].items()},
        units={
            name: (dimension, float(size)) for dimension, table in data["units"].items() for name, size in table.items()
        },
        dates={one: one for one in data["dates"]["words"]} | data["dates"]["short"],
        relative=frozenset(data["dates"]["relative"]),
        spans=frozenset(data["dates"]["spans"]),
        languages={name: frozenset(known) for name, known in data["languages"].items()},
        ordinary=frozenset(data["names"]["ordinary"]),
        headline=frozenset(data["names"]["headline"]),
    )


def _pairs(rows: list[dict[str, list[str]]]) -> tuple[Pair, ...]:
    return tuple(Pair(frozenset(row["one"]), frozenset(row["other"])) for row in rows)
