"""The table of providers over HTTP, read from ``rows.toml``."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from importlib import resources

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. *local*: it may run without a key, and its prices are not the vendor's."""

    name: str
    base_url: str | None = None
    key_env: str | None = None
    key_header: str = "authorization"
    protocols: tuple[str, ...] = ("chat", "completions", "embeddings", "rerank")
    families: tuple[str, ...] = ()  # patterns of its own models' names
    headers: dict[str, str] = {}  # sent where the caller says nothing else
    usage_in_stream: bool = True
    priced_as: str | None = None
    local: bool = False
    predicts: tuple[str, ...] = ()  # patterns of models that take `prediction` (predicted outputs), in chat
    schemas: tuple[str, ...] = ()  # of models that are held to a JSON schema, in the words of the protocol
    verbosity: tuple[str, ...] = ()  # of models that take `verbosity`, or `text.verbosity`
    newer_limit: bool = False  # in chat it takes `max_completion_tokens`, and of some models only that

    def takes_predictions(self, model: str) -> bool:
        """True when *model*, as the provider names it, takes predicted outputs."""
        return any(fnmatchcase(model, pattern) for pattern in self.predicts)

    def takes_schemas(self, model: str) -> bool:
        """True when *model* is known to be held to a JSON schema that is sent with the request."""
        return any(fnmatchcase(model, pattern) for pattern in self.schemas)

    def takes_verbosity(self, model: str) -> bool:
        """True when *model* is known to take a word for how much it is to say."""
        return any(fnmatchcase(model, pattern) for pattern in self.verbosity)


def _read() -> dict[str, Row]:
    text = resources.files("negawatt.providers").joinpath("rows.toml").read_text(encoding="utf-8")
    rows = msgspec.convert(tomllib.loads(text)["row"], list[Row])
    return {row.name: row for row in rows}


ROWS = _read()
