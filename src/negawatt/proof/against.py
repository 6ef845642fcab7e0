"""Router CI: is a policy, as it stands in a file, still good enough on the cases of a suite?

Each case is given to the policy as a live request would be; what the chosen candidate answered in this run is what
the policy would have answered. No further call is made, except by verifiers of a cascade that ask a model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from negawatt.books import open_accounts
from negawatt.call import Target
from negawatt.catalogue import Catalogue
from negawatt.config import Config, load_config
from negawatt.config_routes import Quality
from negawatt.economics.counting import TokenCounter
from negawatt.errors import ConfigError
from negawatt.proof.asking import asked_in
from negawatt.proof.cases import SuiteCase
from negawatt.proof.outcome_table import OutcomeTable
from negawatt.routing.costs import Costs
from negawatt.routing.picking import by_rule, fixed
from negawatt.routing.policies import Demand, Ranked, ranked_of
from negawatt.routing.router import Router
from negawatt.statistics import least_share, most_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

MET, BELOW, INCONCLUSIVE = 0, 1, 3


class Chooser:
    """Chooses a candidate for each case as a gateway would (`negawatt.routing.picking`).

    Raises `ConfigError` for what it cannot follow.
    """

    def __init__(self, name: str, config: Config, source: str) -> None:
        policy = config.policies[name]
        where = f"{source}: policies.{name}"
        self.name = name
        self.policy = policy
        self.source = source
        self._ranked = ranked_in(config, name)
        self.names = [choice.name for choice in self._ranked.rising]
        self.router = Router.load(Path(policy.router), f"{where}.router") if policy.router is not None else None

    @property
    def reference(self) -> int:
        """The place of the strongest."""
        return len(self.names) - 1

    def choose(self, case: SuiteCase, vector: NDArray[np.float32] | None) -> int:
        """Return the place, among *names*, of the candidate that would be asked."""
        ranked, asked = self._ranked, asked_in(case)
        demand = Demand(self.policy.quality, None, 0)
        if self.policy.how == "learned" and self.router is not None and vector is not None:
            return self.names.index(self.router.choose(asked.ask, vector, self.policy.quality).name)
        pick = by_rule(ranked, demand, ranked.choices, asked) if self.policy.how == "rule" else fixed(
            ranked, demand, ranked.choices
        )  # fmt: skip
        return self.names.index(pick.choice.name)


def ranked_in(config: Config, name: str) -> Ranked:
    """Return the policy *name* with its candidates in order, by today's prices. Raises `ConfigError`."""
    known, costs, at = Catalogue(config), Costs(open_accounts(config), TokenCounter()), time.time()
    return ranked_of(
        name, config.policies[name],
        # Nobody is asked: a candidate that this machine cannot reach is one all the same.
        lambda model: known.targets(model) or (Target("nobody", model, model),),
        lambda choices, by: costs.ordered(choices, by, at=at).choices,  # type: ignore[arg-type]
    )  # fmt: skip


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy came to. *code*: `MET`, `BELOW` or `INCONCLUSIVE`."""

    policy: str
    quality: Quality
    n: int
    success: float
    low: float
    high: float
    reference: float
    cost_usd: float | None
    reference_usd: float | None
    chosen: dict[str, int]
    worse: tuple[str, ...]  # cases that the reference does right and the policy does not
    better: tuple[str, ...]
    code: int

    @property
    def words(self) -> str:
        rate = f"{self.success:.1%} of {self.n} [{self.low:.1%}, {self.high:.1%}], the reference {self.reference:.1%}"
        verdict = {MET: "meets its target", BELOW: "falls below its target", INCONCLUSIVE: "cannot be told yet"}
        return f"Policy {self.policy}: {rate}: {verdict[self.code]}."


def policies_in(path: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration in *path*. Raises `ConfigError` where it has no policy, or cannot be read."""
    config = load_config(path, environ=environ)
    if not config.policies:
        raise ConfigError(f"{path}: policies: there is none; `negawatt eval` writes one", param="policies")
    return config


def policy_of(case: SuiteCase, config: Config, source: str, wanted: str | None) -> str:
    """Return the policy that *case* comes under: *wanted*, its class's, or the only one. Raises `ConfigError`."""
    if wanted is not None:
        if wanted not in config.policies:
            known = ", ".join(config.policies)
            raise ConfigError(f"{source}: policies: there is none named {wanted!r}; known: {known}", param="policies")
        return wanted
    own = config.classes.get(case.request_class or "default")
    if own is not None and own.policy is not None:
        return own.policy
    return "auto" if "auto" in config.policies else next(iter(config.policies))


def held(table: OutcomeTable, chooser: Chooser, places: Sequence[int], outcomes: tuple[Any, Any] | None = None) -> Held:
    """Return what *chooser* comes to on *table*, given the candidate (of the policy) of each case.

    *outcomes*: success and dollars of each case, of a cascade, which may ask several. Raises `ConfigError` for a
    candidate that the suite has not asked, and for a policy without a target.
    """
    quality = chooser.policy.quality or table.suite.file.quality
    if quality.success is None and quality.loss is None:
        what = f"policies.{chooser.name}.quality: there is no target to hold it against; set success or loss"
        raise ConfigError(what, param="quality")
    success, cost = _followed(table, chooser, places) if outcomes is None else outcomes
    reference = _column(table, chooser, chooser.reference)
    best, full = _by_case(table, reference.success), _by_case(table, reference.cost_usd)
    known = ~np.isnan(success) & ~np.isnan(best)
    n, ids = int(known.sum()), [case.id for case in table.cases]
    if n == 0:
        raise ConfigError(f"{table.suite.path}: no case of policy {chooser.name} has an outcome", param="datasets")
    better = known & (success > best)
    worse = known & (success < best)
    successes = float(success[known].sum())
    confidence = quality.confidence
    low, high = least_share(successes, n, confidence), most_share(successes, n, confidence)
    gained, lost = float((success - best)[better].sum()), float((best - success)[worse].sum())
    return Held(
        policy=chooser.name, quality=quality, n=n, success=successes / n, low=low, high=high,
        reference=float(best[known].mean()), cost_usd=_mean(cost[known]), reference_usd=_mean(full[known]),
        chosen={name: list(places).count(i) for i, name in enumerate(chooser.names)},
        worse=tuple(ids[i] for i in np.flatnonzero(worse)), better=tuple(ids[i] for i in np.flatnonzero(better)),
        code=_code(quality, (low, high), n, gained, lost),
    )  # fmt: skip


def _code(quality: Quality, bounds: tuple[float, float], n: int, gained: float, lost: float) -> int:
    codes = []
    if quality.success is not None:
        low, high = bounds
        codes.append(MET if low >= quality.success else BELOW if high < quality.success else INCONCLUSIVE)
    if quality.loss is not None:
        half = 1 - (1 - quality.confidence) / 2
        most = most_share(lost, n, half) - least_share(gained, n, half)
        least = least_share(lost, n, half) - most_share(gained, n, half)
        nothing = gained == lost == 0  # it answers as the reference does, case by case
        codes.append(MET if nothing or most <= quality.loss else BELOW if least > quality.loss else INCONCLUSIVE)
    return BELOW if BELOW in codes else INCONCLUSIVE if INCONCLUSIVE in codes else MET


def _followed(table: OutcomeTable, chooser: Chooser, places: Sequence[int]) -> tuple[Any, Any]:
    used = {place: _column(table, chooser, place) for place in set(places)}
    rows = range(len(table.cases))
    success = {place: _by_case(table, one.success) for place, one in used.items()}
    cost = {place: _by_case(table, one.cost_usd) for place, one in used.items()}
    return (
        np.array([success[places[i]][i] for i in rows]),
        np.array([cost[places[i]][i] for i in rows]),
    )


def _column(table: OutcomeTable, chooser: Chooser, place: int) -> Any:
    name = chooser.names[place]
    found = next((one for one in table.columns if one.candidate.choice == name), None)
    if found is None:
        there = ", ".join(one.candidate.choice for one in table.columns)
        what = f"policies.{chooser.name}.candidates[{place}].model: the suite does not ask {name!r}; it asks: {there}"
        raise ConfigError(what, param="candidates")
    return found


def _by_case(table: OutcomeTable, values: Any) -> Any:
    return values.reshape(-1, table.suite.file.repeats).mean(axis=1)


def _mean(values: Any) -> float | None:
    return None if np.isnan(values).any() else float(values.mean())
