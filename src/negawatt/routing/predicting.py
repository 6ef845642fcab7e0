"""Predicted outputs: the small answer, given to the large model, which writes faster what it would write anyway.

OpenAI's guide on predicted outputs, read on 2026-11-27: Chat Completions only; not together with tools, ``n`` above 1,
``logprobs``, penalties above 0, audio, other modalities than text, or ``max_completion_tokens``. What the model does
not take over is billed as output, so a wrong guess costs more than none.
"""

from __future__ import annotations

from negawatt.call import Request

_MOST = 64_000  # characters


def predicted(protocol: str, request: Request, text: str) -> Request | None:
    """Return *request* with *text* as its predicted output; None where that is not allowed, or says nothing."""
    if protocol != "chat" or not text.strip() or len(text) > _MOST or request.get("prediction") is not None:
        return None
    get = request.get
    if get("tools") or get("functions") or (get("n") or 1) > 1 or get("logprobs") or get("audio"):
        return None
    if get("modalities") not in (None, ["text"]) or get("max_completion_tokens") is not None:
        return None
    if (get("presence_penalty") or 0) > 0 or (get("frequency_penalty") or 0) > 0:
        return None
    return request.replace(prediction={"type": "content", "content": text})
