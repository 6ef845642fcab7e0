"""The cells of the isolation matrix: calls that differ in one thing or more, and a provider that tells who asked it."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from worlds import Fake, World, answer

from negawatt.call import Call, Target
from negawatt.reply import Reply
from negawatt.wire.wires import WIRES

Request = dict[str, Any]
OPEN = {"a": "secret-a", "b": "secret-b", "a-key": "secret-a-key", "b-key": "secret-b-key"}  # of tenants a and b
KEYS = [{"id": name, "key_env": name, "tenant": name[0], "permissions": ["p"] if "-" in name else []} for name in OPEN]
# All that can divide two calls. The first value of each is the plain one.
SCOPE: dict[str, tuple[Any, ...]] = {
    "tenant": ("a", "b"),
    "user": (None, "u", "v"),  # a named one asks in a personal class
    "permissions": (None, "p", "key"),  # in a header, or those of the key
    "corpus_version": (None, "1", "2"),
    "prompt_version": (None, "1"),
    "tool_digests": (None, "d"),
    "beta": (None, "new"),  # a header that the provider obeys
}
BODY: dict[str, tuple[Any, ...]] = {
    "model": ("gpt-4o-mini", "gpt-4o"),
    "sampling": ({}, {"top_p": 0.5}, {"longer": True}),
    "system": (None, "Be brief."),
    "tools": (False, True),
    "form": (False, True),
    "protocol": ("chat", "responses", "messages"),
}
ITEM: dict[str, tuple[Any, ...]] = {"model": ("rerank-v3.5", "rerank-v4.0"), "asked": ("one", "other")}
PERSONAL = "mine"
_SCHEMA = {
    "type": "object", "properties": {"cell": {"type": "string"}}, "required": ["cell"], "additionalProperties": False
}  # fmt: skip
_PARAMETERS = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Cell:
    """One place in the matrix; *number* is its name, which its caller gives as the task: no part of any key."""

    number: int
    values: tuple[tuple[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.values)[name]

    def differs_from(self, other: Cell) -> list[str]:
        return [name for (name, one), (_, two) in zip(self.values, other.values, strict=True) if one != two]

    def call(self, w: World, text: str, *, stream: bool) -> Call:
        """Return the call that asks *text* from this cell."""
        request = _ASKED[self["protocol"]](self, text)
        return self._sent(w, {**request, "stream": stream}, self["protocol"])

    def items(self, w: World, protocol: str, items: list[str]) -> Call:
        """Return the call that asks for *items*: texts to be embedded, or documents to be ranked."""
        if protocol == "rerank":
            return self._sent(w, {"model": self["model"], "query": self["asked"], "documents": items}, protocol)
        size = 3 if self["asked"] == "one" else 4
        return self._sent(w, {"model": self["model"], "input": items, "dimensions": size}, protocol)

    def _sent(self, w: World, request: Request, protocol: str) -> Call:
        from negawatt.caller import Hints

        key = OPEN[self["tenant"] + ("-key" if self["permissions"] == "key" else "")]
        hints = Hints(
            key=key, task=str(self.number), user=self["user"],
            request_class="default" if self["user"] is None else PERSONAL,
            permissions="p" if self["permissions"] == "p" else None,
            **{name: self[name] for name in ("corpus_version", "prompt_version", "tool_digests")},
        )  # fmt: skip
        headers = () if self["beta"] is None else (("openai-beta", str(self["beta"])),)
        return w.gateway.new_call(orjson.dumps(request), hints, wire=WIRES[protocol], headers=headers)


def _chat(cell: Cell, text: str) -> Request:
    system = [] if cell["system"] is None else [{"role": "system", "content": cell["system"]}]
    request: Request = {"messages": [*system, {"role": "user", "content": text}], **_common(cell, "max_tokens")}
    if cell["tools"]:
        request["tools"] = [{"type": "function", "function": {"name": "f", "parameters": _PARAMETERS}}]
    if cell["form"]:
        form = {"name": "cell", "schema": _SCHEMA, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    return request


def _responses(cell: Cell, text: str) -> Request:
    request: Request = {"input": text, **_common(cell, "max_output_tokens")}
    if cell["system"] is not None:
        request["instructions"] = cell["system"]
    if cell["tools"]:
        request["tools"] = [{"type": "function", "name": "f", "parameters": _PARAMETERS, "strict": False}]
    if cell["form"]:
        request["text"] = {"format": {"type": "json_schema", "name": "cell", "schema": _SCHEMA, "strict": True}}
    return request


def _messages(cell: Cell, text: str) -> Request:
    request: Request = {"messages": [{"role": "user", "content": text}], **_common(cell, "max_tokens")}
    if cell["system"] is not None:
        request["system"] = cell["system"]
    if cell["tools"]:
        request["tools"] = [{"name": "f", "input_schema": _PARAMETERS}]
    if cell["form"]:
        request["output_config"] = {"format": {"type": "json_schema", "schema": _SCHEMA}}
    return request


def _common(cell: Cell, limit: str) -> Request:
    sampling = dict(cell["sampling"])
    return {"model": cell["model"], "temperature": 0, limit: 60 if sampling.pop("longer", False) else 50, **sampling}


_ASKED = {"chat": _chat, "responses": _responses, "messages": _messages}


def matrix(dimensions: dict[str, tuple[Any, ...]], only: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return every combination of *only*, which are some of *dimensions*; of the others the plain value."""
    plain = {name: values[0] for name, values in dimensions.items()}
    return [{**plain, **dict(zip(only, values, strict=True))} for values in itertools.product(*only.values())]


def numbered(places: list[dict[str, Any]]) -> list[Cell]:
    """Return *places* as cells, each once."""
    once = {repr(sorted(place.items())): place for place in places}
    return [Cell(number, tuple(sorted(place.items()))) for number, place in enumerate(once.values())]


def whole_matrix(mixed: int) -> list[Cell]:
    """Return all of the scope, all of the body, and *mixed* places drawn from all combinations of both."""
    both = {**SCOPE, **BODY}
    drawn = random.Random(4)
    some = [{name: drawn.choice(values) for name, values in both.items()} for _ in range(mixed)]
    return numbered([*matrix(both, SCOPE), *matrix(both, BODY), *some])


def thin_matrix(body: dict[str, tuple[Any, ...]] = BODY) -> list[Cell]:
    """Return the plain cell, every cell that differs from it in one thing, and some that differ in all."""
    both = {**SCOPE, **body}
    alone = [place for name in both for place in matrix(both, {name: both[name]})]
    drawn = random.Random(4)
    return numbered([*alone, *({name: drawn.choice(values) for name, values in both.items()} for _ in range(20))])


class Telling(Fake):
    """A provider whose every answer says which cell asked for it, and how often it has by now: ``17#1``.

    A vector says it as its first two numbers; a score as its whole part and its hundredths.
    """

    speaks = frozenset({"chat", "embeddings", "rerank"})

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s, every_s=0.0)
        self.times_asked: Counter[str] = Counter()

    async def ask(self, call: Call, target: Target) -> Reply:
        who = str(call.hints.task)
        self.times_asked[who] += 1
        if call.wire.name in ("embeddings", "rerank"):
            return await self._items(call, target, int(who), self.times_asked[who])
        self.script = [answer(f'{{"cell": "{who}#{self.times_asked[who]}"}}')]
        return await super().ask(call, target)

    async def _items(self, call: Call, target: Target, who: int, times: int) -> Reply:
        import asyncio

        request = dict(call.request.data)
        self.asked.append(request)
        await asyncio.sleep(self.delay_s)
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        if call.wire.name == "rerank":
            results = [{"index": i, "relevance_score": who + times / 100} for i in range(len(request["documents"]))]
            body: Request = {"id": "r", "model": target.model, "results": results, "usage": usage}
        else:
            vector = [float(who), float(times), 1.0, 1.0][: request["dimensions"]]
            made = [{"object": "embedding", "index": i, "embedding": vector} for i in range(len(request["input"]))]
            body = {"object": "list", "data": made, "model": target.model, "usage": usage}
        return Reply(call.wire, body=orjson.dumps(body))


class Keeping(Telling):
    """A provider of responses, which keeps what was said under the answer's id."""

    speaks = frozenset({"responses"})

    async def ask(self, call: Call, target: Target) -> Reply:
        who = str(call.hints.task)
        self.times_asked[who] += 1
        self.asked.append(dict(call.request.data))
        part = {"type": "output_text", "text": f'{{"cell": "{who}#{self.times_asked[who]}"}}', "annotations": []}
        item = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        return Reply(call.wire, body=orjson.dumps({
            "id": f"resp_{len(self.asked)}", "object": "response", "status": "completed", "model": target.model,
            "output": [item], "usage": {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11},
        }))  # fmt: skip


def teller(told: Any) -> int:
    """Return the number of the cell whose answer *told* is."""
    return int(str(told).partition("#")[0])


@dataclass
class Tally:
    """What the matrix came to. *pairs*: of each time that a cell asked, the strangers whose answers lay there."""

    cells: list[Cell]
    pairs: int = 0
    hits: int = 0
    crossed: list[str] = field(default_factory=list)

    def heard(self, cell: Cell, number: int, by: str, *, strangers: int) -> None:
        """Take down that *cell* was answered with the words of cell *number*, while *strangers* had answers there."""
        self.pairs += strangers
        if number != cell.number:
            apart = ", ".join(cell.differs_from(self.cells[number]))
            self.crossed.append(f"{cell.number} got the answer of {number} from {by}, though they differ in: {apart}")
        elif by != "provider":
            self.hits += 1

    def check(self, record: Any, *, hits: int) -> None:
        """Fail where anything crossed, or where the cache answered less or more than *hits* calls."""
        summary = (
            f"{len(self.cells)} cells, {self.pairs} pairs, {len(self.crossed)} crossed, {self.hits} hits of {hits}"
        )
        record("isolation", summary)
        assert not self.crossed, f"{summary}; {self.crossed[:5]}"
        assert self.hits == hits, summary
