"""Anthropic's token counting: the same request as for a message, and the number of its input tokens as the answer.

It costs nothing, is never streamed, and there is only one answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negawatt.call import Request
from negawatt.economics.usage import Usage
from negawatt.protocol import Wire
from negawatt.wire import messages
from negawatt.wire.common import check_shape
from negawatt.wire.messages_prompt import prompt
from negawatt.wire.whole import Whole


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, messages.Prompted)


def complete(data: Mapping[str, Any]) -> bool:
    """True when the answer has a count."""
    return type(data.get("input_tokens")) is int


class CountTokens(Whole):
    """Counting the tokens of a message, as a `negawatt.protocol.Wire`."""

    name = "count_tokens"
    operation = "count_tokens"
    path = "/messages/count_tokens"
    billed = False
    check = staticmethod(check)
    complete = staticmethod(complete)
    error_body = staticmethod(messages.error_body)
    error_event = staticmethod(messages.error_event)
    identity = staticmethod(messages.identity)
    prompt = staticmethod(prompt)

    def usage(self, data: Mapping[str, Any]) -> Usage:
        """Return zeros: the tokens were counted, not used."""
        return Usage(input_tokens=0, output_tokens=0)


COUNT_TOKENS: Wire = CountTokens()
