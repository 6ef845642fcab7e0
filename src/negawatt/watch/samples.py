"""The watch in numbers, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from negawatt.watch.burn import Standing
from negawatt.watch.delivery import Delivery
from negawatt.watch.life import Life

Labels = tuple[tuple[str, str], ...]


def samples(
    standings: Mapping[str, Sequence[Standing]], life: Life, delivery: Delivery
) -> list[tuple[str, Labels, float]]:
    """Return (name, labels, value) of everything there is to say."""
    found: list[tuple[str, Labels, float]] = []
    for name, stood in standings.items():
        for one in stood:
            labels: Labels = (("request_class", name), ("slo", one.objective.name))
            found.append(("negawatt_slo_allowed", labels, one.objective.allowed))
            if one.budget_left is not None:
                found.append(("negawatt_slo_budget_left", labels, one.budget_left))
            for burn in one.burns:
                for window, rate in (("long", burn.long), ("short", burn.short)):
                    if rate is not None:
                        where = (*labels, ("pair", burn.pair.name), ("window", window))
                        found.append(("negawatt_slo_burn_rate", where, rate))
    firing = Counter((one.name, one.severity, one.request_class or "") for one in life.open if one.state == "firing")
    for (alert, severity, request_class), count in firing.items():
        labels = (("alert", alert), ("request_class", request_class), ("severity", severity))
        found.append(("negawatt_alerts_firing", labels, count))
    for sink, (sent, failed, _) in delivery.counts().items():
        found.append(("negawatt_alert_messages_total", (("result", "sent"), ("sink", sink)), sent))
        found.append(("negawatt_alert_messages_total", (("result", "failed"), ("sink", sink)), failed))
    for sink, count in delivery.undelivered([*life.open, *life.over]).items():
        found.append(("negawatt_alerts_undelivered", (("sink", sink),), count))
    return found
