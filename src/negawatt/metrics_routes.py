"""``GET /metrics``: what Prometheus scrapes, in its own format, or in OpenMetrics for those who ask for it."""

from __future__ import annotations

from typing import Any

from negawatt.errors import MethodNotAllowed, NegawattError, NotFound
from negawatt.gateway import Gateway
from negawatt.http_head import Head, Headers, Receive, Send, send_body, send_error
from negawatt.levers.admit import administrator
from negawatt.origins import refuse_foreign_pages
from negawatt.telemetry.exposition import OPENMETRICS, PROMETHEUS, wants_openmetrics

PATH = "/metrics"


class MetricsRoutes:
    """Answers what is asked of the metrics of *gateway*."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is not that of the metrics."""
        return ("GET",) if path == PATH else ()

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Answer one scrape. Raises `AuthenticationError` or `PermissionDenied`."""
        self._admit(head)
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
        openmetrics = wants_openmetrics(accept)
        text = await self._gateway.metrics(openmetrics=openmetrics)
        kind = OPENMETRICS if openmetrics else PROMETHEUS
        headers: Headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store"), (b"vary", b"accept")]
        await send_body(send, 200, headers, text)

    def _admit(self, head: Head) -> None:
        """Let those pass who may see what all callers spend together: where several tenants share the gateway, its
        administrator, else everybody with a key."""
        keyring = self._gateway.keyring
        if keyring.divided:
            administrator(keyring, head.hints.key)
        else:
            keyring.holder(head.hints.key)


class MetricsServer:
    """The ASGI application on a port of its own that answers to nothing but the metrics."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._routes = MetricsRoutes(gateway)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        head = Head.of(scope["headers"])
        try:
            if scope["path"] != PATH:
                raise NotFound(f"there is nothing here but {PATH}")
            if scope["method"] != "GET":
                raise MethodNotAllowed(f"{PATH} answers to GET, not to {scope['method']}", allow="GET")
            settings, keyless = self._gateway.config.server, self._gateway.keyring.open
            refuse_foreign_pages(head, scope["headers"], settings, keyless=keyless)
            await self._routes(scope, head, receive, send)
        except NegawattError as error:
            await send_error(send, error, None, head)
