"""One gateway served as `negawatt serve` serves it, watch and all, or without the watch: *watched* false.

Reads {"config": configuration, "watched": true or false} as one JSON object from stdin; prints the port when it is up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
import sys
from contextlib import AsyncExitStack, closing
from typing import Any

import uvloop

from negawatt.config import parse_config
from negawatt.gateway import Gateway
from negawatt.governing import watched
from negawatt.server import Server
from negawatt.serving import _uvicorn
from negawatt.watching import open_watch


async def main(asked: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway.open(parse_config(asked["config"])))
        if asked["watched"]:
            await stack.enter_async_context(open_watch(gateway, **watched(gateway)))
        gateway.accounts.warm()
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        application = Server(gateway)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        server = _uvicorn(application)

        def stop() -> None:
            application.stop()
            server.should_exit = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        print(listener.getsockname()[1], flush=True)
        with closing(application):
            await server._serve([listener])


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(main(json.loads(sys.stdin.readline())))
