"""What the tests of translations and books share: a gateway before a provider that plays what it is given."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world import HERE, Gateway, Json, Process

# USD per million tokens: primes, one for each kind, so that no two mistakes cancel out.
PRICES = {"input": 7, "output": 31, "cache_read": 3, "cache_write": 11, "cache_write_1h": 13}
PROTOCOLS = ("chat", "responses", "messages", "count_tokens", "completions", "embeddings", "rerank")
Wire = dict[str, Any]  # an answer: its body and its events


class Player(Process):
    """The provider (`player.py`)."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, str(HERE / "player.py")], folder / "player.log")
        self.port = self.announced(r"PORT (\d+)")
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=5) as response:
            return json.load(response)

    def play(self, model: str, **answer: Any) -> str:
        """Let *model* answer so from now on; return its name."""
        self._ask(f"/play/{model}", json.dumps(answer).encode())
        return model

    def asked(self, model: str) -> Json:
        """The body of the last request for *model*."""
        found: Json = self._ask(f"/last/{model}")["body"]
        return found


class Played(Gateway):
    """A gateway whose models ``chat-*``, ``messages-*`` and so on have a provider of just that protocol."""

    def __init__(self, folder: Path, player: Player, **levers: Json) -> None:
        prices = {**{f"{name}_usd_per_mtok": usd for name, usd in PRICES.items()}, "models": "*", "source": "made up"}
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in prices.items())
        (folder / "prices.toml").write_text(f"[[price]]\n{lines}\nchecked = 2026-11-24\n", encoding="utf-8")
        provider = {"kind": "openai-compatible", "base_url": player.base_url}
        super().__init__(folder, {
            "holdout": {"share": 0.0},
            "economics": {"prices": str(folder / "prices.toml")},
            "levers": {"exact_cache": {"mode": "off"}, "retry": {"attempts": 1, "breaker_failures": 1000000}, **levers},
            "providers": [{"name": n, **provider, "models": [f"{n}-*"], "protocols": [n]} for n in PROTOCOLS],
        })  # fmt: skip
        self.player = player


@contextlib.contextmanager
def played(folder: Path, **levers: Json) -> Iterator[Played]:
    """Start both, and stop them. *levers* are sections of the configuration."""
    player = Player(folder)
    try:
        gateway = Played(folder, player, **levers)
        try:
            yield gateway
        finally:
            gateway.stop()
    finally:
        player.stop()


# -- what providers say, in their own words ----------------------------------------------------------------------------

CHAT_USAGE = {
    "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 8},
}  # fmt: skip
RESPONSES_USAGE = {
    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 0}, "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 8}, "total_tokens": 120,
}  # fmt: skip
MESSAGES_USAGE = {
    "input_tokens": 20, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 40, "output_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30},
}  # fmt: skip


def in_chat(message: Json, deltas: list[Json], reason: str = "stop") -> Wire:
    """An answer of Chat Completions. *deltas* are those of its stream."""
    head = {"id": "chatcmpl-7", "created": 1_700_000_000, "model": "played-1"}
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": reason}
    begun: list[Json] = [{"role": "assistant", "content": ""}, *deltas]
    chunk = {**head, "object": "chat.completion.chunk"}
    return {
        "body": {**head, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE},
        "events": [
            *({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in begun),
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
            {**chunk, "choices": [], "usage": CHAT_USAGE},
        ],
    }


def in_responses(items: list[Json], deltas: list[list[Json]], incomplete: str | None = None) -> Wire:
    """An answer of the Responses API. *deltas*: of each item, the events between its first and its last."""
    status = "incomplete" if incomplete else "completed"
    body = {
        "id": "resp_7", "object": "response", "created_at": 1_700_000_000, "status": status, "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None, "instructions": None,
        "model": "played-1", "output": items, "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0,
        "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": RESPONSES_USAGE,
    }  # fmt: skip
    events: list[Json] = [{"type": "response.created", "response": {**body, "output": [], "usage": None}}]
    for index, (item, between) in enumerate(zip(items, deltas, strict=True)):
        empty = {**item, **{n: v for n, v in {"arguments": "", "content": [], "summary": []}.items() if n in item}}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        events += [{"output_index": index, "item_id": item["id"], **event} for event in between]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{status}", "response": body})
    return {"body": body, "events": [{**event, "sequence_number": n} for n, event in enumerate(events)]}


def in_messages(content: list[Json], deltas: list[list[Json]], reason: str = "end_turn") -> Wire:
    """An answer of Messages. *deltas*: of each block, what comes between its first event and its last."""
    body = {
        "id": "msg_7", "type": "message", "role": "assistant", "model": "played-1", "content": content,
        "stop_reason": reason, "stop_sequence": None, "usage": MESSAGES_USAGE,
    }  # fmt: skip
    begun = {**body, "content": [], "stop_reason": None, "usage": {**MESSAGES_USAGE, "output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": begun}]
    for index, (block, between) in enumerate(zip(content, deltas, strict=True)):
        empty = {**block, **{n: v for n, v in {"text": "", "thinking": "", "signature": "", "input": {}}.items()
                             if n in block}}  # fmt: skip
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in between]
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 20}})
    events.append({"type": "message_stop"})
    return {"body": body, "events": events}
