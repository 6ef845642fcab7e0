"""Handlers by the names that the configuration gives, ours and plug-ins' alike.

A plug-in is an entry point of the group ``negawatt.offloads``; its value is a handler (what `offload` makes of a
function) or a class that makes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from negawatt.errors import ConfigError
from negawatt.offloads.handler import Handler

GROUP = "negawatt.offloads"
HANDLERS = {
    "arithmetic": "negawatt.offloads.arithmetic:Arithmetic",
    "units": "negawatt.offloads.units:Units",
    "dates": "negawatt.offloads.dates:Dates",
    "money": "negawatt.offloads.money:Money",
    "extraction": "negawatt.offloads.identifiers:Extraction",
    "language": "negawatt.offloads.language:Language",
    "lists": "negawatt.offloads.lists:Lists",
    "formats": "negawatt.offloads.formats:Formats",
}
# What each needs of negawatt[offload], by the name under which it is imported.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "units": ("pint",),
    "dates": ("dateparser",),
    "money": ("price_parser",),
    "extraction": ("phonenumbers", "stdnum", "py3langid", "dateparser", "price_parser"),
    "language": ("py3langid",),
    "lists": ("rapidfuzz",),
}


def open_handlers(names: Sequence[str], where: str = "offload.handlers") -> list[Handler]:
    """Return the handlers of *names*, in order. Raises `ConfigError` for one that is unknown or lacks its library."""
    return [_open(name, f"{where}[{at}]") for at, name in enumerate(names)]


def _open(name: str, where: str) -> Handler:
    if name in HANDLERS:
        missing = [library for library in _NEEDS.get(name, ()) if find_spec(library) is None]
        if missing:
            message = f"{where}: {name} needs {missing[0]}; install negawatt[offload]"
            raise ConfigError(message, param=where)
        module, _, attribute = HANDLERS[name].partition(":")
        made: Handler = getattr(import_module(module), attribute)()
        return made
    point = next(iter(entry_points(group=GROUP, name=name)), None)
    if point is None:
        known = ", ".join([*HANDLERS, *sorted(point.name for point in entry_points(group=GROUP))])
        raise ConfigError(f"{where}: no handler {name!r}; known: {known}", param=where)
    try:
        found: Any = point.load()
        found = found() if inspect.isclass(found) else found
    except Exception as error:
        # Whatever somebody else's module raises while it is imported.
        message = f"{where}: the plug-in {name} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError(message, param=where) from error
    if not callable(found) or not isinstance(getattr(found, "name", None), str):
        raise ConfigError(f"{where}: the plug-in {name} is no handler: it needs a name and to be called", param=where)
    handler: Handler = found
    return handler
