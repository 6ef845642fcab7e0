"""The configuration of success: what counts as one where nobody says so."""

from __future__ import annotations

from negawatt.config_types import Positive, Section, Share


class Success(Section, frozen=True):
    """What the calls of a class have to show. All that is set has to hold; what cannot be seen leaves it open."""

    answered: bool = False  # the answer came, whole
    schema_valid: bool = False  # it is the JSON that was asked for
    no_retry_within_s: Positive | None = None  # the same user did not ask the same again
    least_score: Share | None = None  # of feedback that says a score and not whether it was a success


def problem(success: Success | None, structure: str) -> tuple[str, str] | None:
    """Return which field of a class is wrong, and why; None where nothing is. *structure*: the mode of that lever."""
    if success is None:
        return None
    if not (success.answered or success.schema_valid or success.no_retry_within_s or success.least_score is not None):
        return "success", "expected answered, schema_valid, no_retry_within_s or least_score"
    if success.schema_valid and structure == "off":
        return "success.schema_valid", "lever structure is off for this class, so nobody looks at its JSON"
    return None
