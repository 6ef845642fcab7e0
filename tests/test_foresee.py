"""How long the next answer may be, judged by those before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from negawatt.budgets.foresee import Lengths


def test_the_longer_the_tail_of_lengths_was_the_more_is_foreseen():
    """Of lengths that are alike twice the most; of others up to four times, but no more than of what is unknown."""

    def foreseen(*lengths: int, usual: int = 4096) -> int:
        seen = Lengths()
        for length in lengths:
            seen.add(length)
        return seen.next(usual)

    assert foreseen(100, 100, 100, 100) == 200 and foreseen(150, 50, 50, 150) == 300
    assert foreseen(100, 100, 100, 500) == 1250 and foreseen(*[10] * 30, 500) == 2000
    assert foreseen(*[10] * 30, 500, usual=1500) == 1500 and foreseen(*[10] * 30, 500, usual=50) == 1000
    assert foreseen(*[10] * 30, 500, *[10] * 80) == 20, "what was long ago is forgotten"


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=300), st.integers(0, 10_000))
def test_never_less_is_foreseen_than_twice_the_most_of_the_last_fifty_lengths(lengths: list[int], usual: int):
    """Nor more than four times the most of the last hundred, whatever is usual."""
    seen = Lengths()
    for length in lengths:
        seen.add(length)
    assert 2 * max(lengths[-50:]) <= seen.next(usual) <= 4 * max(lengths[-100:])
