"""What a provider keeps between calls is its caller's own, in every protocol: threads, containers, spoken answers.

All callers share the gateway's key, so the provider cannot tell them apart; the gateway must.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from answers import said_in_chat, said_in_messages, said_in_responses
from playing import Player
from speaking import spoken
from world import Answer, Gateway, Json

A, B = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "sk-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
HELLO: Any = [{"role": "user", "content": "hello"}]
CONTINUE = {"type": "continue", "previous_message_id": "msg_7"}
INTERPRETER = {"type": "code_interpreter", "container": "cntr_a"}
SHELL = {"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_a"}}
# What names somebody's state: the path, the request, the field that is to be named.
NAMING: dict[str, tuple[str, Json, str]] = {
    "a thread": ("/v1/messages", {"model": "messages-1", "max_tokens": 9, "messages": HELLO, "thread": CONTINUE},
                 "thread.previous_message_id"),
    "a container": ("/v1/responses", {"model": "responses-1", "input": "x", "tools": [INTERPRETER]},
                    "tools[0].container"),
    "a shell's container": ("/v1/responses", {"model": "responses-1", "input": "x", "tools": [SHELL]},
                            "tools[0].environment.container_id"),
    "a spoken answer": ("/v1/chat/completions", {
        "model": "chat-1", "messages": [{"role": "assistant", "audio": {"id": "audio_a"}}, *HELLO]},
        "messages[0].audio.id"),
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("state")
    player = Player(folder)
    provider = {"kind": "openai-compatible", "base_url": player.base_url}
    config: Json = {
        "holdout": {"share": 0.0},
        "levers": {"retry": {"attempts": 1}},
        "providers": [
            {"name": n, **provider, "models": [f"{n}-*"], "protocols": [n]} for n in ("chat", "responses", "messages")
        ],
        "keys": [{"id": "a", "key_env": "KEY_A", "tenant": "a"}, {"id": "b", "key_env": "KEY_B", "tenant": "b"}],
    }
    try:
        one = Gateway(folder, config, KEY_A=A, KEY_B=B)
        for name, said in (("chat", said_in_chat), ("responses", said_in_responses), ("messages", said_in_messages)):
            player.play(f"{name}-1", **said())
        yield one
        one.stop()
    finally:
        player.stop()


def ask(gateway: Gateway, key: str, path: str, body: Json, task: str | None = None) -> Answer:
    return gateway.post(body, task, path, x_api_key=key)


@pytest.mark.parametrize("case", NAMING)
def test_what_is_not_ones_own_is_refused(gateway: Gateway, case: str) -> None:
    """Nobody here gave it to this caller: a 400 that names the field."""
    path, body, field = NAMING[case]
    answer = ask(gateway, B, path, body)
    assert answer.status in (400, 404)
    assert answer.error["param"] == field


def test_a_thread_is_gone_on_with_by_whom_it_was_given_to(gateway: Gateway, task: str) -> None:
    """Its beginner may; another tenant may not, and the SDK is told to begin anew."""
    path, body, _ = NAMING["a thread"]
    assert ask(gateway, A, path, {**body, "thread": {"type": "create"}}, task).status == 200
    gateway.one_row(task)
    assert ask(gateway, A, path, body).status == 200
    refused = ask(gateway, B, path, body)
    assert refused.status == 404 and refused.error["details"]["error_code"] == "thread_not_found"


def test_a_threads_answers_are_not_shared(gateway: Gateway, task: str) -> None:
    """Whoever begins one gets one of their own; a second one to go on from the same answer is an error there."""
    path, body, _ = NAMING["a thread"]
    for thread in ({"type": "create"}, CONTINUE):
        caches = [ask(gateway, A, path, {**body, "thread": thread, "temperature": 0}).headers["x-negawatt-cache"]
                  for _ in range(2)]  # fmt: skip
        assert caches == ["bypass", "bypass"]


def test_a_thread_teaches_the_counter_nothing(gateway: Gateway, task: str) -> None:
    """What the provider adds to the prompt cannot be counted here."""
    path, body, _ = NAMING["a thread"]
    ask(gateway, A, path, body, task)
    assert gateway.one_row(task)["counted_input_tokens"] is None


@pytest.mark.parametrize("model", ["messages-1", "chat-1", "responses-1"])
@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_tool_runner(tmp_path_factory: pytest.TempPathFactory, model: str, stream: bool) -> None:
    """It holds a thread by default; where the provider has none, it goes on without."""

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Tells the weather.

        Args:
            city: where
        """
        return f"sunny in {city}"

    with spoken(tmp_path_factory.mktemp("runner")) as one:
        client = anthropic.Anthropic(base_url=one.url, api_key="unused", max_retries=0)
        runner: Any = client.beta.messages.tool_runner(
            model=model, max_tokens=100, messages=HELLO, tools=[weather], stream=stream
        )
        last: Any = [turn.get_final_message() if stream else turn for turn in runner][-1]
        assert last.content[-1].text == "you said: the tool said sunny in Ada"
