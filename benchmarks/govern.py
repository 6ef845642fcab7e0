"""What governing costs and holds: budgets under pressure and after a kill, the price of the path, the dashboard's data.

    python benchmarks/govern.py --json [--only budget,overhead,dashboard,kill] [--runs 50] [--rounds 10] [--rows N]

Progress goes to stderr; the last line of stdout is one JSON object. What it measures: docs/benchmarks.md. A section
that was left out, or could not run, is null, and ``reasons`` says why.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
from collections.abc import Callable
from typing import Any

from _machine import machine

SECTIONS = ("budget", "overhead", "dashboard", "kill")
Json = dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def budget(chosen: argparse.Namespace) -> Json:
    import _govern_budget

    return _govern_budget.section(chosen.runs, say)


def overhead(chosen: argparse.Namespace) -> Json:
    import _govern_overhead

    return _govern_overhead.section(chosen.rounds, chosen.seconds, say)


def dashboard(chosen: argparse.Namespace) -> Json:
    import _dashboard

    found: Json = asyncio.run(_dashboard.dashboard(chosen.rows))
    return found


def kill(chosen: argparse.Namespace) -> Json:
    import _govern_kill

    return _govern_kill.section(chosen.kills, say)


def report(chosen: argparse.Namespace) -> Json:
    """Run the chosen sections; what one could not do is in ``reasons``, never silently left out."""
    sections: dict[str, Callable[[argparse.Namespace], Json]] = {
        "budget": budget, "overhead": overhead, "dashboard": dashboard, "kill": kill
    }  # fmt: skip
    found: dict[str, Json | None] = {}
    reasons: dict[str, str] = {}
    for name in SECTIONS:
        found[name] = None
        if name not in chosen.names:
            reasons[name] = "left out with --only"
            continue
        try:
            found[name] = sections[name](chosen)
        except (RuntimeError, OSError) as error:
            reasons[name] = f"{type(error).__name__}: {error}"
            say(f"{name}: {reasons[name]}")
    cost, page = found["overhead"] or {}, found["dashboard"] or {}
    return {
        "budget": found["budget"],
        "kill": found["kill"],
        "overhead_ratio": cost.get("overhead_ratio"),
        "overhead": found["overhead"],
        "dashboard_ms": page.get("median_ms"),
        "rows": page.get("rows"),
        "dashboard": found["dashboard"],
        "reasons": reasons,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing on stdout but the JSON object")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {','.join(SECTIONS)} (default all)")
    parser.add_argument("--runs", type=int, default=50, help="of a thousand calls against a cap, on each kind of books")
    parser.add_argument("--rounds", type=int, default=10, help="of overhead: each arm once in each (default 10)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default 3)")
    parser.add_argument("--kills", type=int, default=10, help="of a gateway under load (default 10)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the ledger behind the dashboard")
    chosen = parser.parse_args()
    chosen.names = [name for name in chosen.only.split(",") if name]
    unknown = [name for name in chosen.names if name not in SECTIONS]
    if unknown or min(chosen.runs, chosen.rounds, chosen.seconds, chosen.kills, chosen.rows) < 1:
        parser.error(f"no such section: {', '.join(unknown)}" if unknown else "every number must be at least 1")
    return chosen


def main() -> int:
    chosen = options()
    found = report(chosen)
    if not chosen.json:
        for name in SECTIONS:
            print(f"{name}: {json.dumps(found[name] if found[name] is not None else found['reasons'].get(name))}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
