"""Browsers: a page that a person happens to open must not spend their money; a page that was allowed may call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from world import Answer, Gateway, Json, Upstream, chat, headers_of

ALLOWED = "https://app.example"


@pytest.fixture(scope="module")
def gateway_for_pages(
    upstream: Upstream, configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    config = configured(server={"allow_origins": [ALLOWED]})
    gateway = Gateway(tmp_path_factory.mktemp("pages"), config, STUB_KEY="the-provider-key")
    yield gateway
    gateway.stop()


def post(gateway: Gateway, task: str, body: Json | None = None, **headers: str) -> Answer:
    data = json.dumps(body or chat({"tag": task})).encode()
    return gateway.request("POST", "/v1/chat/completions", data, headers_of(task, **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://app.example.evil.example"},
        {"origin": "http://app.example"},
        {"origin": "https://app.example:8443"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": "null"},
        {"origin": "file://"},
        {"origin": "http://[bad"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example", "content_type": "text/plain"},
    ],
)
def test_a_strange_page_is_refused(
    gateway_for_pages: Gateway, upstream: Upstream, task: str, headers: dict[str, str]
) -> None:
    """403 that names the origin and the setting, before anything is asked upstream; and no leave to read it."""
    answer = post(gateway_for_pages, task, **headers)
    assert answer.status == 403
    assert answer.error["param"] == "origin"
    assert "server.allow_origins" in answer.error["message"]
    assert "access-control-allow-origin" not in answer.headers
    assert upstream.tag(task)["calls"] == 0


def test_a_strange_page_may_not_even_ask_first(gateway_for_pages: Gateway) -> None:
    """A preflight from elsewhere is refused without an Access-Control header."""
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = gateway_for_pages.request("OPTIONS", "/v1/chat/completions", None, headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_an_allowed_page_may_ask_first(gateway_for_pages: Gateway, path: str) -> None:
    """The preflight of an allowed page names its origin, the methods and the headers that callers send."""
    asked = "authorization, content-type, x-negawatt-class, x-negawatt-user, x-stainless-lang"
    headers = {
        "origin": ALLOWED, "access-control-request-method": "POST", "access-control-request-headers": asked,
    }  # fmt: skip
    answer = gateway_for_pages.request("OPTIONS", path, None, headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed == {"*"} or {name.strip() for name in asked.split(",")} <= allowed
    assert answer.headers["vary"].lower() == "origin"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("origin", [ALLOWED, "http://localhost:3000", "http://127.0.0.1:8080"])
def test_an_allowed_page_may_read_the_answer(gateway_for_pages: Gateway, task: str, origin: str, stream: bool) -> None:
    """The answer itself carries the page's origin, or the browser would hide it; our headers are exposed too."""
    answer = post(gateway_for_pages, task, chat({"tag": task}, stream=stream), origin=origin)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("body", [{"model": "plain"}, {**chat(), "model": "nobody"}])
def test_an_allowed_page_may_read_errors_too(gateway_for_pages: Gateway, task: str, body: Json) -> None:
    """Without the header on errors a page would see a network failure and not the reason."""
    answer = post(gateway_for_pages, task, body, origin=ALLOWED)
    assert answer.status in (400, 502)
    assert answer.headers["access-control-allow-origin"] == ALLOWED


@pytest.mark.parametrize("headers", [{}, {"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}])
def test_what_is_no_strange_page_passes(gateway_for_pages: Gateway, task: str, headers: dict[str, str]) -> None:
    """SDKs send no Origin; a person who types the address, or our own page, is not cross-site."""
    answer = post(gateway_for_pages, task, **headers)
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers
