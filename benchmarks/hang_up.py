"""How soon the provider's connection is closed after a caller hangs up in the middle of a stream, for each protocol.

    python benchmarks/hang_up.py [N]

The test's own stub and a real ``negawatt serve``, on loopback; N calls a protocol (default 100), one at a time. The
last line is one JSON object: for each protocol n, p50, p99 and the longest, in ms.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integration"))

from conftest import settings
from test_protocol_endings import PATHS, asking
from world import Caller, Gateway, Upstream, until


def times(gateway: Gateway, upstream: Upstream, protocol: str, count: int) -> list[float]:
    """Return seconds from the caller's close to the stub's seeing its own connection closed, sorted."""
    found = []
    for number in range(count):
        tag = f"{protocol}-{number}"
        caller = Caller(gateway, asking(protocol, tag=tag, then="wait"), tag, PATHS[protocol])
        caller.read_until(b"so far so good")
        gone = caller.hang_up()
        (closed,) = until(lambda tag=tag: upstream.tag(tag)["hung_up_at"], 5.0)
        found.append(closed - gone)
    return sorted(found)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        upstream = Upstream(Path(name))
        try:
            config = settings(upstream)
            for provider in config["providers"]:
                provider["protocols"] = list(PATHS)
            gateway = Gateway(Path(name), config, STUB_KEY="x")
            try:
                ms = {one: [1e3 * s for s in times(gateway, upstream, one, count)] for one in PATHS}
            finally:
                gateway.stop()
        finally:
            upstream.stop()
    figures = {
        one: {"n": count, "p50_ms": round(of[count // 2], 2), "p99_ms": round(of[int(count * 0.99)], 2),
              "max_ms": round(of[-1], 2)}
        for one, of in ms.items()
    }  # fmt: skip
    print(json.dumps({**figures, "date": datetime.now(UTC).date().isoformat(), "script": "benchmarks/hang_up.py"}))


if __name__ == "__main__":
    main()
