"""What the watch has to say, over HTTP and for administrators: ``GET /admin/slo`` and ``GET /admin/alerts``."""

from __future__ import annotations

from typing import Any

from negawatt.errors import NotFound
from negawatt.gateway import Gateway
from negawatt.http_head import Head, Receive, Send, send_private
from negawatt.levers.admit import administrator
from negawatt.watch.alert import iso

_PATHS = ("/admin/slo", "/admin/alerts")


class WatchRoutes:
    """Answers what is asked of the watch of *gateway*."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def methods(self, path: str) -> tuple[str, ...]:
        """Return what *path* answers to; nothing when it is none of the watch's."""
        return ("GET",) if path in _PATHS else ()

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        """Say how the promises stand, or which alerts there are. Raises `NegawattError`."""
        administrator(self._gateway.keyring, head.hints.key)
        watch = self._gateway.watch
        if watch is None:
            raise NotFound("nobody watches this gateway: it was opened without `open_watch`")
        found: dict[str, Any] = {"at": iso(self._gateway.clock.time())}
        if scope["path"] == "/admin/slo":
            found["classes"] = watch.slos()
        else:
            found |= {**watch.alerts(), "sinks": watch.sinks()}
        await send_private(send, 200, found)
