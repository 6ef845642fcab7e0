"""What each class declares of success, as the roll-up reads it."""

from __future__ import annotations

from typing import NamedTuple

from negawatt.config import Config


class Rule(NamedTuple):
    """A row of `task_rule`. *has_schema*: every answer of the class is held to a schema, before it is kept."""

    request_class: str
    answered: bool
    schema_valid: bool
    has_schema: bool
    no_retry_within_s: float | None
    least_score: float | None


def rules_of(config: Config) -> tuple[Rule, ...]:
    """Return the rules of those classes that declare any."""
    usual = config.levers.structure.mode
    return tuple(
        Rule(name, found.answered, found.schema_valid,
             policy.schema is not None and policy.levers.get("structure", usual) == "on", found.no_retry_within_s,
             found.least_score)
        for name, policy in sorted(config.classes.items())
        if (found := policy.success) is not None
    )  # fmt: skip
