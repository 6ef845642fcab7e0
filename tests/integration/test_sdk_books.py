"""What a call came to, in every protocol: in the headers, in a stream's last chunk, and in the ledger, all the same.

Prices are primes (`playing.PRICES`), and every cost here is worked out by hand from what the provider said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from answers import CASES, SAID
from openai.types import CreateEmbeddingResponse
from openai.types.completion import Completion
from playing import CHAT_USAGE, Played, played
from pydantic import TypeAdapter
from world import Answer, Json

# 60 fresh at 7, 40 read at 3, 20 made at 31; in Messages 20 fresh, 40 read, 10 written at 11, 30 for an hour at 13.
CHAT_USD, MESSAGES_USD = Decimal("0.001160"), Decimal("0.001380")
INPUT_USD = Decimal("0.000700")  # 100 fresh
HELLO: Any = [{"role": "user", "content": "hello"}]
PATHS = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
    "completions": "/v1/completions", "embeddings": "/v1/embeddings", "rerank": "/v1/rerank",
    "count_tokens": "/v1/messages/count_tokens",
}  # fmt: skip
ASKED: dict[str, Json] = {
    "chat": {"messages": HELLO}, "responses": {"input": "hello"}, "messages": {"messages": HELLO, "max_tokens": 100},
    "completions": {"prompt": "hello"}, "embeddings": {"input": "hello"},
    "rerank": {"query": "hello", "documents": ["a", "b"]}, "count_tokens": {"messages": HELLO},
}  # fmt: skip
HEAD = {"id": "cmpl-7", "object": "text_completion", "created": 1_700_000_000, "model": "played-1"}
CHOICE: Json = {"index": 0, "text": SAID, "logprobs": None, "finish_reason": "stop"}
PLAYED: dict[str, Json] = {
    "chat": CASES["thoughts"]["chat"], "responses": CASES["thoughts"]["responses"],
    "messages": CASES["thoughts"]["messages"],
    "completions": {
        "body": {**HEAD, "choices": [CHOICE], "usage": CHAT_USAGE},
        "events": [{**HEAD, "choices": [CHOICE]}, {**HEAD, "choices": [], "usage": CHAT_USAGE}],
    },
    "embeddings": {"body": {
        "object": "list", "model": "played-1", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1]}],
        "usage": {"prompt_tokens": 100, "total_tokens": 100},
    }},
    "rerank": {"body": {"id": "rr", "results": [{"index": i, "relevance_score": i / 2} for i in (1, 0)],
                        "usage": {"total_tokens": 100}}},
    "count_tokens": {"body": {"input_tokens": 100}},
}  # fmt: skip
COSTS = {
    "chat": CHAT_USD, "responses": CHAT_USD, "messages": MESSAGES_USD, "completions": CHAT_USD,
    "embeddings": INPUT_USD, "rerank": INPUT_USD, "count_tokens": Decimal(0),
}  # fmt: skip
STREAMED = ("chat", "responses", "messages", "completions")
SPOKEN = ("chat", "responses", "messages")
streams = pytest.mark.parametrize("protocol", STREAMED)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with played(tmp_path_factory.mktemp("books"), exact_cache={"mode": "on", "when": "deterministic"}) as one:
        for protocol, answer in PLAYED.items():
            one.player.play(f"{protocol}-1", **answer)
        yield one


def post(gateway: Played, protocol: str, task: str, provider: str | None = None, **fields: Any) -> Answer:
    """Ask the provider that speaks *provider*, else the protocol itself."""
    body = {"model": f"{provider or protocol}-1", **ASKED[protocol], **fields}
    return gateway.post(body, task, PATHS[protocol])


def data_of(answer: Answer) -> list[Json]:
    """The events of a stream, without the [DONE]."""
    lines = [line for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


def cost_of(row: Any) -> Decimal:
    return Decimal(row["cost_pusd"]).scaleb(-12)


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PATHS)
def test_headers_of_a_whole_answer(gateway: Played, task: str, protocol: str) -> None:
    """Each protocol's answer says what it was and what it cost; the row says the same."""
    answer = post(gateway, protocol, task, temperature=0.5)
    row = gateway.one_row(task)
    assert answer.status == 200
    assert answer.headers["x-negawatt-call-id"] == row["id"]
    assert answer.headers["x-negawatt-class"] == row["request_class"] == "default"
    assert answer.headers["x-negawatt-model"] == f"{protocol}-1"
    assert float(answer.headers["x-negawatt-overhead-ms"]) >= 0
    assert Decimal(answer.headers["x-negawatt-cost-usd"]) == cost_of(row) == COSTS[protocol]
    assert (row["protocol"], row["ending"], row["stream"]) == (protocol, "answered", 0)
    assert answer.json == PLAYED[protocol]["body"]


@streams
def test_headers_of_a_stream(gateway: Played, task: str, protocol: str) -> None:
    """What is known when it begins; no header claims what only its end can tell."""
    answer = post(gateway, protocol, task, stream=True, temperature=0.5)
    row = gateway.one_row(task)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-negawatt-call-id"] == row["id"]
    assert answer.headers["x-negawatt-model"] == f"{protocol}-1"
    assert {"x-negawatt-cost-usd", "x-negawatt-saved-usd", "x-negawatt-energy-wh"}.isdisjoint(answer.headers)
    assert cost_of(row) == COSTS[protocol] and row["stream"] == 1


# -- the last chunk ----------------------------------------------------------------------------------------------------

NOTED_IN = {
    "chat": lambda data: data["choices"] == [] and data.get("negawatt"),
    "completions": lambda data: data["choices"] == [] and data.get("negawatt"),
    "responses": lambda data: data["type"] == "response.completed" and data["response"].get("negawatt"),
    "messages": lambda data: data["type"] == "message_delta" and data.get("negawatt"),
}
TEXT_OF: dict[str, Any] = {
    "chat": lambda data: "".join(choice["delta"].get("content") or "" for choice in data["choices"]),
    "responses": lambda data: data["delta"] if data["type"] == "response.output_text.delta" else "",
    "messages": lambda data: data.get("delta", {}).get("text", ""),
}
SHAPES: dict[str, Any] = {
    "chat": openai.types.chat.ChatCompletionChunk, "completions": Completion,
    "responses": openai.types.responses.ResponseStreamEvent, "messages": anthropic.types.RawMessageStreamEvent,
}  # fmt: skip


def valid(protocol: str, events: list[Json]) -> bool:
    """See that each event is one of the SDK's own, to the letter: its types are stricter than its clients."""
    shape = TypeAdapter(SHAPES[protocol])
    return all(shape.validate_python(event) for event in events)


@streams
@pytest.mark.parametrize("far", [False, True], ids=["its own provider", "another"])
def test_the_last_chunk_says_what_it_came_to(gateway: Played, task: str, protocol: str, far: bool) -> None:
    """In one chunk only, where the usage is; and every chunk keeps to the SDK's own types, to the letter."""
    provider = {"chat": "messages", "responses": "messages", "messages": "chat"}.get(protocol) if far else None
    options = {"stream_options": {"include_usage": True}} if protocol in ("chat", "completions") else {}
    events = data_of(post(gateway, protocol, task, provider, stream=True, temperature=0.5, **options))
    row = gateway.one_row(task)
    notes = [note for event in events if (note := NOTED_IN[protocol](event))]
    assert len(notes) == 1 and json.dumps(events).count('"negawatt"') == 1
    assert (notes[0]["call_id"], notes[0]["class"], notes[0]["model"]) == (
        row["id"], "default", f"{provider or protocol}-1",
    )  # fmt: skip
    assert Decimal(str(notes[0]["cost_usd"])) == cost_of(row) == COSTS[provider or protocol]
    assert {"cache", "saved_usd", "energy_wh", "decisions"} <= notes[0].keys()
    assert valid(protocol, events)


@pytest.mark.parametrize("protocol", ["chat", "completions"])
@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}])
def test_who_asks_for_no_usage_gets_none(gateway: Played, task: str, protocol: str, options: Json) -> None:
    """Nor our note; the books have it nevertheless."""
    events = data_of(post(gateway, protocol, task, stream=True, temperature=0.5, **options))
    assert not any(event.get("usage") or "negawatt" in event for event in events)
    assert all(event["choices"] for event in events)
    row = gateway.one_row(task)
    assert (row["input_tokens"], row["usage_basis"]) == (100, "measured") and cost_of(row) == CHAT_USD


# -- translated --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", SPOKEN)
@pytest.mark.parametrize("provider", SPOKEN)
@pytest.mark.parametrize("stream", [False, True])
def test_the_books_are_the_providers(gateway: Played, task: str, caller: str, provider: str, stream: bool) -> None:
    """Whatever the caller speaks, the row is what the provider's own usage comes to, cache writes by their length."""
    answer = post(gateway, caller, task, provider, stream=stream, temperature=0.5)
    assert answer.status == 200
    row = gateway.one_row(task)
    written = 40 if provider == "messages" else 0
    assert (row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (100, 40, written)
    assert (row["output_tokens"], row["usage_basis"], row["protocol"]) == (20, "measured", caller)
    assert cost_of(row) == COSTS[provider]


# -- cached ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [name for name in PATHS if name != "count_tokens"])
def test_a_cached_answer_costs_nothing(gateway: Played, task: str, protocol: str) -> None:
    """The wire shows what was used the first time; the books show that it was not used again."""
    question: Json = {"temperature": 0}
    first = post(gateway, protocol, f"{task}-first", **question)
    again = post(gateway, protocol, f"{task}-again", **question)
    assert (first.headers["x-negawatt-cache"], again.headers["x-negawatt-cache"]) == ("miss", "exact")
    assert again.json == first.json == PLAYED[protocol]["body"]
    assert Decimal(again.headers["x-negawatt-cost-usd"]) == 0
    assert Decimal(again.headers["x-negawatt-saved-usd"]) == COSTS[protocol]
    row = gateway.one_row(f"{task}-again")
    assert (row["cost_pusd"], row["attempts"], row["input_tokens"], row["baseline_input_tokens"]) == (0, 0, 0, 100)
    assert Decimal(row["baseline_cost_pusd"]).scaleb(-12) == COSTS[protocol]


@pytest.mark.parametrize("caller", SPOKEN)
@pytest.mark.parametrize("provider", SPOKEN)
def test_a_cached_answer_is_served_in_the_other_form(gateway: Played, task: str, caller: str, provider: str) -> None:
    """Kept from a whole answer, sent as a stream, translated or not; its last chunk says that it cost nothing."""
    question: Json = {"temperature": 0, "top_p": 0.25 if provider == "chat" else 0.5}
    whole = post(gateway, caller, f"{task}-whole", provider, **question)
    options = {"stream_options": {"include_usage": True}} if caller == "chat" else {}
    streamed = post(gateway, caller, f"{task}-streamed", provider, stream=True, **question, **options)
    assert streamed.headers["x-negawatt-cache"] == "exact", whole.headers
    events = data_of(streamed)
    assert valid(caller, events)
    notes = [note for event in events if (note := NOTED_IN[caller](event))]
    assert (notes[0]["cost_usd"], notes[0]["cache"]) == (0, "exact")
    assert Decimal(str(notes[0]["saved_usd"])) == COSTS[provider]
    assert "".join(map(TEXT_OF[caller], events)) == SAID
    row = gateway.one_row(f"{task}-streamed")
    assert (row["cost_pusd"], row["attempts"], row["protocol"]) == (0, 0, caller)


# -- the shapes that the SDKs read -------------------------------------------------------------------------------------


def test_embeddings_keep_to_the_sdks_type(gateway: Played, task: str) -> None:
    """To the letter."""
    CreateEmbeddingResponse.model_validate_json(post(gateway, "embeddings", task).body)
