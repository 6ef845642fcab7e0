"""The configuration of who may ask: where keys lie that are made while the gateway runs."""

from __future__ import annotations

from negawatt.config_types import Section

DEFAULT_KEYS = "sqlite:///negawatt-keys.sqlite"


class Access(Section, frozen=True):
    keys: str | None = None  # file of keys, which has to be there; None: DEFAULT_KEYS, if it is there
