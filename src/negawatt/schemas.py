"""JSON Schemas, which are the caller's: what they refer to is never fetched."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson


def broken(schema: Any, value: Any) -> str | None:
    """Return why *value* breaks *schema*, or why *schema* is none; None where it keeps it."""
    validator = _validator(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
    if validator is None:
        return "the schema that was asked for is not a valid one"
    error = next(iter(validator.iter_errors(value)), None)
    return None if error is None else f"the answer breaks the schema: {error.message}"[:200]


def no_schema(schema: Any) -> str | None:
    """Return why *schema* is none, None where it is one."""
    import jsonschema_rs

    if not isinstance(schema, (dict, bool)):
        return "expected a JSON schema, which is an object"
    try:
        if _validator(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)) is not None:
            return None
    except orjson.JSONEncodeError:
        return "it is nested too deeply"
    try:
        jsonschema_rs.validator_for(schema, retriever=_retrieve)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        return f"not a valid JSON schema: {getattr(error, 'message', error)}"[:300]
    return None


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
