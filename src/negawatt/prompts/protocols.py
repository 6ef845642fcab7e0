"""A rendered template in the fields of each protocol, before what the caller says.

Instructions of the template stand before those of the caller, context and task before the caller's turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negawatt.prompts.template import Rendered

_INSTRUCTIONS = ("system", "developer")


def _chat(data: Mapping[str, Any], rendered: Rendered) -> dict[str, Any]:
    """Instructions first, then those of the caller, then context and task, then what the caller's messages say."""
    history = data.get("messages")
    if history is not None and not isinstance(history, list):
        return {}  # the protocol's own check refuses it
    theirs = list(history or ())
    led = next((at for at, one in enumerate(theirs) if not _instructs(one)), len(theirs))
    base = [{"role": "system", "content": rendered.instructions}] if rendered.instructions else []
    turn = [{"role": "user", "content": rendered.turn}] if rendered.turn else []
    return {"messages": [*base, *theirs[:led], *turn, *theirs[led:]]}


def _instructs(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _INSTRUCTIONS


def _messages(data: Mapping[str, Any], rendered: Rendered) -> dict[str, Any]:
    """Consecutive turns of a user are one to this API."""
    history = data.get("messages")
    if history is not None and not isinstance(history, list):
        return {}
    turn = [{"role": "user", "content": rendered.turn}] if rendered.turn else []
    found: dict[str, Any] = {"messages": [*turn, *(history or ())]}
    if rendered.instructions:
        system = data.get("system")
        if isinstance(system, list):
            found["system"] = [{"type": "text", "text": rendered.instructions}, *system]
        elif system is None or isinstance(system, str):
            found["system"] = _joined(rendered.instructions, system)
    return found


def _responses(data: Mapping[str, Any], rendered: Rendered) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rendered.turn:
        given = data.get("input")
        turn = {"role": "user", "content": rendered.turn}
        if isinstance(given, list):
            found["input"] = [turn, *given]
        elif isinstance(given, str) and given:
            found["input"] = [turn, {"role": "user", "content": given}]
        elif given is None or given == "":
            found["input"] = [turn]
    if rendered.instructions:
        theirs = data.get("instructions")
        if isinstance(theirs, list):
            found["instructions"] = [{"role": "developer", "content": rendered.instructions}, *theirs]
        elif theirs is None or isinstance(theirs, str):
            found["instructions"] = _joined(rendered.instructions, theirs)
    return found


def _joined(ours: str, theirs: str | None) -> str:
    return f"{ours}\n\n{theirs}" if theirs else ours


_WRITTEN = {"chat": _chat, "messages": _messages, "count_tokens": _messages, "responses": _responses}
PROTOCOLS = frozenset(_WRITTEN)
"""Those whose requests have messages."""


def fields_of(protocol: str, data: Mapping[str, Any], rendered: Rendered) -> dict[str, Any]:
    """Return the fields of the request *data* that change when *rendered* is put before what the caller says."""
    return _WRITTEN[protocol](data, rendered)
