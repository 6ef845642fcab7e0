"""Which candidate of a policy is asked, and why. Pure: everything that is known comes in.

Whatever the way of choosing, the result is never below what the demand and the hard rules leave. Evidence counts
where there is some: a candidate that was measured and did not reach the target is passed over for a stronger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from negawatt.config_routes import Quality
from negawatt.routing.choice import Choice
from negawatt.routing.policies import Demand, Ranked

if TYPE_CHECKING:
    from negawatt.routing.asked import Asked


class Pick(NamedTuple):
    """*by*: what decided. *expected_success*: of the task, where something is known about it; None is unknown."""

    choice: Choice
    by: str
    reason: str
    expected_success: float | None = None
    detail: dict[str, Any] | None = None


def reaches(choice: Choice, quality: Quality | None, reference: Choice) -> bool | None:
    """Say whether *choice* was measured to reach *quality*; None when nobody measured it.

    For a loss, its lower bound is set against the rate of the reference.
    """
    found, best = choice.candidate.success, reference.candidate.success
    if quality is None:
        return True
    if found is None:
        return None
    if quality.success is not None and found.low < quality.success:
        return False
    if quality.loss is not None:
        if choice is reference:
            return True
        return None if best is None else best.rate - found.low <= quality.loss
    return True


def fixed(ranked: Ranked, demand: Demand, open_: Sequence[Choice]) -> Pick:
    """Pick the model that the policy names, else the cheapest that was measured to reach the target."""
    settings = ranked.settings
    if settings.model is not None:
        return _at_least(ranked.choice(settings.model, settings.effort), "fixed", "named", ranked, demand, open_)
    if demand.quality is None:
        return _pick(open_[0], "fixed", "the cheapest")
    for choice in open_:
        if reaches(choice, demand.quality, ranked.reference):
            return _pick(choice, "fixed", "the cheapest that was measured to reach the target")
    return _strongest(open_, "fixed", "none was measured to reach the target")


def by_rule(ranked: Ranked, demand: Demand, open_: Sequence[Choice], asked: Asked) -> Pick:
    """Pick what the first rule says that describes the request; without any, the policy's model or the reference."""
    for place, (matcher, choice) in enumerate(ranked.rules):
        if matcher.matches(asked):
            return _at_least(choice, "rule", f"rule {place + 1}", ranked, demand, open_)
    settings = ranked.settings
    if settings.model is not None:
        chosen = ranked.choice(settings.model, settings.effort)
        return _at_least(chosen, "rule", "no rule applies: the policy's model", ranked, demand, open_)
    return _strongest(open_, "rule", "no rule applies: the reference")


def opened(pick: Pick, open_: Sequence[Choice]) -> Pick:
    """Return *pick*, or one for the next stronger choice where its own is not open to this call."""
    wanted = pick.choice
    if wanted in open_:
        return pick
    stronger = [one for one in open_ if one.tier >= wanted.tier]
    if stronger:
        reason = f"{pick.reason}; {wanted.name} may not take this request"
        return pick._replace(choice=min(stronger, key=lambda one: one.tier), reason=reason, expected_success=None)
    return _strongest(open_, pick.by, f"{pick.reason}; {wanted.name} may not take this request")


def _at_least(wanted: Choice, by: str, reason: str, ranked: Ranked, demand: Demand, open_: Sequence[Choice]) -> Pick:
    """Pick *wanted*, or the cheapest of those that are as strong, where it is not open or known to miss the target."""
    found = reaches(wanted, demand.quality, ranked.reference)
    if wanted in open_ and (found or (found is None and not demand.sure)):
        return _pick(wanted, by, reason)
    why = "may not take this request" if wanted not in open_ else "was not measured to reach the target"
    for choice in open_:
        if choice.tier >= wanted.tier and choice is not wanted and reaches(choice, demand.quality, ranked.reference):
            return _pick(choice, by, f"{reason}; {wanted.name} {why}")
    return _strongest(open_, by, f"{reason}; {wanted.name} {why}")


def _strongest(open_: Sequence[Choice], by: str, reason: str) -> Pick:
    return _pick(max(open_, key=lambda one: one.tier), by, reason)


def _pick(choice: Choice, by: str, reason: str) -> Pick:
    found = choice.candidate.success
    return Pick(choice, by, reason, None if found is None else found.rate)
