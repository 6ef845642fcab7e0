"""compose: a request takes its final meaning. The template that it names becomes instructions and messages.

This is no saving that could be tried in shadow or left to a holdout: a request that names a template means what the
template says. What saves, the stable prefix and the marks, is `negawatt.levers.prefix`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from negawatt.call import Call, FromTemplate, Request, json_name
from negawatt.errors import InvalidRequest
from negawatt.prompts.protocols import PROTOCOLS, fields_of
from negawatt.prompts.template import Prompts, Template

NAME = "compose"
FIELD = "negawatt"  # of a request: ours, and never sent on


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
        if call.wire.name not in PROTOCOLS:
            where = f"{FIELD}.template"
            raise InvalidRequest(f"{where}: a template makes messages, which {call.wire.name} has not", param=where)
        template = self._template(asked.template, asked.version)
        rendered = template.render(asked.variables, where=f"{FIELD}.variables")
        call.note(NAME, "rendered", rendered.name, detail={"version": rendered.version})
        version = call.hints.prompt_version or rendered.version  # the caller's word first: caches key on it
        told = FromTemplate(rendered.name, rendered.version, tuple((one.name, one.text) for one in rendered.blocks))
        return call.with_(
            request=Request(data={**plain.data, **fields_of(call.wire.name, plain.data, rendered)}),
            template=told,
            hints=msgspec.structs.replace(call.hints, prompt_version=version),
        )

    def _template(self, name: str, version: str | None) -> Template:
        if self._prompts is None:
            where = f"{FIELD}.template"
            raise InvalidRequest(f"{where}: no folder of templates is configured (levers.compose.prompts)", param=where)
        return self._prompts.template(name, version, under=f"{FIELD}.")


def _asked(given: Any) -> Composed:
    try:
        return msgspec.convert(given, Composed)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = f"{FIELD}{where.rstrip('`')}"
        if not isinstance(given, dict):
            what = f"expected an object, got {json_name(given)}"
        raise InvalidRequest(f"{place}: {what.replace('`', '')}", param=place) from error
