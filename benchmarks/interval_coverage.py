"""How often the intervals of a report hold the truth, on synthetic calls whose truth is known. Nominal: 95 %.

Run ``python benchmarks/interval_coverage.py [--json]``; 15 s on one core. The figures stand in docs/report.md.
"""

import argparse
import json
import math

import numpy as np

from negawatt.statistics import Bootstrap, Interval

RESAMPLES = 400


def saving(rng: np.random.Generator, clusters: int) -> tuple[Interval, float]:
    """A cache spares each cluster of repeats with a chance of 40 %."""
    cluster = _clusters(rng, clusters)
    price = rng.lognormal(0.0, 0.6, clusters)[cluster]
    spared = (rng.random(clusters) < 0.4)[cluster]
    return _boot(cluster, rng).saving_pct(price, np.where(spared, 0.0, price)), 40.0


def success_rate(rng: np.random.Generator, clusters: int) -> tuple[Interval, float]:
    """Every answer to one prompt is right, or none is; nine prompts of ten are answered rightly."""
    cluster = _clusters(rng, clusters)
    return _boot(cluster, rng).proportion((rng.random(clusters) < 0.9)[cluster].astype(float)), 0.9


def median(rng: np.random.Generator, calls: int) -> tuple[Interval, float]:
    """Independent log-normal latencies."""
    return _boot(np.arange(calls), rng).median(rng.lognormal(0.0, 0.5, calls)), 1.0


def median_saving(rng: np.random.Generator, calls: int) -> tuple[Interval, float]:
    """Each call takes about 70 % of its time."""
    before = rng.lognormal(0.0, 0.5, calls)
    after = before * rng.lognormal(math.log(0.7), 0.1, calls)
    return _boot(np.arange(calls), rng).median_saving_pct(before, after), 30.0


CASES = (("saving, 60 clusters", saving, 60, 1000), ("saving, 400 clusters", saving, 400, 500),
         ("success rate, 60 clusters", success_rate, 60, 1000), ("median, 1,000 calls", median, 1000, 400),
         ("paired saving in the median, 1,000 calls", median_saving, 1000, 400))  # fmt: skip


def _clusters(rng: np.random.Generator, clusters: int) -> np.ndarray:
    return np.repeat(np.arange(clusters), rng.geometric(0.4, clusters))


def _boot(clusters: np.ndarray, rng: np.random.Generator) -> Bootstrap:
    return Bootstrap([str(cluster) for cluster in clusters], rng, RESAMPLES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    found = {}
    for name, draw, size, samples in CASES:
        rng = np.random.default_rng(arguments.seed)
        held = 0
        for _ in range(samples):
            interval, truth = draw(rng, size)
            assert interval.low is not None and interval.high is not None
            held += interval.low <= truth <= interval.high
        found[name] = {"held": held, "samples": samples, "share": round(held / samples, 4)}
        print(f"{name}: {held / samples:.1%} of {samples:,} samples")
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
