"""What a call would have come to, had the reference model been asked for the same answer."""

from __future__ import annotations

from negawatt.call import Saved, Target, Trail
from negawatt.economics.usage import Usage


def reference_usage(answer: Usage, counted: int | None = None, *, warm: int = 0, thinks: bool = True) -> Usage:
    """Return what the reference would have used for the answer that used *answer*, as an estimate.

    Input: *counted* for the reference's tokenizer, else as the answering model had it. *warm*: how many tokens of it
    the reference's provider has in its cache. Output: as long as the answer that was given; without what its model
    thought, unless the reference *thinks* too. What the provider said it cost is another model's, and left out.
    """
    input_tokens = answer.input_tokens if counted is None else counted
    output_tokens = answer.output_tokens if thinks else answer.output_tokens - answer.reasoning_tokens
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=max(0, min(warm, input_tokens)),
        reasoning_tokens=answer.reasoning_tokens if thinks else 0,
        audio_input_tokens=min(answer.audio_input_tokens, input_tokens),
        image_input_tokens=min(answer.image_input_tokens, input_tokens - min(answer.audio_input_tokens, input_tokens)),
        audio_output_tokens=min(answer.audio_output_tokens, output_tokens),
        image_output_tokens=min(answer.image_output_tokens, max(0, output_tokens - answer.audio_output_tokens)),
        web_searches=answer.web_searches,
        search_units=answer.search_units,
        basis="estimated",
        tier=answer.tier,
    )


def in_place_of(
    trail: Trail, reference: Target, *, counted: int | None = None, warm: int = 0, thinks: bool = True
) -> Saved | None:
    """Return what a decision spared that had others asked than *reference*, once the answer has been read.

    Where the reference itself answered after others, it is what that took: its own usage and time, and no estimate.
    None where nobody answered, where the usage is unknown, and where the reference alone was asked.
    """
    answerer = trail.answerer
    if answerer is None or answerer.error is not None or answerer.usage is None:
        return None
    if answerer.target.label != reference.label:
        usage = reference_usage(answerer.usage, counted, warm=warm, thinks=thinks)
        return Saved(
            usage=usage, model=reference.model, provider=reference.provider, basis="estimated", instead=True
        )  # fmt: skip
    if not any(attempt.billed and attempt.target.label != reference.label for attempt in trail.attempts):
        return None
    spent_s = None if answerer.ended is None else answerer.ended - answerer.started
    return Saved(
        usage=answerer.usage, model=reference.model, provider=reference.provider, upstream_s=spent_s,
        basis=answerer.usage.basis, instead=True,
    )  # fmt: skip
