"""What a check finds, and the exit code that it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from negawatt.checks.plan import Plan, Rule
from negawatt.checks.surfaces import Place, Surface, fits

Level = Literal["error", "warning", "inconclusive"]
WHAT: Mapping[Rule, str] = {
    "budget": "A surface has no more tokens than its budget allows.",
    "growth": "A surface does not grow unseen.",
    "lock": "tokens.lock.json says what is there.",
    "volatile": "What changes with each request does not stand in the part that providers cache.",
    "prefix": "The part that stays the same comes first, and is long enough to be cached.",
    "duplicate": "Nothing is said twice.",
    "tool-schema": "A tool schema is valid, and each word of it tells the model something.",
    "replay": "Recorded answers still belong to the prompts, and keep their contracts.",
    "live": "A change makes answers neither worse nor longer.",
}


class Finding(NamedTuple):
    """One thing that is wrong: where, what, and what to do about it."""

    rule: Rule
    level: Level
    surface: str
    path: str
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.level}: {self.what} [{self.rule}]"

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def found(rule: Rule, level: Level, surface: Surface, place: Place, what: str, remedy: str) -> Finding:
    """Return the finding about *surface*, at *place*."""
    return Finding(rule, level, surface.name, place.path, place.line, what, remedy)


def kept(plan: Plan, findings: Iterable[Finding]) -> list[Finding]:
    """Return those of *findings* that the file does not except, errors first, then by place."""
    order = {"error": 0, "inconclusive": 1, "warning": 2}
    left = [
        one
        for one in findings
        if not any(rule.rule == one.rule and fits(rule.surface)(one.surface) for rule in plan.file.ignore)
    ]
    return sorted(left, key=lambda one: (order[one.level], one.path, one.line, one.rule, one.what))


def exit_code(findings: Iterable[Finding], *, strict: bool = False) -> int:
    """Return 1 where something is wrong (with *strict* also warnings), 3 where that cannot be told, else 0."""
    levels = {one.level for one in findings}
    if "error" in levels or (strict and "warning" in levels):
        return 1
    return 3 if "inconclusive" in levels else 0
