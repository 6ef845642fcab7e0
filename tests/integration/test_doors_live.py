"""Who may look and change, at a real gateway: no page of elsewhere, and nobody whose key has ended."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from test_keys_live import admin, ask, bearer
from world import Answer, Gateway, Json

API = "/admin/api/"
CHIEF = "sk-chief-0123456789"
KEYS = [{"id": "chief", "key_env": "CHIEF_KEY", "admin": True, "use": True}]
# Every path under /admin, with what it answers to.
PATHS = [
    ("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/nobody"),
    ("POST", "/admin/keys/nobody/rotate"), ("GET", "/admin/audit"), ("GET", "/admin/budgets"), ("GET", "/admin/slo"),
    ("GET", "/admin/alerts"), ("GET", f"{API}session"), ("POST", f"{API}session"), ("DELETE", f"{API}session"),
    *[("GET", API + name) for name in (
        "overview", "classes", "prompts", "caches", "routing", "requests", "requests/nw-1", "budgets", "alerts", "live",
    )],
    ("GET", "/metrics"),
]  # fmt: skip
GUARDED = [one for one in PATHS if not one[1].endswith("session")]
SHOWN = [path for method, path in PATHS if method == "GET" and not path.endswith(("live", "nw-1"))]


@pytest.fixture(scope="module")
def keyless(configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks nobody for a key, and lets a page of elsewhere make calls."""
    config = configured(server={"allow_origins": ["https://app.example"]})
    gateway = Gateway(tmp_path_factory.mktemp("keyless"), config, STUB_KEY="k")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def guarded(configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the key of an administrator in its configuration, and a file of keys."""
    gateway = Gateway(tmp_path_factory.mktemp("guarded"), configured(keys=KEYS), STUB_KEY="k", CHIEF_KEY=CHIEF)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def other(guarded: Gateway) -> str:
    """The key of another tenant, for calls alone."""
    secret: str = admin(guarded, CHIEF, "POST", "keys", {"id": "other", "tenant": "other"}).json["secret"]
    return secret


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_no_page_of_elsewhere_can_see_or_change_anything(keyless: Gateway, method: str, path: str) -> None:
    """Whatever it is of, whatever calls it may make, and though its own name leads to this machine."""
    body = b'{"id": "stolen", "key": "x"}' if method == "POST" else None
    own = f"127.0.0.1:{keyless.port}"
    for param, headers in (
        ("host", {"host": "rebound.example"}),
        ("host", {"host": f"rebound.example:{keyless.port}", "origin": f"http://rebound.example:{keyless.port}"}),
        ("host", {"host": "["}),
        ("origin", {"origin": "https://elsewhere.example"}),
        ("origin", {"origin": "https://app.example"}),
        ("origin", {"origin": f"http://127.0.0.1:{keyless.port + 1}"}),
        ("origin", {"origin": f"http://localhost:{keyless.port}"}),
        ("origin", {"origin": "null"}),
        ("origin", {"origin": "http://["}),
        ("origin", {"sec-fetch-site": "cross-site"}),
        ("origin", {"sec-fetch-site": "same-site"}),
    ):
        told = {"host": own, "content-type": "application/json", **headers}
        refused = keyless.request(method, path, body, told)
        assert (refused.status, refused.error["param"]) == (403, param), (headers, refused.body)
        assert "access-control-allow-origin" not in refused.headers
    asked = {"host": own, "origin": "https://app.example", "access-control-request-method": method}
    assert keyless.request("OPTIONS", path, None, asked).status == 403


def test_our_own_pages_can(keyless: Gateway, guarded: Gateway) -> None:
    """By any name where a key is asked for: a page of another name has neither a key nor our cookie."""
    for host in ("127.0.0.1", "localhost", "[::1]"):
        own = {"host": f"{host}:{keyless.port}", "origin": f"http://{host}:{keyless.port}"}
        for path in ("/admin/slo", "/admin/budgets", f"{API}overview", "/metrics"):
            assert keyless.get(path, own).status == 200
    for host in ("10.0.0.7:4100", "gateway.example"):
        answer = sign_in(guarded, CHIEF, host=host, origin=f"https://{host}")
        assert answer.status == 200, answer.body
        mine = {"cookie": answer.headers["set-cookie"].partition(";")[0], "host": host}
        assert guarded.get(f"{API}overview", mine).status == 200


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_no_key_for_calls_opens_what_is_for_administrators(
    guarded: Gateway, other: str, method: str, path: str
) -> None:
    """Nor does it say whether what is asked for is there; the metrics neither, which are of several tenants."""
    told = {"content-type": "application/json"}
    body = b"{}" if method == "POST" else None
    for key, status in ((other, 403), ("wrong", 401), ("", 401)):
        refused = guarded.request(method, path, body, {**told, "authorization": f"Bearer {key}"})
        assert refused.status == status, refused.body
        assert b"nobody" not in refused.body and b"nw-1" not in refused.body
    assert guarded.request(method, path, body, {**told, "cookie": f"negawatt_session={other}"}).status == 401


@pytest.mark.parametrize("path", SHOWN)
def test_what_administrators_see_lies_in_no_cache(guarded: Gateway, path: str) -> None:
    """Of a browser or a proxy."""
    shown = guarded.get(path, bearer(CHIEF))
    found = {name: shown.headers.get(name) for name in ("cache-control", "x-content-type-options")}
    told = None if path == "/metrics" else "nosniff"
    assert shown.status == 200 and found == {"cache-control": "no-store", "x-content-type-options": told}


def test_a_link_from_anywhere_leads_to_the_pages(keyless: Gateway, guarded: Gateway) -> None:
    """From a message about an alert, say: the pages hold nothing, and what they ask, they ask for themselves."""
    for gateway in (keyless, guarded):
        followed = gateway.get("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
        assert followed.status == 200 and b"<script" in followed.body
        assert "frame-ancestors 'none'" in followed.headers["content-security-policy"]


def sign_in(gateway: Gateway, secret: str, **headers: str) -> Answer:
    body = json.dumps({"key": secret}).encode()
    return gateway.request("POST", f"{API}session", body, {"content-type": "application/json", **headers})


def test_a_stranger_who_signs_in_slowly_or_at_length_is_not_waited_for(start: Any, configured: Any) -> None:
    """Nobody knows yet who it is: a body is a key, and comes in time."""
    gateway = start(configured(server={"body_timeout_s": 0.3}))
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as slow:
        head = f"POST {API}session HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        slow.sendall(f'{head}content-length: 99\r\n\r\n{{"key": "'.encode())
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as large:
        large.sendall(f"{head}content-length: 9000000\r\n\r\n".encode())
        assert large.recv(65536).startswith(b"HTTP/1.1 400 "), "before it has come"


def watch(gateway: Gateway, headers: Json) -> http.client.HTTPResponse:
    """Return the stream of what happens, after its first event."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request("GET", f"{API}live", None, headers)
    response = connection.getresponse()
    assert response.status == 200
    while response.readline().strip() != b"event: hello":
        pass
    return response


def made(gateway: Gateway, **terms: Any) -> Json:
    found: Json = admin(gateway, CHIEF, "POST", "keys", {"admin": True, **terms}).json
    return found


def signed_in(gateway: Gateway, secret: str) -> Json:
    """Return the header of a session that was begun with *secret*."""
    return {"cookie": sign_in(gateway, secret).headers["set-cookie"].partition(";")[0]}


def assert_over(gateway: Gateway, mine: Json, streams: list[http.client.HTTPResponse]) -> None:
    """Nothing more is told to who has that session, nor to those who watch."""
    assert gateway.get(f"{API}overview", mine).status == 401
    assert gateway.get(f"{API}session", mine).json["signed_in"] is False
    assert ask(gateway, CHIEF).status == 200
    for stream in streams:
        assert b"event: tick" not in stream.read(), "and it has an end"


@pytest.mark.parametrize("how", ["revoked", "rotated"])
def test_no_session_outlives_the_key_that_began_it(guarded: Gateway, how: str) -> None:
    """Nor do those go on to watch who came in by it; the sessions of others do."""
    key = made(guarded)
    mine, other = signed_in(guarded, key["secret"]), signed_in(guarded, CHIEF)
    assert guarded.get(f"{API}overview", mine).status == 200
    streams = [watch(guarded, headers) for headers in (mine, bearer(key["secret"]))]
    name = key["key"]["id"]
    if how == "revoked":
        assert admin(guarded, CHIEF, "DELETE", f"keys/{name}").status == 200
    else:
        assert admin(guarded, CHIEF, "POST", f"keys/{name}/rotate", {"grace_s": 0}).status == 200
    assert_over(guarded, mine, streams)
    assert guarded.get(f"{API}overview", other).status == 200


def test_a_session_ends_when_its_key_expires(guarded: Gateway) -> None:
    """By itself: nobody has to revoke it."""
    ends = time.time() + 3.0
    key = made(guarded, expires_at=ends)
    mine = signed_in(guarded, key["secret"])
    stream = watch(guarded, mine)
    assert guarded.get(f"{API}overview", mine).status == 200
    time.sleep(max(0.0, ends - time.time()) + 0.1)
    assert_over(guarded, mine, [stream])


def test_nobody_watches_on_without_a_key_once_there_is_one(configured: Callable[..., Json], start: Any) -> None:
    """Who came in while none was asked for."""
    gateway = start()
    stream = watch(gateway, {})
    made_key = admin(gateway, "none", "POST", "keys", {"use": True, "admin": True})
    assert made_key.status == 201, made_key.body
    assert ask(gateway, made_key.json["secret"]).status == 200
    assert b"event: tick" not in stream.read()
