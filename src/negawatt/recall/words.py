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


class Words(msgspec.Struct, frozen=True):
    """All lists."""

    negations: frozenset[str]
    no_negations: tuple[str, ...]
    carriers: frozenset[str]  # small words between a negation and what it denies
    antonyms: tuple[Pair, ...]
    comparatives: tuple[Pair, ...]
    opposed: frozenset[str]  # every word of the antonyms
    compared: frozenset[str]  # and of the comparatives
    numbers: dict[str, float]
    multipliers: dict[str, float]
    units: dict[str, tuple[str, float]]  # to dimension, and how many of its first unit
    dates: frozenset[str]
    relative: frozenset[str]
    spans: frozenset[str]
    languages: dict[str, frozenset[str]]
    ordinary: frozenset[str]


@cache
def words() -> Words:
    """Return the lists."""
    data: dict[str, Any] = tomllib.loads(files("negawatt.recall").joinpath("guards.toml").read_text(encoding="utf-8"))
    antonyms, comparatives = _pairs(data["antonyms"]), _pairs(data["comparatives"])
    return Words(
        negations=frozenset(data["negations"]),
        no_negations=tuple(data["no_negations"]),
        carriers=frozenset(data["carriers"]),
        antonyms=antonyms,
        comparatives=comparatives,
        opposed=frozenset().union(*(pair.one | pair.other for pair in antonyms)),
        compared=frozenset().union(*(pair.one | pair.other for pair in comparatives)),
        numbers={name: float(value) for name, value in data["numbers"].items()},
        multipliers={name: float(value) for name, value in data["multipliers"].items()},
        units={
            name: (dimension, float(size)) for dimension, table in data["units"].items() for name, size in table.items()
        },
        dates=frozenset(data["dates"]["words"]),
        relative=frozenset(data["dates"]["relative"]),
        spans=frozenset(data["dates"]["spans"]),
        languages={name: frozenset(known) for name, known in data["languages"].items()},
        ordinary=frozenset(data["names"]["ordinary"]),
    )


def _pairs(rows: list[dict[str, list[str]]]) -> tuple[Pair, ...]:
    return tuple(Pair(frozenset(row["one"]), frozenset(row["other"])) for row in rows)
