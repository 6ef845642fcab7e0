"""Indexes: vectors under a scope, each with a value; and the cases from which the semantic cache learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Neighbour(NamedTuple):
    """An entry near to what was asked. *similarity* is the cosine, computed exactly."""

    key: str
    similarity: float
    mark: bytes


class IndexStats(msgspec.Struct, frozen=True):
    """What is in an index. *bytes* counts keys, vectors, marks and values, not the engine's own overhead."""

    entries: int
    bytes: int
    scopes: int


class Index(Protocol):
    """Keeps vectors of one embedder. Every method raises `negawatt.errors.StoreError` when the backend fails.

    A vector of another dimension than the index has is refused with `negawatt.errors.IndexMismatch`.
    """

    @property
    def cases(self) -> Cases:
        """What the semantic cache learned, kept in the same place."""
        ...

    async def check(self) -> None:
        """Look whether the place can be used: done before the first use, and not needed for it.

        Raises `IndexMismatch` when it holds vectors of another embedder, as a use would raise `StoreError`.
        """
        ...

    async def put(  # noqa: PLR0913
        self,
        key: str,
        vector: NDArray[np.float32],
        value: bytes,
        *,
        scope: str,
        ttl_s: float,
        mark: bytes = b"",
        tags: tuple[str, ...] = (),
    ) -> None:
        """Keep *value* under *key*, to be found near *vector* in *scope* for *ttl_s* seconds; replaces what was there.

        *mark*, of at most 64 bytes, is told with each neighbour, so that most need no look at the value. The index
        is bounded: the entries that were not read for longest make room.
        """
        ...

    async def nearest(self, scope: str, vector: NDArray[np.float32], *, k: int = 8) -> list[Neighbour]:
        """Return the *k* entries of *scope* that are alive and nearest to *vector*, nearest first."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the value under *key*, or None if it expired or never was."""
        ...

    async def delete(self, key: str) -> bool:
        """Delete what is under *key*; True if there was something."""
        ...

    async def delete_tagged(self, tags: tuple[str, ...], *, dry_run: bool = False) -> int:
        """Delete every entry that has all of *tags*, none at all when there are no tags; return how many."""
        ...

    async def stats(self) -> IndexStats: ...

    async def close(self) -> None: ...


FORGOT = "forgot"  # action of a case
HUMAN = "human"  # basis of a case


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate answer, and what became of it: all that the semantic cache learns from.

    *features* are what the acceptance rule saw. *propensity* is the probability with which the model was asked
    although the rule would have answered; None where it would not have. *wrong* None: nobody has compared.
    """

    id: str  # of the call
    at: float  # seconds since 1970, UTC
    request_class: str
    tenant: str
    tier: str  # "learned" or "curated"
    action: str  # "served", "explored", "missed"; or FORGOT: a drift was found, and no older comparison counts
    features: tuple[float, ...]  # none: there was no candidate
    risk: float | None = None  # of being wrong, as the rule saw it at the time; None before it knew anything
    propensity: float | None = None
    wrong: bool | None = None
    basis: str | None = None  # who compared: exact, embedding, judge, human
    review: bool = False  # drawn for a person to look at
    key: str = ""  # of the entry in the index
    mark: bytes = b""  # of its answer
    question: str = ""
    matched: str = ""  # the question that the candidate answered
    answer: str = ""  # the candidate's
    fresh: str | None = None  # what the model said instead


class Cases(Protocol):
    """Keeps the newest cases of each class. Raises `negawatt.errors.StoreError` when the backend fails."""

    async def add(self, case: Case) -> None:
        """Keep *case*, in place of one with the same id and tier; the oldest of its class and tier make room."""
        ...

    async def label(self, id: str, *, wrong: bool, basis: str) -> bool:
        """Write down what somebody said of the case *id*; a person's word is not replaced. False: no such case."""
        ...

    async def recent(self, request_class: str, tier: str, *, limit: int) -> list[Case]:
        """Return the newest *limit* cases, oldest first."""
        ...

    async def waiting(self, *, limit: int) -> list[Case]:
        """Return the cases that were drawn for review and that no person has judged, oldest first."""
        ...

    async def classes(self) -> list[tuple[str, str]]:
        """Return the class and tier of all that is kept, sorted."""
        ...
