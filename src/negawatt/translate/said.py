"""A text that nobody answered the call with, as the answer to it, in the words of its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from negawatt.call import Call
from negawatt.reply import Reply
from negawatt.translate.answer import translated
from negawatt.translate.routes import route
from negawatt.wire.chat import CHAT


def said(call: Call, text: str) -> Reply:
    """Return *text* as a whole answer to *call*. Raises `Untranslatable` for a protocol in which nothing is said."""
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        "id": f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": int(call.received_at),
        "model": call.request.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
    return spoken(call, body)


def spoken(call: Call, body: Mapping[str, Any]) -> Reply:
    """Return *body*, a whole answer of Chat Completions, as an answer to *call*. Raises as `said` does."""
    reply = Reply(CHAT, body=orjson.dumps(body))
    way = route(call.wire.name, {"chat"})
    return reply if way is None else translated(reply, call.request.data, way, call.wire, CHAT)
