"""A process that puts into a SQLite index and says what was acknowledged, until somebody kills it: `writer.py FILE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from indexes import DIMENSIONS, MODEL, case, some

from negawatt.clock import SystemClock
from negawatt.indexes.sqlite import SqliteIndex

ENTRIES = 5_000


async def main() -> None:
    index = SqliteIndex(Path(sys.argv[1]), SystemClock(), model=MODEL, dimensions=DIMENSIONS)
    for i, row in enumerate(some(ENTRIES, seed=3)):
        await index.put(f"k{i}", row, b"value %d" % i, scope=f"s{i % 3}", ttl_s=1e6, tags=(f"t{i % 2}",))
        await index.cases.add(case(f"c{i:05}", float(i)))
        print(i, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
