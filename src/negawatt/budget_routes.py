"""How budgets stand, over HTTP: ``GET /admin/budgets``, for administrators."""

from __future__ import annotations

from typing import Any

from negawatt.gateway import Gateway
from negawatt.http_head import Head, Receive, Send, send_private
from negawatt.levers.admit import administrator

_PATH = "/admin/budgets"


class BudgetRoutes:
    """Answers under that path."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def methods(self, path: str) -> tuple[str, ...]:
        return ("GET",) if path == _PATH else ()

    async def __call__(self, scope: Any, head: Head, receive: Receive, send: Send) -> None:
        administrator(self._gateway.keyring, head.hints.key)
        purse, now = self._gateway.purse, self._gateway.clock.time()
        found = [] if purse is None else await purse.states()
        await send_private(send, 200, {"budgets": [state.data(now) for state in found]})
