"""What verifiers are given of a call and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from negawatt.call import Call
from negawatt.protocol import Contract
from negawatt.verify.verdict import Ask, Case

_LONG = 600  # characters of an ask that may hold what it is to be answered from
_PARAGRAPH = re.compile(r"\n\s*\n|\n")


class Asked(Protocol):
    """What a person asked last, and what else there is to answer from."""

    @property
    def ask(self) -> str: ...

    @property
    def context(self) -> str: ...


class Answered(NamedTuple):
    """What came back: the whole answer in the caller's protocol, and the texts in it."""

    data: Mapping[str, Any]
    texts: Sequence[str]
    choices: int


def answered(call: Call, data: Mapping[str, Any]) -> Answered:
    """Take the whole answer *data* to *call* apart."""
    choices = data.get("choices")
    return Answered(data, call.wire.answers(data), len(choices) if isinstance(choices, list) else 1)


def case_of(
    call: Call, asked: Asked, answer: Answered, *, others: Sequence[str] | None, ask: Ask, schema: Any = None
) -> Case:
    """Return the case of *answer*. *schema*: of the class."""
    question, context = supplied(asked)
    return Case(
        question=question, answers=answer.texts, data=answer.data, context=context,
        contract=call.wire.contract(call.request), class_contract=None if schema is None else Contract(schema),
        others=others, ask=ask,
    )  # fmt: skip


def supplied(asked: Asked) -> tuple[str, str | None]:
    """Return the question, and what it is to be answered from; None where nothing was supplied.

    A long ask holds both: the question is its last paragraph with a question mark, or its last one.
    """
    ask, context = asked.ask, asked.context
    if len(ask) <= _LONG:
        return ask, context or None
    paragraphs = [one.strip() for one in _PARAGRAPH.split(ask) if one.strip()]
    if len(paragraphs) < 2:
        return ask, context or None
    question = next((one for one in reversed(paragraphs) if one.endswith("?")), paragraphs[-1])
    rest = "\n".join(one for one in paragraphs if one is not question)
    return question, "\n\n".join(filter(None, (context, rest)))


def turns(call: Call) -> list[tuple[str, str]] | None:
    """Return who said what in *call*; None where not all of it is text."""
    found: list[tuple[str, str]] = []
    for message in call.wire.prompt(call.request).messages:
        content = message.get("content")
        if isinstance(content, str):
            found.append((str(message.get("role")), content))
        elif isinstance(content, list):
            texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
            if not all(isinstance(text, str) for text in texts):
                return None
            found.append((str(message.get("role")), "\n".join(map(str, texts))))
        elif content is not None or message.get("tool_calls"):
            return None
    return found or None
