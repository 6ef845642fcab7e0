"""Where alerts go: one class for each kind, opened by the configuration.

A sink takes some alerts at once and either has told somebody or raises `SinkError`. Secrets are read from the
environment when the sink is opened; no message, log line or error shows one, nor a URL beyond its host, for the path of
a chat's URL is a secret too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import orjson

from negawatt.config_watch import Alerts
from negawatt.config_watch import Sink as Settings
from negawatt.config_watch_checks import sink_names
from negawatt.errors import ConfigError, NegawattError
from negawatt.watch.alert import Alert, at_least

# (url, body, headers, timeout_s) -> (status, body). Raises NegawattError, OSError or TimeoutError.
Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[tuple[int, bytes]]]
Headers = dict[str, str]
MOST_AT_ONCE = 50  # alerts in one message


class SinkError(NegawattError):
    """A sink did not take what it was sent. The message names the host, never the whole URL."""

    code = "alert_not_delivered"


class Sender(Protocol):
    """Tells somebody."""

    @property
    def repeat_s(self) -> float | None:
        """How often it has to be told again, in seconds; None: as the configuration says."""
        ...

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        """Send *alerts*, as they are at the time *now*; return what was answered, in a word. Raises `SinkError`."""
        ...


class Sink:
    """One sink of the configuration, with what it wants to hear."""

    def __init__(self, name: str, settings: Settings, sender: Sender) -> None:
        self.name = name
        self.kind = settings.kind
        self._settings = settings
        self.sender = sender

    def wants(self, alert: Alert) -> bool:
        """True where *alert* is bad enough, and of a class that this sink is for."""
        classes = self._settings.classes
        of_mine = classes is None or alert.request_class is None or alert.request_class in classes
        return of_mine and at_least(alert.severity, self._settings.min_severity)


def open_sinks(alerts: Alerts, post: Post, environ: Mapping[str, str]) -> list[Sink]:
    """Return the sinks that *alerts* names; the log where it names none.

    *post* carries what goes over HTTP. Raises `ConfigError` for a variable that is not set, or holds no URL.
    """
    from negawatt.watch.log_sink import LogSender

    if not alerts.sinks:
        return [Sink("log", Settings(kind="log"), LogSender(events=False))]
    return [
        Sink(name, settings, _sender(settings, f"alerts.sinks[{i}]", alerts.url, post, environ))
        for i, (name, settings) in enumerate(zip(sink_names(alerts.sinks), alerts.sinks, strict=True))
    ]


def _sender(settings: Settings, where: str, link: str | None, post: Post, environ: Mapping[str, str]) -> Sender:
    from negawatt.watch.alertmanager import AlertmanagerSender
    from negawatt.watch.log_sink import LogSender
    from negawatt.watch.mail import MailSender
    from negawatt.watch.slack import SlackSender
    from negawatt.watch.webhook import WebhookSender

    def secret(field: str) -> str | None:
        return _secret(getattr(settings, field), f"{where}.{field}", environ)

    if settings.kind == "log":
        return LogSender()
    if settings.kind == "email":
        return MailSender(settings, secret("password_env"), link)
    url = settings.url or secret("url_env") or ""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"{where}.url_env: the variable {settings.url_env} holds no address", param=where)
    line = Line(url, post, settings.timeout_s, secret("token_env"))
    if settings.kind == "webhook":
        return WebhookSender(line, secret("secret_env"), link)
    return SlackSender(line, link) if settings.kind == "slack" else AlertmanagerSender(line, link)


def _secret(variable: str | None, where: str, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    value = environ.get(variable)
    if not value:
        raise ConfigError(f"{where}: the environment variable {variable!r} is not set", param=where)
    return value


class Line:
    """Posts JSON to one address. Raises `SinkError` for whatever is not a 2xx."""

    def __init__(self, url: str, post: Post, timeout_s: float, token: str | None) -> None:
        self._url = url
        self._post = post
        self._timeout_s = timeout_s
        self._headers: Headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self.host = urlsplit(url).netloc

    async def send(self, value: object, path: str = "", sign: Callable[[bytes], Headers] = lambda body: {}) -> str:
        """Post *value* to the address, with *path* behind it; *sign* gives headers that depend on the body."""
        body = orjson.dumps(value)
        url = f"{self._url.rstrip('/')}{path}" if path else self._url
        try:
            status, _ = await self._post(url, body, {**self._headers, **sign(body)}, self._timeout_s)
        except TimeoutError:
            raise SinkError(f"{self.host}: no answer within {self._timeout_s:g} s") from None
        except (NegawattError, OSError) as error:
            # Not from the error: what it says may hold the address.
            raise SinkError(f"{self.host}: {self._safe(error)}") from None
        if not 200 <= status < 300:
            raise SinkError(f"{self.host}: status {status}")
        return f"status {status}"

    def _safe(self, error: BaseException) -> str:
        text = (str(error) or type(error).__name__)[:200]
        path = urlsplit(self._url).path
        return type(error).__name__ if self._url in text or (len(path) > 1 and path in text) else text
