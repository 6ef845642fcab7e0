"""Fixtures of the integration tests: the stub provider, a gateway that most tests share, and gateways of one's own."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from world import Gateway, Json, Upstream

_MOST_S = 40  # for one test; it takes a few seconds at most
_LONG_S = 240  # for the one that makes ten thousand calls
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """No test waits for ever."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {_MOST_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, _MOST_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def _long(_bounded: None) -> None:
    """This test may take longer."""
    signal.setitimer(signal.ITIMER_REAL, _LONG_S)


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The stub provider."""
    stub = Upstream(tmp_path_factory.mktemp("upstream"))
    yield stub
    stub.stop()


def settings(upstream: Upstream, **more: Any) -> Json:
    """A configuration in which every behaviour is a certain one: no holdout, no second attempts, no breaker."""
    provider = {"base_url": upstream.base_url, "kind": "openai-compatible", "key_env": "STUB_KEY"}
    hasty = {**provider, "first_byte_timeout_s": 0.3, "idle_timeout_s": 0.3, "connect_timeout_s": 0.5}
    return {
        "holdout": {"share": 0.0},
        "levers": {"retry": {"attempts": 1, "breaker_failures": 1_000_000}},
        "providers": [
            {"name": "stub", **provider},
            {"name": "priced", "priced_as": "openai", "models": ["gpt-4o-mini"], **provider},
            {"name": "hasty", "models": ["hasty", "hasty-*"], **hasty},
            {"name": "nobody", "models": ["nobody"], **hasty, "base_url": "http://127.0.0.1:9/v1"},
        ],
        "models": [
            {"name": "plain", "provider": "stub"},
            {"name": "saved", "provider": "nobody", "fallbacks": ["plain"]},
        ],
        **more,
    }


Start = Callable[..., Gateway]


@pytest.fixture(scope="session")
def configured(upstream: Upstream) -> Callable[..., Json]:
    """Makes the usual configuration, with sections of one's own."""

    def make(**more: Any) -> Json:
        return settings(upstream, **more)

    return make


@pytest.fixture(scope="session")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway that most tests share; they tell their rows apart by task."""
    shared = Gateway(tmp_path_factory.mktemp("gateway"), settings(upstream), STUB_KEY="the-provider-key")
    yield shared
    shared.stop()


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    """Starts gateways of one's own: ``start(config, VARIABLE=value)``."""
    with contextlib.ExitStack() as started:  # it stops the others though one complains

        def begin(config: Json | None = None, **environ: str) -> Gateway:
            one = Gateway(tmp_path, config or settings(upstream), **{"STUB_KEY": "the-provider-key", **environ})
            started.callback(one.stop)
            return one

        yield begin


@pytest.fixture
def task(request: pytest.FixtureRequest) -> str:
    """A name that no other test has: for the rows, and as the tag at the stub."""
    return f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:60]}-{next(_numbers)}"
