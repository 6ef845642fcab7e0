"""Labels that stay few, whatever callers and providers send."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from negawatt import errors
from negawatt.telemetry.series import OTHER

_LONGEST = 200  # characters of a name
NOBODY = "none"  # where there is no model: nobody was asked


class Models:
    """Which names of models are labels: those of the configuration, and others once a provider has answered to them.

    At most *most* of them; all others are `OTHER`. So a caller who makes names up fills nothing.
    """

    def __init__(self, configured: Iterable[str], most: int) -> None:
        self._configured = frozenset(configured)
        self._most = most
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def label(self, name: str | None, *, answered: bool) -> str:
        """Return the label of the model *name*."""
        if name in self._seen:
            assert name is not None
            return name
        if name is None:
            return NOBODY
        if len(self._seen) >= self._most or len(name) > _LONGEST or not (answered or name in self._configured):
            return OTHER
        self._seen.add(name)
        return name

    def forget(self, alive: set[str]) -> None:
        """Drop the names that are not *alive*: others may have their place."""
        self._seen &= alive


def known_errors() -> frozenset[str]:
    """Return the names of our own errors, and ``cancelled``."""
    tree = [
        name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.NegawattError)
    ]
    return frozenset([*tree, "Untranslatable", "cancelled"])


class Errors:
    """Which types of errors are labels: ours. All others are ``_OTHER``, as the convention says."""

    def __init__(self) -> None:
        self._known = known_errors()

    def label(self, name: str | None) -> str:
        """Return the label of the error *name*; empty where there was none."""
        if name is None:
            return ""
        if name in self._known:
            return name
        return "cancelled" if name == "CancelledError" else "_OTHER"
