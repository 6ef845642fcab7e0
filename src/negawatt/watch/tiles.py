"""The watch as the dashboard draws it: flat rows, times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from negawatt.watch.alert import Alert
from negawatt.watch.burn import SHORT, Standing
from negawatt.watch.targets import Targets

_MOST_OVER = 50  # resolved alerts that are shown
_KINDS = {"latency_p95": "latency", "ttft_p95": "first chunk", "error_rate": "errors"}


def slo_tiles(
    targets: Mapping[str, Targets], slos: Iterable[Mapping[str, Any]], standings: Mapping[str, list[Standing]],
    firing: Mapping[str, Alert],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield one row for each promise. *slos*: as `Watch.slos` gives them; *firing*: by name and about."""
    for one in slos:
        name = one["class"]
        windows = {stood.objective.name: _burns(targets[name], stood) for stood in standings.get(name, [])}
        for row in one["promises"]:
            alert = firing.get(f"{row['slo']} {name}")
            yield {
                "name": f"{name}: {row['slo']}", "class": name, "owner": one["owner"],
                "kind": _KINDS.get(row["slo"], row["slo"].replace("_", " ")),
                "objective": None if "allowed" not in row else 1 - row["allowed"], "target": row["target"],
                "unit": row["unit"], "value": row.get("value"), "good": row.get("good"), "total": row.get("total"),
                "budget_left": row.get("budget_left"), "burn_rates": windows.get(row["slo"], {}),
                "state": _state(row["verdict"], alert is not None), "message": row.get("message", ""),
                "since_s": None if alert is None else alert.started_at,
            }  # fmt: skip


def _state(verdict: str, firing: bool) -> str:
    return "firing" if firing else {"kept": "ok", "burning": "pending"}.get(verdict, verdict)


def _burns(targets: Targets, stood: Standing) -> dict[str, float | None]:
    """Return the burn rates by window, each named by its length."""
    found: dict[str, float | None] = {}
    for burn in stood.burns:
        long_s = targets.window_s * burn.pair.part
        found[length(long_s / SHORT)] = burn.short
        found[length(long_s)] = burn.long
    return found


def length(seconds: float) -> str:
    """Return a span of time in a few characters: ``56m``, ``5.6h``, ``2.8d``."""
    for unit, of in (("d", 86_400.0), ("h", 3_600.0), ("m", 60.0)):
        if seconds >= of:
            return f"{seconds / of:.2g}{unit}"
    return f"{seconds:.2g}s"


def alert_tiles(open_: Iterable[Alert], over: list[Alert]) -> list[dict[str, Any]]:
    """Return the alerts of now, the oldest first, and the newest of those that are over."""
    return [
        {
            "name": one.name, "about": one.about, "class": one.request_class, "owner": one.owner,
            "severity": one.severity, "state": one.state, "since_s": one.started_at, "until_s": one.resolved_at,
            "summary": one.message,
        }
        for one in (*open_, *reversed(over[-_MOST_OVER:]))
    ]  # fmt: skip
