"""What was saved: by the ledger's estimate, against the holdout, and lever by lever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from negawatt.ledger.rollup_reader import Buckets, Snapshot
from negawatt.ledger.rollup_tables import GROUPED, LEVER_GROUPS, LEVERS
from negawatt.web.intervals import Interval, at_most, of_sums, rate, scaled, total
from negawatt.web.sums import J_PER_WH, PUSD, dollars, watt_hours

HOLDOUT_NEEDS = 30  # calls; with fewer the holdout says nothing, as in a report

_Sums = dict[str, Any]


class Grouped:
    """The sums of a period by groups of clusters of repeats, held out and not."""

    def __init__(self, snapshot: Snapshot, buckets: Buckets) -> None:
        names = GROUPED.sums
        rest: dict[int, _Sums] = {}
        held: dict[int, _Sums] = {}
        for (_, holdout, grp), values in snapshot.sums(GROUPED, names, buckets, by=("holdout", "grp")).items():
            (held if holdout else rest)[grp] = dict(zip(names, values, strict=True))
        nothing = dict.fromkeys(names, 0)
        self.numbers = sorted(rest.keys() | held.keys())
        self.rest = [rest.get(grp, nothing) for grp in self.numbers]
        self.held = [held.get(grp, nothing) for grp in self.numbers]
        self.all = [
            {name: one[name] + other[name] for name in names}
            for one, other in zip(self.rest, self.held, strict=True)
        ]  # fmt: skip

    def count(self, name: str) -> Any:
        return sum(group[name] for group in self.all)

    def rate(self, ones: str, sizes: str) -> Interval:
        groups = [group for group in self.all if group[sizes]]
        return rate([group[ones] for group in groups], [group[sizes] for group in groups])

    def pct(self, baseline: str, actual: str) -> Interval:
        """Return by how many percent *actual* lies below *baseline*."""
        interval = of_sums(
            [(group[baseline], group[actual]) for group in self.all],
            lambda sums: 100 * (sums[0] - sums[1]) / sums[0] if sums[0] else None,
        )
        return at_most(interval, 100.0)


def saved(grouped: Grouped) -> dict[str, Any]:
    """Return what was saved, over the calls where both sides are known."""

    def amount(pairs: str, *differences: tuple[str, str]) -> Interval:
        if grouped.count("calls") and not grouped.count(pairs):
            return Interval(None, None, None)
        return total([sum(group[b] - group[a] for b, a in differences) for group in grouped.all])

    tokens_in = ("paired_baseline_input", "paired_input")
    tokens_out = ("paired_baseline_output", "paired_output")
    energy = scaled(amount("energy_pairs", ("paired_baseline_energy_j", "paired_energy_j")), 1 / J_PER_WH)
    known = grouped.count("energy_pairs") or not grouped.count("calls")
    low, high = (
        watt_hours(grouped.count(f"saved_energy_{bound}_j")) if known else None for bound in ("low", "high")
    )  # fmt: skip
    return {
        "cost_usd": scaled(amount("cost_pairs", ("paired_baseline_pusd", "paired_cost_pusd")), 1 / PUSD),
        "cost_pct": grouped.pct("paired_baseline_pusd", "paired_cost_pusd"),
        "tokens": amount("input_pairs", tokens_in, tokens_out),
        "input_tokens": amount("input_pairs", tokens_in),
        "output_tokens": amount("output_pairs", tokens_out),
        "input_tokens_pct": grouped.pct(*tokens_in),
        "output_tokens_pct": grouped.pct(*tokens_out),
        "energy_wh": {"mean": energy.mean, "low": energy.low, "high": energy.high,
                      "estimates": [low, energy.mean, high]},
        "energy_pct": grouped.pct("paired_baseline_energy_j", "paired_energy_j"),
        "unpriced": grouped.count("calls") - grouped.count("cost_pairs"),
    }  # fmt: skip


def holdout(grouped: Grouped) -> dict[str, Any] | None:
    """Return the holdout beside the rest: what was measured to be saved per call, and what was estimated."""
    requests = sum(group["calls"] for group in grouped.held)
    if not requests:
        return None
    columns = [
        (held["paired_cost_pusd"], held["cost_pairs"], rest["paired_cost_pusd"], rest["cost_pairs"],
         rest["paired_baseline_pusd"])
        for held, rest in zip(grouped.held, grouped.rest, strict=True)
    ]  # fmt: skip

    def measured(sums: Sequence[float]) -> float | None:
        if not (sums[0] and sums[1] and sums[3]):
            return None
        return 100 * (1 - (sums[2] / sums[3]) / (sums[0] / sums[1]))

    def estimated(sums: Sequence[float]) -> float | None:
        return 100 * (1 - sums[2] / sums[4]) if sums[4] else None

    def gap(sums: Sequence[float]) -> float | None:
        one, other = measured(sums), estimated(sums)
        return None if one is None or other is None else one - other

    difference = of_sums(columns, gap)
    return {
        "requests": requests,
        "other_requests": sum(group["calls"] for group in grouped.rest),
        "cost_per_call_usd": _per_call(grouped.held),
        "other_cost_per_call_usd": _per_call(grouped.rest),
        "measured_saving_pct": at_most(of_sums(columns, measured), 100.0),
        "estimated_saving_pct": at_most(of_sums(columns, estimated), 100.0),
        "gap_points": difference,
        "verdict": _verdict(requests, difference),
    }


def _per_call(groups: Sequence[_Sums]) -> Interval:
    return of_sums(
        [(group["cost_pusd"], group["priced"]) for group in groups],
        lambda sums: sums[0] / sums[1] / PUSD if sums[1] else None,
    )


def _verdict(requests: int, gap: Interval) -> str:
    if requests < HOLDOUT_NEEDS or gap.low is None or gap.high is None:
        return "too few"
    return "agree" if gap.low <= 0 <= gap.high else "disagree"


class Levers:
    """What each lever's decisions come to in a period, and by groups."""

    def __init__(self, snapshot: Snapshot, buckets: Buckets, grouped: Grouped) -> None:
        names = LEVERS.sums
        self._numbers = grouped.numbers
        self._sums: dict[tuple[str, int], dict[str, _Sums]] = {}
        for (_, lever, shadow, basis), values in snapshot.sums(
            LEVERS, names, buckets, by=("lever", "shadow", "basis")
        ).items():
            self._sums.setdefault((lever, shadow), {})[basis] = dict(zip(names, values, strict=True))
        self._groups: dict[tuple[str, int], dict[int, _Sums]] = {}
        for (_, lever, shadow, grp), values in snapshot.sums(
            LEVER_GROUPS, LEVER_GROUPS.sums, buckets, by=("lever", "shadow", "grp")
        ).items():
            self._groups.setdefault((lever, shadow), {})[grp] = dict(zip(LEVER_GROUPS.sums, values, strict=True))

    def steps(self, order: Sequence[str], *, shadow: bool = False) -> list[dict[str, Any]]:
        """Return the levers that saved or cost anything, in pipeline order; those that are not in *order* come last."""
        places = {lever: place for place, lever in enumerate(order)}
        found = [lever for lever, of in self._sums if of == int(shadow)]
        made = [self.step(lever, shadow=shadow) for lever in sorted(found, key=lambda n: (places.get(n, 1e9), n))]
        return [step for step in made if step["hits"]]

    def step(self, lever: str, *, shadow: bool = False) -> dict[str, Any]:
        """Return what *lever* saved. Hits whose worth is unknown add nothing and are counted."""
        by_basis = self._sums.get((lever, int(shadow)), {})
        hits = self.count(lever, "hits", shadow=shadow)
        cost = {basis: sums["cost_pusd"] for basis, sums in by_basis.items()}
        energy = [self.count(lever, name, shadow=shadow) for name in ("energy_low_j", "energy_j", "energy_high_j")]
        dark = hits and self.count(lever, "unknown_energy", shadow=shadow) == hits
        blind = hits and self.count(lever, "unknown_usage", shadow=shadow) == hits
        return {
            "lever": lever,
            "hits": hits,
            "unpriced_hits": self.count(lever, "unpriced", shadow=shadow),
            "cost_usd": self.cost(lever, shadow=shadow),
            "realised_usd": dollars(cost.get("measured", 0)),
            "estimated_usd": dollars(sum(amount for basis, amount in cost.items() if basis != "measured")),
            "input_tokens": None if blind else self.count(lever, "input_tokens", shadow=shadow),
            "output_tokens": None if blind else self.count(lever, "output_tokens", shadow=shadow),
            "energy_wh": [None if dark else watt_hours(joules) for joules in energy],
            "basis": {basis: sums["hits"] for basis, sums in sorted(by_basis.items()) if sums["hits"]},
        }

    def cost(self, lever: str, *, shadow: bool = False) -> Interval:
        """Return what *lever* saved, in dollars, with its interval; unknown where no hit has a price."""
        hits = self.count(lever, "hits", shadow=shadow)
        if hits and self.count(lever, "unpriced", shadow=shadow) == hits:
            return Interval(None, None, None)
        groups = self._groups.get((lever, int(shadow)), {})
        return scaled(total([groups[grp]["cost_pusd"] if grp in groups else 0 for grp in self._numbers]), 1 / PUSD)

    def hit_rate(self, lever: str) -> Interval:
        """Return the share of the calls that *lever* looked at which it answered."""
        groups = [group for group in self._groups.get((lever, 0), {}).values() if group["looked"]]
        return rate([group["hits"] for group in groups], [group["looked"] for group in groups])

    def count(self, lever: str, name: str, *, shadow: bool = False) -> Any:
        return sum(sums[name] for sums in self._sums.get((lever, int(shadow)), {}).values())


def waterfall(grouped: Grouped, levers: Levers, order: Sequence[str]) -> dict[str, Any]:
    """Return the steps from what calls would have cost to what they did, over those where both are known."""
    known = grouped.count("cost_pairs") or not grouped.count("calls")
    baseline, actual = grouped.count("paired_baseline_pusd"), grouped.count("paired_cost_pusd")
    steps = levers.steps(order)
    explained = sum(step["cost_usd"].mean or 0.0 for step in steps)
    dark = grouped.count("calls") and not grouped.count("energy_pairs")
    return {
        "baseline_usd": dollars(baseline) if known else None,
        "actual_usd": dollars(actual) if known else None,
        "unattributed_usd": (baseline - actual) / PUSD - explained if known else None,
        "energy_baseline_wh": None if dark else watt_hours(grouped.count("paired_baseline_energy_j")),
        "steps": steps,
        "shadow": levers.steps(order, shadow=True),
    }
