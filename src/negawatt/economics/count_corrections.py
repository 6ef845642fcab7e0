"""What a model's provider counts, against what was counted here: a line for each model, learned as calls return.

``measured = slope x counted + tokens per call``, fitted to relative errors by recursive least squares that forgets: the
slope is how its tokenizer differs, the constant what it puts around a request. A measurement far from the line moves it
no further than one at the edge of what is usual, so that a few odd calls do no harm and a lasting change is followed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

MIN_CALLS = 5  # before a correction is used
_MOST_KEPT = 1024  # models: about 0.5 MB
_FORGET = 0.99  # of what is known, per call: the last 100 calls or so
_SLOPE_SD, _PER_CALL_SD, _NOISE_SD = 0.15, 100.0, 0.05  # what is believed before the first call
_SLOPES, _PER_CALL = (0.25, 4.0), (-200.0, 2000.0)
_USUAL = 3.0  # times the usual error: beyond, a measurement pulls no harder
_LEAST_SCALE = 0.01
_FOLLOW = 0.05  # how fast the usual error follows


class Seen(NamedTuple):
    """A call of the ledger to learn from: *raw* as counted before any correction, *measured* by the provider."""

    model: str
    basis: str
    raw: int
    measured: int


class _Line:
    """Two parameters (slope, and tokens per call in units of their spread) and their covariance."""

    __slots__ = ("calls", "p00", "p01", "p11", "per_call", "scale", "slope")

    def __init__(self) -> None:
        self.calls = 0
        self.slope, self.per_call = 1.0, 0.0
        self.p00, self.p01, self.p11 = _SLOPE_SD**2, 0.0, 1.0
        self.scale = 0.2  # usual relative error

    def at(self, raw: float, *, call: bool) -> float:
        slope = min(max(self.slope, _SLOPES[0]), _SLOPES[1])
        if not call:
            return slope * raw
        per_call = min(max(self.per_call * _PER_CALL_SD, _PER_CALL[0]), _PER_CALL[1])
        return max(0.0, slope * raw + per_call)

    def add(self, raw: float, measured: float) -> None:
        x = _PER_CALL_SD / raw  # the equation is divided by *raw*: errors are relative
        error = measured / raw - self.slope - self.per_call * x
        a, b = self.p00 + self.p01 * x, self.p01 + self.p11 * x
        expected = (a + b * x + self.scale**2) ** 0.5
        bound = _USUAL * expected
        pull = error if -bound <= error <= bound else bound if error > 0 else -bound
        gain = a + b * x + _NOISE_SD**2
        self.slope += a / gain * pull
        self.per_call += b / gain * pull
        self.p00 = min((self.p00 - a * a / gain) / _FORGET, _SLOPE_SD**2)
        self.p01 = (self.p01 - a * b / gain) / _FORGET
        self.p11 = min((self.p11 - b * b / gain) / _FORGET, 1.0)
        edge = (self.p00 * self.p11) ** 0.5 * 0.999  # the two bounds above must leave a covariance
        self.p01 = min(max(self.p01, -edge), edge)
        self.scale = max(_LEAST_SCALE, self.scale + _FOLLOW * (abs(pull) - self.scale))
        self.calls += 1


class Corrections:
    """The lines of all models; those least recently used are forgotten beyond `_MOST_KEPT`."""

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()

    @classmethod
    def from_rows(cls, rows: Iterable[Seen]) -> Corrections:
        """Return what would have been learned from *rows*, oldest first."""
        made = cls()
        for row in rows:
            made.learn(*row)
        return made

    def learn(self, model: str, basis: str, raw: int, measured: int) -> None:
        """Take in that the provider counted *measured* where *raw* was counted here. What says nothing is ignored."""
        if raw <= 0 or measured <= 0 or basis == "exact":
            return
        key = (model, _source(basis))
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
            if len(self._lines) > _MOST_KEPT:
                self._lines.popitem(last=False)
        self._lines.move_to_end(key)
        line.add(float(raw), float(measured))

    def corrected(self, model: str, basis: str, raw: float, *, call: bool = True) -> float | None:
        """Return *raw* as the provider of *model* would count it; None until enough calls have been seen.

        *call* False: a text alone, without what the provider puts around a call.
        """
        line = self._lines.get((model, _source(basis)))
        return None if line is None or line.calls < MIN_CALLS else line.at(raw, call=call)


def _source(basis: str) -> str:
    return "estimator" if basis in ("estimated", "corrected") else "tokenizer"
