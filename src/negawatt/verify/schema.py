"""Does an answer keep the contract that its request asked for?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from negawatt.call import Request


def broken_contract(request: Request, data: Mapping[str, Any]) -> str | None:
    """Return why the whole answer *data* breaks the request's ``response_format``, None when it keeps it."""
    contract = request.get("response_format")
    if not isinstance(contract, Mapping) or contract.get("type") not in ("json_object", "json_schema"):
        return None
    for choice in data.get("choices") or ():
        message = choice.get("message") or {}
        if message.get("tool_calls") or message.get("refusal"):
            continue
        try:
            value = orjson.loads(message.get("content") or "")
        except orjson.JSONDecodeError:
            return "the answer is not the JSON that was asked for"
        problem = _problem(contract, value)
        if problem is not None:
            return problem
    return None


def _problem(contract: Mapping[str, Any], value: Any) -> str | None:
    if contract["type"] == "json_object":
        return None if isinstance(value, dict) else "the answer is not the JSON object that was asked for"
    described = contract.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if schema is None:
        return None
    validator = _validator(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
    if validator is None:
        return "the schema that was asked for is not a valid one"
    error = next(iter(validator.iter_errors(value)), None)
    return None if error is None else f"the answer breaks the schema: {error.message}"[:200]


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(orjson.loads(schema), retriever=_retrieve)
    except (jsonschema_rs.ValidationError, ValueError):
        return None


def _retrieve(uri: str) -> Any:
    """Refuse: a schema is the caller's, and what it refers to would be fetched from inside our network."""
    raise ValueError(f"{uri} is not part of the schema")
