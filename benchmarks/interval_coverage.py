"""How often the intervals of a report hold the truth, on synthetic calls whose truth is known. Nominal: 95 %.

Run ``python benchmarks/interval_coverage.py [--json]``; a minute of one core. The figures stand in docs/report.md,
those of the cost of a success in docs/success.md: they come from whole ledgers, rolled up as a gateway does it.
"""

import argparse
import json
import math
from contextlib import closing

import msgspec
import numpy as np

from negawatt.ledger.feedback import Feedback
from negawatt.ledger.outcome import Outcome
from negawatt.statistics import Bootstrap, Interval
from negawatt.success.figures import figures_in
from negawatt.success.keeping import in_memory

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


def cost_of_a_success(rng: np.random.Generator, tasks: int) -> tuple[Interval, float]:
    """Tasks of one to four calls of log-normal cost; the more calls a task takes, the seldomer it succeeds."""
    rows, words, nothing = [], [], _nothing()
    for task in range(tasks):
        calls = int(rng.integers(1, 5))
        for cost in rng.lognormal(0.0, 0.8, calls):
            rows.append(msgspec.structs.replace(
                nothing, id=f"call-{len(rows)}", task_id=f"t{task}", received_at=float(len(rows)),
                cost_pusd=round(float(cost) * 1e9),
            ))  # fmt: skip
        success = bool(rng.random() < 1.0 - 0.15 * calls)
        words.append(Feedback(at=0.0, tenant="default", kind="task", about=f"t{task}", success=success))
    with closing(in_memory(rows, words)) as connection:
        (found,) = figures_in(connection, 0.0, math.inf, "all")
    return found.cost_per_success_usd, 2.5 * math.exp(0.8**2 / 2) * 1e-3 / (1.0 - 0.15 * 2.5)


def _nothing() -> Outcome:
    """Return the row of a call that was answered; what the cost of a success does not depend on is empty."""
    empty = {"str": "", "int": 0, "float": 0.0, "bool": False}
    fields = {field.name: empty.get(getattr(field.type, "__name__", "")) for field in msgspec.structs.fields(Outcome)}
    return Outcome(**{**fields, "ending": "answered", "decisions": "[]"})


CASES = (("saving, 60 clusters", saving, 60, 1000), ("saving, 400 clusters", saving, 400, 500),
         ("success rate, 60 clusters", success_rate, 60, 1000), ("median, 1,000 calls", median, 1000, 400),
         ("paired saving in the median, 1,000 calls", median_saving, 1000, 400),
         ("cost of a success, 30 tasks", cost_of_a_success, 30, 1000),
         ("cost of a success, 100 tasks", cost_of_a_success, 100, 400),
         ("cost of a success, 1,000 tasks", cost_of_a_success, 1000, 200))  # fmt: skip


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
