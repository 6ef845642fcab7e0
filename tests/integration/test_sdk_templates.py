"""Prompt templates through the real SDKs of OpenAI and Anthropic: `extra_body`, three protocols, real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from speaking import Spoken, spoken

DESK = """+++
[variables]
question = { type = "str" }
+++
::: base role
You answer questions about orders.

::: task answer
{{ question }}
"""
ROLE, ASKED = "You answer questions about orders.", "<question>\nWhere?\n</question>"
NAMED: Any = {"negawatt": {"template": "desk", "variables": {"question": "Where?"}}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    folder = tmp_path_factory.mktemp("templates")
    prompts = folder / "prompts"
    prompts.mkdir()
    (prompts / "desk.md").write_text(DESK, encoding="utf-8")
    with spoken(folder, compose={"prompts": str(prompts), "stable": True, "marks": "auto"}) as one:
        yield one


def row_of(gateway: Spoken, task: str) -> Any:
    """Return the row of the one call of *task*, with its blocks read."""
    [row] = gateway.settled_rows(task, 1)
    return {**row, "prompt_blocks": json.loads(row["prompt_blocks"])}


@pytest.mark.parametrize("model", ["chat-1", "messages-1", "responses-1"])
@pytest.mark.parametrize("stream", [False, True])
def test_chat(gateway: Spoken, task: str, model: str, stream: bool) -> None:
    """Whole and streamed, also translated: the answer is to what the template asks."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0)
    headers = {"x-negawatt-task": task, "x-test-tag": task}
    asked: Any = {"model": model, "messages": [], "extra_body": NAMED, "extra_headers": headers}
    if stream:
        chunks = list(client.chat.completions.create(stream=True, **asked))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    else:
        text = client.chat.completions.create(**asked).choices[0].message.content or ""
    assert ASKED in text
    row = row_of(gateway, task)
    assert row["template"] == "desk" and list(row["prompt_blocks"]) == ["role", "answer"]
    assert row["prompt_version"] == row["template_version"] and row["ending"] == "answered"


def test_messages(gateway: Spoken, task: str) -> None:
    """The provider gets `system` and a turn, and no field that it does not know."""
    client = anthropic.Anthropic(base_url=gateway.url, api_key="unused", max_retries=0)
    headers = {"x-negawatt-task": task, "x-test-tag": task}
    client.messages.create(model="messages-1", max_tokens=9, messages=[], extra_body=NAMED, extra_headers=headers)
    body = gateway.speaker.last(task)["body"]
    assert (body["system"], body["messages"]) == (ROLE, [{"role": "user", "content": ASKED}])
    assert "negawatt" not in body and row_of(gateway, task)["template"] == "desk"


def test_responses(gateway: Spoken, task: str) -> None:
    """`instructions` and `input`."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0)
    headers = {"x-negawatt-task": task, "x-test-tag": task}
    client.responses.create(model="responses-1", input="Thanks", extra_body=NAMED, extra_headers=headers)
    body = gateway.speaker.last(task)["body"]
    assert body["instructions"] == ROLE and "negawatt" not in body
    assert [one["content"] for one in body["input"]] == [ASKED, "Thanks"]


def test_a_missing_variable_is_the_sdks_own_exception(gateway: Spoken) -> None:
    """A 400 that names the field."""
    client = openai.OpenAI(base_url=gateway.base_url, api_key="unused", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat-1", messages=[], extra_body={"negawatt": {"template": "desk"}})
    assert caught.value.param == "negawatt.variables.question"
