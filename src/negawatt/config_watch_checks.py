"""What the types cannot say of sinks: that each has what its kind needs, and nothing that would be ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from negawatt.config_watch import Alerts, Sink

Refuse = Callable[[str, str, set[str] | None], None]
SMTP_SCHEMES = ("smtp", "smtp+starttls", "smtps")
_HTTP = ("webhook", "slack", "alertmanager")
# Fields that mean something only for these kinds.
_ONLY = {
    "url": _HTTP, "url_env": _HTTP, "secret_env": ("webhook",), "token_env": ("webhook", "alertmanager"),
    "to": ("email",), "from_": ("email",), "smtp": ("email",), "user": ("email",), "password_env": ("email",),
}  # fmt: skip


def check_alerts(alerts: Alerts, classes: Iterable[str], refuse: Refuse) -> None:
    """Call *refuse* with (path, what is wrong, known names) for the first sink that cannot work."""
    names = sink_names(alerts.sinks)
    known = {*classes, "default"}
    if alerts.url is not None and not _is_http(alerts.url):
        refuse("alerts.url", "expected an address such as https://negawatt.example", None)
    for i, sink in enumerate(alerts.sinks):
        where = f"alerts.sinks[{i}]"
        if names[i] in names[:i]:
            refuse(f"{where}.name", f"{names[i]!r} is there twice", None)
        for field, kinds in _ONLY.items():
            if getattr(sink, field) and sink.kind not in kinds:
                shown = field.removesuffix("_")
                refuse(f"{where}.{shown}", f"a sink of kind {sink.kind} has none; it is for {', '.join(kinds)}", None)
        for one in sink.classes or ():
            if one not in known:
                refuse(f"{where}.classes", f"no class is named {one!r}", known)
        if sink.kind in _HTTP:
            _check_http(sink, where, refuse)
        elif sink.kind == "email":
            _check_mail(sink, where, refuse)


def sink_names(sinks: Iterable[Sink]) -> list[str]:
    """Return the names of *sinks*, in their order: their own, else the kind with its place among those of the kind."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for sink in sinks:
        seen[sink.kind] = seen.get(sink.kind, 0) + 1
        count = seen[sink.kind]
        found.append(sink.name or (sink.kind if count == 1 else f"{sink.kind}-{count}"))
    return found


def _check_http(sink: Sink, where: str, refuse: Refuse) -> None:
    if (sink.url is None) == (sink.url_env is None):
        refuse(f"{where}.url", "expected url, or url_env where the URL is a secret, and not both", None)
    if sink.url is not None and not _is_http(sink.url):
        refuse(f"{where}.url", "expected an address such as https://alerts.example/hook, without a user", None)


def _check_mail(sink: Sink, where: str, refuse: Refuse) -> None:
    for field, value in (("smtp", sink.smtp), ("to", sink.to), ("from", sink.from_)):
        if not value:
            refuse(f"{where}.{field}", "a sink of kind email needs it", None)
    for place, address in enumerate((*sink.to, sink.from_ or "")):
        if not _is_address(address):
            field = f"to[{place}]" if place < len(sink.to) else "from"
            refuse(f"{where}.{field}", f"{address[:100]!r} is no e-mail address", None)
    if smtp_place(sink.smtp or "") is None:
        known = ", ".join(f"{scheme}://HOST:PORT" for scheme in SMTP_SCHEMES)
        refuse(f"{where}.smtp", f"expected one of {known}, without a user", None)
    if (sink.user is None) != (sink.password_env is None):
        refuse(f"{where}.user", "expected user and password_env together, or neither", None)
    if sink.user is not None and (sink.smtp or "").startswith("smtp:"):
        refuse(f"{where}.smtp", "a password is sent only over TLS: smtp+starttls:// or smtps://", None)


def smtp_place(text: str) -> tuple[str, str, int] | None:
    """Return (scheme, host, port) of *text*; None where it names no mail server."""
    try:
        parts = urlsplit(text)
        port = parts.port or {"smtp": 25, "smtp+starttls": 587, "smtps": 465}.get(parts.scheme, 0)
    except ValueError:
        return None
    if parts.scheme not in SMTP_SCHEMES or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        return None
    return parts.scheme, parts.hostname, port


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(name and at and host) and text.isascii() and text.isprintable() and not set(text) & set(" <>,;\"'")
