"""A request's context, shortened for its query: each text by the way that suits it.

JSON and tables lose records, logs repetitions, code whole blocks, and prose sentences. The sentences of all prose
texts are chosen together, so that a text about something else gives way to the one that is asked about. Instructions
are not for this: the caller passes what is context, and nothing else is seen, or changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from negawatt.shape.code import is_code, shape_code
from negawatt.shape.edits import Cut, Shaped, apply, unchanged
from negawatt.shape.logs import is_log, shape_log
from negawatt.shape.select import Calibration, keep, keep_for
from negawatt.shape.sentences import Unit, units_of
from negawatt.shape.structured import shape_structured


def shape_context(
    texts: Sequence[str],
    query: str,
    *,
    retention: float = 0.98,
    ratio: float | None = None,
    calibration: Calibration | None = None,
    together: bool = False,
) -> list[Shaped]:
    """Return *texts*, each shortened for *query*, and each of them restorable; a text may become empty.

    With *ratio*, prose and records are kept up to one *ratio*-th; without, as much as *retention* needs (see
    `negawatt.shape.select`), and the records that seem to be asked for. *together*: the texts go on from each other.
    """
    found: list[Shaped | None] = [_by_its_form(text, query, ratio) for text in texts]
    prose = [place for place, shaped in enumerate(found) if shaped is None]
    units = units_of([texts[place] for place in prose], together=together)
    if ratio is not None:
        kept = keep(units, query, ratio=ratio)
    else:
        kept = keep_for(units, query, retention, calibration=calibration)
    places = set(kept.places)
    left_out: dict[int, list[Unit]] = {}
    for place, unit in enumerate(units):
        if place not in places:
            left_out.setdefault(unit.source, []).append(unit)
    for source, place in enumerate(prose):
        cuts = _cuts(left_out.get(source, []))
        found[place] = apply(texts[place], cuts) if cuts else unchanged(texts[place], kept.abstained)
    return [shaped for shaped in found if shaped is not None]


def _by_its_form(text: str, query: str, ratio: float | None) -> Shaped | None:
    """Return *text* shortened by what it is made of; None for prose."""
    structured = shape_structured(text, query, ratio=ratio)
    if structured is not None:
        return structured.shaped
    if is_log(text):
        return shape_log(text, query)
    return shape_code(text, query) if is_code(text) else None


def _cuts(units: Sequence[Unit]) -> list[Cut]:
    """Return the cuts that take *units* of one text out, neighbours in one piece."""
    cuts: list[Cut] = []
    for unit in units:
        end = unit.start + len(unit.text)
        if cuts and cuts[-1].end == unit.start:
            cuts[-1] = Cut(cuts[-1].start, end, "", "sentences")
        else:
            cuts.append(Cut(unit.start, end, "", "sentences"))
    return cuts
