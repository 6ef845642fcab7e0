"""How far the counts made before calls were from what providers measured, by model and basis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

NEAR = 0.05  # relative
_Z = 1.959963984540054  # of a 95 % interval


class Counted(NamedTuple):
    """One call of the ledger, as far as it matters here. None: not known."""

    model: str | None
    counted_input_tokens: int | None
    count_basis: str | None
    input_tokens: int | None
    usage_basis: str | None


class CountError(NamedTuple):
    """Relative errors, ``(counted - measured) / measured``.

    Intervals are (low, high) at 95 %, None where n is too small for one.
    Calls are taken as independent; repeats of one prompt make the intervals narrower than they should be.
    """

    model: str
    basis: str
    n: int
    mean: float  # signed: above 0 we count too much
    mean_interval: tuple[float, float] | None
    median_absolute: float
    median_interval: tuple[float, float] | None
    p95_absolute: float | None  # None below 20 calls
    near: float  # share of calls within 5 %
    near_interval: tuple[float, float]


def count_errors(rows: Iterable[Counted]) -> list[CountError]:
    """Return the errors by model and basis, the models with most calls first.

    Only rows with a count whose usage the provider itself measured are taken.
    """
    errors: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        counted, measured = row.counted_input_tokens, row.input_tokens
        if counted is None or row.count_basis is None or row.usage_basis != "measured" or not measured:
            continue
        errors.setdefault((row.model or "?", row.count_basis), []).append((counted - measured) / measured)
    calls: dict[str, int] = {}
    for (model, _), found in errors.items():
        calls[model] = calls.get(model, 0) + len(found)
    order = sorted(errors, key=lambda key: (-calls[key[0]], key[0], -len(errors[key]), key[1]))
    return [_summary(model, basis, errors[model, basis]) for model, basis in order]


def _summary(model: str, basis: str, errors: list[float]) -> CountError:
    n = len(errors)
    mean = math.fsum(errors) / n
    absolute = sorted(map(abs, errors))
    near = sum(error <= NEAR for error in absolute)
    return CountError(
        model=model,
        basis=basis,
        n=n,
        mean=mean,
        mean_interval=_mean_interval(errors, mean),
        median_absolute=(absolute[(n - 1) // 2] + absolute[n // 2]) / 2,
        median_interval=_median_interval(absolute),
        p95_absolute=absolute[math.ceil(0.95 * n) - 1] if n >= 20 else None,
        near=near / n,
        near_interval=_wilson(near, n),
    )


def _mean_interval(errors: list[float], mean: float) -> tuple[float, float] | None:
    """The normal one; None below 10 calls, where it does not hold."""
    n = len(errors)
    if n < 10:
        return None
    half = _Z * math.sqrt(math.fsum((error - mean) ** 2 for error in errors) / (n - 1) / n)
    return mean - half, mean + half


def _median_interval(ordered: list[float]) -> tuple[float, float] | None:
    """Order statistics, whatever the distribution; None below 6 calls, where even the extremes hold less than 95 %."""
    n = len(ordered)
    if n < 6:
        return None
    if n > 200:  # the binomial by its normal approximation, rounded outwards
        rank = math.floor(n / 2 - _Z * math.sqrt(n) / 2) - 1
        return ordered[max(0, rank)], ordered[min(n - 1, n - 1 - rank)]
    tail, rank = 0.0, -1  # the chance that fewer than rank + 1 of n lie below the median
    while tail + math.comb(n, rank + 1) / 2**n <= 0.025:
        rank += 1
        tail += math.comb(n, rank) / 2**n
    return ordered[rank], ordered[n - 1 - rank]


def _wilson(successes: int, n: int) -> tuple[float, float]:
    share, z2 = successes / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
