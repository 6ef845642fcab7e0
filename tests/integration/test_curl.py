"""curl, where it is installed: what a person at a terminal sees."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from world import Gateway, chat

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(gateway: Gateway, *arguments: str, path: str = "/v1/chat/completions", feed: bytes = b"") -> tuple[str, str]:
    """Run curl; return the head and the body of the last response."""
    command = ["curl", "-sS", "-N", "-i", "--noproxy", "*", "--max-time", "10", *arguments, f"{gateway.url}{path}"]
    done = subprocess.run(command, input=feed, capture_output=True, timeout=15, check=False)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    while head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\r\n\r\n")
    return head, body


def test_a_whole_answer(gateway: Gateway, task: str) -> None:
    """-d with JSON, and nothing else."""
    head, body = curl(gateway, "-d", json.dumps(chat({"tag": task, "text": "hi"})))
    assert head.startswith("HTTP/1.1 200 OK")
    assert json.loads(body)["choices"][0]["message"]["content"] == "hi"


def test_a_stream_ends_with_done(gateway: Gateway, task: str) -> None:
    """Events, one blank line after each, [DONE] at the end."""
    head, body = curl(gateway, "-d", json.dumps(chat({"tag": task, "text": "a b"}, stream=True)))
    assert "text/event-stream" in head
    assert body.endswith("data: [DONE]\n\n")
    assert body.count("data: ") == 5


def test_http_1_0_gets_its_stream_too(gateway: Gateway, task: str) -> None:
    """Without chunked encoding the end of the connection is the end of the stream."""
    _, body = curl(gateway, "--http1.0", "-d", json.dumps(chat({"tag": task, "text": "a b"}, stream=True)))
    assert "data: [DONE]" in body
    _, body = curl(gateway, "--http1.0", "-d", json.dumps(chat({"tag": task, "text": "a b"})))
    assert json.loads(body)["choices"]


def test_a_large_body_waits_for_continue(gateway: Gateway, task: str) -> None:
    """curl announces large bodies with Expect: 100-continue; from standard input they come chunked."""
    data = json.dumps({**chat({"tag": task, "text": "read it all"}), "padding": "x" * 2_000_000}).encode()
    for extra in ([], ["-H", "Transfer-Encoding: chunked"]):
        _, body = curl(gateway, "-H", "Expect: 100-continue", *extra, "--data-binary", "@-", feed=data)
        assert json.loads(body)["choices"][0]["message"]["content"] == "read it all"


def test_an_error_is_readable(gateway: Gateway) -> None:
    """The status, the reason and the field."""
    head, body = curl(gateway, "-d", "{}")
    assert head.startswith("HTTP/1.1 400 Bad Request")
    assert json.loads(body)["error"]["param"] == "model"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/models"])
def test_what_can_be_looked_at(gateway: Gateway, path: str) -> None:
    """Health, readiness and models answer to a plain GET."""
    head, body = curl(gateway, path=path)
    assert head.startswith("HTTP/1.1 200 OK")
    assert json.loads(body)
