"""The routing table: the smallest model that reliably meets the target, why, and the configuration that says so.

*Reliably*: the exact lower bound of its success rate reaches the target. Several candidates are looked at and one is
picked, so the bounds hold for all of them at once: each is taken at confidence ``1 - (1 - confidence) / candidates``
(Bonferroni). A target that bounds the loss against the reference compares the same cases: the upper bound of "only
the reference is right" less the lower bound of "only this one is right", half of the error for each.

The order is that of the cost. Without a candidate that meets the target there is no table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import numpy as np

from negawatt.config_routes import Quality
from negawatt.errors import InputError
from negawatt.proof.cases import SuiteCase
from negawatt.proof.evaluation_figures import discordant, target_words
from negawatt.proof.outcome_table import Column, OutcomeTable
from negawatt.statistics import Bootstrap, least_share, most_share

_MOST_CASES = 10_000_000


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate is worth against the target."""

    name: str
    model: str
    effort: str | None
    rate: float | None
    low: float | None  # at the confidence of the target, for all candidates at once
    n: int
    loss: float | None = None  # against the reference, on the same cases
    loss_high: float | None = None
    meets: bool = False
    reason: str = ""
    needed: int | None = None  # cases, if its rate stays as it is; None: no number of cases would do

    @property
    def choice(self) -> str:
        return self.model if self.effort is None else f"{self.model} at {self.effort}"


class Learned(msgspec.Struct, frozen=True):
    """What fitting adds to a policy: its way of choosing, further fields, and which candidates it is for."""

    how: str
    fields: dict[str, Any]
    only: tuple[str, ...] | None = None  # names as `negawatt.routing.choice.Choice.name`; None: all


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True):
    """*chosen*: the place of the smallest one that meets the target among *candidates*, None where none does."""

    name: str
    group: str | None
    quality: Quality
    candidates: tuple[Found, ...]  # by cost
    chosen: int | None
    best: int | None  # the one with the highest bound
    date: str
    suite: str
    reference: str

    @property
    def verdict(self) -> str:
        """One sentence."""
        where = f" for {self.group}" if self.group else ""
        if self.chosen is not None:
            found = self.candidates[self.chosen]
            return f"The smallest model that meets the target{where}: {found.name}. {found.reason}."
        if self.best is None:
            return f"No candidate meets the target{where}, and none has been measured."
        best = self.candidates[self.best]
        more = "no number of further cases would change that at its present rate"
        if best.needed is not None:
            more = f"about {best.needed - best.n:,} more cases would show it, if its rate stays as it is"
        return f"No candidate meets the target{where}. The best is {best.name}: {best.reason}; {more}."


def routing_tables(table: OutcomeTable, quality: Quality, name: str) -> list[RoutingTable]:
    """Return the table of all cases, and one for each class (else group) where there are several.

    Raises `InputError` where *quality* is no target.
    """
    if quality.success is None and quality.loss is None:
        what = "there is no target: set success (or loss, against the last candidate) under [quality]"
        raise InputError(f"{table.suite.path}: quality: {what}", param="quality")
    tables = [_table(table, quality, name, None)]
    by_class = any(case.request_class for case in table.cases)
    found = {_group_of(case, by_class) for case in table.cases}
    for group in sorted(one for one in found if one is not None) if len(found) > 1 else ():
        part = table.part(partial(_of_group, group, by_class))
        tables.append(_table(part, quality, f"{name}-{slug(group)}", group))
    return tables


def _group_of(case: SuiteCase, by_class: bool) -> str | None:
    return case.request_class if by_class else case.group


def _of_group(group: str, by_class: bool, case: SuiteCase) -> bool:
    return _group_of(case, by_class) == group


def slug(text: str) -> str:
    """Return *text* as a name for a policy."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
    return "-".join(filter(None, kept.split("-"))) or "policy"


def _table(table: OutcomeTable, quality: Quality, name: str, group: str | None) -> RoutingTable:
    models = [i for i in table.by_cost() if not table.columns[i].candidate.policy]
    confidence = 1 - (1 - quality.confidence) / len(models)
    boot = Bootstrap(table.clusters, np.random.default_rng(table.suite.file.seed), resamples=1)
    found = [_found(table.columns[i], table.reference, quality, confidence, boot) for i in models]
    chosen = next((i for i, one in enumerate(found) if one.meets), None)
    measured = [i for i, one in enumerate(found) if one.low is not None]
    best = max(measured, key=lambda i: (found[i].low or 0.0, -i)) if measured else None
    return RoutingTable(
        name=name, group=group, quality=quality, candidates=tuple(found), chosen=chosen, best=best,
        date=datetime.now(UTC).date().isoformat(), suite=table.suite.file.name,
        reference=table.reference.name,
    )  # fmt: skip


def _found(one: Column, reference: Column, quality: Quality, confidence: float, boot: Bootstrap) -> Found:
    successes, n = boot.evidence(one.success)
    about = Found(name=one.name, model=one.candidate.model, effort=one.candidate.effort, rate=None, low=None, n=0,
                  reason="it has not been measured")  # fmt: skip
    if n == 0:
        return about
    rate, low = successes / n, least_share(successes, n, confidence)
    needed: int | None = int(n)
    reasons, meets = [], True
    if quality.success is not None:
        meets = low >= quality.success
        sign = "at least" if meets else "below"
        reasons.append(f"{rate:.1%} of {n:.0f}, surely above {low:.1%}: {sign} {quality.success:.1%}")
        needed = int(n) if meets else cases_needed(rate, quality.success, confidence)
    loss = high = None
    if quality.loss is not None:
        loss, high = (0.0, 0.0) if one is reference else loss_bound(one, reference, confidence)
        within = high is not None and high <= quality.loss
        meets = meets and within
        sign = "at most" if within else "not surely within"
        reasons.append(f"loses {loss:+.1%}, surely below {high:.1%}: {sign} {quality.loss:.1%}")
        needed = needed if within else None
    return msgspec.structs.replace(
        about, rate=rate, low=low, n=int(n), loss=loss, loss_high=high, meets=meets, reason="; ".join(reasons),
        needed=needed,
    )  # fmt: skip


def loss_bound(one: Column, reference: Column, confidence: float) -> tuple[float, float]:
    """Return by how much *one* does less well than *reference* on the same rows, and what it surely does not exceed."""
    both = ~np.isnan(one.success) & ~np.isnan(reference.success)
    n = int(both.sum())
    better, worse = discordant(one.success, reference.success)
    half = 1 - (1 - confidence) / 2
    return (worse - better) / n, most_share(worse, n, half) - least_share(better, n, half)


def cases_needed(rate: float, target: float, confidence: float) -> int | None:
    """Return how many cases at *rate* show a share of *target* with *confidence*; None where none would."""
    if rate <= target:
        return None
    high = 1
    while least_share(rate * high, high, confidence) < target:
        high *= 2
        if high > _MOST_CASES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if least_share(rate * middle, middle, confidence) < target:
            low = middle
        else:
            high = middle
    return high


# -- as configuration --------------------------------------------------------------------------------------------------


def as_toml(tables: Sequence[RoutingTable], classes: Sequence[str] = (), learned: Learned | None = None) -> str:
    """Return the configuration that *tables* stand for; only of those in which a candidate meets the target.

    *classes*: the names among their groups that are request classes. *learned*: for the first policy.
    """
    parts = []
    for i, table in enumerate(tables):
        if table.chosen is None:
            parts.append(f"# {table.verdict}\n")
            continue
        parts.append(_policy(table, table.candidates[table.chosen], learned if i == 0 else None))
        if table.group in classes:
            parts.append(f"[classes.{key(table.group or '')}]\npolicy = {value(table.name)}\n")
    return "\n".join(parts)


def _policy(table: RoutingTable, chosen: Found, learned: Learned | None) -> str:
    name = key(table.name)
    lines = [f"# {table.verdict}", f"# Target: {target_words(table.quality)}.", f"[policies.{name}]"]
    if learned is None:
        lines += ['how = "fixed"', f"model = {value(chosen.model)}"]
        lines += [f"effort = {value(chosen.effort)}"] if chosen.effort is not None else []
    else:
        lines.append(f"how = {value(learned.how)}")
        lines += [f"{key(field)} = {value(said)}" for field, said in learned.fields.items()]
    quality = {k: v for k, v in msgspec.to_builtins(table.quality).items() if v is not None}
    lines.append(f"quality = {value(quality)}")
    told = [
        one for one in _told(table, chosen) if learned is None or learned.only is None or one.choice in learned.only
    ]
    for tier, one in enumerate(told, 1):
        lines += ["", f"[[policies.{name}.candidates]]  # {one.reason}", f"model = {value(one.model)}"]
        lines += [f"effort = {value(one.effort)}"] if one.effort is not None else []
        # The reference is the strongest, whatever it costs: without this, it would be the dearest.
        lines += [f"tier = {len(told) + 1 if one.name == table.reference else tier}"] if _out_of_order(table) else []
        if one.rate is not None and one.low is not None:
            measured = {"rate": _down(one.rate), "low": _down(one.low), "n": one.n, "date": table.date,
                        "suite": table.suite}  # fmt: skip
            lines.append(f"success = {value(measured)}")
    return "\n".join(lines) + "\n"


def _told(table: RoutingTable, chosen: Found) -> list[Found]:
    """Return the candidates of *table* as a policy can tell them: one for each model and effort.

    Of several that differ only in their settings, which callers choose, the chosen one stands, else the first.
    """
    kept: dict[tuple[str, str | None], Found] = {}
    for one in table.candidates:
        place = (one.model, one.effort)
        if place not in kept or one is chosen:
            kept[place] = one
    return list(kept.values())


def _out_of_order(table: RoutingTable) -> bool:
    return table.candidates[-1].name != table.reference


def _down(share: float) -> float:
    """Return *share* with four digits, never more than it is: a bound that was rounded up would claim too much."""
    return max(0.0, int(share * 10_000 + 1e-9) / 10_000)


def key(name: str) -> str:
    """Return *name* as a key of TOML."""
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else value(name)


def value(said: Any) -> str:
    """Return *said* as a value of TOML."""
    if isinstance(said, bool):
        return str(said).lower()
    if isinstance(said, str):
        escaped = "".join(_ESCAPES.get(c, c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in said)
        return f'"{escaped}"'
    if isinstance(said, Mapping):
        return "{ " + ", ".join(f"{key(k)} = {value(v)}" for k, v in said.items()) + " }"
    if isinstance(said, (list, tuple)):
        return "[" + ", ".join(value(one) for one in said) + "]"
    return repr(said)


_ESCAPES = {'"': '\\"', "\\": "\\\\"}
