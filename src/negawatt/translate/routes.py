"""Which translation leads from the protocol of a caller to one that the provider speaks."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any

from negawatt.translate import Translation, Translator
from negawatt.translate.table import Untranslatable

_HUB = "chat"
# (source, target): where the translation is. The rest are two in a row.
PAIRS: Mapping[tuple[str, str], str] = {
    ("chat", "messages"): "negawatt.translate.chat_to_messages:ChatToMessages",
    ("messages", "chat"): "negawatt.translate.messages_to_chat:MessagesToChat",
    ("chat", "responses"): "negawatt.translate.chat_to_responses:ChatToResponses",
    ("responses", "chat"): "negawatt.translate.responses_to_chat:ResponsesToChat",
}
# The target that keeps most comes first.
PREFERRED: Mapping[str, tuple[str, ...]] = {
    "chat": ("responses", "messages"),
    "responses": ("chat", "messages"),
    "messages": ("chat", "responses"),
}


def route(source: str, spoken: Collection[str]) -> Translation | None:
    """Return how a call in *source* gets into one of the protocols *spoken*; None when it is one of them.

    Raises `Untranslatable` when there is no way.
    """
    if source in spoken:
        return None
    for target in PREFERRED.get(source, ()):
        if target in spoken:
            if (source, target) in PAIRS:
                return _open(source, target)
            return Chained(_open(source, _HUB), _open(_HUB, target))
    known = ", ".join(sorted(spoken)) or "nothing"
    raise Untranslatable(f"model: its provider speaks {known}, and {source} cannot be put into that", param="model")


def _open(source: str, target: str) -> Translation:
    module, _, name = PAIRS[source, target].partition(":")
    translation: Translation = getattr(importlib.import_module(module), name)()
    return translation


class Chained:
    """Two translations in a row."""

    def __init__(self, first: Translation, second: Translation) -> None:
        self.source = first.source
        self.target = second.target
        self._first = first
        self._second = second

    def request(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return self._second.request(self._first.request(data))

    def translator(self, data: Mapping[str, Any]) -> Translator:
        return _Both(self._second.translator(self._first.request(data)), self._first.translator(data))


class _Both:
    """The answer goes back the other way: what the second translation gives is for the first."""

    def __init__(self, near: Translator, far: Translator) -> None:
        self._near = near  # to the provider
        self._far = far  # to the caller

    def feed(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        return [chunk for one in self._near.feed(data) for chunk in self._far.feed(one)]

    def end(self) -> list[dict[str, Any]]:
        chunks = [chunk for one in self._near.end() for chunk in self._far.feed(one)]
        return chunks + self._far.end()
