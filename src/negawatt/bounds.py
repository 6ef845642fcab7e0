"""Exact bounds of proportions, without scipy or numpy: what reports, guesses and pages share."""

from __future__ import annotations

import math

_LEVELS = (0.025, 0.975)


def clopper_pearson(successes: float, n: float) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion; *successes* and *n* need not be whole.

    Its ends are quantiles of beta distributions (Clopper and Pearson 1934). Raises ValueError unless
    ``0 <= successes <= n`` and n > 0.
    """
    if not (0 <= successes <= n and n > 0):
        raise ValueError(f"expected 0 <= successes <= n and n > 0, not {successes} of {n}")
    low = 0.0 if successes == 0 else _beta_quantile(_LEVELS[0], successes, n - successes + 1)
    high = 1.0 if successes == n else _beta_quantile(_LEVELS[1], successes + 1, n - successes)
    return low, high


def least_share(successes: float, n: float, confidence: float) -> float:
    """Return the exact one-sided lower bound of a proportion: the true one is at least that with *confidence*."""
    return 0.0 if successes <= 0 or n <= 0 else _beta_quantile(1 - confidence, successes, n - successes + 1)


def most_share(successes: float, n: float, confidence: float) -> float:
    """Return the exact one-sided upper bound of a proportion: the true one is at most that with *confidence*."""
    return 1.0 if n <= 0 or successes >= n else _beta_quantile(confidence, successes + 1, n - successes)


def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if beta_cdf(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # The continued fraction converges fast on this side of the mean; the other side is its mirror.
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / _apart(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _apart(1 + term * d, tiny)
            c = _apart(1 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value


def _apart(value: float, tiny: float) -> float:
    """Return *value*, or *tiny* where it would be divided by 0."""
    return value if abs(value) > tiny else tiny
