"""Answers that consist of items: a vector for each input, a score for each document.

Where no item depends on the others, a request may be asked in parts, and an answer put together from parts. What
depends on what is knowledge, with its sources, in ``items.toml``; what is not known to be independent is left whole.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from negawatt.call import Request
from negawatt.economics.tables import matches, plain_name, read_table
from negawatt.protocol import Prompt
from negawatt.wire.common import as_object, error_of
from negawatt.wire.embeddings import EMBEDDINGS, texts_of
from negawatt.wire.rerank import RERANK

_COUNTED = ("prompt_tokens", "input_tokens", "total_tokens")  # of a usage block: what grows with the input
_WHAT_WAS_BILLED = ("billed_units", "tokens")  # of Cohere's meta: they belong to a request, not to its items
_CUT = ("top_n", "top_k")

Result = dict[str, Any]  # what an answer says of one item, without the item's place in the request


class Split(NamedTuple):
    """A request taken apart: the canonical bytes of each item, and a digest of everything that they share."""

    items: list[bytes]
    shared: bytes


class Items(Protocol):
    """How the requests and answers of one protocol are taken apart and put together."""

    def objection(self, request: Request, model: str) -> str | None:
        """Return why *request* must stay whole at *model*, as its provider names it; None when it may be taken apart.

        *request* has been checked by its protocol.
        """
        ...

    def split(self, request: Request) -> Split: ...

    def narrowed(self, request: Request, wanted: Sequence[int]) -> Request:
        """Return *request* with only the items at *wanted*, which differ, so that all of them are answered for."""
        ...

    def prompt(self, request: Request, place: int) -> Prompt:
        """Return what the model reads for the item at *place* alone, for counting."""
        ...

    def take(self, data: Mapping[str, Any], count: int) -> list[Result] | None:
        """Return what *data* says of each of *count* items, in the order of the request.

        None when it is not exactly that: an error, one too few, one twice, or of another form.
        """
        ...

    def valid(self, result: Result) -> bool:
        """True when *result* has what an answer says of an item."""
        ...

    def kind(self, result: Result) -> Hashable:
        """Return the form of *result*: results of different forms do not belong in one answer."""
        ...

    def frame(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return *data* without its items, and without what was counted and billed for them together."""
        ...

    def merge(self, request: Request, results: Sequence[Result], around: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to *request* whose items have *results*, in the fields *around* them."""
        ...


class _Together(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    why: str
    source: str
    checked: datetime.date
    fields: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class _Reranker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: tuple[str, ...]
    scores: Literal["each", "together"]
    why: str
    source: str
    checked: datetime.date


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    embeddings_together: tuple[_Together, ...]
    rerank: tuple[_Reranker, ...]


@cache
def _table() -> _Table:
    return read_table(Path(__file__).parent / "items.toml", _Table)


class EmbeddingItems:
    """The inputs of a request for embeddings: texts, or lists of token ids."""

    def objection(self, request: Request, model: str) -> str | None:
        given = request.get("input")
        if isinstance(given, list) and isinstance(given[0], dict):
            return "its inputs are objects, and those may belong together"
        name = plain_name(model)
        for row in _table().embeddings_together:
            if any(request.get(field) not in (None, False) for field in row.fields) or matches(name, row.models):
                return row.why
        return None

    def split(self, request: Request) -> Split:
        shared = dict(EMBEDDINGS.identity(request))
        shared.pop("input", None)
        items = [Request.canonical(item) for item in _inputs(request)]
        return Split(items, _digest(EMBEDDINGS.name, shared))

    def narrowed(self, request: Request, wanted: Sequence[int]) -> Request:
        given = _inputs(request)
        if len(wanted) == len(given):
            return request  # a single one may have come without a list
        return request.replace(input=[given[place] for place in wanted])

    def prompt(self, request: Request, place: int) -> Prompt:
        item = _inputs(request)[place]
        return Prompt(tokens=len(item)) if isinstance(item, list) else texts_of(item)

    def take(self, data: Mapping[str, Any], count: int) -> list[Result] | None:
        """Return the entries of ``data``. One that does not say its index stands where it belongs."""
        found = _placed(data, data.get("data"), count, by_order=True)
        if found is None or not all(map(self.valid, found)):
            return None
        return found if len({self.kind(entry) for entry in found}) == 1 else None

    def valid(self, result: Result) -> bool:
        """True for numbers, for base64, and for the lists of a model that makes several vectors of one text."""
        vector = result.get("embedding")
        if isinstance(vector, list):
            return bool(vector) and type(vector[0]) in (int, float, list) and vector[0] != []
        return isinstance(vector, str) and bool(vector)

    def kind(self, result: Result) -> Hashable:
        """Return the type and the length of the vector: what another model made is often another length."""
        vector = result.get("embedding")
        if isinstance(vector, list) and vector and isinstance(vector[0], list):
            return "vectors", len(vector[0])
        return type(vector).__name__, len(vector) if isinstance(vector, (list, str)) else 0

    def frame(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return _frame(data, "data")

    def merge(self, request: Request, results: Sequence[Result], around: Mapping[str, Any]) -> dict[str, Any]:
        return {**around, "data": [{**result, "index": place} for place, result in enumerate(results)]}


class RerankItems:
    """The documents of a request for reranking.

    *known* are patterns of the user's own models that score each document by itself.
    """

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._known = tuple(known)

    def objection(self, request: Request, model: str) -> str | None:
        if self._known and any(matches(name.lower(), self._known) for name in (model, request.model)):
            return None
        name = plain_name(model)
        for row in _table().rerank:
            if matches(name, row.models):
                return None if row.scores == "each" else "this model scores the documents together"
        return "it is not known whether this model scores each document by itself"

    def split(self, request: Request) -> Split:
        shared = dict(RERANK.identity(request))
        for name in ("documents", *_CUT):
            shared.pop(name, None)
        return Split([Request.canonical(one, sort=True) for one in request.get("documents")], _digest("rerank", shared))

    def narrowed(self, request: Request, wanted: Sequence[int]) -> Request:
        """Return it with so many results asked for as it has documents, if its caller asked for a number."""
        documents = request.get("documents")
        cut = {name: len(wanted) for name in _CUT if request.get(name) is not None}
        return request.replace(documents=[documents[place] for place in wanted], **cut)

    def prompt(self, request: Request, place: int) -> Prompt:
        one = {"query": request.get("query"), "documents": [request.get("documents")[place]]}
        return RERANK.prompt(Request(data=one))

    def take(self, data: Mapping[str, Any], count: int) -> list[Result] | None:
        found = _placed(data, data.get(_list_of(data)), count, by_order=False)
        return found if found is not None and all(map(self.valid, found)) else None

    def valid(self, result: Result) -> bool:
        return _score(result) is not None

    def kind(self, result: Result) -> Hashable:
        return "score"

    def frame(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return _frame(data, _list_of(data))

    def merge(self, request: Request, results: Sequence[Result], around: Mapping[str, Any]) -> dict[str, Any]:
        """Return them best first, cut to what the caller asked for; equal scores in the order of the request."""
        placed = [{**result, "index": place} for place, result in enumerate(results)]
        placed.sort(key=lambda result: -(_score(result) or 0.0))
        cuts = [cut for name in _CUT if (cut := request.get(name)) is not None]
        return {**around, _list_of(around): placed[: min(cuts, default=len(placed))]}


def items_of(rerank_models: Sequence[str] = ()) -> dict[str, Items]:
    """Return the protocols whose answers consist of items, by name. *rerank_models*: see `RerankItems`."""
    return {EMBEDDINGS.name: EmbeddingItems(), RERANK.name: RerankItems(rerank_models)}


def with_tokens(data: dict[str, Any], more: int) -> dict[str, Any]:
    """Return *data* with *more* input tokens in its ``usage``, under the names that it has there."""
    usage = data.get("usage")
    if not isinstance(usage, dict) or not more:
        return data
    counted = {name: usage[name] + more for name in _COUNTED if type(usage.get(name)) is int}
    return {**data, "usage": {**usage, **counted}}


def _inputs(request: Request) -> list[Any]:
    """Return the inputs: a text, or one list of token ids, is a single one."""
    given = request.get("input")
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def _digest(protocol: str, shared: dict[str, Any]) -> bytes:
    return hashlib.sha256(protocol.encode() + b"\0" + Request.canonical(shared, sort=True)).digest()


def _list_of(data: Mapping[str, Any]) -> str:
    """Return under which of its two names a rerank answer has its results."""
    return "results" if "results" in data else "data"


def _placed(data: Mapping[str, Any], entries: Any, count: int, *, by_order: bool) -> list[Result] | None:
    """Return *entries* in the order of their indices, without these; None unless each of *count* is there once.

    *by_order*: one without an index has the one that its place in the list says.
    """
    if error_of(data) is not None or not isinstance(entries, list) or len(entries) != count:
        return None
    found: list[Result | None] = [None] * count
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            return None
        index = entry.get("index")
        if index is None and by_order:
            index = place
        if type(index) is not int or not 0 <= index < count or found[index] is not None:
            return None
        found[index] = {name: value for name, value in entry.items() if name != "index"}
    return [result for result in found if result is not None]


def _score(result: Result) -> float | None:
    score = result.get("relevance_score", result.get("score"))
    return score if type(score) in (int, float) else None


def _frame(data: Mapping[str, Any], items: str) -> dict[str, Any]:
    frame = {name: None if name == items else value for name, value in data.items()}
    usage, meta = as_object(frame.get("usage")), as_object(frame.get("meta"))
    if usage:
        frame["usage"] = {name: 0 for name in _COUNTED if type(usage.get(name)) is int}
    if meta:
        frame["meta"] = {name: value for name, value in meta.items() if name not in _WHAT_WAS_BILLED}
    return frame
