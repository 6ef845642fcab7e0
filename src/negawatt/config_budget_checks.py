"""What the types cannot say of budgets: limits that are one, policies that exist, zones that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from negawatt.config import Config
from negawatt.config_budgets import Budget

_MOST = {"tokens": 4 * 10**18, "usd": 4_000_000, "joules": 4 * 10**15}  # what 64 bits hold, in our smallest units
Refuse = Callable[[str, str, set[str] | None], NoReturn]


def check_budgets(config: Config, refuse: Refuse) -> None:
    """Call *refuse* with the path of what is wrong, what is wrong, and what is known instead."""
    names = [budget.name for budget in config.budgets]
    for i, budget in enumerate(config.budgets):
        where = f"budgets[{i}]"
        if budget.name in names[:i]:
            refuse(where, f"{budget.name!r} is there twice", None)
        if not all(" " <= c <= "~" for c in budget.name):
            refuse(f"{where}.name", "expected printable ASCII: headers name it", None)
        _limit(where, budget, refuse)
        _policy(config, where, budget, refuse)
        if budget.zone != "UTC":
            _zone(where, budget.zone, refuse)
    for i, key in enumerate(config.keys):
        for j, name in enumerate(key.budgets):
            if name not in names:
                refuse(f"keys[{i}].budgets[{j}]", f"no budget is named {name!r}", set(names))


def _limit(where: str, budget: Budget, refuse: Refuse) -> None:
    limits = {unit: getattr(budget, unit) for unit in _MOST if getattr(budget, unit) is not None}
    if len(limits) != 1:
        refuse(where, f"expected exactly one of tokens, usd and joules, got {', '.join(limits) or 'none'}", None)
    for unit, limit in limits.items():
        if limit > _MOST[unit]:
            refuse(f"{where}.{unit}", f"expected at most {_MOST[unit]:,}", None)
        if unit != "tokens" and limit < 1e-6:
            refuse(f"{where}.{unit}", "expected at least 0.000001", None)


def _policy(config: Config, where: str, budget: Budget, refuse: Refuse) -> None:
    if budget.at_limit == "downgrade" and budget.policy is None:
        refuse(f"{where}.policy", "at_limit is downgrade: expected the policy that chooses from then on", None)
    if budget.policy is not None and budget.at_limit != "downgrade":
        refuse(f"{where}.policy", f"at_limit is {budget.at_limit}: only downgrade has a policy", None)
    if budget.policy is not None and budget.policy not in config.policies:
        refuse(f"{where}.policy", f"no policy is named {budget.policy!r}", set(config.policies))


def _zone(where: str, name: str, refuse: Refuse) -> None:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        refuse(f"{where}.zone", f"expected a time zone such as UTC or Europe/Paris, got {name[:80]!r}", None)
