"""Fixtures of the suites over stores and indexes: a clock, a real PostgreSQL, and indexes of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import ManualClock
from indexes import KINDS, Open, opening
from postgres_server import PostgresServer, running_postgres


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A real server for the tests of one module."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=KINDS)
async def open_index(request: Any, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Open]:
    """Opens indexes of one kind, and closes them all."""
    async with opening(request.param, clock, tmp_path, lambda: request.getfixturevalue("postgres")) as opener:
        yield opener
