"""Whether a schema says that nothing is missing from an object whose end is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from negawatt.shape.lenient import Frame


def complete(schema: Any, frames: Sequence[Frame]) -> bool:
    """True when by *schema* each of *frames*, outermost first, can hold nothing beyond what it holds.

    So it is with an object that has all its properties and may have no other, and a list as long as it may be.
    """
    here = schema
    for frame in frames:
        here = _resolved(here, schema)
        if not isinstance(here, Mapping):
            return False
        if frame.keys is None:
            if here.get("maxItems") != frame.items:
                return False
            here = here.get("items")
            continue
        properties = here.get("properties")
        keys = [orjson.loads(key) for key in frame.keys]
        closed = here.get("additionalProperties") is False and "patternProperties" not in here
        if not closed or not isinstance(properties, Mapping) or not set(properties) <= set(keys):
            return False
        here = properties.get(keys[-1])
    return True


def _resolved(schema: Any, root: Any) -> Any:
    """Follow references within *root*; None where one leads nowhere, or round."""
    for _ in range(20):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            return schema
        reference = schema["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        schema = root
        for part in reference[2:].split("/"):
            schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return None
