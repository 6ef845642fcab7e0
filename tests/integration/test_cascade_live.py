"""A cascade over real sockets: a small model and a judge that speak Chat Completions, a large one that speaks Messages.

Whatever protocol the caller speaks, whole or streamed: one answer of one model, and the books have all that was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playing import PRICES, Player, in_chat, in_messages
from world import Gateway, Json

SMALL, JUDGE, LARGE = "chat-small", "chat-judge", "messages-large"
PROTOCOLS = ("chat", "messages")
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
ASKED: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "How many?"}]},
    "responses": {"input": "How many?"},
    "messages": {"messages": [{"role": "user", "content": "How many?"}], "max_tokens": 100},
}
# 60 fresh, 40 read and 20 made, as `playing.CHAT_USAGE` says, in pico-dollars; and the same of Messages.
CHAT_PUSD = (60 * PRICES["input"] + 40 * PRICES["cache_read"] + 20 * PRICES["output"]) * 10**6
MESSAGES_PUSD = 1380 * 10**6
every_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def says(text: str, **more: Any) -> Json:
    return in_chat({"content": text}, [{"content": text[:1]}, {"content": text[1:]}], **more)


def says_large(text: str) -> Json:
    return in_messages([{"type": "text", "text": text}], [[{"type": "text_delta", "text": text}]])


class Cascading(Gateway):
    """A gateway with two cascades: ``auto`` holds its streams back, ``trusting`` does not."""

    def __init__(self, folder: Path, player: Player) -> None:
        prices = {**{f"{name}_usd_per_mtok": usd for name, usd in PRICES.items()}, "models": "*", "source": "made up"}
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in prices.items())
        (folder / "prices.toml").write_text(f"[[price]]\n{lines}\nchecked = 2026-11-24\n", encoding="utf-8")
        provider = {"kind": "openai-compatible", "base_url": player.base_url}
        policy = {"how": "cascade", "candidates": [{"model": SMALL}, {"model": LARGE}]}
        cascade = {"verify": [{"kind": "regex", "pattern": "^\\d+$"}, {"kind": "judge", "model": JUDGE}], "explore": 0}
        super().__init__(folder, {
            "holdout": {"share": 0.0},
            "economics": {"prices": str(folder / "prices.toml")},
            "levers": {"exact_cache": {"mode": "off"}, "coalesce": {"mode": "off"}, "retry": {"attempts": 1}},
            "providers": [{"name": n, **provider, "models": [f"{n}-*"], "protocols": [n]} for n in PROTOCOLS],
            "policies": {
                "auto": {**policy, "cascade": cascade},
                "trusting": {**policy, "cascade": {**cascade, "stream": "trust"}},
            },
        })  # fmt: skip
        self.player = player

    def ask(self, protocol: str, stream: bool, task: str, policy: str = "auto") -> tuple[str, dict[str, str]]:
        """Ask; return what the answer says, and its headers."""
        got = self.post({"model": policy, **ASKED[protocol], "stream": stream}, task, PATHS[protocol])
        assert got.status == 200, got.body
        return (streamed_text(got.body) if stream else whole_text(json.loads(got.body))), got.headers


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cascading]:
    folder = tmp_path_factory.mktemp("cascade")
    player = Player(folder)
    try:
        one = Cascading(folder, player)
        try:
            yield one
        finally:
            one.stop()
    finally:
        player.stop()


def whole_text(data: Json) -> str:
    if "choices" in data:
        return str(data["choices"][0]["message"]["content"])
    parts = data["content"] if "content" in data else data["output"][0]["content"]
    return "".join(part["text"] for part in parts)


def streamed_text(body: bytes) -> str:
    found = ""
    for line in body.decode().split("\n"):
        if line.startswith("data: ") and line != "data: [DONE]":
            event = json.loads(line[6:])
            if event.get("type") == "response.output_text.delta":
                found += event["delta"]
            elif event.get("type") == "content_block_delta":
                found += event["delta"].get("text", "")
            for choice in event.get("choices", ()):
                found += choice["delta"].get("content") or ""
    return found


@pytest.mark.parametrize("protocol", PATHS)
@every_way
def test_an_accepted_answer(gateway: Cascading, protocol: str, stream: bool) -> None:
    """The small model's, in the caller's protocol; small model and judge are paid, the large one is not asked."""
    gateway.player.play(SMALL, **says("42"))
    gateway.player.play(JUDGE, **says("right 90"))
    gateway.player.play(LARGE, body={}, status=500)
    task = f"accepted-{protocol}-{stream}"
    text, headers = gateway.ask(protocol, stream, task)
    assert text == "42"
    assert headers["x-negawatt-model"] == SMALL
    row = gateway.one_row(task)
    assert (row["attempts"], row["cost_pusd"], row["ending"]) == (2, 2 * CHAT_PUSD, "answered")
    assert row["request_model"] == "auto"
    assert row["provider"] == "chat"


@pytest.mark.parametrize("protocol", PATHS)
@every_way
def test_an_escalated_answer(gateway: Cascading, protocol: str, stream: bool) -> None:
    """Nothing of the small model's is in it; both are paid, each at its own price."""
    gateway.player.play(SMALL, **says("no idea"))
    gateway.player.play(LARGE, **says_large("43"))
    task = f"escalated-{protocol}-{stream}"
    text, headers = gateway.ask(protocol, stream, task)
    assert text == "43"
    assert headers["x-negawatt-model"] == LARGE
    row = gateway.one_row(task)
    assert (row["attempts"], row["cost_pusd"]) == (2, CHAT_PUSD + MESSAGES_PUSD)
    assert row["provider"] == "messages"


@every_way
def test_a_small_model_that_is_down_costs_the_caller_nothing(gateway: Cascading, stream: bool) -> None:
    """Its 500 is a reason in the ledger."""
    gateway.player.play(SMALL, body={"error": {"message": "down"}}, status=500)
    gateway.player.play(LARGE, **says_large("43"))
    text, _ = gateway.ask("chat", stream, f"down-{stream}")
    assert text == "43"
    decisions = json.loads(gateway.one_row(f"down-{stream}")["decisions"])
    (escalated,) = [one for one in decisions if one["action"] == "escalated"]
    assert "UpstreamStatus" in escalated["reason"]


def test_a_trusted_stream_is_judged_when_its_caller_has_it(gateway: Cascading) -> None:
    """The answer stays the small one; what the late verdict cost is on the row."""
    gateway.player.play(SMALL, **says("42"))
    gateway.player.play(JUDGE, **says("wrong 90"))
    text, _ = gateway.ask("chat", True, "trusted", "trusting")
    assert text == "42"
    row = gateway.one_row("trusted")
    assert (row["attempts"], row["cost_pusd"]) == (2, 2 * CHAT_PUSD)
    actions = [one["action"] for one in json.loads(row["decisions"]) if one["lever"] == "route"]
    assert actions[0] == "trusted"
    assert "doubted" in actions
