"""The modelled provider: no model at all, only a latency of a + b * output tokens. For load tests and for trying out.

Every report that used it says so in its first line.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from negawatt.call import Call, Request, Target
from negawatt.economics.tokens import estimate_request_tokens, estimate_tokens
from negawatt.errors import ConfigError
from negawatt.providers.pace import Paced
from negawatt.reply import Reply

_DEFAULT_OUTPUT_TOKENS = 128
_DEFAULT_DIMENSIONS = 256


class Modelled:
    """Answers every call with filler of the length that was asked for.

    *a_s* is the time to the first chunk in seconds, *b_s* the seconds for each output token. The token counts are
    those in the request's ``metadata`` (``input_tokens``, ``output_tokens``), else the output limit and an estimate.
    """

    def __init__(self, name: str, *, a_s: float = 0.3, b_s: float = 0.02) -> None:
        self.name = name
        self.speaks = frozenset(_BODIES)  # others are translated
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
        input_tokens, output_tokens = _tokens(call)
        digest = hashlib.sha256(call.request.body).hexdigest()[:16]
        head = {"id": f"modelled-{digest}", "created": int(call.received_at), "model": target.model}
        body = _BODIES[call.wire.name](call.request, head, input_tokens, output_tokens)
        paced = Paced(call.wire, self.a_s, self.a_s + self.b_s * output_tokens)
        return await paced.reply(body, stream=call.streams)

    async def models(self) -> list[str]:
        """It answers to any name."""
        return []

    async def close(self) -> None:
        """Nothing is open."""


def _tokens(call: Call) -> tuple[int, int]:
    """Return how many input and output tokens the answer to *call* shall have."""
    request = call.request
    input_tokens = _count(request, "input_tokens")
    if input_tokens is None:
        said = call.wire.prompt(request)
        framed = estimate_request_tokens(said.messages, said.tools) if said.messages else 0
        input_tokens = framed + said.tokens + sum(map(estimate_tokens, said.texts))
    if call.wire.name in ("embeddings", "rerank"):
        return input_tokens, 0
    output_tokens = _count(request, "output_tokens")
    if output_tokens is None:
        output_tokens = request.get("max_completion_tokens") or request.get("max_tokens") or _DEFAULT_OUTPUT_TOKENS
    return input_tokens, output_tokens


def _chat(request: Request, head: dict[str, Any], input_tokens: int, output_tokens: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": _said(head)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(input_tokens, output_tokens)}


def _completion(request: Request, head: dict[str, Any], input_tokens: int, output_tokens: int) -> dict[str, Any]:
    choice = {"index": 0, "text": _said(head), "logprobs": None, "finish_reason": "stop"}
    return {**head, "object": "text_completion", "choices": [choice], "usage": _usage(input_tokens, output_tokens)}


def _embeddings(request: Request, head: dict[str, Any], input_tokens: int, output_tokens: int) -> dict[str, Any]:
    given = request.get("input")
    one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    size = request.get("dimensions") or _DEFAULT_DIMENSIONS
    as_text = request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _packed(vector) if as_text else vector}
        for i, vector in enumerate(_vector(repr(text), size) for text in ([given] if one else given))
    ]
    usage = {"prompt_tokens": input_tokens, "total_tokens": input_tokens}
    return {"object": "list", "data": data, "model": head["model"], "usage": usage}


def _rerank(request: Request, head: dict[str, Any], input_tokens: int, output_tokens: int) -> dict[str, Any]:
    scores = [abs(_vector(repr((request.get("query"), one)), 1)[0]) for one in request.get("documents") or ()]
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])[: request.get("top_n") or len(scores)]
    results = [{"index": i, "relevance_score": score} for i, score in ranked]
    return {"id": head["id"], "model": head["model"], "results": results, "usage": {"total_tokens": input_tokens}}


def _said(head: Mapping[str, Any]) -> str:
    return str(head["id"]).replace("modelled-", "modelled answer ")


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    total = input_tokens + output_tokens
    return {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": total}


def _vector(text: str, size: int) -> list[float]:
    """Return *size* numbers between -1 and 1 that stand for *text* and mean nothing."""
    noise = hashlib.shake_256(text.encode()).digest(2 * size)
    return [round(value / 32768, 6) for value in struct.unpack(f"<{size}h", noise)]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_BODIES: Mapping[str, Callable[[Request, dict[str, Any], int, int], dict[str, Any]]] = {
    "chat": _chat,
    "completions": _completion,
    "embeddings": _embeddings,
    "rerank": _rerank,
}


def _count(request: Request, name: str) -> int | None:
    metadata = request.get("metadata")
    text = metadata.get(name) if isinstance(metadata, Mapping) else None
    return int(text) if isinstance(text, str) and text.isdigit() and len(text) < 10 else None
