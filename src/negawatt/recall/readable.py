"""Can an embedder read this text at all? If not, similarity means nothing, and nothing is answered."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from negawatt.recall.reading import language_of

_MOST_FOREIGN = 0.05  # of the letters: names have some
_LOOKED_AT = 2000  # characters


def unreadable(embedder_id: str, text: str) -> str | None:
    """Return why the embedder named *embedder_id* should not be asked about *text*; None when it may be."""
    known = _languages(embedder_id)
    if known is None:
        return None
    language = language_of(text)
    if language is not None and language not in known:
        return f"the embedder does not read {language}"
    letters = [c for c in text[:_LOOKED_AT] if c.isalpha()]
    last = "\u024f" if language in known else "\x7f"  # in an English sentence a name may have accents
    foreign = sum(c > last for c in letters)
    if "english" in known and foreign > max(2, _MOST_FOREIGN * len(letters)):
        return "the embedder does not read these letters"
    return None


@cache
def _languages(embedder_id: str) -> frozenset[str] | None:
    data = tomllib.loads(files("negawatt.recall").joinpath("readable.toml").read_text(encoding="utf-8"))
    for entry in data["embedder"]:
        if fnmatchcase(embedder_id, entry["models"]):
            return frozenset(entry["languages"])
    return None
