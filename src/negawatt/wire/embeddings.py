"""OpenAI embeddings: vectors for texts. There is no output to pay for, and only one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from negawatt.call import Request
from negawatt.economics.usage import Usage, usage_from_input
from negawatt.errors import InvalidRequest
from negawatt.protocol import Prompt, Wire
from negawatt.wire.common import as_objects, check_shape, identity_without
from negawatt.wire.whole import Whole

# Fields of a request that say whose it is, but cannot change the answer.
NOT_IN_KEY = frozenset({"user"})


class _EmbeddingsRequest(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    input: Any
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: str | None = None
    user: str | None = None


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, _EmbeddingsRequest)
    check_texts(request, "input")


def check_texts(request: Request, name: str) -> None:
    """Raise `InvalidRequest` unless the field *name* is a text, token ids, or a list of either; or objects.

    Objects are what some servers take for pictures.
    """
    given = request.get(name)
    kinds = {_kind(one) for one in given} if isinstance(given, list) else set()
    if isinstance(given, str) or (len(kinds) == 1 and None not in kinds):
        return
    message = f"{name}: expected a text, a list of texts, or lists of token ids, and at least one"
    raise InvalidRequest(message, param=name)


def _kind(value: Any) -> str | None:
    if type(value) is list and value and all(type(one) is int for one in value):
        return "tokens"
    return {str: "text", int: "token", dict: "object"}.get(type(value))


def texts_of(given: Any) -> Prompt:
    """Return what a text, token ids, or a list of either says, for counting; objects count by their texts."""
    if isinstance(given, str):
        return Prompt(texts=(given,))
    if not isinstance(given, list):
        return Prompt()
    objects = [one["text"] for one in as_objects(given) if isinstance(one.get("text"), str)]
    return Prompt(
        texts=[one for one in given if isinstance(one, str)] + objects,
        tokens=sum(len(one) if isinstance(one, list) else type(one) is int for one in given),
    )


class Embeddings(Whole):
    """The embeddings protocol, as a `negawatt.protocol.Wire`."""

    name = "embeddings"
    operation = "embeddings"
    path = "/embeddings"
    check = staticmethod(check)

    def identity(self, request: Request) -> dict[str, Any]:
        """Return what can change the answer: every field but those of `NOT_IN_KEY`."""
        return identity_without(request, NOT_IN_KEY)

    def prompt(self, request: Request) -> Prompt:
        return texts_of(request.get("input"))

    def complete(self, data: Mapping[str, Any]) -> bool:
        """True when there are vectors, and all that is there are vectors."""
        entries = data.get("data")
        return isinstance(entries, list) and bool(entries) and all(
            isinstance(entry, dict) and entry.get("embedding") for entry in entries
        )  # fmt: skip

    def usage(self, data: Mapping[str, Any]) -> Usage | None:
        """Return the ``usage`` block; of its total, all is input."""
        return usage_from_input(data.get("usage"))


EMBEDDINGS: Wire = Embeddings()
