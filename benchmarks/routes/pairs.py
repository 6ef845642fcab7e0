"""Two models: the learned router over many splits, its baselines, and what its guarantee is worth."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from negawatt.errors import InputError
from negawatt.routing.controls import beats_shuffled
from negawatt.routing.curve import Curve, curve_of, group_scores, length_scores, random_scores
from negawatt.routing.gain import LEAST_ROWS, GainModel, Predictions
from negawatt.routing.guarantee import accept_threshold
from negawatt.statistics import clopper_pearson
from routes.tables import Table

SEED = 20261123
DELTAS = (0.02, 0.05, 0.1)
ALPHA = 0.05
CALIBRATION = 500
GUARANTEE_SPLITS = 200
_CHUNK = 2000


def route(table: Table, labels: int, splits: int) -> dict:
    """Return the figures R of *table*: *labels* rows to fit, all others to evaluate, *splits* times."""
    n = len(table.texts)
    if labels < LEAST_ROWS or n - labels < LEAST_ROWS:
        raise InputError(
            f"{table.name}: {n} rows and {labels} labels; {LEAST_ROWS} rows are needed to fit, and as many to evaluate"
        )
    if table.strong.mean() == table.weak.mean():
        raise InputError(f"{table.name}: both models are right equally often, so there is no gap to recover")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, splits)) as pool:
        found = list(pool.map(partial(one_split, table, labels, splits), range(splits)))
    apgr = [one["router"]["apgr"] for one in found]
    return {
        "apgr": {"mean": round(mean(apgr), 4), "std": round(float(np.std(apgr, ddof=1)), 4) if splits > 1 else None},
        "apgr_interval": spread(apgr),
        "apgr_continuous": round(mean([one["router"]["continuous"] for one in found]), 4),
        "cpt50": percent([one["router"]["cpt50"] for one in found]),
        "cpt80": percent([one["router"]["cpt80"] for one in found]),
        "cpt50_interval": spread([one["router"]["cpt50"] for one in found], 100),
        "cpt80_interval": spread([one["router"]["cpt80"] for one in found], 100),
        "n": n, "labels": labels, "evaluated": n - labels, "splits": splits, "points": 11,
        "weak": round(float(table.weak.mean()), 4), "strong": round(float(table.strong.mean()), 4),
        "weak_cost": None if table.weak_cost is None else round(table.weak_cost, 4),
        "baselines": {
            name: None if found[0][name] is None else round(mean([one[name]["apgr"] for one in found]), 4)
            for name in ("random", "length", "group", "shuffled", "oracle")
        },
        "baselines_cpt": {
            name: {q: percent([one[name][q] for one in found]) for q in ("cpt50", "cpt80")}
            for name in ("random", "length", "group", "oracle") if found[0][name] is not None
        },
        "beats_shuffled": sum(one["beats"] for one in found) / splits,
        "surest_fifth_wrong": round(mean([one["surest_fifth_wrong"] for one in found]), 4),
        "calibration_error": round(mean([one["calibration_error"] for one in found]), 4),
        "guarantee": guarantee([one["guarantee"] for one in found]),
        "guarantee_shifted": {**guarantee([one["shifted"] for one in found]), "shift": found[0]["shift"]},
    }  # fmt: skip


def one_split(table: Table, labels: int, splits: int, split: int) -> dict:
    """Fit on *labels* rows drawn at random, and evaluate on all others."""
    rng = np.random.default_rng([SEED, split])
    order = rng.permutation(len(table.texts))
    fit, rest = order[:labels], order[labels:]
    model = GainModel.fit(
        [table.texts[i] for i in fit], table.vectors[fit], np.column_stack([table.weak, table.strong])[fit],
        seed=split, extra=None if table.extra is None else table.extra[fit],
    )  # fmt: skip
    predicted = predictions(model, table, rest)
    scores, weak, strong = predicted.gains[:, 0], table.weak[rest], table.strong[rest]
    curve = partial(curved, weak=weak, strong=strong, rng=rng)
    texts = [table.texts[i] for i in rest]
    router = curve_of(scores, weak, strong, rng)
    exact = curve_of(scores, weak, strong, rng, points=None)
    if table.weak_cost is not None:
        router, exact = router.charged(table.weak_cost), exact.charged(table.weak_cost)
    groups = None
    if table.groups is not None:
        gains = (table.strong - table.weak)[fit]
        groups = group_scores([table.groups[i] for i in fit], gains, [table.groups[i] for i in rest])
    outcomes = np.column_stack([weak, strong])
    chosen = (scores > np.median(scores)).astype(int)
    calibrations = range(split, max(GUARANTEE_SPLITS, splits), splits)
    return {
        "router": {**named(router), "continuous": exact.apgr()},
        "random": curve(random_scores(len(rest), rng)), "length": curve(length_scores(texts)),
        "group": None if groups is None else curve(groups), "shuffled": curve(rng.permutation(scores)),
        "oracle": curve(strong - weak), "calibration_error": calibration_error(predicted.success[:, 0], weak),
        "surest_fifth_wrong": 1 - float(weak[np.argsort(-predicted.success[:, 0])[: len(rest) // 5]].mean()),
        "beats": beats_shuffled(chosen, predicted.gains, outcomes, seed=split).beats,
        "guarantee": [
            one_guarantee(predicted.success[:, 0], weak, np.random.default_rng([SEED, 7, i])) for i in calibrations
        ],
        **shifted(table, rest, predicted.success[:, 0], weak, calibrations),
    }  # fmt: skip


def predictions(model: GainModel, table: Table, rows: np.ndarray) -> Predictions:
    parts = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        extra = None if table.extra is None else table.extra[part]
        parts.append(model.predict([table.texts[i] for i in part], table.vectors[part], extra))
    return Predictions(*(np.concatenate([getattr(p, f) for p in parts]) for f in Predictions.__slots__))


def curved(scores: np.ndarray, *, weak: np.ndarray, strong: np.ndarray, rng: np.random.Generator) -> dict:
    return named(curve_of(scores, weak, strong, rng))


def named(curve: Curve) -> dict:
    return {"apgr": curve.apgr(), "cpt50": curve.cpt(0.5), "cpt80": curve.cpt(0.8)}


def calibration_error(predicted: np.ndarray, right: np.ndarray) -> float:
    """Return how far, on the mean, tenths of equal count are predicted off their share of right answers."""
    return float(np.mean([abs(predicted[p].mean() - right[p].mean()) for p in np.array_split(predicted.argsort(), 10)]))


# -- the guarantee -------------------------------------------------------------------------------------------------


def one_guarantee(
    scores: np.ndarray, right: np.ndarray, rng: np.random.Generator, calibrate: np.ndarray | None = None,
    right_later: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """Calibrate on 500 rows (or half, of fewer), test on the others.

    *calibrate*: which rows may be calibrated on. *right_later*: what is right in the test, where the world has changed.
    """
    allowed = np.arange(len(scores)) if calibrate is None else np.flatnonzero(calibrate)
    drawn = rng.permutation(allowed)[: min(CALIBRATION, len(scores) // 2, len(allowed))]
    tested = np.ones(len(scores), bool) if calibrate is None else ~calibrate
    tested[drawn] = False
    wrong = (right < 0.5).astype(float)
    later = wrong if right_later is None else (right_later < 0.5).astype(float)
    found = {}
    for delta in DELTAS:
        rule = accept_threshold(scores[drawn], wrong[drawn], delta=delta, alpha=ALPHA)
        accepted = tested & (scores >= rule.threshold) if rule.threshold is not None else np.zeros(len(scores), bool)
        error = float(later[accepted].mean()) if accepted.any() else None
        found[delta] = {
            "abstained": rule.threshold is None, "violated": error is not None and error > delta, "error": error,
            "escalated": 1 - float(accepted.sum() / tested.sum()),
        }  # fmt: skip
    return found


def shifted(table: Table, rest: np.ndarray, scores: np.ndarray, weak: np.ndarray, splits: range) -> dict:
    """Calibrate on some groups and test on others; without groups, on the shorter prompts and on the longer ones."""
    runs = []
    for i in splits:
        rng = np.random.default_rng([SEED, 8, i])
        if table.groups is not None:
            names = np.array(sorted(set(table.groups)))
            here = set(rng.permutation(names)[: len(names) // 2].tolist())
            calibrate = np.array([table.groups[j] in here for j in rest])
        else:
            lengths = np.array([len(table.texts[j]) for j in rest])
            calibrate = lengths <= np.median(lengths)
        if calibrate.any() and not calibrate.all():
            runs.append(one_guarantee(scores, weak, rng, calibrate))
    kind = "half of the groups to the others" if table.groups is not None else "shorter prompts to longer ones"
    return {"shifted": runs, "shift": kind}


def guarantee(by_split: list[list[dict]]) -> dict:
    runs = [run for one in by_split for run in one]
    found = {}
    for delta in DELTAS:
        rows = [run[delta] for run in runs]
        if not rows:
            continue
        violated = sum(row["violated"] for row in rows)
        errors = [row["error"] for row in rows if row["error"] is not None]
        found[f"{delta:g}"] = {
            "violations": round(violated / len(rows), 4),
            "violations_interval": [round(end, 4) for end in clopper_pearson(violated, len(rows))],
            "escalated": round(mean([row["escalated"] for row in rows]), 4),
            "abstained": round(mean([row["abstained"] for row in rows]), 4),
            "error": round(mean(errors), 4) if errors else None, "splits": len(rows),
        }  # fmt: skip
    return found


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def percent(values: list[float | None]) -> float | None:
    return None if any(value is None for value in values) else round(100 * mean(values), 2)


def spread(values: list[float | None], times: float = 1.0) -> list[float] | None:
    """Return where 95 % of the splits lie. They share rows, so this is no interval of the mean."""
    if any(value is None for value in values):
        return None
    return [round(times * float(end), 4) for end in np.quantile(values, [0.025, 0.975])]
