"""The modelled provider: no model at all, only a latency of a + b * output tokens. For load tests.

Every report that used it says so in its first line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from negawatt.call import Call, Request, Target
from negawatt.economics.tokens import estimate_request_tokens
from negawatt.errors import ConfigError
from negawatt.providers.pace import Paced
from negawatt.reply import Reply

_DEFAULT_OUTPUT_TOKENS = 128


class Modelled:
    """Answers every call with filler of the length that was asked for.

    *a_s* is the time to the first chunk in seconds, *b_s* the seconds for each output token. The token counts are
    those in the request's ``metadata`` (``input_tokens``, ``output_tokens``), else the output limit and an estimate.
    """

    speaks = frozenset({"chat"})  # other protocols are translated

    def __init__(self, name: str, *, a_s: float = 0.3, b_s: float = 0.02) -> None:
        self.name = name
        self.a_s = a_s
        self.b_s = b_s

    @classmethod
    def of(cls, name: str, query: str) -> Modelled:
        """Return the provider that *query* describes: ``a=0.3&b=0.02``, in seconds. Raises `ConfigError`."""
        values = dict(parse_qsl(query, keep_blank_values=True))
        numbers: dict[str, float] = {"a": 0.3, "b": 0.02}
        for key, text in values.items():
            if key not in numbers:
                raise ConfigError(f"modelled: there is no parameter {key!r}; known: a, b", param="url")
            try:
                numbers[key] = float(text)
            except ValueError:
                numbers[key] = -1.0
            if not 0 <= numbers[key] < 3600:
                raise ConfigError(f"modelled: {key}={text!r} is not a number of seconds from 0 to 3600", param="url")
        return cls(name, a_s=numbers["a"], b_s=numbers["b"])

    async def ask(self, call: Call, target: Target) -> Reply:
        request = call.request
        output_tokens = _count(request, "output_tokens")
        if output_tokens is None:
            limit = request.get("max_completion_tokens") or request.get("max_tokens")
            output_tokens = limit or _DEFAULT_OUTPUT_TOKENS
        input_tokens = _count(request, "input_tokens")
        if input_tokens is None:
            input_tokens = estimate_request_tokens(request.get("messages"), request.get("tools"))
        body = self._body(call, target, input_tokens, output_tokens)
        paced = Paced(call.wire, self.a_s, self.a_s + self.b_s * output_tokens)
        return await paced.reply(body, stream=call.streams)

    def _body(self, call: Call, target: Target, input_tokens: int, output_tokens: int) -> dict[str, Any]:
        digest = hashlib.sha256(call.request.body).hexdigest()[:16]
        usage = {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
        message = {"role": "assistant", "content": f"modelled answer {digest}"}
        return {
            "id": f"modelled-{digest}",
            "object": "chat.completion",
            "created": int(call.received_at),
            "model": target.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }

    async def models(self) -> list[str]:
        """It answers to any name."""
        return []

    async def close(self) -> None:
        """Nothing is open."""


def _count(request: Request, name: str) -> int | None:
    metadata = request.get("metadata")
    text = metadata.get(name) if isinstance(metadata, Mapping) else None
    return int(text) if isinstance(text, str) and text.isdigit() and len(text) < 10 else None
