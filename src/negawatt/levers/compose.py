"""compose: a request takes its final meaning. The template that it names becomes instructions and messages.

This is no saving that could be tried in shadow or left to a holdout: a request that names a template means what the
template says. What saves, the stable prefix and the marks, is `negawatt.levers.prefix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from negawatt.call import Call, FromTemplate, Request, json_name
from negawatt.errors import InvalidRequest
from negawatt.prompts.template import Prompts, Rendered, Template

NAME = "compose"
FIELD = "negawatt"  # of a request: ours, and never sent on
_INSTRUCTIONS = ("system", "developer")


class Composed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand in the field."""

    template: str | None = None
    variables: dict[str, Any] = {}
    version: str | None = None


class Compose:
    """Renders what a request asks for, and takes our field out of it. *prompts* None: no folder is configured."""

    def __init__(self, prompts: Prompts | None) -> None:
        self._prompts = prompts

    def __call__(self, call: Call) -> Call:
        """Return *call* with its prompt. Raises `InvalidRequest`, naming the field, for what cannot be rendered."""
        given = call.request.get(FIELD)
        if given is None:
            return call if FIELD not in call.request.data else call.with_(request=call.request.without(FIELD))
        asked = _asked(given)
        plain = call.request.without(FIELD)
        if asked.template is None:
            if asked.variables or asked.version:
                raise InvalidRequest(f"{FIELD}.template: this field is required", param=f"{FIELD}.template")
            return call.with_(request=plain)
        write = _WRITTEN.get(call.wire.name)
        if write is None:
            where = f"{FIELD}.template"
            raise InvalidRequest(f"{where}: a template makes messages, which {call.wire.name} has not", param=where)
        rendered = _rendered(self._template(asked.template), asked)
        call.note(NAME, "rendered", rendered.name, detail={"version": rendered.version})
        version = call.hints.prompt_version or rendered.version  # the caller's word first: caches key on it
        told = FromTemplate(rendered.name, rendered.version, tuple((one.name, one.text) for one in rendered.blocks))
        return call.with_(
            request=Request(data={**plain.data, **write(plain.data, rendered)}),
            template=told,
            hints=msgspec.structs.replace(call.hints, prompt_version=version),
        )

    def _template(self, name: str) -> Template:
        where = f"{FIELD}.template"
        if self._prompts is None:
            raise InvalidRequest(f"{where}: no folder of templates is configured (levers.compose.prompts)", param=where)
        return self._prompts.template(name, where=where)


def _asked(given: Any) -> Composed:
    try:
        return msgspec.convert(given, Composed)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = f"{FIELD}{where.rstrip('`')}"
        if not isinstance(given, dict):
            what = f"expected an object, got {json_name(given)}"
        raise InvalidRequest(f"{place}: {what.replace('`', '')}", param=place) from error


def _rendered(template: Template, asked: Composed) -> Rendered:
    if asked.version is not None and not (len(asked.version) >= 6 and template.digest.startswith(asked.version)):
        where = f"{FIELD}.version"
        message = f"{where}: template {template.name!r} has version {template.version}, not {asked.version[:64]!r}"
        raise InvalidRequest(message, param=where)
    return template.render(asked.variables, where=f"{FIELD}.variables")


# -- into the fields of each protocol --------------------------------------------------------------------------


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
