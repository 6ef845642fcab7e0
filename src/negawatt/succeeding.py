"""Tasks and their success in a gateway that runs: feedback goes to the ledger, and a thread keeps the roll-up."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.errors import StoreError
from negawatt.ledger import Ledger
from negawatt.ledger.feedback import Feedback
from negawatt.ledger.sqlite import SqliteLedger, open_reading
from negawatt.success.keeping import Beside, Keeper
from negawatt.success.rules import rules_of
from negawatt.telemetry import Sample

if TYPE_CHECKING:
    from negawatt.levers.meter import Meter

_DISK_S = 10.0
_PERIOD_S = 86_400.0  # of the cost of a success, in the metrics


class Succeeding:
    """What a gateway has to do with success. Between `start` and `close` the roll-up of *ledger* is kept up."""

    def __init__(self, config: Config, ledger: Ledger, meter: Meter, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._keeper = Keeper(rules_of(config), now=clock.time)
        # Whether the same was asked again is seen by the request's digest: there it has to be in every row.
        meter.fingerprinted = frozenset(
            name for name, policy in config.classes.items() if policy.success and policy.success.no_retry_within_s
        )
        self._beside = None
        if isinstance(ledger, SqliteLedger) and ledger.rollups:
            self._beside = Beside(ledger.path, self._keeper)

    def start(self) -> None:
        if self._beside is not None:
            self._beside.start()

    def close(self) -> None:
        """Leave the roll-up as it is; the next gateway goes on from there."""
        if self._beside is not None:
            self._beside.close()

    async def tell(self, word: Feedback) -> bool:
        """Keep *word*; return, once it is on disk, whether it is a new one.

        Raises `InvalidRequest` for a key of another word, `RateLimited`, and `StoreError` when the disk does not take
        it: it may be sent again.
        """
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._ledger.record(word)), _DISK_S)
        except TimeoutError as error:
            raise StoreError(f"the ledger did not take the feedback within {_DISK_S:g} s; send it again") from error

    async def samples(self) -> list[Sample]:
        """Return the verdicts since the start, and what a success has cost in the last 24 hours, by class."""
        found = [
            Sample("negawatt_task_success_total", (("request_class", name), ("outcome", outcome)), float(count))
            for (name, outcome), count in sorted(self._keeper.verdicts.items())
        ]
        costs = {} if self._beside is None else await asyncio.to_thread(self._costs)
        return found + [
            Sample("negawatt_cost_per_success_usd", (("request_class", name),), cost) for name, cost in costs.items()
        ]

    def _costs(self) -> dict[str, float]:
        from negawatt.success.figures import sums_in

        now = self._clock.time()
        with self._read() as connection:
            groups = sums_in(connection, now - _PERIOD_S, float("inf"), "class")
        return {
            name: sums.total["priced_cost_pusd"] / sums.total["priced_successes"] / 1e12
            for name, sums in sorted(groups.items())
            if sums.total["priced_successes"]
        }

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        assert isinstance(self._ledger, SqliteLedger)
        with closing(open_reading(self._ledger.path)) as connection:
            yield connection
