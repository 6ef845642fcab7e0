"""Rerank, in the shape that Cohere, Jina, Voyage and vLLM have in common: documents in the order of their relevance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import orjson

from negawatt.call import Request
from negawatt.economics.usage import Usage, usage_from_cohere, usage_from_input
from negawatt.protocol import Prompt, Wire
from negawatt.wire.common import check_shape, identity_without
from negawatt.wire.whole import Whole


class _RerankRequest(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    query: str | dict[str, Any]
    documents: Annotated[list[str | dict[str, Any]], msgspec.Meta(min_length=1)]
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Rerank(Whole):
    """Reranking, as a `negawatt.protocol.Wire`."""

    name = "rerank"
    operation = "rerank"
    path = "/rerank"

    def check(self, request: Request) -> None:
        """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
        check_shape(request, _RerankRequest)

    def identity(self, request: Request) -> dict[str, Any]:
        """Return what can change the answer: every field."""
        return identity_without(request, frozenset())

    def prompt(self, request: Request) -> Prompt:
        """Return the query and the documents; models read the query once with each."""
        documents = request.get("documents")
        said = [_text(one) for one in documents] if isinstance(documents, list) else []
        return Prompt(texts=[_text(request.get("query")), *said])

    def complete(self, data: Mapping[str, Any]) -> bool:
        """True when there are results, under either of the names that they have."""
        results = data.get("results", data.get("data"))
        return isinstance(results, list) and bool(results) and all(isinstance(one, dict) for one in results)

    def usage(self, data: Mapping[str, Any]) -> Usage | None:
        """Return Cohere's ``meta``, or the ``usage`` block of the others."""
        return usage_from_cohere(data.get("meta")) or usage_from_input(data.get("usage"))


def _text(value: Any) -> str:
    """Return the text of a query or a document, which may be an object."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    try:
        return orjson.dumps(value).decode() if value is not None else ""
    except orjson.JSONEncodeError:
        return ""


RERANK: Wire = Rerank()
