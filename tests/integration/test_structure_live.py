"""Contracts through the real SDKs, over real sockets: mended, with short keys, filled by code, or broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from speaking import PROTOCOLS, Speaker
from taught import decided
from world import Gateway, Json

AGE: Json = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
FENCED = "```json\n{'age': 36,}\n```"  # the provider says what it is told


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    full_name: str
    age: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A provider that speaks all protocols, which takes schemas from callers and is told those of classes in words."""
    folder = tmp_path_factory.mktemp("structure")
    speaker = Speaker(folder)
    provider = {"name": "all", "kind": "openai-compatible", "base_url": speaker.base_url, "protocols": [*PROTOCOLS]}
    try:
        found = Gateway(folder, {
            "holdout": {"share": 0.0},
            "levers": {"exact_cache": {"mode": "off"}, "retry": {"attempts": 1},
                       "structure": {"mode": "on", "compact": True}},
            "classes": {"age": {"schema": AGE}},
            "providers": [provider],
        })  # fmt: skip
        try:
            yield found
        finally:
            found.stop()
    finally:
        speaker.stop()


def says(gateway: Gateway, protocol: str, text: str, *, stream: bool, task: str) -> str:
    """Return what the SDK of *protocol* makes of the answer to *text* in class ``age``."""
    headers = {"x-negawatt-task": task, "x-negawatt-class": "age"}
    turns: Any = [{"role": "user", "content": text}]
    if protocol == "messages":
        claude = anthropic.Anthropic(base_url=gateway.url, api_key="x", max_retries=0, default_headers=headers)
        if not stream:
            return claude.messages.create(model="m", max_tokens=100, messages=turns).content[0].text  # type: ignore[union-attr]
        with claude.messages.stream(model="m", max_tokens=100, messages=turns) as events:
            return "".join(events.text_stream)
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="x", max_retries=0, default_headers=headers)
    if protocol == "responses":
        if not stream:
            return sdk.responses.create(model="m", input=text).output_text
        with sdk.responses.stream(model="m", input=text) as told:
            return told.get_final_response().output_text
    if not stream:
        return sdk.chat.completions.create(model="m", messages=turns).choices[0].message.content or ""
    chunks = sdk.chat.completions.create(model="m", messages=turns, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prose_in_contract_out(gateway: Gateway, task: str, protocol: str, stream: bool) -> None:
    """The SDK gets the JSON, streamed where it asked for a stream; the row says that it was mended."""
    assert json.loads(says(gateway, protocol, FENCED, stream=stream, task=task)) == {"age": 36}
    (row,) = gateway.settled_rows(task, 1)
    (decision,) = decided(row, "structure")
    assert (decision["action"], decision["detail"]["contract"]) == ("repaired", "class")
    assert row["attempts"] == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_stays_broken_is_answered_all_the_same(gateway: Gateway, task: str, protocol: str, stream: bool) -> None:
    """Asked twice, charged twice, and passed on as it came."""
    assert says(gateway, protocol, "How old?", stream=stream, task=task) == "you said: How old?"
    (row,) = gateway.settled_rows(task, 1)
    assert (row["attempts"], row["input_tokens"], row["ending"]) == (2, 200, "answered")
    assert [one["action"] for one in decided(row, "structure")] == ["asked again", "broken"]


def test_the_sdks_own_parsers_get_long_keys(gateway: Gateway, task: str) -> None:
    """A pydantic model through ``parse``: the provider says short keys, as it is asked to; the model reads its own."""
    headers = {"x-negawatt-task": task}
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="x", max_retries=0, default_headers=headers)
    turns: Any = [{"role": "user", "content": "Who?"}]
    ada = Person(full_name="Ada", age=36)
    assert (
        sdk.chat.completions.parse(model="m", messages=turns, response_format=Person).choices[0].message.parsed == ada
    )
    assert sdk.responses.parse(model="m", input="Who?", text_format=Person).output_parsed == ada
    with sdk.chat.completions.stream(model="m", messages=turns, response_format=Person) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == ada
    for row in gateway.settled_rows(task, 3):
        (decision,) = decided(row, "structure")
        assert decision["action"] == "kept"
        assert decision["detail"]["short_keys"] is True


def test_what_code_knows_is_filled_in(gateway: Gateway, task: str) -> None:
    """The field is in the answer, from the text itself; the provider never heard of it."""
    schema = {
        "type": "object", "required": ["mail", "n"], "additionalProperties": False,
        "properties": {"mail": {"type": "string", "x-negawatt-extract": "email"}, "n": {"type": "integer"}},
    }  # fmt: skip
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="x", max_retries=0,
                        default_headers={"x-negawatt-task": task})  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    turns: Any = [{"role": "user", "content": "Write to ada@example.org, 3 times."}]
    answer = sdk.chat.completions.create(model="m", messages=turns, response_format=form)
    assert json.loads(answer.choices[0].message.content or "") == {"mail": "ada@example.org", "n": 36}


def test_a_schema_that_is_none_is_a_400_that_names_it(gateway: Gateway, task: str) -> None:
    """The SDK raises what it raises for the provider's own refusal."""
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="x", max_retries=0)
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": task}], response_format=form)
    assert caught.value.param == "response_format.json_schema.schema"
