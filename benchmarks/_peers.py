"""The gateways under test: how each is started, found alive, and asked. All with one worker and no debug output."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from _load import Endpoint, Line
from _machine import Processes, Started, free_port
from _stub import PATHS, Stub

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "peers"
START_LIMIT_S = 90.0


class NotInstalled(Exception):
    """The peer is not there; the message says how to get it."""


@dataclass
class Target:
    """One gateway: its command, and where each route is once it runs."""

    name: str
    argv: list[str]
    env: dict[str, str]
    endpoints: dict[str, Endpoint]
    health: str | None = None  # None: it has no health route; ready when it answers a chat completion
    find_port: Callable[[Started], int | None] | None = None  # where it picks its port itself
    imports: dict[str, list[str]] = field(default_factory=dict)  # figure -> command that is timed; none: not Python
    ledger: Path | None = None

    def start(self, processes: Processes, cpu: int) -> tuple[Started, float]:
        """Start it and wait until it answers. Returns it and the seconds from exec to the first 200."""
        started = processes.start(self.name, self.argv, cpu, self.env)
        while time.monotonic() - started.since < START_LIMIT_S and started.alive():
            if self._ready(started):
                return started, time.monotonic() - started.since
            time.sleep(0.01)
        said = started.said()
        processes.stop(started)
        raise RuntimeError(f"{self.name} did not come up in {START_LIMIT_S:.0f} s; it said: {said}")

    def _ready(self, started: Started) -> bool:
        if self.find_port is not None:
            port = self.find_port(started)
            if port is None:
                return False
            self.endpoints = {route: Endpoint(port, e.path, e.model, e.headers) for route, e in self.endpoints.items()}
        try:
            return self._status() == 200
        except (OSError, ValueError):
            return False

    def _status(self) -> int:
        endpoint = self.endpoints["m"]
        if self.health is not None:
            return get_status(endpoint.port, self.health)
        line = Line(endpoint, timeout_s=5)
        try:
            return line.ask(endpoint.body("ready"))[0]
        finally:
            line.close()


def get_status(port: int, path: str) -> int:
    """Return the status of a GET. Raises OSError."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def direct(stub: Stub) -> dict[str, Endpoint]:
    """Return the stub's own endpoints: what the load reaches with no gateway between."""
    return {
        route: Endpoint(stub.nginx_port if route == "m" else stub.streams_port, f"{path}/chat/completions", route)
        for route, path in PATHS.items()
    }


def ours(stub: Stub, folder: Path, cache: bool) -> Target:
    """negawatt with every lever at its default, an API key to check, and the durable ledger: always, cache or not."""
    command = Path(sys.executable).parent / "negawatt"
    if not command.exists():
        raise NotInstalled("negawatt is not installed beside this Python; run make setup")
    port, key, ledger = free_port(), "nw-" + secrets.token_hex(24), folder / f"ledger-{secrets.token_hex(4)}.sqlite"
    providers = "".join(
        f'\n[[providers]]\nname = "{route}"\nkind = "openai-compatible"\nbase_url = "{stub.url(route)}"\n'
        f'models = ["{route}"]\n'
        for route in PATHS
    )
    (folder / "negawatt.toml").write_text(
        f'[ledger]\nurl = "sqlite:///{ledger}"\n\n[[keys]]\nid = "bench"\nkey_env = "NEGAWATT_BENCH_KEY"\n'
        f'tenant = "bench"\n\n[levers.exact_cache]\nmode = "on"\n{providers}'
    )
    return Target(
        name="ours",
        argv=[str(command), "serve", "--config", "negawatt.toml", "--host", "127.0.0.1", "--port", str(port)],
        env={"NEGAWATT_BENCH_KEY": key},
        endpoints=_endpoints(port, headers={"Authorization": f"Bearer {key}"}),
        health="/healthz",
        imports={
            "import_ms": [sys.executable, "-c", "import negawatt"],
            "import_serve_ms": [sys.executable, "-c", "import negawatt.server"],
        },
        ledger=ledger,
    )


def litellm(stub: Stub, folder: Path, cache: bool) -> Target:
    """The LiteLLM proxy. Its cache is off where forwarding is measured, which flatters it."""
    command = _installed("litellm", "bin/litellm")
    port, key = free_port(), "sk-" + secrets.token_hex(24)
    models = [
        {"model_name": r, "litellm_params": {"model": f"openai/{r}", "api_base": stub.url(r), "api_key": "x"}}
        for r in PATHS
    ]
    settings = {"cache": True, "cache_params": {"type": "local"}} if cache else {}
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))  # JSON is YAML
    return Target(
        name="litellm",
        argv=[str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        env={
            "LITELLM_MASTER_KEY": key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "true",
            "LITELLM_LOG": "ERROR",
        },
        endpoints=_endpoints(port, headers={"Authorization": f"Bearer {key}"}),
        health="/health/liveliness",
        imports={"import_ms": [str(command.with_name("python")), "-c", "import litellm"]},
    )


def portkey(stub: Stub, folder: Path, cache: bool) -> Target:
    """The Portkey gateway, asked with the headers its users send."""
    script = _installed("portkey", "node_modules/@portkey-ai/gateway/build/start-server.js")
    node = shutil.which("node")
    if node is None:
        raise NotInstalled("node is not installed")
    port = free_port()
    endpoints = {
        route: Endpoint(
            port,
            "/v1/chat/completions",
            route,
            {"Authorization": "Bearer x", "x-portkey-provider": "openai", "x-portkey-custom-host": stub.url(route)},
        )
        for route in PATHS
    }
    argv = [node, str(script), f"--port={port}", "--headless"]
    return Target("portkey", argv, {"NODE_ENV": "production"}, endpoints, health="/")


TENSORZERO = """
import signal, sys, openai, tensorzero
client = tensorzero.patch_openai_client(openai.OpenAI(api_key="x"), config_file=sys.argv[1], async_setup=False)
print("listens on", client.base_url, flush=True)
signal.pause()
"""


def tensorzero(stub: Stub, folder: Path, cache: bool) -> Target:
    """TensorZero's Rust gateway inside its Python wheel, observability off: no ledger row is written."""
    python = _installed("tensorzero", "bin/python")
    config = folder / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n"
        + "".join(
            f'[models.{r}]\nrouting = ["stub"]\n[models.{r}.providers.stub]\ntype = "openai"\nmodel_name = "{r}"\n'
            f'api_base = "{stub.url(r)}"\napi_key_location = "none"\n'
            for r in PATHS
        )
    )
    return Target(
        name="tensorzero",
        argv=[str(python), "-W", "ignore", "-c", TENSORZERO, str(config)],
        env={},
        endpoints=_endpoints(0, "/openai/v1/chat/completions", "tensorzero::model_name::"),
        find_port=_tensorzero_port,
        imports={"import_ms": [str(python), "-c", "import tensorzero"]},
    )


def _tensorzero_port(started: Started) -> int | None:
    found = re.search(r"listens on http://127\.0\.0\.1:(\d+)/", started.said())
    return int(found[1]) if found else None


def _endpoints(
    port: int, path: str = "/v1/chat/completions", prefix: str = "", headers: dict[str, str] | None = None
) -> dict[str, Endpoint]:
    return {route: Endpoint(port, path, prefix + route, headers or {}) for route in PATHS}


def _installed(name: str, path: str) -> Path:
    found = PEERS / name / path
    if not found.exists():
        raise NotInstalled(f"{name} is not installed; run make peers")
    return found


TARGETS: dict[str, Callable[[Stub, Path, bool], Target]] = {
    "ours": ours,
    "litellm": litellm,
    "portkey": portkey,
    "tensorzero": tensorzero,
}

# How an answer from the cache is recognised, where the peer has a cache that can be had without a further service.
CACHE_HEADER = {"ours": ("x-negawatt-cache", "exact"), "litellm": ("x-litellm-cache-key", None)}
NO_CACHE = {
    "portkey": "its published package has the response cache compiled out (x-portkey-cache-status: DISABLED)",
    "tensorzero": "its cache needs ClickHouse or Valkey",
}
