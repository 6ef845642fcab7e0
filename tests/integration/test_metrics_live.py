"""The metrics of a real gateway: few series whatever is sent, for those who may see them, on their own port."""

from __future__ import annotations

import asyncio
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from world import Gateway, Json, chat, many_connections

SERIES = re.compile(r"^([a-z_]\w*)(?:\{.*\})? \S+$", re.M)
CALLS, AT_ONCE = 10_000, 50


def series(gateway: Gateway) -> dict[str, int]:
    """Return how many lines each metric has."""
    found: dict[str, int] = {}
    for name in SERIES.findall(gateway.get("/metrics").body.decode()):
        found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.usefixtures("_long")
async def test_ten_thousand_made_up_names_fill_nothing(start: Callable[..., Gateway], configured: Callable[..., Json]):
    """Random models, classes and paths: two hundred models are labels, other names none, and no call is lost."""
    gateway = start(configured(classes={"faq": {}}))
    rng = random.Random(7)
    before = series(gateway)
    statuses: dict[int, int] = {}

    def name() -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits + '-_/.:é"\\ ', k=rng.randint(1, 40)))

    async def ask(number: int) -> None:
        path = "/v1/chat/completions" if number % 10 else f"/v1/{rng.getrandbits(60):x}"
        headers = {"x-negawatt-class": f"class-{rng.getrandbits(40):x}"} if number % 10 == 5 else {}
        body = chat(f"question {number}", model=f"{name()}-{number}", temperature=0)
        async with session.post(f"{gateway.url}{path}", json=body, headers=headers) as answer:
            await answer.read()
            statuses[answer.status] = statuses.get(answer.status, 0) + 1

    async with many_connections() as session:
        for first in range(0, CALLS, AT_ONCE):
            await asyncio.gather(*(ask(number) for number in range(first, first + AT_ONCE)))
    assert statuses == {200: 8_000, 400: 1_000, 404: 1_000}
    text = gateway.get("/metrics").body.decode()
    after = series(gateway)
    counted = [int(n) for n in re.findall(r"^negawatt_requests_total\{.*\} (\d+)$", text, re.M)]
    assert sum(counted) == 9_000
    assert len(set(re.findall(r'^negawatt_requests_total\{.*model="((?:[^"\\]|\\.)*)"', text, re.M))) == 202, (
        "and other, and none"
    )
    assert after["negawatt_requests_total"] <= 210
    assert {name: n for name, n in after.items() if n > 15 * 202} == {}, "a histogram has 15 buckets of each model"
    assert sum(after.values()) < 16_000 + sum(before.values())
    assert 'route="unmatched",status="404"' in text
    assert "class-" not in text and 'request_class="default"' in text


def test_only_an_administrator_sees_what_all_tenants_spend(
    tmp_path: Path, start: Callable[..., Gateway], configured: Callable[..., Json]
):
    """Where keys are of several tenants, no tenant's key opens the metrics; in Prometheus' words, 401 and 403."""
    keys = [
        {"id": "a", "key_env": "A", "tenant": "acme"}, {"id": "b", "key_env": "B", "tenant": "bolt"},
        {"id": "root", "key_env": "ROOT", "admin": True},
    ]  # fmt: skip
    gateway = start(configured(keys=keys), A="key-of-a", B="key-of-b", ROOT="key-of-root")
    for key, status in ((None, 401), ("guess", 401), ("key-of-a", 403), ("key-of-b", 403), ("key-of-root", 200)):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        assert gateway.get("/metrics", headers).status == status


def test_metrics_can_have_a_port_of_their_own(start: Callable[..., Gateway], configured: Callable[..., Json]):
    """There is nothing else there, pages of browsers are turned away, and the gateway stops in order."""
    gateway = start(configured(telemetry={"metrics_port": 0}, keys=[{"id": "k", "key_env": "K"}]), K="key-of-k")
    main, apart = gateway.port, gateway.announced(r"metrics: http://127\.0\.0\.1:(\d+)/metrics")
    key = {"authorization": "Bearer key-of-k"}
    assert gateway.post(chat("hello"), **key).status == 200
    assert gateway.get("/metrics", key).status == 404
    gateway.port = apart
    answer = gateway.get("/metrics", key)
    assert answer.status == 200 and b'negawatt_requests_total{request_class="default",model="plain"' in answer.body
    assert gateway.get("/metrics").status == 401
    assert gateway.get("/metrics", {**key, "origin": "https://elsewhere.example"}).status == 403
    assert gateway.request("POST", "/metrics", b"", key).status == 405
    assert gateway.get("/healthz", key).status == gateway.post(chat("hello"), **key).status == 404
    gateway.port = main
    gateway.stop()
    assert "Traceback" not in gateway.output
