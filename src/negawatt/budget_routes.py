"""How budgets stand, over HTTP: ``GET /admin/budgets``, for administrators."""

from __future__ import annotations

from typing import Any

from negawatt.errors import BudgetsUnavailable, StoreError
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
        try:
            found = [] if purse is None else await purse.states()
        except StoreError as error:
            raise BudgetsUnavailable(f"the budgets cannot be asked at the moment: {error.message}") from error
        await send_private(send, 200, {"budgets": [state.data(now) for state in found]})
