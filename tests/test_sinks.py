"""Sinks: what each sends, that it is signed, and that no secret leaks. Mail goes to a real server on this machine."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from watched import Box
from worlds import ManualClock

from negawatt.config import parse_config
from negawatt.config_watch import Alerts
from negawatt.errors import ConfigError, UpstreamBroken
from negawatt.watch.alert import Alert, trials
from negawatt.watch.delivery import Delivery
from negawatt.watch.sinks import Sink, SinkError, open_sinks
from negawatt.watch.webhook import signature

SECRETS = {"HOOK": "https://hooks.test/services/T000/B000/topsecret", "KEY": "hush-hush", "TOKEN": "bearer-secret"}
AT = 1_780_000_000.0


def alerts_of(*sinks: dict[str, Any]) -> Alerts:
    return parse_config({"alerts": {"sinks": list(sinks)}, "classes": {"faq": {}}}).alerts


def opened(box: Box, **sink: Any) -> Sink:
    return open_sinks(alerts_of(sink), box, SECRETS)[0]


def firing(**fields: Any) -> Alert:
    alert = trials(AT)[0]
    alert.message = "calls <fail> & burn"
    alert.request_class, alert.owner, alert.severity = "faq", "support", "critical"
    for name, value in fields.items():
        setattr(alert, name, value)
    return alert


async def test_a_webhook_gets_signed_json_of_a_version():
    """The signature is of the time and the very bytes that were sent."""
    bodies: list[bytes] = []

    async def post(url: str, body: bytes, headers: Any, timeout_s: float) -> tuple[int, bytes]:
        bodies.append(body)
        assert headers["x-negawatt-signature"] == signature("hush-hush", headers["x-negawatt-timestamp"], body)
        assert headers["authorization"] == "Bearer bearer-secret" and headers["x-negawatt-timestamp"] == "1780000000"
        return 204, b""

    sinks = open_sinks(
        alerts_of({"kind": "webhook", "url": "http://h.test/x", "secret_env": "KEY", "token_env": "TOKEN"}),
        post, SECRETS,
    )  # fmt: skip
    assert await sinks[0].sender.send(trials(AT), AT) == "status 204"
    body = json.loads(bodies[0])
    assert body["version"] == "negawatt.webhook/1" and [one["status"] for one in body["alerts"]] == [
        "firing",
        "resolved",
    ]
    assert body["alerts"][1]["resolved_at"] == "2026-05-28T20:26:40+00:00"


async def test_slack_gets_one_message_with_its_marks_escaped():
    """A text for notifications and one section for each alert; what a caller wrote cannot become a link."""
    box = Box()
    await opened(box, kind="slack", url_env="HOOK").sender.send([firing(), *trials(AT)[1:]], AT)
    url, body, _ = box.posted[0]
    assert url == SECRETS["HOOK"] and body["text"].startswith("2 alerts: ")
    first, second = [block["text"]["text"] for block in body["blocks"]]
    assert all(block["text"]["verbatim"] for block in body["blocks"]), "what looks like an address is none"
    assert "calls &lt;fail&gt; &amp; burn" in first and "owner support" in first and "until" in second


async def test_alertmanager_gets_labels_and_an_end():
    """A firing alert ends five minutes ahead, a resolved one when it was; empty labels are left out."""
    box = Box()
    sink = opened(box, kind="alertmanager", url="http://am.test/prefix/")
    await sink.sender.send([firing(), *trials(AT)[1:]], AT)
    url, body, _ = box.posted[0]
    assert url == "http://am.test/prefix/api/v2/alerts" and sink.sender.repeat_s == 60
    assert body[0]["labels"] == {
        "alertname": "negawatt_test", "severity": "critical", "about": "the sinks", "class": "faq", "owner": "support"
    }  # fmt: skip
    assert body[0]["endsAt"] == "2026-05-28T20:31:40+00:00" and body[1]["endsAt"] == "2026-05-28T20:26:40+00:00"
    assert set(body[1]["labels"]) == {"alertname", "severity", "about"}


@pytest.mark.parametrize("how", ["status", "broken", "silent"])
async def test_no_secret_is_in_what_a_failure_says(how: str, caplog: pytest.LogCaptureFixture):
    """The host, and what went wrong; not the path of the URL, the token, or the key."""
    box = Box()
    box.status = {"status": 403, "broken": UpstreamBroken(f"{SECRETS['HOOK']} closed"), "silent": TimeoutError()}[how]
    alerts = alerts_of({"kind": "webhook", "url_env": "HOOK", "secret_env": "KEY", "token_env": "TOKEN"})
    sinks = open_sinks(alerts, box, SECRETS)
    with pytest.raises(SinkError, match="hooks") as caught:
        await sinks[0].sender.send(trials(AT), AT)
    with caplog.at_level(logging.DEBUG):
        delivery = Delivery(
            sinks, alerts, ManualClock(), told=lambda one: None, keep=lambda: asyncio.sleep(0), rng=random.Random(1)
        )
        delivery.start([firing()])
        await delivery.settle()
    said = caplog.text + caught.value.message + str(delivery.counts())
    assert "hooks.test" in caplog.text
    assert not any(secret in said for secret in ("topsecret", "hush-hush", "bearer-secret", "T000"))


def test_secrets_that_are_not_set_are_found_at_the_start():
    """Named by the field and the variable; an address in a variable is not shown."""
    with pytest.raises(ConfigError, match=r"alerts.sinks\[0\].secret_env: the environment variable 'NOPE' is not set"):
        opened(Box(), kind="webhook", url="http://h.test", secret_env="NOPE")
    with pytest.raises(ConfigError, match="holds no address") as caught:
        open_sinks(alerts_of({"kind": "slack", "url_env": "KEY"}), Box(), SECRETS)
    assert "hush" not in caught.value.message


def test_a_sink_hears_of_what_it_is_for():
    """By severity, and by class; an alert about no class is for everybody."""
    sink = opened(Box(), kind="webhook", url="http://h.test", min_severity="warning", classes=["faq"])
    assert sink.wants(firing()) and sink.wants(firing(request_class=None))
    assert not sink.wants(firing(severity="info")) and not sink.wants(firing(request_class="other"))


async def test_the_log_gets_a_line(caplog: pytest.LogCaptureFixture):
    """With the level of its severity; without any sink, what has been logged by whoever raised it is not said twice."""
    with caplog.at_level(logging.INFO, "negawatt.alerts"):
        await opened(Box(), kind="log").sender.send([firing(event=True)], AT)
        await open_sinks(Alerts(), Box(), {})[0].sender.send([firing(event=True), firing(name="own")], AT)
    assert [(one.levelname, one.getMessage().split(" (")[0]) for one in caplog.records] == [
        ("ERROR", "firing critical: test"), ("ERROR", "firing critical: own")
    ]  # fmt: skip


# -- mail --------------------------------------------------------------------------------------------------------


class MailServer:
    """Takes mail as RFC 5321 has it. *refuses*: the answer to RCPT; *tls*: offered by STARTTLS, or from the start."""

    def __init__(self, refuses: str | None = None, tls: ssl.SSLContext | None = None, *, at_once: bool = False) -> None:
        self.refuses = refuses
        self.tls = tls
        self.at_once = at_once
        self.mails: list[tuple[str, list[str], bytes]] = []
        self.logins: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, to, safe = "", [], self.at_once
        try:
            writer.write(b"220 here\r\n")
            while line := (await reader.readline()).decode().strip():
                verb, answer = line.upper(), "250 ok"
                if verb.startswith("EHLO") and self.tls is not None:
                    answer = "250-here\r\n250 AUTH PLAIN" if safe else "250-here\r\n250 STARTTLS"
                elif verb.startswith("AUTH PLAIN "):
                    assert safe, "a password came in the clear"
                    self.logins.append(base64.b64decode(line.split()[2]))
                    answer = "235 welcome"
                elif verb in ("STARTTLS", "QUIT"):
                    answer = "220 go on" if verb == "STARTTLS" else "221 bye"
                elif verb.startswith("MAIL FROM:"):
                    sender = line[10:].split()[0].strip("<>")
                elif verb.startswith("RCPT TO:"):
                    to.append(line[8:].strip("<>"))
                    answer = self.refuses or answer
                elif verb == "DATA":
                    writer.write(b"354 go on\r\n")
                    self.mails.append((sender, list(to), (await reader.readuntil(b"\r\n.\r\n"))[:-5]))
                writer.write(f"{answer}\r\n".encode())
                await writer.drain()
                if verb == "STARTTLS" and self.tls is not None:
                    await writer.start_tls(self.tls)
                    safe = True
                if verb == "QUIT":
                    break
        except ssl.SSLError:
            pass  # they do not trust us
        finally:
            writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[MailServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls if self.at_once else None)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def mail_sink(port: int, scheme: str = "smtp", **more: Any) -> Sink:
    return opened(
        Box(), kind="email", smtp=f"{scheme}://localhost:{port}", to=["a@x.test", "b@x.test"], timeout_s=5,
        **{"from": "negawatt@x.test", **more},
    )  # fmt: skip


async def test_mail_reaches_a_real_server():
    """To everybody, with a subject that says what it is; a line break in a name adds no header."""
    async with MailServer().open() as server:
        alert = firing(about="faq\r\nBcc: evil@x.test")
        assert await mail_sink(server.port).sender.send([alert], AT) == "accepted"
    sender, to, raw = server.mails[0]
    mail = message_from_bytes(raw, policy=policy.default)
    assert (sender, to) == ("negawatt@x.test", ["a@x.test", "b@x.test"])
    assert mail["Bcc"] is None and mail["Subject"].strip().startswith("[negawatt] firing critical: test (faq")
    assert mail["Auto-Submitted"] == "auto-generated" and "calls <fail> & burn" in mail.get_content()


async def test_a_mail_server_that_refuses_is_a_failure_of_the_sink():
    """With the server's number, and without its words, which may repeat what it was told."""
    async with MailServer(refuses="550 no such topsecret").open() as server:
        with pytest.raises(SinkError, match="SMTPRecipientsRefused") as caught:
            await mail_sink(server.port).sender.send([firing()], AT)
    assert "topsecret" not in caught.value.message
    with pytest.raises(SinkError, match="ConnectionRefusedError"):
        await mail_sink(1).sender.send([firing()], AT)


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
async def test_a_password_goes_over_tls(scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """To a server whose certificate is trusted; to one whose is not, nothing is said."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with MailServer(tls=context, at_once=scheme == "smtps").open() as server:
        sink = mail_sink(server.port, scheme, user="watch", password_env="KEY")
        with pytest.raises(SinkError, match="SSLCertVerificationError"):
            await sink.sender.send([firing()], AT)
        assert not server.logins and not server.mails
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await sink.sender.send([firing()], AT) == "accepted"
    assert server.logins == [b"\0watch\0hush-hush"] and len(server.mails) == 1


BAD = [
    ({"kind": "pigeon"}, "alerts.sinks[0].kind"),
    ({"kind": "webhook"}, "alerts.sinks[0].url: expected url, or url_env"),
    ({"kind": "webhook", "url": "http://a", "url_env": "B"}, "alerts.sinks[0].url"),
    ({"kind": "webhook", "url": "ftp://a"}, "alerts.sinks[0].url: expected an address"),
    ({"kind": "slack", "url": "https://u:p@a"}, "without a user"),
    ({"kind": "slack", "url": "https://a", "secret_env": "S"}, "alerts.sinks[0].secret_env: a sink of kind slack"),
    ({"kind": "log", "to": ["a@b.c"]}, "alerts.sinks[0].to: a sink of kind log has none"),
    ({"kind": "webhook", "url": "https://a", "from": "a@b.c"}, "alerts.sinks[0].from: a sink"),
    ({"kind": "log", "classes": ["nope"]}, "no class is named 'nope'; known: default, faq"),
    ({"kind": "email", "to": ["a@b.c"], "from": "a@b.c"}, "alerts.sinks[0].smtp"),
    ({"kind": "email", "smtp": "smtp://h", "from": "a@b.c"}, "alerts.sinks[0].to"),
    ({"kind": "email", "smtp": "smtp://h", "from": "a@b.c", "to": ["a b@c"]}, "alerts.sinks[0].to[0]"),
    ({"kind": "email", "smtp": "smtp://h", "from": "a@b.c\nBcc: x@y.z", "to": ["a@b.c"]}, "alerts.sinks[0].from"),
    ({"kind": "email", "smtp": "http://h", "from": "a@b.c", "to": ["a@b.c"]}, "alerts.sinks[0].smtp: expected one of"),
    ({"kind": "email", "smtp": "smtp://h", "from": "a@b.c", "to": ["a@b.c"], "user": "u"}, "user and password_env"),
    (
        {"kind": "email", "smtp": "smtp://h", "from": "a@b.c", "to": ["a@b.c"], "user": "u", "password_env": "P"},
        "only over TLS",
    ),
]


@pytest.mark.parametrize(("sink", "said"), BAD, ids=[said for _, said in BAD])
def test_a_sink_that_cannot_work_is_refused(sink: dict[str, Any], said: str):
    """With the path of the field, before anything is opened."""
    with pytest.raises(ConfigError) as caught:
        alerts_of(sink)
    assert said in caught.value.message


def test_two_sinks_of_one_name_are_refused():
    """Names tell sinks apart in what is kept; two of one kind have numbers."""
    two = [{"kind": "log"}, {"kind": "log"}]
    assert [one.name for one in open_sinks(alerts_of(*two), Box(), {})] == ["log", "log-2"]
    with pytest.raises(ConfigError, match=r"alerts.sinks\[1\].name: 'log' is there twice"):
        alerts_of({"kind": "log"}, {"kind": "log", "name": "log"})
