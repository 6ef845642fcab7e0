"""The question of a request: the last thing that a person said in it, apart from all that stands around it."""

from __future__ import annotations

from typing import Any

from negawatt.protocol import Question

_TEXT_PARTS = ("text", "input_text")
_INSTRUCTIONS = ("system", "developer")


def question_in(identity: dict[str, Any], field: str) -> Question | None:
    """Return the question in *field* of a request's *identity*; None when the last word is not a person's, or no text.

    What the question stands in is returned beside it: everything that can change the answer, with a hole in it.
    """
    said = identity.get(field)
    if isinstance(said, str):
        return Question(said, {**identity, field: None}, follows_up=False) if said.strip() else None
    if not isinstance(said, list) or not said or not isinstance(said[-1], dict) or said[-1].get("role") != "user":
        return None
    text = _text(said[-1].get("content"))
    if text is None or not text.strip():
        return None
    before = said[:-1]
    follows_up = any(not isinstance(one, dict) or one.get("role") not in _INSTRUCTIONS for one in before)
    around = {**identity, field: [*before, {**said[-1], "content": None}]}
    return Question(text, around, follows_up=follows_up)


def _text(content: Any) -> str | None:
    """Return *content* when it is text and nothing else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] not in _TEXT_PARTS:
            return None
        if not isinstance(part["text"], str):
            return None
        texts.append(part["text"])
    return "\n".join(texts)
