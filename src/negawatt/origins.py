"""Pages of browsers: which may make calls, and that what administrators see and change is for our own pages alone.

A person's browser runs what any page tells it to, and reaches what that person can: a gateway on their own machine, or
one in which they are signed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from negawatt.config import Server
from negawatt.errors import PermissionDenied
from negawatt.http_head import Head

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def refuse_strangers(head: Head, settings: Server) -> None:
    """Raise `PermissionDenied` for a browser's page that may not call; of one that may, say so in *head*.

    Any page that a person opens could otherwise spend their money through a gateway on their own machine.
    """
    if head.origin is not None:
        name = _split(head.origin).hostname or ""
        if head.origin in settings.allow_origins or name in LOOPBACK or name == settings.host:
            head.allowed = True
            return
    message = f"pages of {head.origin or 'other sites'} may not call this gateway (server.allow_origins)"
    raise PermissionDenied(message, param="origin")


def refuse_foreign_pages(
    head: Head, headers: Iterable[tuple[bytes, bytes]], settings: Server, *, keyless: bool
) -> None:
    """Raise `PermissionDenied` for a page that is not our own, whatever ``server.allow_origins`` says of calls.

    One on another port of this machine is another's, too. *keyless*: no key is asked for. Then the name by which we
    are asked counts as well: a page of elsewhere can have its own name lead to this machine, and is then of our origin.
    """
    host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    foreign = head.origin is not None and (not host or _split(head.origin).netloc != host)
    if foreign or head.cross_site:
        raise PermissionDenied("pages of other sites may neither see nor change what is kept here", param="origin")
    if keyless and _split(f"//{host}").hostname not in (*LOOPBACK, settings.host):
        raise PermissionDenied(f"host: this gateway is not {host[:100]!r}", param="host")


def _split(address: str) -> SplitResult:
    """Return *address* taken apart; one that cannot be is nobody's."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
