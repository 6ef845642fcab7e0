"""What watching costs, and how often it cries wolf: the figures in docs/alerts.md and docs/slo.md.

    python benchmarks/alerts.py [--days 120] [--rows 200000] [--json]

Cost: nanoseconds that the observer adds to a call, milliseconds of a look, seconds of a start that reads the ledger
again. False alarms: worlds in which nothing changes, by the code that serves, looked at every three hours (anomalies)
or every five minutes (burn rates); an alarm is one breach, however long. Synthetic, seeded; minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from negawatt.config import parse_config
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.watch.anomalies import Past
from negawatt.watch.burn import Rings
from negawatt.watch.memory import Memory
from negawatt.watch.tally import Tallies
from negawatt.watch.targets import ASKED, CACHEABLE, CALLS, ERRORS, HITS, SPENT, WIDTH, targets_of
from negawatt.watching import past_of

HOUR_S, DAY_S = 3600.0, 86_400.0
SEED = 20261127
START = 20_000 * DAY_S
PLAIN: dict[str, Any] = {
    **dict.fromkeys(Outcome.__struct_fields__), "request_class": "default", "operation": "chat", "protocol": "chat",
    "ending": "answered", "cache": "miss", "holdout": False, "attempts": 1, "duration_s": 0.8, "queue_s": 0.0,
    "upstream_s": 0.79, "overhead_s": 0.0001, "attempt_log": "[]", "versions": "{}", "status": 200, "stream": True,
    "time_to_first_chunk_s": 0.2, "baseline_input_tokens": 812, "output_tokens": 120, "cost_pusd": 190_000_000,
    "response_model": "gpt-4o-mini",
    "decisions": '[{"lever":"exact_cache","action":"miss"},{"lever":"coalesce","action":"lead"},{"lever":"cap",'
    '"action":"uncapped","reason":"112 answers of its kind were seen, of 200 that it takes"}]',
}  # fmt: skip
SLO = {"latency_p95_ms": 2000, "ttft_p95_ms": 500, "error_rate": 0.01, "output_inflation": 1.5}


def row(number: int, at: float) -> Outcome:
    return Outcome(**{**PLAIN, "id": f"nw-{number}", "received_at": at})


def observer_ns(rounds: int = 7, calls: int = 200_000) -> list[float]:
    """Return what the observer adds to one call, of each round: its CPU time, less that of a call of nothing."""
    outcome = row(0, START)
    tallies = Tallies(targets_of(parse_config({"slo": SLO})))

    def nothing(outcome: Outcome) -> None:
        pass

    def timed(work: Callable[[Outcome], None]) -> float:
        began = time.thread_time_ns()
        for _ in range(calls):
            work(outcome)
        return (time.thread_time_ns() - began) / calls

    found = []
    for _ in range(rounds):
        found.append(timed(tallies) - timed(nothing))
        tallies.take()
    return found


def look_ms(classes: int = 20) -> float:
    """Return the milliseconds of a look at *classes* classes whose windows are full, anomalies left aside."""
    config = parse_config({"slo": SLO, "classes": {f"c{i}": {} for i in range(classes - 1)}})
    memory, tallies = Memory(targets_of(config)), Tallies(targets_of(config))
    for back in range(400):
        for name in ("default", *config.classes):
            tallies(Outcome(**{**PLAIN, "id": "nw", "received_at": START, "request_class": name}))
        memory.take(tallies, START - (400 - back) * 28)
    began = time.perf_counter()
    for name in ("default", *config.classes):
        memory.standings(name, START)
    return (time.perf_counter() - began) * 1000


def start_s(rows: int) -> float:
    """Return the seconds that a start takes to read *rows* rows of four weeks again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = SqliteLedger(path)
        for number in range(rows):
            ledger.append(row(number, START + number * 28 * DAY_S / rows))
            if number % 20_000 == 0:
                ledger.flush()
        ledger.close()
        began = time.perf_counter()
        past_of(path, targets_of(parse_config({"slo": SLO})), START + 28 * DAY_S, lambda: False, breathe=False)
        return time.perf_counter() - began


# -- false alarms ------------------------------------------------------------------------------------------------


def hours(rng: np.random.Generator, per_hour: float, tail: float) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the counts and the prompts of hours in which nothing changes but what always does.

    Traffic has a daily and a weekly rhythm; days differ in their hit rate (s.d. 3 points) and in what is asked (s.d.
    5 % of the length); prompts and costs are log-normal, those of costs with *tail*.
    """
    number, day_rate, day_length = 0, 0.4, 1.0
    while True:
        if number % 24 == 0:
            day_rate, day_length = min(0.9, max(0.02, rng.normal(0.4, 0.03))), math.exp(rng.normal(0, 0.05))
        weekend = 0.4 if number // 24 % 7 >= 5 else 1.0
        mean = per_hour * weekend * (1 + 0.8 * math.sin(number / 24 * 2 * math.pi))
        calls = int(rng.poisson(mean * rng.lognormal(0, 0.2)))
        hits = int(rng.binomial(calls, min(0.95, max(0.02, rng.normal(day_rate, 0.03)))))
        counts = [0] * WIDTH
        counts[CACHEABLE], counts[HITS], counts[ASKED] = calls, hits, calls - hits
        counts[SPENT] = int((rng.lognormal(0, tail, calls - hits) * 1e9).sum())
        yield counts, [int(one) + 1 for one in rng.lognormal(6, 0.9, calls) * day_length]
        number += 1


def anomaly_alarms(per_hour: float, tail: float, days: int, worlds: int) -> dict[str, float]:
    """Return the alarms per class and year, by name."""
    alarms: dict[str, int] = {}
    for world in range(worlds):
        rng = np.random.default_rng([SEED, world, int(per_hour), int(tail * 10)])
        past, on = Past(), set[str]()
        for number, (counts, prompts) in zip(range((days + 15) * 24), hours(rng, per_hour, tail), strict=False):
            at = START + number * HOUR_S
            past.add(at, counts, prompts)
            if number >= 15 * 24 and number % 3 == 0:
                now = {one.name for one in past.conditions("c", at) if one.active}
                for name in now - on:
                    alarms[name] = alarms.get(name, 0) + 1
                on = now
    years = worlds * days / 365
    return {name: alarms.get(name, 0) / years for name in ("hit_rate_drop", "prompt_growth", "spend_pace")}


def burn_alarms(per_hour: float, share: float, days: int) -> dict[str, float]:
    """Return the alarms per class and year, by pair, where failures come at *share* of what is allowed, in bursts."""
    rng = np.random.default_rng([SEED, int(per_hour), int(share * 100)])
    targets = targets_of(parse_config({"slo": {"error_rate": 0.01}}))["default"]
    rings, alarms, on = Rings(targets.window_s), {"fast": 0, "medium": 0, "slow": 0}, False
    step_s, warm = 300.0, int(3 * DAY_S / 300)
    for number in range(int(days * DAY_S / step_s) + warm):
        at = START + number * step_s
        calls = int(rng.poisson(per_hour * step_s / HOUR_S * (1 + 0.8 * math.sin(at / DAY_S * 2 * math.pi))))
        bursts = rng.poisson(calls * 0.01 * share / 3)  # of three on average
        counts = [0] * WIDTH
        counts[CALLS] = calls
        counts[ERRORS] = min(calls, int(rng.geometric(1 / 3, bursts).sum()))
        rings.add(at, counts)
        if number >= warm:
            burn = rings.standings(targets, at)[0].firing(targets.least_bad, already=on)
            if burn is not None and not on:
                alarms[burn.pair.name] += 1
            on = burn is not None
    return {name: count / (days / 365) for name, count in alarms.items()}


def detection_min(per_hour: float, failing: float) -> float | None:
    """Return the minutes until a critical pair fires after *failing* of all calls begin to fail; None: not in a day."""
    targets = targets_of(parse_config({"slo": {"error_rate": 0.01}}))["default"]
    rings, rng = Rings(targets.window_s), np.random.default_rng([SEED, 7, int(per_hour)])
    for number in range(int((2 * DAY_S) / 15)):
        at, broken = START + number * 15.0, number * 15.0 - DAY_S
        calls = int(rng.poisson(per_hour / 240))
        counts = [0] * WIDTH
        counts[CALLS], counts[ERRORS] = calls, int(rng.binomial(calls, failing if broken >= 0 else 0.002))
        rings.add(at, counts)
        if broken >= 0:
            burn = rings.standings(targets, at)[0].firing(targets.least_bad)
            if burn is not None and burn.pair.severity == "critical":
                return broken / 60
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    chosen = parser.parse_args()
    observed = observer_ns()
    found = {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}", "seed": SEED,
        "observer_ns": {"median": statistics.median(observed), "least": min(observed), "most": max(observed)},
        "look_ms_20_classes": look_ms(), "start_s": {"rows": chosen.rows, "seconds": start_s(chosen.rows)},
        "anomalies_per_class_year": {
            f"{per_hour:g} an hour, tail {tail:g}": anomaly_alarms(per_hour, tail, chosen.days, worlds=10)
            for per_hour, tail in ((20, 1.0), (100, 1.0), (100, 2.0))
        },
        "burns_per_class_year": {
            f"{per_hour:g} an hour, {share:g} of what is allowed": burn_alarms(per_hour, share, chosen.days)
            for per_hour, share in ((20, 0.5), (200, 0.5), (2000, 0.5), (200, 0.9))
        },
        "detection_min": {
            f"{per_hour:g} an hour, {failing:.0%} fail": detection_min(per_hour, failing)
            for per_hour, failing in ((20, 1.0), (200, 1.0), (2000, 1.0), (200, 0.2), (2000, 0.2))
        },
    }  # fmt: skip
    for name, value in found.items():
        print(f"{name}: {value}")
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
