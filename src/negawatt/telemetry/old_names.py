"""The same figures under the names that OpenTelemetry's conventions had before, for dashboards that still ask for them.

Nothing is counted twice: the families are made from the new ones when somebody asks.
"""

from __future__ import annotations

from negawatt.telemetry import instruments as known
from negawatt.telemetry.counts import Labels
from negawatt.telemetry.names import Instrument, Naming, prometheus_name
from negawatt.telemetry.series import Family

_TOKEN_TYPES = {known.INPUT_SIZES: "input", known.EMBEDDINGS_SIZES: "input", known.OUTPUT_SIZES: "output"}
_USAGE = (
    known.INPUT_TOKENS, known.OUTPUT_TOKENS, known.CACHE_READ_TOKENS, known.CACHE_WRITE_TOKENS, known.REASONING_TOKENS
)  # fmt: skip


def named(families: list[Family], naming: Naming) -> list[Family]:
    """Return *families* under the names that are asked for.

    In ``old``, metrics that have another name now are left out under it, and so are the counters of tokens, in whose
    place there was one histogram. A metric whose old name is another's new one has all of its series there.
    """
    if naming == "new":
        return families
    by_name = {family.name: family for family in families}
    old: dict[str, Family] = {}
    for instrument in known.FOLDED:
        family = by_name.get(instrument.prometheus)
        if family is not None and instrument.old is not None:
            _add(old, instrument, instrument.old, family)
    gone = set(old)
    if naming == "old":
        gone |= {one.prometheus for one in known.FOLDED if one.old is not None or one in _USAGE}
    return [*(family for family in families if family.name not in gone), *old.values()]


def _add(found: dict[str, Family], instrument: Instrument, old: str, family: Family) -> None:
    name = prometheus_name(old, instrument.kind, instrument.unit)
    into = found.setdefault(
        name, Family(name, family.kind, f"Old name, see {instrument.prometheus}.", [], old, instrument.unit)
    )
    kind = _TOKEN_TYPES.get(instrument)
    for labels, value in family.points:
        into.points.append((_labels(labels, kind), value))


def _labels(labels: Labels, token_type: str | None) -> Labels:
    old = tuple(("gen_ai_system" if name == "gen_ai_provider_name" else name, value) for name, value in labels)
    return old if token_type is None else (*old, ("gen_ai_token_type", token_type))
