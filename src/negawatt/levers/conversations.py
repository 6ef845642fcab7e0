"""Whose answers may be gone on from: what a provider remembers of one caller must not reach another.

A request may name an earlier answer by its id (``previous_response_id``), and its provider adds that conversation to
the prompt. All callers share the gateway's one key, so the provider cannot tell them apart; this does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from negawatt.call import Call
from negawatt.config import RequestClass
from negawatt.errors import NegawattError, StateNotFound
from negawatt.ledger import Ledger
from negawatt.reply import Reply

_MOST_KEPT = 100_000


class Owner(NamedTuple):
    """To whom an answer was given."""

    tenant: str
    permissions: str
    user: str | None
    personal: bool  # the class says that it is this user's own
    provider: str | None = None  # that gave it, and keeps it


class Conversations:
    """Remembers to whom each answer was given: the newest here, the others by the *ledger*.

    *divided*: whether there are callers of several tenants or permissions, so an id of nobody's is refused. Without
    that it passes: it may be from before there was a gateway. *classes*: which answers are their user's own.
    """

    def __init__(self, ledger: Ledger, *, divided: Callable[[], bool], classes: Mapping[str, RequestClass]) -> None:
        self._ledger = ledger
        self._divided = divided
        self._personal = {name for name, policy in classes.items() if policy.personal}
        self._owners: dict[str, Owner] = {}

    async def check(self, call: Call, state: Sequence[tuple[str, str]]) -> None:
        """Raise `StateNotFound` when *call* goes on from what is not its caller's: *state*, as (field, id)."""
        for field, name in state:
            owner = self._owners.get(name) or await self._found(name)
            if owner is None and not self._divided() and not call.hints.permissions:
                continue
            if owner is None or not _may(self._owner(call), owner):
                message = f"{field}: no answer with the id {name[:100]!r} was given to this caller"
                raise StateNotFound(message, param=field)

    async def held_by(self, call: Call) -> str | None:
        """Return the provider that keeps what *call* goes on from: nobody else can be asked.

        None where it goes on from nothing, and where nobody here knows who keeps it: then it was not routed by us, and
        the caller's own model has to be asked.
        """
        for _, name in call.wire.continues(call.request):
            owner = self._owners.get(name) or await self._found(name)
            if owner is not None and owner.provider is not None:
                return owner.provider
        return None

    def remember(self, call: Call, reply: Reply) -> None:
        """Note to whom the answer in *reply* goes. To be told when it has been read."""
        if reply.answered_by != "provider" or call.shadow:
            return  # only those of its scope get it from elsewhere, and it is noted already
        try:
            name = reply.data.get("id")
        except NegawattError:
            return  # what cannot be read has no id
        if isinstance(name, str):
            answerer = call.trail.answerer
            owner = self._owner(call)
            self._keep(name, owner if answerer is None else owner._replace(provider=answerer.target.provider))

    def _keep(self, name: str, owner: Owner) -> None:
        while len(self._owners) >= _MOST_KEPT:
            del self._owners[next(iter(self._owners))]
        self._owners[name] = owner

    async def _found(self, name: str) -> Owner | None:
        row = await self._ledger.answered(name)
        if row is None:
            return None
        personal = row.request_class in self._personal
        owner = Owner(row.tenant or "", row.permissions or "", row.user_id, personal, row.provider)
        self._keep(name, owner)  # it is asked for again, by who goes on from it and by who routes
        return owner

    def _owner(self, call: Call) -> Owner:
        user = None if call.caller is None else call.caller.user
        return Owner(call.scope.tenant, call.scope.permissions, user, call.request_class in self._personal)


def _may(asks: Owner, owner: Owner) -> bool:
    """True when an answer of *owner* may be gone on from by who *asks*, whatever class they name now."""
    same_user = asks.user == owner.user or not (asks.personal or owner.personal)
    return (asks.tenant, asks.permissions) == (owner.tenant, owner.permissions) and same_user
