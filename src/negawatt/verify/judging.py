"""Verifiers at work: none raises, none takes forever, and of several all must pass."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

from negawatt.errors import NegawattError
from negawatt.verify.verdict import Case, Verdict, Verifier

log = logging.getLogger(__name__)

LIMIT_S = 60.0  # for one verdict, the calls that it takes included


async def judged(verifier: Verifier, case: Case, *, limit_s: float = LIMIT_S, seen: set[str] | None = None) -> Verdict:
    """Return what *verifier* says of *case*. One that raises, or takes longer than *limit_s*, fails with the reason.

    What has been logged is added to *seen*, and is not logged again.
    """
    try:
        async with asyncio.timeout(limit_s):
            verdict = await verifier(case)
    except TimeoutError:
        return Verdict(False, 0.0, f"it took longer than {limit_s:g} s", verifier.kind)
    except NegawattError as error:
        return Verdict(False, 0.0, f"raised {type(error).__name__}: {error.message}"[:300], verifier.kind)
    except Exception as error:
        reason = f"raised {type(error).__name__}: {error}"[:300]
        if seen is None or f"{verifier.kind} {type(error).__name__}" not in seen:
            log.warning("a verifier (%s) %s", verifier.kind, reason, exc_info=error)
        if seen is not None:
            seen.add(f"{verifier.kind} {type(error).__name__}")
        return Verdict(False, 0.0, reason, verifier.kind)
    return verdict if verdict.kind else verdict._replace(kind=verifier.kind)


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of all: passed where each passed, the product of the scores, the first reason."""
    passed = bool(verdicts) and all(verdict.passed for verdict in verdicts)
    failed = next((verdict for verdict in verdicts if not verdict.passed), None)
    reason = None if failed is None else f"{failed.kind}: {failed.reason or 'failed'}"
    score = math.prod(verdict.score for verdict in verdicts) if verdicts else 0.0
    return Verdict(passed, score, reason if verdicts else "there is no verifier", "all")


class Panel:
    """The verifiers of one cascade, in their order: the cheap ones first, where the configuration has them so."""

    def __init__(self, verifiers: Sequence[Verifier], *, limit_s: float = LIMIT_S) -> None:
        self.verifiers = tuple(verifiers)
        self._limit_s = limit_s
        self._logged: set[str] = set()

    async def __call__(self, case: Case) -> list[Verdict]:
        """Return the verdicts, up to the first that leaves nothing: score 0. Later ones may cost money."""
        verdicts: list[Verdict] = []
        for verifier in self.verifiers:
            verdicts.append(await judged(verifier, case, limit_s=self._limit_s, seen=self._logged))
            if verdicts[-1].score <= 0:
                break
        return verdicts
