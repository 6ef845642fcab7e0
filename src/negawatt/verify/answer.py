"""A learned score of an answer: from what can be seen of it without asking anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from negawatt.verify.verdict import Case, Verdict

Scorer = Callable[[str, str], Awaitable[float]]
"""Returns the chance, in 0..1, that an answer is right: of the question and the text of the answer."""


class AnswerVerifier:
    """Passes an answer that *scorer* finds right with at least the chance *least*."""

    kind = "answer"

    def __init__(self, scorer: Scorer, *, least: float = 0.5) -> None:
        self._scorer = scorer
        self._least = least

    async def __call__(self, case: Case) -> Verdict:
        if not case.answers:
            return Verdict(False, 0.0, "there is no text to judge", self.kind)
        score = min([await self._scorer(case.question, answer) for answer in case.answers])
        passed = score >= self._least
        return Verdict(passed, score, None if passed else f"its score {score:.2f} is below {self._least:g}", self.kind)
