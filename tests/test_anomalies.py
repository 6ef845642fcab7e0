"""Anomalies: found where the world has changed, and not where it has not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negawatt.watch.anomalies import Lengths, Past, bucket_of, middle, upper
from negawatt.watch.targets import ASKED, CACHEABLE, HITS, SPENT, WIDTH

HOUR_S, DAY_S = 3600.0, 86_400.0
NOW = 1000 * DAY_S


def hour(calls: int, hits: int, spent: int) -> list[int]:
    found = [0] * WIDTH
    found[CACHEABLE], found[HITS], found[SPENT], found[ASKED] = calls, hits, spent, calls
    return found


def filled(
    rng: random.Random, *, days: int = 15, calls: int = 60, today: Callable[[int], tuple[float, float, float]]
) -> Past:
    """Return *days* days of traffic with a daily rhythm. *today*: day -> hit rate, scale of prompts, scale of cost."""
    past = Past()
    for back in range(days * 24):
        rate, prompts, cost = today(back // 24)
        at = NOW - back * HOUR_S
        busy = max(1, round(calls * (1 + 0.8 * math.sin(back / 24 * 2 * math.pi)) * rng.uniform(0.8, 1.2)))
        hits = sum(rng.random() < rate for _ in range(busy))
        spent = sum(int(rng.lognormvariate(0, 1) * 1e9 * cost) for _ in range(busy - hits))
        past.add(at, hour(busy, hits, spent), [int(rng.lognormvariate(6, 0.8) * prompts) + 1 for _ in range(busy)])
    return past


def active(past: Past, now: float = NOW) -> set[str]:
    return {one.name for one in past.conditions("faq", now) if one.active}


SAME = (0.4, 1.0, 1.0)


@pytest.mark.parametrize("name, changed", [
    ("hit_rate_drop", (0.2, 1.0, 1.0)), ("prompt_growth", (0.4, 1.6, 1.0)), ("spend_pace", (0.4, 1.0, 12.0)),
])  # fmt: skip
def test_a_change_is_found(name: str, changed: tuple[float, float, float]):
    """Half the hits, prompts longer by more than half, or twelve times the cost: that, and nothing else."""
    past = filled(random.Random(5), today=lambda back: changed if back == 0 else SAME)
    assert active(past) == {name}
    message = next(one.message for one in past.conditions("faq", NOW) if one.name == name)
    assert "days before" in message or "two weeks before" in message


def test_too_little_to_go_by_is_no_anomaly():
    """Few calls, or few days: nothing is said."""
    changed = (0.0, 5.0, 50.0)
    few = filled(random.Random(5), calls=3, today=lambda back: changed if back == 0 else SAME)
    assert active(few) == set()
    young = filled(random.Random(5), days=3, today=lambda back: changed if back == 0 else SAME)
    assert active(young) == set()
    assert active(Past()) == set()


def test_a_stationary_world_raises_nearly_nothing():
    """Ten worlds, sixty days each, looked at four times a day: of 2,400 looks at three things, one alerts at most."""
    alarms = 0
    for seed in range(10):
        rng = random.Random(seed)
        past = Past()
        for number in range(75 * 24):
            at = NOW + number * HOUR_S
            rate = min(0.9, max(0.05, rng.gauss(0.4, 0.03)))  # days and hours differ
            busy = max(1, round(40 * (1 + 0.8 * math.sin(number / 24 * 2 * math.pi)) * rng.uniform(0.6, 1.4)))
            hits = sum(rng.random() < rate for _ in range(busy))
            spent = sum(int(rng.lognormvariate(0, 1) * 1e9) for _ in range(busy - hits))
            past.add(at, hour(busy, hits, spent), [int(rng.lognormvariate(6, 0.8)) + 1 for _ in range(busy)])
            if number >= 15 * 24 and number % 6 == 0:
                alarms += len(active(past, at))
    assert alarms <= 1


@given(st.integers(1, 10**7))
def test_a_bucket_holds_lengths_within_a_fifth(length: int):
    """Its place says the length to within a quarter of an octave."""
    assert 2 ** (bucket_of(length) / 4) <= length * 1.0001 and length < 2 ** ((bucket_of(length) + 1) / 4) * 1.0001


@given(st.lists(st.integers(2, 100_000), min_size=1, max_size=300))
def test_the_middle_is_that_of_the_lengths(lengths: list[int]):
    """Within one bucket of the median that they have; its low end is not above it."""
    lengths_seen = Lengths()
    lengths_seen.add(0.0, lengths)
    counts = [0] * 96
    for one in lengths:
        counts[bucket_of(one)] += 1
    found = middle(counts)
    assert found is not None and found.n == len(lengths) and found.low <= found.value
    ordered = sorted(lengths)
    assert ordered[(len(ordered) - 1) // 2] / 1.2 <= found.value <= ordered[len(ordered) // 2] * 1.2
    assert middle([0] * 96) is None


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_the_upper_end_of_a_share_is_one(n: int, hits: int):
    """At least the share, at most 1, and nearer with more to go by."""
    hits = min(hits, n)
    assert hits / n <= upper(hits, n) + 1e-12 and upper(hits, n) <= 1 + 1e-12
    assert upper(hits * 10, n * 10) <= upper(hits, n) + 1e-12
