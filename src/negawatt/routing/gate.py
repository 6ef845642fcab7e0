"""From which score on an answer of a small model is accepted, and whether that still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol


class Bar(NamedTuple):
    """What it takes to accept an answer.

    ``score``: at least *least*, which carries a guarantee; ``verdict``: every verifier's own, without any guarantee;
    ``nothing``: no answer is accepted, so none is asked for.
    """

    accepts: Literal["score", "verdict", "nothing"]
    least: float | None
    reason: str


UNCALIBRATED = Bar("verdict", None, "no guarantee: not calibrated")


class Monitor(Protocol):
    """Hears of accepted answers whether they were wrong, and says when too many are."""

    def add(self, wrong: bool) -> bool:
        """Take note. True when this one shows that the share of wrong ones is above what was promised."""
        ...


Alert = Callable[[str, str, str], None]  # name, about, message


class Gate:
    """The bars of one policy, by the name of the model (`negawatt.routing.choice.Choice.name`).

    A model that is not among *bars* has no calibration. *monitor* makes what watches one.
    """

    def __init__(self, policy: str, bars: Mapping[str, Bar], *, monitor: Callable[[], Monitor], alert: Alert) -> None:
        self._policy = policy
        self._bars = bars
        self._monitor = monitor
        self._alert = alert
        self._monitors: dict[str, Monitor] = {}
        self._drifted: dict[str, Bar] = {}

    @property
    def drifted(self) -> frozenset[str]:
        """The models whose answers are not accepted any more."""
        return frozenset(self._drifted)

    def bar(self, model: str) -> Bar:
        """Return what it takes to accept an answer of *model*."""
        return self._drifted.get(model) or self._bars.get(model, UNCALIBRATED)

    def learn(self, model: str, wrong: bool) -> None:
        """Hear that an accepted answer of *model* was right or *wrong*; where that shows a drift, accept none any more.

        What was learned lasts until the gateway starts anew: with a calibration made since, it should.
        """
        if model in self._drifted:
            return
        if model not in self._monitors:
            self._monitors[model] = self._monitor()
        if self._monitors[model].add(wrong):
            reason = "too many accepted answers turned out wrong: calibrate again"
            self._drifted[model] = Bar("nothing", None, reason)
            self._alert(
                "route_drift", self._policy,
                f"policy {self._policy}: {reason}; until then {model} is passed over",
            )  # fmt: skip
