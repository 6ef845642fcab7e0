"""How much of an answer is of use: of one that has to be JSON, the JSON; what stands around it is not read."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from negawatt.shape.lenient import Reader, Refused


class Useful(NamedTuple):
    """Shares of an answer's text: *used* is of use, and it ends at *end*. *whole*: it is all there."""

    used: float
    end: float
    whole: bool


ALL = Useful(1.0, 1.0, False)


def of_json(text: str) -> Useful:
    """Return how much of *text*, which has to be JSON, is that. All of it, where it cannot be told."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    else:
        return Useful(1.0, 1.0, True)
    if start < 0:
        return ALL
    try:
        read = Reader(text, start).read()
    except Refused:
        return ALL
    if read.open:
        return ALL
    return Useful((read.end - start) / len(text), read.end / len(text), True)
