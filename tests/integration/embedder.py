"""An endpoint that makes vectors, as a process: ``python embedder.py [PORT]`` prints ``PORT n`` and serves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from embedding_server import serving


async def main(port: int) -> None:
    async with serving(port=port) as address:
        print(f"PORT {address.rpartition(':')[2]}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
