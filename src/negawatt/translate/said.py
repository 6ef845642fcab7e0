"""A text that no model wrote, as the answer to a call, in the words of its protocol."""

from __future__ import annotations

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
    reply = Reply(CHAT, body=orjson.dumps(body))
    way = route(call.wire.name, {"chat"})
    return reply if way is None else translated(reply, call.request.data, way, call.wire, CHAT)
