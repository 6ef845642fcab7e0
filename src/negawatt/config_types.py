"""What the configuration's tables are made of: the types that several of them share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Protocol = Literal["chat", "responses", "messages", "count_tokens", "embeddings", "rerank", "completions"]
Mode = Literal["off", "shadow", "canary", "on"]
Share = Annotated[float, Meta(ge=0, le=1)]
Budget = Annotated[float, Meta(gt=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = ("low", "medium", "high")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""
