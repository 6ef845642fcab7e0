"""Does an answer have the form that a pattern describes?"""

from __future__ import annotations

import re

from negawatt.verify.verdict import Case, Verdict


class RegexVerifier:
    """Passes an answer in each choice of which *pattern* is found; ``^`` and ``$`` make it the whole of it."""

    kind = "regex"

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    async def __call__(self, case: Case) -> Verdict:
        found = bool(case.answers) and all(self._pattern.search(answer) for answer in case.answers)
        reason = None if found else f"the pattern {self._pattern.pattern[:100]!r} is not found in it"
        return Verdict(found, float(found), reason, self.kind)
