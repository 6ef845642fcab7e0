"""A schema that the library is asked with: JSON Schema, or a model that can say its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from negawatt.call import Request
from negawatt.errors import InvalidRequest
from negawatt.shape.contract import strictly
from negawatt.wire.contracts import FORMS, Asking, with_schema


def asking_for(protocol: str, request: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """Return *request* of *protocol* asking for *schema*: a JSON schema, or a class with ``model_json_schema()``.

    That is what pydantic's models have. Raises `InvalidRequest` for anything else, and where the protocol cannot ask.
    """
    if protocol not in FORMS:
        raise InvalidRequest(f"schema: {protocol} cannot ask for one; known: {', '.join(FORMS)}", param="schema")
    told = getattr(schema, "model_json_schema", None)
    found = told() if callable(told) else schema
    if not isinstance(found, Mapping):
        what = "schema: expected a JSON schema, or a model with model_json_schema()"
        raise InvalidRequest(f"{what}, not {type(schema).__name__}", param="schema")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(found.get("title") or "answer"))[:64]
    return with_schema(protocol, Request(data=dict(request)), Asking(dict(found), strictly(found), name)).data
