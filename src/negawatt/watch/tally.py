"""Counting calls as they end: integers, a step of constant cost for each, and no more.

The observer runs on the path of every call. It adds to what has come since the last look, and nothing else; the look
(`Tallies.take`) puts the sums where windows are made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from negawatt.watch.endings import BAD, GOOD, KINDS, LEFT, OWN_MARK, Ended, kind_of
from negawatt.watch.targets import (
    ASKED,
    BEGUN,
    CACHEABLE,
    CALLS,
    ERRORS,
    HITS,
    LATE,
    SLOW,
    SPENT,
    TIMED,
    WIDTH,
    Targets,
)

_MOST_LENGTHS = 4_000  # kept of one class or template between two looks
_MOST_NAMES = 200  # templates, and models without a price: both may be named by callers


class Taken(NamedTuple):
    """What has come of one class since the last look. *counts* has `WIDTH` places, money in pico-dollars."""

    counts: list[int]
    inputs: list[int]  # tokens of prompts, as asked
    outputs: list[int]  # tokens of answers


class _Tally:
    """Of one class."""

    __slots__ = ("counts", "grows", "inputs", "latency_s", "outputs", "ttft_s")

    def __init__(self, targets: Targets) -> None:
        self.latency_s = math.inf if targets.latency_s is None else targets.latency_s
        self.ttft_s = math.inf if targets.ttft_s is None else targets.ttft_s
        self.grows = targets.output_inflation is not None
        self.counts = [0] * WIDTH
        self.inputs: list[int] = []
        self.outputs: list[int] = []


class Tallies:
    """Told of every row (`negawatt.levers.meter.Meter.observers`)."""

    def __init__(self, targets: Mapping[str, Targets]) -> None:
        self._tallies = {name: _Tally(one) for name, one in targets.items()}
        self._templates: dict[str, list[int]] = {}
        self._unpriced: dict[str, str] = {}

    def __call__(self, ended: Ended) -> None:
        """Count *ended*."""
        tally = self._tallies.get(ended.request_class)
        if tally is None:
            return
        counts, cost = tally.counts, ended.cost_pusd
        kind = KINDS.get(ended.ending, BAD)
        if cost:
            counts[SPENT] += cost
            counts[ASKED] += 1
        elif cost is None and kind == GOOD and ended.attempts:
            self._no_price(ended)
        if OWN_MARK in ended.decisions or ended.protocol == "count_tokens":
            return
        if kind == GOOD:
            self._good(tally, ended)
        elif kind == LEFT:
            _left(tally, ended)
        elif kind_of(ended) == BAD:
            counts[CALLS] += 1
            counts[ERRORS] += 1

    def _good(self, tally: _Tally, ended: Ended) -> None:
        counts, cache = tally.counts, ended.cache
        counts[CALLS] += 1
        counts[TIMED] += 1
        if ended.duration_s > tally.latency_s:
            counts[SLOW] += 1
        if ended.stream:
            counts[BEGUN] += 1
            first = ended.time_to_first_chunk_s
            if first is None or first > tally.ttft_s:
                counts[LATE] += 1
        if cache != "bypass":
            counts[CACHEABLE] += 1
            if cache != "miss":
                counts[HITS] += 1
        tokens = ended.baseline_input_tokens
        if tokens and len(tally.inputs) < _MOST_LENGTHS:
            tally.inputs.append(tokens)
            if ended.template is not None:
                self._of_template(ended.template, tokens)
        if tally.grows and ended.attempts == 1 and ended.output_tokens and len(tally.outputs) < _MOST_LENGTHS:
            tally.outputs.append(ended.output_tokens)

    def _of_template(self, name: str, tokens: int) -> None:
        found = self._templates.get(name)
        if found is not None:
            if len(found) < _MOST_LENGTHS:
                found.append(tokens)
        elif len(self._templates) < _MOST_NAMES:
            self._templates[name] = [tokens]

    def _no_price(self, ended: Ended) -> None:
        model = ended.response_model or ended.request_model
        if model is not None and len(self._unpriced) < _MOST_NAMES:
            self._unpriced.setdefault(model, ended.request_class)

    def take(self) -> dict[str, Taken]:
        """Return what has come since the last look, of each class of which anything has; and begin anew."""
        found = {}
        for name, tally in self._tallies.items():
            if any(tally.counts):
                found[name] = Taken(tally.counts, tally.inputs, tally.outputs)
                tally.counts, tally.inputs, tally.outputs = [0] * WIDTH, [], []
        return found

    def take_templates(self) -> dict[str, list[int]]:
        """Return the tokens of prompts since the last look, by template."""
        found, self._templates = self._templates, {}
        return found

    def take_unpriced(self) -> dict[str, str]:
        """Return the models without a price since the last look, each with a class that asked for it."""
        found, self._unpriced = self._unpriced, {}
        return found


def _left(tally: _Tally, ended: Ended) -> None:
    """Count a caller who went: all that is known is how long it had taken by then."""
    if ended.duration_s > tally.latency_s:
        tally.counts[TIMED] += 1
        tally.counts[SLOW] += 1
    if ended.stream and ended.time_to_first_chunk_s is None and ended.duration_s > tally.ttft_s:
        tally.counts[BEGUN] += 1
        tally.counts[LATE] += 1
