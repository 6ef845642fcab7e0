"""Whose answers may be gone on from: what a provider remembers of one caller must not reach another.

A request may name an earlier answer by its id (``previous_response_id``), and its provider adds that conversation to
the prompt. All callers share the gateway's one key, so the provider cannot tell them apart; this does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from negawatt.call import Call
from negawatt.errors import NegawattError, StateNotFound
from negawatt.ledger import Ledger
from negawatt.reply import Reply

_MOST_KEPT = 100_000


class Owner(NamedTuple):
    """To whom an answer was given."""

    tenant: str
    permissions: str
    user: str | None


class Conversations:
    """Remembers to whom each answer was given: the newest here, the others by the *ledger*.

    *divided*: there are callers of several tenants or permissions, so an id of nobody's is refused. Without that it
    passes: it may be from before there was a gateway.
    """

    def __init__(self, ledger: Ledger, *, divided: bool) -> None:
        self._ledger = ledger
        self._divided = divided
        self._owners: dict[str, Owner] = {}

    async def check(self, call: Call, state: Sequence[tuple[str, str]]) -> None:
        """Raise `StateNotFound` when *call* goes on from what is not its caller's: *state*, as (field, id)."""
        for field, name in state:
            owner = self._owners.get(name) or await self._found(name)
            if owner is None and not self._divided and not call.hints.permissions:
                continue
            if owner is None or not _may(call, owner):
                message = f"{field}: no answer with the id {name[:100]!r} was given to this caller"
                raise StateNotFound(message, param=field)

    def remember(self, call: Call, reply: Reply) -> None:
        """Note to whom the answer in *reply* goes. To be told when it has been read."""
        if reply.answered_by != "provider" or call.shadow:
            return  # only those of its scope get it from elsewhere, and it is noted already
        try:
            name = reply.data.get("id")
        except NegawattError:
            return  # what cannot be read has no id
        if isinstance(name, str):
            while len(self._owners) >= _MOST_KEPT:
                del self._owners[next(iter(self._owners))]
            self._owners[name] = _owner(call)

    async def _found(self, name: str) -> Owner | None:
        row = await self._ledger.answered(name)
        return None if row is None else Owner(row.tenant or "", row.permissions or "", row.user_id)


def _owner(call: Call) -> Owner:
    return Owner(call.scope.tenant, call.scope.permissions, None if call.caller is None else call.caller.user)


def _may(call: Call, owner: Owner) -> bool:
    asks = _owner(call)
    same_user = call.scope.user is None or asks.user == owner.user  # named in the scope where answers are personal
    return (asks.tenant, asks.permissions) == (owner.tenant, owner.permissions) and same_user
