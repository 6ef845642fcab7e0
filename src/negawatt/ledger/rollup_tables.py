"""What the roll-ups sum, and by what: tables as data. The statements are made of it in `sql_rollups`.

No key is a product of others that callers could make grow without bound: each view has its own few keys (a *grain*),
and names beyond a number for each kind are counted under `OTHER`.
"""

from __future__ import annotations

from typing import NamedTuple

SLOT_S = 900  # of the finest roll-up; every time zone's day begins at a multiple of it
SPANS = (900, 3_600, 86_400)
GROUPS = 32  # into which clusters of repeats are dealt; what intervals are made from
OTHER = "other"
ALL = "*"  # in a key that a grain does not tell apart
DELIVERED = ("answered", "cached", "coalesced")
AT_FAULT = ("upstream_error", "upstream_broken", "deadline", "failed")

# Names of each kind that are told apart; the first to come have them.
MOST = {
    "tenant": 500, "request_class": 200, "asked": 200, "model": 200, "provider": 100, "template": 200,
    "template_version": 1000, "versions": 200, "energy_basis": 100, "lever": 100, "action": 200, "block": 1000,
}  # fmt: skip

# Each grain of `CALLS`: what its rows tell apart.
GRAINS: dict[str, tuple[str, ...]] = {
    "total": (),
    "classes": ("request_class",),
    "answerers": ("model",),
    "models": ("request_class", "asked", "model", "provider"),
    "endings": ("request_class", "cache", "ending", "holdout"),
    "sources": ("price_source", "energy_basis", "versions"),
}


class Table(NamedTuple):
    """One table of sums, by *keys*. *grains*: which of the keys each grain tells apart; empty where there is one."""

    name: str
    keys: tuple[str, ...]
    sums: tuple[str, ...]
    grains: dict[str, tuple[str, ...]]

    @property
    def lead(self) -> tuple[str, ...]:
        """The keys before the time, by which views choose."""
        return ("grain",) if self.grains else ()

    @property
    def fresh(self) -> str:
        """The temporary table of what is new, by the quarter of an hour, not yet split into grains."""
        return f"temp.fresh_{self.name.removeprefix('rollup_')}"

    @property
    def staged(self) -> str:
        """The temporary table of what is new, split into grains; the same one where there is one."""
        return f"temp.staged_{self.name.removeprefix('rollup_')}" if self.grains else self.fresh


# Keys and sums, each with the SQL over `outcome` that it is.
DIMENSIONS = {
    "request_class": "request_class",
    "asked": "coalesce(request_model, '')",
    "model": "coalesce(response_model, '')",
    "provider": "coalesce(provider, '')",
    "cache": "cache",
    "ending": "ending",
    "holdout": "holdout",
    "price_source": "coalesce(price_source, '')",
    "energy_basis": "coalesce(energy_basis, '')",
    "versions": "versions",
}
_SUMMED = (
    "cost_pusd", "baseline_cost_pusd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "baseline_input_tokens", "baseline_output_tokens", "energy_low_j", "energy_j",
    "energy_high_j", "baseline_energy_low_j", "baseline_energy_j", "baseline_energy_high_j", "co2e_g", "upstream_s",
    "queue_s", "overhead_s",
)  # fmt: skip
SUMS = {
    "calls": "count(*)",
    "unpriced": "sum(cost_pusd IS NULL)",
    "unpriced_baseline": "sum(baseline_cost_pusd IS NULL)",
    **{name: f"sum(coalesce({name}, 0))" for name in _SUMMED},
    "attempts": "sum(attempts)",
    "unknown_usage": "sum(input_tokens IS NULL)",
    "unknown_baseline_usage": "sum(baseline_input_tokens IS NULL)",
    "unknown_energy": "sum(energy_j IS NULL)",
    "unknown_baseline_energy": "sum(baseline_energy_j IS NULL)",
    "unknown_co2e": "sum(co2e_g IS NULL)",
    "at_fault": f"sum(ending IN {AT_FAULT})",
    "hits": "sum(cache NOT IN ('miss', 'bypass'))",
}


def _pair(one: str, other: str) -> str:
    """Return, as SQL, whether both are known: a saving is over the same calls on both sides."""
    return f"({one} IS NOT NULL AND {other} IS NOT NULL)"


_COST = _pair("cost_pusd", "baseline_cost_pusd")
_INPUT = _pair("input_tokens", "baseline_input_tokens")
_OUTPUT = _pair("output_tokens", "baseline_output_tokens")
_ENERGY = _pair("energy_j", "baseline_energy_j")
GROUP_SUMS = {
    "calls": "count(*)",
    "at_fault": f"sum(ending IN {AT_FAULT})",
    "looked_up": "sum(cache <> 'bypass')",
    "hits": "sum(cache NOT IN ('miss', 'bypass'))",
    "priced": "sum(cost_pusd IS NOT NULL)",
    "cost_pusd": "sum(coalesce(cost_pusd, 0))",
    "cost_pairs": f"sum({_COST})",
    "paired_cost_pusd": f"sum(CASE WHEN {_COST} THEN cost_pusd ELSE 0 END)",
    "paired_baseline_pusd": f"sum(CASE WHEN {_COST} THEN baseline_cost_pusd ELSE 0 END)",
    "input_pairs": f"sum({_INPUT})",
    "paired_input": f"sum(CASE WHEN {_INPUT} THEN input_tokens ELSE 0 END)",
    "paired_baseline_input": f"sum(CASE WHEN {_INPUT} THEN baseline_input_tokens ELSE 0 END)",
    "output_pairs": f"sum({_OUTPUT})",
    "paired_output": f"sum(CASE WHEN {_OUTPUT} THEN output_tokens ELSE 0 END)",
    "paired_baseline_output": f"sum(CASE WHEN {_OUTPUT} THEN baseline_output_tokens ELSE 0 END)",
    "energy_pairs": f"sum({_ENERGY})",
    "paired_energy_j": f"sum(CASE WHEN {_ENERGY} THEN energy_j ELSE 0.0 END)",
    "paired_baseline_energy_j": f"sum(CASE WHEN {_ENERGY} THEN baseline_energy_j ELSE 0.0 END)",
    "saved_energy_low_j": f"sum(CASE WHEN {_ENERGY} THEN baseline_energy_low_j - energy_low_j ELSE 0.0 END)",
    "saved_energy_high_j": f"sum(CASE WHEN {_ENERGY} THEN baseline_energy_high_j - energy_high_j ELSE 0.0 END)",
}
CALLS = Table("rollup_calls", tuple(DIMENSIONS), tuple(SUMS), GRAINS)
GROUPED = Table("rollup_groups", ("holdout", "grp"), tuple(GROUP_SUMS), {})
LEVERS = Table(
    "rollup_levers", ("request_class", "lever", "shadow", "basis"),
    ("looked", "hits", "stale", "explored", "input_tokens", "output_tokens", "cost_pusd", "unpriced", "energy_low_j",
     "energy_j", "energy_high_j", "unknown_usage", "unknown_energy"), {},
)  # fmt: skip
LEVER_GROUPS = Table("rollup_lever_groups", ("lever", "shadow", "grp"), ("looked", "hits", "cost_pusd", "energy_j"), {})
ACTIONS = Table("rollup_actions", ("request_class", "lever", "mode", "action"), ("decisions",), {})
BLOCKS = Table("rollup_blocks", ("template", "template_version", "block"), ("calls", "tokens"), {})
FEW = ("calls", "cost_pusd", "baseline_cost_pusd", "unpriced", "unpriced_baseline", "input_tokens", "output_tokens",
       "cache_read_tokens", "unknown_usage")  # fmt: skip
TENANTS = Table("rollup_tenants", ("tenant", "request_class"), FEW, {})
TEMPLATES = Table("rollup_templates", ("template", "template_version"), FEW, {})
TABLES = (CALLS, GROUPED, LEVERS, LEVER_GROUPS, ACTIONS, BLOCKS, TENANTS, TEMPLATES)
NUMBERS = frozenset({"holdout", "shadow", "grp"})  # keys that are numbers
