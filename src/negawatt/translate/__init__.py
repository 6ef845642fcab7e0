"""Putting a call into the protocol that its provider speaks, and the answer back into the caller's.

Chat Completions is the hub: there is a translation between it and each other protocol, and the rest are two in a row.
Answers are translated as streams only; a whole answer is unfolded, translated chunk by chunk, and folded again, so
that the two can never say different things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Translator(Protocol):
    """Translates one stream of the provider's chunks into the caller's."""

    def feed(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the caller's chunks that one chunk of the provider stands for: none, one or several."""
        ...

    def end(self) -> list[dict[str, Any]]:
        """Return what is still due when the provider's stream has come to its end."""
        ...


class Translation(Protocol):
    """From the protocol *source*, which the caller speaks, to *target*, which the provider speaks."""

    source: str
    target: str

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request in the provider's words. Raises `Untranslatable`, which names the feature."""
        ...

    def translator(self, data: Mapping[str, Any]) -> Translator:
        """Return what translates the answer to the caller's request *data* back."""
        ...
