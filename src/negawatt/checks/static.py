"""The check that needs nobody: no model, no network, no key."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from negawatt.checks.duplicates import duplicated
from negawatt.checks.findings import Finding, kept
from negawatt.checks.limits import grown, over_budget, stale
from negawatt.checks.measure import Lock, Measured, measure, read_lock, write_lock
from negawatt.checks.plan import Plan
from negawatt.checks.prefix import broken, volatile
from negawatt.checks.surfaces import read_surfaces
from negawatt.checks.tool_lint import lint_tools
from negawatt.economics.counting import TokenCounter
from negawatt.errors import InputError


class Checked(NamedTuple):
    """What was found: the surfaces now, the lock that they were held against, and the findings."""

    plan: Plan
    measured: Measured
    lock: Lock | None
    before: Lock | None  # the same, as it was before it was written anew
    findings: list[Finding]
    updated: bool = False  # the lock was written


def check(plan: Plan, *, update: bool = False, counter: TokenCounter | None = None) -> Checked:
    """Hold every surface of *plan* against its budgets, the lock and the rules; with *update*, write the lock first.

    Raises `ConfigError` and `InputError`: a surface that is not there, a budget for none, a file that cannot be read.
    """
    measured = measure(plan, read_surfaces(plan), counter)
    before = _before(plan, update=update)
    if before is not None:  # the static tier knows nothing of recordings
        measured = msgspec.structs.replace(
            measured, lock=msgspec.structs.replace(measured.lock, cassettes=before.cassettes)
        )
    updated = update and write_lock(plan.lock, measured.lock)
    lock = measured.lock if update else before
    findings = [*over_budget(plan, measured), *stale(plan, measured, lock)]
    if lock is not None:
        findings += grown(plan, measured, lock)
    findings += [*volatile(measured), *broken(plan, measured, lock), *duplicated(plan, measured), *lint_tools(measured)]
    return Checked(plan, measured, lock, before, kept(plan, findings), updated)


def _before(plan: Plan, *, update: bool) -> Lock | None:
    """Return the lock as it is; what is to be written anew may be damaged."""
    try:
        return read_lock(plan.lock)
    except InputError:
        if update:
            return None
        raise
