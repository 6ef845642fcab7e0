"""The dashboard of a ledger without the gateway: its pages and their API on a port of this machine, and nothing else.

Looking leaves the rows alone; the roll-ups that the pages read are kept up in the ledger's own file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from negawatt.config import Config, Provider
from negawatt.errors import MethodNotAllowed, NegawattError, NotFound, RequestTooLarge
from negawatt.gateway import Gateway
from negawatt.governing import shown
from negawatt.http_head import Head, Receive, Send, send_error
from negawatt.ledger.sqlite import read_rows
from negawatt.web_routes import WebRoutes
from negawatt.web_sources import Behind

_MOST_BODY = 8_192  # nothing that is asked here is larger


def viewing(ledger: Path, port: int) -> Config:
    """Return the configuration of a dashboard on *ledger*: no keys, nobody to ask, on this machine only.

    Raises `InputError` when there is no such ledger.
    """
    next(read_rows(ledger, until=0.0), None)  # what opens a ledger to write makes one of any file
    plain = Config()
    nobody = Provider(name="nobody", url="modelled:?a=0&b=0")  # no route of a dashboard reaches it
    return msgspec.structs.replace(
        plain,
        providers=(nobody,),
        server=msgspec.structs.replace(plain.server, port=port),
        ledger=msgspec.structs.replace(plain.ledger, url=f"sqlite:///{ledger}"),
    )


class Dashboard:
    """The ASGI application: what `WebRoutes` answers, and a 404 for everything else.

    *about*: the configuration under which the ledger was written, for what the pages say of classes, policies and
    caches; None: not known.
    """

    def __init__(self, gateway: Gateway, about: Config | None = None) -> None:
        behind = Behind(config=about, started_s=None)
        self._routes = WebRoutes(gateway, _read, shown(gateway), behind=behind)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        head = Head.of(scope["headers"])
        try:
            methods = self._routes.methods(path)
            if method in methods:
                await self._routes(scope, head, receive, send)
            elif methods:
                allowed = ", ".join(methods)
                raise MethodNotAllowed(f"{path[:200]} answers to {allowed}, not to {method}", allow=allowed)
            else:
                raise NotFound(f"there is nothing at {path[:200]}: this is a dashboard, and serves no API of models")
        except NegawattError as error:
            await send_error(send, error, None, head)

    def stop(self) -> None:
        """End what would go on for ever: the server is about to close its connections."""
        self._routes.close()

    def close(self) -> None:
        """Let go of what is open; call `stop` before."""
        self._routes.release()


async def _read(head: Head, receive: Receive) -> bytes | None:
    """Return the body; None when its sender is gone. Raises `RequestTooLarge`."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > _MOST_BODY:
            raise RequestTooLarge(f"the body is too large; the limit is {_MOST_BODY} bytes")
        if not message.get("more_body"):
            return body
