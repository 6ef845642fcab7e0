"""What goes wrong, as the real `openai` package shows it: the right exception class, with message, param and code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from sdk import Sdk
from world import Gateway, Upstream, chat


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[Sdk]:
    client = Sdk(request.param, gateway.base_url)
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"content": "hello"}]}, "messages[0].role"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"tools": {}}, "tools"),
        ({"stream_options": "yes"}, "stream_options"),
        ({"model": ""}, "model"),
        ({"extra_headers": {"x-negawatt-class": "no such"}}, "x-negawatt-class"),
        ({"extra_headers": {"x-negawatt-deadline-ms": "soon"}}, "x-negawatt-deadline-ms"),
    ],
)
async def test_a_wrong_field_is_a_bad_request_that_names_it(sdk: Sdk, fields: dict[str, Any], param: str) -> None:
    """The exception's param is the path of the field, and its message begins with it."""
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.ask(**{**chat(), **fields})
    assert caught.value.param == param
    assert caught.value.message.count(param) >= 1
    assert caught.value.type == "invalid_request_error"
    assert caught.value.response.headers["x-negawatt-call-id"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_provider_is_passed_on(
    sdk: Sdk, task: str, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    """Status, body and code of the provider's error reach the caller as they were."""
    said = {"message": "the words of the provider", "param": "messages", "code": "its_own_code"}
    with pytest.raises(kind) as caught:
        await sdk.ask(**chat({"do": "status", "status": status, "error": said, "tag": task}), stream=stream)
    error = caught.value
    assert (error.status_code, error.param, error.code) == (status, "messages", "its_own_code")
    assert "the words of the provider" in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_provider_says_of_our_key_is_not_for_callers(sdk: Sdk, task: str, stream: bool) -> None:
    """A 401 is about the gateway's own key, and providers quote parts of it: the status passes, the words do not."""
    said = {"message": "Incorrect API key provided: sk-our***key", "code": "invalid_api_key"}
    with pytest.raises(openai.AuthenticationError) as caught:
        await sdk.ask(**chat({"do": "status", "status": 401, "error": said, "tag": task}), stream=stream)
    assert "sk-our" not in str(caught.value)
    assert "the gateway's own key" in caught.value.message


async def test_a_rate_limit_of_the_provider_keeps_its_retry_after(sdk: Sdk, task: str) -> None:
    """The headers by which callers pace themselves pass; the provider's cookies do not."""
    headers = {"retry-after": "33", "x-ratelimit-remaining-requests": "0", "set-cookie": "a=b"}
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.ask(**chat({"do": "status", "status": 429, "headers": headers, "tag": task}))
    seen = caught.value.response.headers
    assert (seen["retry-after"], seen["x-ratelimit-remaining-requests"]) == ("33", "0")
    assert "set-cookie" not in seen


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"do": "reset"}, 502, "upstream_broken"),
        ({"do": "hang_up"}, 502, "upstream_broken"),
        ({"do": "garbage"}, 502, "upstream_protocol_error"),
        ({"do": "bare", "body": "{not json"}, 502, "upstream_protocol_error"),
        ({"do": "bare", "body": "[1]"}, 502, "upstream_protocol_error"),
        ({"do": "silent"}, 504, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_fails_is_a_server_error(
    sdk: Sdk, script: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    """Before the first byte every failure has a status and a code that say whose fault it was."""
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.ask(**{**chat(script), "model": "hasty"}, stream=stream)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, code, "upstream_error")


async def test_a_provider_that_is_not_there_is_a_server_error(sdk: Sdk) -> None:
    """Nothing listens: 502, and the message says so."""
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.ask(**{**chat(), "model": "nobody"})
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")


async def test_a_deadline_is_a_server_error_504(sdk: Sdk, task: str) -> None:
    """The caller's own deadline ends the call before the provider answers."""
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk.ask(**chat({"do": "silent", "tag": task}), extra_headers={"x-negawatt-deadline-ms": "150"})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


@pytest.mark.parametrize("how", ["die", "reset_in_the_middle"])
async def test_a_stream_that_breaks_raises_in_its_middle(sdk: Sdk, task: str, how: str) -> None:
    """After the first chunk the failure is an event in the stream, which the package raises."""
    with pytest.raises(openai.APIError) as caught:
        await sdk.stream(**chat({"do": how, "tag": task, "text": "a b c"}))
    assert caught.value.code == "upstream_broken"


async def test_an_error_event_of_the_provider_raises_too(sdk: Sdk, task: str) -> None:
    """A provider that says in the stream that it failed is heard."""
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 0, "delta": {"content": "so far"}, "finish_reason": None}
    ]}  # fmt: skip
    failed = {"error": {"message": "the model fell over", "code": 500}}
    with pytest.raises(openai.APIError, match="the model fell over"):
        await sdk.stream(**chat({"do": "events", "tag": task, "events": [chunk, failed]}))


async def test_the_package_may_try_again_by_itself(gateway: Gateway, upstream: Upstream, task: str) -> None:
    """With its own retries on, a caller gets past a provider that fails once."""
    client = Sdk("sync", gateway.base_url, max_retries=2)
    script = {"do": "status", "status": 503, "times": 1, "tag": task, "text": "at last"}
    assert (await client.ask(**chat(script))).choices[0].message.content == "at last"
    assert upstream.tag(task)["calls"] == 2
    await client.close()
