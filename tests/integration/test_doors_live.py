"""Who may look and change, at a real gateway: no page of elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
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


def test_a_link_from_anywhere_leads_to_the_pages(keyless: Gateway, guarded: Gateway) -> None:
    """From a message about an alert, say: the pages hold nothing, and what they ask, they ask for themselves."""
    for gateway in (keyless, guarded):
        followed = gateway.get("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
        assert followed.status == 200 and b"<script" in followed.body
        assert "frame-ancestors 'none'" in followed.headers["content-security-policy"]


def sign_in(gateway: Gateway, secret: str, **headers: str) -> Answer:
    body = json.dumps({"key": secret}).encode()
    return gateway.request("POST", f"{API}session", body, {"content-type": "application/json", **headers})
