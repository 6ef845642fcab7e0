"""What an evaluation found, in figures: each candidate by itself, against the reference, and beside trivial choices.

Everything that was asked is in it: a call that failed is a task that was not done. Intervals are 95 %: of shares
exact (Clopper-Pearson, at the effective sample size where cases are repeated), of everything else by bootstrap over
cases. Candidates are compared on the same cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from negawatt import __version__
from negawatt.catalogue import Catalogue
from negawatt.config_routes import Quality
from negawatt.proof.cases import SuiteCase
from negawatt.proof.outcome_table import Column, OutcomeTable
from negawatt.statistics import Array, Bootstrap, Interval, holm, mcnemar, quantile

_PER_WH = 3600.0
_TAIL = 20  # calls that a 95th percentile needs
_FLIPS = 4000


def evaluation(table: OutcomeTable, command: str = "negawatt eval") -> dict[str, Any]:
    """Return the figures, ready to become JSON. None is unknown."""
    boot = _bootstrap(table)
    suite = table.suite.file
    groups = {case.group or case.request_class for case in table.cases}
    summary: dict[str, Any] = {
        "suite": suite.name,
        "first_line": first_line(table),
        "date": datetime.now(UTC).date().isoformat(),
        "version": __version__,
        "command": command,
        "seed": suite.seed,
        "cases": len(table.cases),
        "repeats": suite.repeats,
        "success_is": success_is(table),
        "interval": "95 %: Clopper-Pearson for shares; bootstrap over cases for the rest",
        "judging": {"calls": table.judging_calls, "cost_usd": table.judging_usd},
        "reference": table.reference.name,
        "by_cost": [table.columns[i].name for i in table.by_cost()],
        "candidates": {one.name: candidate_figures(one, boot, who_answered(table, one)) for one in table.columns},
        "comparisons": comparisons(table, boot),
        "baselines": baselines(table, boot),
        "groups": {},
    }
    for group in sorted(name for name in groups if name is not None) if len(groups) > 1 else ():
        part = table.part(partial(_of_group, group))
        within = _bootstrap(part)
        summary["groups"][group] = {
            "cases": len(part.cases),
            "accuracy": {one.name: interval(within.proportion(one.success)) for one in part.columns},
        }
    return summary


def _of_group(group: str, case: SuiteCase) -> bool:
    return (case.group or case.request_class) == group


def _bootstrap(table: OutcomeTable) -> Bootstrap:
    return Bootstrap(table.clusters, np.random.default_rng(table.suite.file.seed))


def first_line(table: OutcomeTable) -> str:
    """Return what the reader must know first: what of this was recorded or modelled, and what was asked."""
    named: dict[str, list[str]] = {"recorded": [], "modelled": [], "live": []}
    for one in table.columns:
        named[who_answered(table, one)].append(one.name)
    parts = []
    if named["recorded"]:
        said = ", ".join(named["recorded"])
        parts.append(f"Recorded answers, not asked now: {said}; their times are the recording's.")
        parts += [f"{note[:1].upper()}{note[1:]}." for note in table.notes]
    if named["modelled"]:
        parts.append(f"Modelled, no model answered: {', '.join(named['modelled'])}.")
    if named["live"]:
        parts.append(f"Asked live: {', '.join(named['live'])}.")
    if any(basis != "measured" for one in table.columns for basis in one.bases):
        parts.append("Token counts are estimated in part.")
    return " ".join(parts)


def who_answered(table: OutcomeTable, one: Column) -> str:
    """Return whether a candidate's answers were recorded, modelled, or given live."""
    if one.candidate.recording is not None:
        return "recorded"
    config = table.suite.config
    target = Catalogue(config).targets(one.candidate.model)[0]
    provider = next(provider for provider in config.providers if provider.name == target.provider)
    kind = provider.kind or (provider.url or "").partition(":")[0]
    return kind if kind in ("recorded", "modelled") else "live"


def success_is(table: OutcomeTable) -> str:
    """Return what a success is called: agreement, where what is expected is a model's own kept answer."""
    kept = [dataset.expected == "kept" for dataset in table.suite.file.datasets]
    if all(kept):
        return "agreement with the kept answers of the reference"
    return (
        "passing every verifier that decides; agreement where answers were kept"
        if any(kept)
        else "passing every verifier that decides"
    )


def interval(value: Interval) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low, "high": value.high}


def candidate_figures(one: Column, boot: Bootstrap, answers: str) -> dict[str, Any]:
    """Return what is known of one candidate by itself."""
    asked = int((~np.isnan(one.success)).sum())
    low, central, high = one.energy_j
    measures = {kind: _measure(passed, boot) for kind, passed in one.kinds.items()}
    return {
        "model": one.candidate.model,
        "effort": one.candidate.effort,
        "settings": dict(one.candidate.settings),
        "answers": answers,  # recorded, modelled or live
        "n": asked,
        "failed": {"n": int(np.nansum(one.failed)), "reasons": one.reasons},
        "accuracy": interval(boot.proportion(one.success)),
        "measures": measures,
        "groundedness": measures.get("groundedness"),
        "hallucination_rate": _opposite(measures.get("groundedness")),
        "structure": measures.get("schema"),
        "latency_p50_s": quantile(one.duration_s, 0.5),
        "latency_p95_s": quantile(one.duration_s, 0.95, at_least=_TAIL),
        "input_tokens": interval(boot.mean(one.input_tokens)),
        "output_tokens": interval(boot.mean(one.output_tokens)),
        "token_bases": one.bases,
        "cost_usd_per_call": interval(boot.mean(one.cost_usd)),
        "cost_usd_per_success": interval(boot.ratio(one.cost_usd, one.success)),
        "unpriced": int((np.isnan(one.cost_usd) & ~np.isnan(one.success)).sum()),
        "energy_wh_per_success": {
            "low": boot.ratio(low / _PER_WH, one.success).mean,
            "central": interval(boot.ratio(central / _PER_WH, one.success)),
            "high": boot.ratio(high / _PER_WH, one.success).mean,
            "bases": one.energy_bases,
        },
    }


def _measure(passed: Array, boot: Bootstrap) -> dict[str, Any]:
    return {**interval(boot.proportion(passed)), "n": int((~np.isnan(passed)).sum())}


def _opposite(measure: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if measure is None or measure["mean"] is None:
        return None
    return {"mean": 1 - measure["mean"], "low": 1 - measure["high"], "high": 1 - measure["low"], "n": measure["n"]}


# -- against the reference ---------------------------------------------------------------------------------------------


def comparisons(table: OutcomeTable, boot: Bootstrap) -> dict[str, Any]:
    """Return, for every candidate but the reference, how it did on the same cases; p adjusted by Holm."""
    others, reference = table.columns[:-1], table.reference
    found: dict[str, Any] = {}
    for one in others:
        difference = boot.of_sums(lambda s: (s[..., 0] - s[..., 1]) / s[..., 2], one.success, reference.success,
                                  np.ones_like(one.success))  # fmt: skip
        better, worse = discordant(one.success, reference.success)
        p = mcnemar(better, worse) if table.suite.file.repeats == 1 else _sign_flips(table, one)
        found[one.name] = {"difference": interval(difference), "better": better, "worse": worse, "p": p}
    for name, adjusted in zip(found, holm([one["p"] for one in found.values()]), strict=True):
        found[name]["p_holm"] = adjusted
    test = "McNemar exact" if table.suite.file.repeats == 1 else f"sign flips over cases, {_FLIPS} draws"
    return {"test": test, "adjusted": "Holm", "against": reference.name, "candidates": found}


def discordant(one: Array, other: Array) -> tuple[int, int]:
    """Return in how many rows only *one* is right, and in how many only *other*."""
    return int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())


def _sign_flips(table: OutcomeTable, one: Column) -> float:
    """Return the two-sided p that the mean difference is 0, repeats of a case taken together."""
    repeats = table.suite.file.repeats
    by_case = (one.success - table.reference.success).reshape(-1, repeats)
    known = ~np.isnan(by_case)
    sums, counts = np.where(known, by_case, 0).sum(axis=1), known.sum(axis=1)
    means = sums[counts > 0] / counts[counts > 0]
    means = means[means != 0]
    if means.size == 0:
        return 1.0
    rng = np.random.default_rng(table.suite.file.seed)
    drawn = (rng.integers(0, 2, size=(_FLIPS, means.size)) * 2 - 1) @ means
    return float((1 + (np.abs(drawn) >= abs(means.sum()) - 1e-12).sum()) / (1 + _FLIPS))


# -- trivial choices ---------------------------------------------------------------------------------------------------


def baselines(table: OutcomeTable, boot: Bootstrap) -> dict[str, Any]:
    """Return what anybody reaches: always the cheapest, always the reference, a coin at equal cost, and the oracle."""
    order = table.by_cost()
    small = table.columns[order[0]]
    return {
        "always_small": {"candidate": small.name, "accuracy": boot.proportion(small.success).mean},
        "always_large": {
            "candidate": table.reference.name,
            "accuracy": boot.proportion(table.reference.success).mean,
        },
        "random_mix": [
            found
            for i in order
            if table.columns[i] is not small
            and table.columns[i] is not table.reference
            and (found := _mix(table.columns[i], small, table.reference, boot)) is not None
        ],
        "oracle": _oracle([table.columns[i] for i in order]),
    }


def _mix(one: Column, small: Column, large: Column, boot: Bootstrap) -> dict[str, Any] | None:
    """Return what tossing a coin between *small* and *large* reaches for what *one* costs; None out of their span."""

    def mixed(s: Array) -> Array:
        share = (s[..., 3] - s[..., 4]) / (s[..., 5] - s[..., 4])
        return ((1 - share) * s[..., 1] + share * s[..., 2]) / s[..., 6]

    columns = (one.success, small.success, large.success, one.cost_usd, small.cost_usd, large.cost_usd,
               np.ones_like(one.success))  # fmt: skip
    costs = [float(np.nanmean(values)) if not np.isnan(values).all() else math.nan for values in columns[3:6]]
    if not costs[1] <= costs[0] <= costs[2] or costs[1] == costs[2]:
        return None
    return {
        "candidate": one.name,
        "share_of_large": (costs[0] - costs[1]) / (costs[2] - costs[1]),
        "accuracy": boot.of_sums(mixed, *columns).mean,
        "difference": interval(boot.of_sums(lambda s: s[..., 0] / s[..., 6] - mixed(s), *columns)),
    }


def _oracle(ordered: Sequence[Column]) -> dict[str, Any]:
    """Return what choosing the cheapest right answer with sight of them all would reach; nobody can."""
    right = np.column_stack([one.success for one in ordered])
    known = ~np.isnan(right).any(axis=1)
    if not known.any():
        return {"accuracy": None, "cost_usd_per_call": None}
    right = right[known] == 1
    chosen = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    costs = np.column_stack([one.cost_usd for one in ordered])[known]
    spent = costs[np.arange(len(chosen)), chosen]
    cost = None if np.isnan(spent).any() else float(spent.mean())
    return {"accuracy": float(right.any(axis=1).mean()), "cost_usd_per_call": cost}


def target_words(quality: Quality) -> str:
    """Return the target in words."""
    parts = []
    if quality.success is not None:
        parts.append(f"success of at least {quality.success:.1%}")
    if quality.loss is not None:
        parts.append(f"at most {quality.loss:.1%} less than the reference")
    return f"{' and '.join(parts)}, with {quality.confidence:.0%} confidence" if parts else "no target"
