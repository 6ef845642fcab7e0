"""Two gateways in one process, each on a port of its own, served as `negawatt serve` serves one.

Reads {"NAME": configuration, ...} as one JSON object from stdin; prints {"NAME": port, ...} when all are up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from contextlib import AsyncExitStack
from typing import Any

import uvicorn
import uvloop

from negawatt.config import parse_config
from negawatt.gateway import Gateway
from negawatt.server import Server
from negawatt.serving import one_write_protocol


async def main(configs: dict[str, dict[str, Any]]) -> None:
    async with AsyncExitStack() as stack:
        ports: dict[str, int] = {}
        servers = []
        for name, config in configs.items():
            gateway = await stack.enter_async_context(Gateway.open(parse_config(config)))
            gateway.accounts.warm()
            listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
            ports[name] = listener.getsockname()[1]
            settings = uvicorn.Config(
                Server(gateway), http=one_write_protocol(), ws="none", lifespan="off", access_log=False,
                log_level="warning", server_header=False, date_header=False, proxy_headers=False,
            )  # fmt: skip
            server = uvicorn.Server(settings)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            servers.append(server.serve([listener]))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        tasks = [asyncio.ensure_future(one) for one in servers]
        print(json.dumps(ports), flush=True)
        await asyncio.wait(tasks)


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.stdin.readline())))
