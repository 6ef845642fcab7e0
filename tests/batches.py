"""The item cache on its own: a provider of vectors and scores that does as it is told, and calls to it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import orjson
from worlds import EPOCH, settled

from negawatt.call import Call, Request, Target, Trail
from negawatt.caller import Hints, Scope
from negawatt.config import ItemCache as Settings
from negawatt.config import RequestClass
from negawatt.economics.counting import Count
from negawatt.levers.item_cache import ItemCache
from negawatt.pipeline import Background, Pipeline, Step
from negawatt.proof.virtual import VirtualClock
from negawatt.protocol import Prompt
from negawatt.reply import Reply
from negawatt.stores.memory import MemoryStore
from negawatt.wire.embeddings import EMBEDDINGS
from negawatt.wire.rerank import RERANK

BATCH = {"model": "m", "input": ["a", "bb", "ccc"]}
_ids = itertools.count()


def count(model: str, prompt: Prompt) -> Count:
    """Count a token for each character."""
    return Count(prompt.tokens + sum(map(len, prompt.texts)), "estimated")


def vector(item: Any, model: str = "m", dimensions: int = 4) -> list[float]:
    """Return the vector of *item*: the same for the same model, another one for any other."""
    digest = hashlib.sha256(repr((item, model, dimensions)).encode()).digest()
    return [byte / 251 for byte in digest[:dimensions]]


def vectors_of(answer: dict[str, Any]) -> list[Any]:
    """Return the vectors of *answer*, which must stand in their order."""
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    return [one["embedding"] for one in answer["data"]]


def score(query: str, document: Any) -> float:
    return hashlib.sha256(repr((query, document)).encode()).digest()[0] / 255


def embedded(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the provider's answer to a request for embeddings: a token for each character or id, and one beside."""
    given = request["input"]
    items = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    made = [vector(item, model, request.get("dimensions") or 4) for item in items]
    tokens = sum(map(len, items)) + 1
    return {
        "object": "list", "data": [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(made)],
        "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip


def ranked(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the provider's answer to a request for reranking, as Voyage has it: tokens, and a number of results."""
    documents, query = request["documents"], request["query"]
    results = [{"index": i, "relevance_score": score(query, one)} for i, one in enumerate(documents)]
    results.sort(key=lambda one: -one["relevance_score"])
    tokens = sum(len(query) + len(one) for one in documents)
    return {"id": "r-1", "model": model, "results": results[: request.get("top_n")], "usage": {"total_tokens": tokens}}


class Provider:
    """Answers after a second. Each call takes the next of *script*: an answer, an error to raise, or None."""

    def __init__(self, delay_s: float = 1.0) -> None:
        self.delay_s = delay_s
        self.script: list[Any] = []
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.serves: str | None = None  # the model that really answers
        self.says: str | None = None  # the one that it says it is
        self.replies: list[Reply] = []

    @property
    def inputs(self) -> list[Any]:
        return [one.get("input", one.get("documents")) for one in self.asked]

    async def __call__(self, call: Call) -> Reply:
        request = dict(call.request.data)
        self.asked.append(request)
        first = call.targets[0]
        target = Target(first.provider, self.serves or first.model, first.name)
        attempt = call.trail.open_attempt(target)
        step = self.script.pop(0) if self.script else None
        try:
            await asyncio.sleep(self.delay_s)
            if isinstance(step, BaseException):
                raise step
        except BaseException as error:
            call.trail.close_attempt(attempt, error=type(error).__name__)
            raise
        data = step if step is not None else self.answer(request, target.model)
        reply = Reply(call.wire, body=data if isinstance(data, bytes) else orjson.dumps(data))
        reply.status = self.status
        if not isinstance(data, bytes):
            attempt.usage = call.wire.usage(data)
        call.trail.close_attempt(attempt)
        reply.headers = {"x-request-id": f"req-{len(self.asked)}"}
        self.replies.append(reply)
        return reply

    def answer(self, request: Mapping[str, Any], model: str) -> dict[str, Any]:
        made = ranked(request, model) if "documents" in request else embedded(request, model)
        return {**made, "model": self.says or made["model"]}


class Bench:
    """The lever between callers and a provider, on the loop that runs."""

    def __init__(self, provider: Provider | None = None, *, store: Any = None, **settings: Any) -> None:
        classes: dict[str, RequestClass] = settings.pop("classes", {})
        loop: Any = asyncio.get_running_loop()
        self.clock = VirtualClock(loop, EPOCH)
        self.provider = provider or Provider()
        self.store = store or MemoryStore(self.clock, 1 << 24)
        self.background = Background()
        self.lever = ItemCache(
            Settings(**settings), classes, store=self.store, clock=self.clock, background=self.background, count=count
        )
        self.modes: dict[str, Pipeline] = {}

    def call(self, request: Mapping[str, Any], **fields: Any) -> Call:
        """Return an admitted call: embeddings, or rerank where there are documents."""
        model = request["model"]
        rerank = "documents" in request
        return Call(
            id=f"call-{next(_ids)}", request=Request(data=dict(request)), trail=Trail(self.clock),
            received_at=self.clock.time(), started=self.clock.monotonic(),
            **{"wire": RERANK if rerank else EMBEDDINGS, "scope": Scope(), "hints": Hints(),
               "targets": (Target("p", model, model),), **fields},
        )  # fmt: skip

    async def send(self, call: Call, mode: Any = "on") -> Reply:
        """Answer *call* to its end, as the gateway would."""
        if mode not in self.modes:
            step = Step("item_cache", self.lever, mode=mode)
            self.modes[mode] = Pipeline([step], self.provider, class_modes={}, background=self.background)
        call.trail.call = call
        reply = await self.modes[mode](call)
        await reply.whole()
        await reply.close()
        await settled()
        return reply

    async def embed(self, *items: Any, **fields: Any) -> dict[str, Any]:
        """Return the answer for *items*, which are sent as a list."""
        return (await self.send(self.call({"model": "m", "input": list(items), **fields}))).data

    async def rerank(self, *documents: str, **fields: Any) -> dict[str, Any]:
        request = {"model": "rerank-v3.5", "query": "q", "documents": list(documents), **fields}
        return (await self.send(self.call(request))).data


def said(call: Call) -> list[tuple[str, str | None]]:
    """Return what the lever noted: action and reason."""
    return [(one.action, one.reason) for one in call.trail.decisions]


def spared(call: Call) -> int | None:
    """Return the input tokens that the lever says were not asked for; None when it says nothing."""
    found = [one.saved.usage.input_tokens for one in call.trail.decisions if one.saved is not None]
    return sum(found) if found else None
