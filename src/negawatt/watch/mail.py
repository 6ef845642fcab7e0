"""Alerts by e-mail, through a mail server of one's own (SMTP, RFC 5321), in a thread."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage

from negawatt.config_watch import Sink as Settings
from negawatt.config_watch_checks import smtp_place
from negawatt.watch.alert import Alert, iso
from negawatt.watch.sinks import SinkError


class MailSender:
    """Sends one mail for some alerts. *password*: of the user that the settings name; sent over TLS only."""

    repeat_s = None

    def __init__(self, settings: Settings, password: str | None, link: str | None) -> None:
        place = smtp_place(settings.smtp or "")
        assert place is not None  # checked with the configuration
        self._scheme, self._host, self._port = place
        self._settings = settings
        self._password = password
        self._link = link

    async def send(self, alerts: Sequence[Alert], now: float) -> str:
        mail = self.mail(alerts)
        try:
            await asyncio.to_thread(self._send, mail)
        except (smtplib.SMTPException, OSError) as error:
            # Servers may repeat what they were told, so only the kind of error, and the server's number.
            code = getattr(error, "smtp_code", None)
            said = type(error).__name__ + ("" if code is None else f" {code}")
            raise SinkError(f"{self._host}:{self._port}: {said}") from None
        return "accepted"

    def mail(self, alerts: Sequence[Alert]) -> EmailMessage:
        """Return *alerts* as one mail."""
        mail = EmailMessage()
        first = alerts[0].title
        subject = first if len(alerts) == 1 else f"{len(alerts)} alerts, first: {first}"
        mail["Subject"] = "[negawatt] " + "".join(c if c.isprintable() else " " for c in subject)[:200]
        mail["From"] = self._settings.from_ or ""
        mail["To"] = ", ".join(self._settings.to)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's out-of-office answers it
        parts = [_text(alert) for alert in alerts]
        mail.set_content("\n\n".join([*parts, *([self._link] if self._link else [])]) + "\n")
        return mail

    def _send(self, mail: EmailMessage) -> None:
        settings, context = self._settings, ssl.create_default_context()
        if self._scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=settings.timeout_s, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=settings.timeout_s)
        with server:
            if self._scheme == "smtp+starttls":
                server.starttls(context=context)
            if settings.user is not None and self._password is not None:
                server.login(settings.user, self._password)
            server.send_message(mail)


def _text(alert: Alert) -> str:
    lines = [alert.title, alert.message, f"since {iso(alert.started_at)}"]
    if alert.resolved_at is not None:
        lines.append(f"until {iso(alert.resolved_at)}")
    return "\n".join(lines)
