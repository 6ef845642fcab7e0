"""The table of a report that is about tasks: what one success costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from negawatt.proof import formats
from negawatt.proof.cache_page import Cells
from negawatt.proof.figures import J_PER_WH
from negawatt.proof.page import Cell

Figures = Mapping[str, Any]
_FEW = 0.5  # share of tasks without a verdict from which the note says what that means


def groups(tasks: Figures) -> list[Figures]:
    """Return what the table of a report shows: each class, and all together."""
    total = [] if tasks["all"] is None else [tasks["all"]]
    return total if len(tasks["classes"]) == 1 else [*tasks["classes"], *total]


def tasks_table(groups: Sequence[Figures], what: str = "class") -> Cells:
    """Return the head and the rows of the table of tasks, a row for each of *groups* and each the figures of one."""
    head = [Cell.of(what), Cell.of("tasks", "judged", "successes"), Cell.of("success", "95 % interval")]
    head += [Cell.of("one costs", "95 % from", "to"), Cell.of("burns, est.", "low", "high")]
    head += [Cell.of("takes", "p50", "p95")]
    rows = []
    for one in groups:
        p50, p95 = (one[f"latency_to_success_{name}_s"] for name in ("p50", "p95"))
        timed = one["latency_to_success_s"]["mean"]
        rows.append([
            Cell.of(one["name"] or "all"),
            Cell.of(*(formats.count(one[key]) for key in ("tasks", "judged", "successes"))),
            Cell.of(*_rate(one)),
            Cell.of(*_cost(one)),
            Cell.of(*_energy(one)),
            Cell.of(formats.seconds(timed), *("–" if s is None else formats.seconds(s) for s in (p50, p95)))
            if timed is not None else Cell.of("–"),
        ])  # fmt: skip
    return head, rows


def _rate(one: Figures) -> tuple[str, str]:
    rate = one["success_rate"]
    if rate["mean"] is None:
        return formats.UNKNOWN, ""
    low, high = (formats.percent(rate[end]).removesuffix(" %") for end in ("low", "high"))
    return formats.percent(rate["mean"]), f"[{low}, {high}]"


def _cost(one: Figures) -> tuple[str, ...]:
    cost = one["cost_per_success_usd"]
    unpriced = f"+ {one['unpriced_tasks']:,} unpriced" if one["unpriced_tasks"] else ""
    if cost["mean"] is None:
        return "undefined" if one["judged"] else formats.UNKNOWN, unpriced
    bounds = ["?" if cost[end] is None else formats.usd(cost[end]) for end in ("low", "high")]
    return formats.usd(cost["mean"]), *bounds, unpriced


def _energy(one: Figures) -> tuple[str, ...]:
    joules = one["energy_per_success_j"]
    if joules is None:
        return ("undefined" if one["judged"] else formats.UNKNOWN,)
    low, central, high = (formats.wh(value / J_PER_WH) for value in joules)
    return central, low, high


def tasks_note(total: Figures | None) -> str:
    """Return how to read the table, and what is not known of the tasks that nobody judged; *total* is of all."""
    if total is None:
        return "There was no task."
    bases = (("by_feedback", "feedback"), ("by_verifier", "verifiers"), ("by_heuristic", "what their class declares"))
    said = ", ".join(f"{total[key]:,} by {name}" for key, name in bases if total[key])
    note = (
        f"{formats.count(total['judged'])} of {formats.count(total['tasks'])} tasks were judged"
        f"{f' ({said})' if said else ''}; all rates and costs are theirs. The cost of one success is that of all "
        "attempts of the judged tasks, failed ones and what was asked beside them included, over those that succeeded."
    )
    if not total["unknown_share"]:
        return note
    least, most = (formats.percent(share) for share in total["success_possible"])
    note += (
        f" Of {formats.percent(total['unknown_share'])} of the tasks it is not known: had all of these failed, "
        f"{least} would have succeeded, had none, {most}. Who is asked, or answers, is seldom a fair sample."
    )
    judged, unknown = total["cost_per_judged_task_usd"], total["cost_per_unknown_task_usd"]
    if total["unknown_share"] >= _FEW and judged is not None and unknown is not None:
        note += f" A judged task cost {formats.usd(judged)}, one that is not {formats.usd(unknown)}."
    return note
