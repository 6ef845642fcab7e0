"""How much a model shall think, as each protocol says it. What the caller said of it is replaced, in whatever words.

An effort is a word of ``none``, ``minimal``, ``low``, ``medium``, ``high``, ``xhigh``, ``max``; which of them a model
knows is for its provider to say. Sources, 2026-11: the APIs' references, as their SDKs have them;
https://platform.claude.com/docs/en/build-with-claude/effort and ``.../adaptive-thinking``; for ``reasoning`` in Chat
Completions https://openrouter.ai/docs/guides/best-practices/reasoning-tokens.
"""

from __future__ import annotations

from typing import Any

from negawatt.call import Request
from negawatt.wire.common import as_object

_LEAST = "low"  # that Messages has a word for
# Other words for how much to think, in the object that OpenRouter takes: with them, two would be said.
_MEASURES = frozenset({"effort", "enabled", "max_tokens"})


def chat_with_effort(request: Request, effort: str) -> Request:
    """Return *request* with ``reasoning_effort``; without ``thinking``, which would count more."""
    data = {name: value for name, value in request.data.items() if name != "thinking"}
    if isinstance(data.get("reasoning"), dict):
        data.pop("reasoning_effort", None)  # who takes the object refuses both
        data["reasoning"] = {**_without_measures(data["reasoning"]), "effort": effort}
    else:
        data["reasoning_effort"] = effort
    return _changed(request, data)


def responses_with_effort(request: Request, effort: str) -> Request:
    """Return *request* with ``reasoning.effort``; what else ``reasoning`` says is kept."""
    reasoning = {**as_object(request.get("reasoning")), "effort": effort}
    return _changed(request, {**request.data, "reasoning": reasoning})


def messages_with_effort(request: Request, effort: str) -> Request:
    """Return *request* with adaptive ``thinking`` and ``output_config.effort``, or with ``thinking`` disabled.

    A budget of tokens for thinking goes: it would be another word for the same.
    """
    output = {name: value for name, value in as_object(request.get("output_config")).items() if name != "effort"}
    thinking: dict[str, Any] = {"type": "disabled"}
    if effort != "none":
        output["effort"] = _LEAST if effort == "minimal" else effort
        kept = as_object(request.get("thinking"))
        thinking = {"type": "adaptive", **({"display": kept["display"]} if "display" in kept else {})}
    data = {**request.data, "thinking": thinking, "output_config": output}
    if not output:
        del data["output_config"]
    return _changed(request, data)


def _without_measures(reasoning: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in reasoning.items() if name not in _MEASURES}


def _changed(request: Request, data: dict[str, Any]) -> Request:
    """Return a request of *data*; *request* itself, with its bytes, where that is what it says."""
    return request if data == request.data else Request(data=data)
