"""What callers and configurations get wrong: each a clear message that names the field, and the right status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import NEGAWATT, Caller, Gateway, Json, Process, Upstream, chat, headers_of, toml, until

MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def small(upstream: Upstream, configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway that takes small bodies, and does not wait long for them."""
    config = configured(server={"max_body_bytes": MOST_BYTES, "body_timeout_s": 0.5, "max_in_flight": 20})
    gateway = Gateway(tmp_path_factory.mktemp("small"), config, STUB_KEY="the-provider-key")
    yield gateway
    gateway.stop()


def raw(gateway: Gateway, data: bytes, within_s: float = 5.0) -> bytes:
    """Send *data* as it is, and return what comes until the gateway closes or is silent."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=within_s) as sock:
        sock.sendall(data)
        said = b""
        sock.settimeout(1.0)
        try:
            while piece := sock.recv(65536):
                said += piece
        except (TimeoutError, ConnectionResetError):
            return said
        return said


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": "plain", }', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"model": NaN}', "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b"null", "must be a JSON object, not null"),
        (b"[1]", "must be a JSON object, not"),
        (b'"text"', "must be a JSON object, not"),
        (b"{}", "model: this field is required"),
        (b'{"model": "plain"}', "messages: this field is required"),
        (b'{"model": 5, "messages": []}', "model: expected string"),
        (b'{"model": "plain", "messages": {}}', "messages: expected list"),
        (b'{"model": "plain", "messages": ["hi"]}', "messages[0]: expected object"),
        (b'{"model": "plain", "messages": [{"role": "user"}, {"role": 1}]}', "messages[1].role: expected string"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(gateway: Gateway, task: str, body: bytes, words: str) -> None:
    """400, the place and what was expected, in OpenAI's form, and one row."""
    answer = gateway.post(body, task)
    assert answer.status == 400
    assert words in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"
    row = gateway.one_row(task)
    assert (row["ending"], row["status"]) == ("refused", 400)
    assert words in row["error_message"]


@pytest.mark.parametrize("levels", [200, 300, 900])
def test_a_deep_body_is_answered_or_refused_but_never_a_crash(gateway: Gateway, task: str, levels: int) -> None:
    """JSON that is nested deeper than we can write again is the caller's mistake, not ours."""
    deep = b"[" * levels + b"]" * levels
    body = json.dumps(chat({"tag": task}, temperature=0)).encode()[:-1] + b', "metadata2": ' + deep + b"}"
    assert gateway.post(body, task).status in (200, 400)
    assert gateway.one_row(task)["ending"] in ("answered", "refused")


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "123456789012345678901234567890", "1.7976931348623157e308", "-0.0", "1e-400"]
)
def test_odd_numbers_are_no_crash(gateway: Gateway, task: str, number: str) -> None:
    """Numbers beyond every type are passed on or refused."""
    body = json.dumps(chat({"tag": task}, temperature=0))[:-1]
    for field in ("seed", "temperature", "future"):
        answer = gateway.post(f'{body}, "{field}": {number}}}'.encode(), task)
        assert answer.status in (200, 400), answer.body
    assert {row["ending"] for row in gateway.settled_rows(task, 3)} <= {"answered", "refused", "cached"}


@pytest.mark.parametrize(
    "model", ["a\r\nx-injected: 1", "a\nb", "a\x00b", "\x7f", "größe", "日本", "x" * 100_000, "../..", " "]
)
def test_a_strange_model_name_is_no_crash_and_no_header(gateway: Gateway, task: str, model: str) -> None:
    """A name that would not go into a header is passed on or refused; nothing is smuggled into the answer's head."""
    answer = gateway.post({**chat({"tag": task}), "model": model}, task)
    assert answer.status in (200, 400, 404), answer.body[:300]
    assert "x-injected" not in answer.headers
    assert gateway.one_row(task)["ending"] in ("answered", "refused")


def test_a_declared_oversize_body_is_refused_unread(small: Gateway, task: str) -> None:
    """The declared length is enough: 413 without waiting for the body."""
    fields = {**headers_of(task), "host": "t", "content-length": "999999999"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    said = raw(small, f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n{{".encode())
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"server.max_body_bytes" in said
    assert b"999999999" in said
    row = small.one_row(task)
    assert (row["ending"], row["status"]) == ("refused", 413)


def test_a_chunked_oversize_body_is_refused_when_it_has_grown(small: Gateway, task: str) -> None:
    """A body that does not say its length is cut where it passes the limit."""
    piece = b"%x\r\n" % 50_000 + b" " * 50_000 + b"\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-negawatt-task: {task}\r\ntransfer-encoding: chunked\r\n"
    said = raw(small, f"{head}\r\n".encode() + piece * 6)
    assert said.startswith(b"HTTP/1.1 413 ")
    row = small.one_row(task)
    assert (row["ending"], row["status"]) == ("refused", 413)


def test_a_large_body_that_is_sent_whole_gets_its_413(small: Gateway, task: str) -> None:
    """A client that reads only after it has sent everything sees the status, not a reset."""
    answer = small.post(b" " * (MOST_BYTES + 1), task)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert small.post(b" " * MOST_BYTES).status == 400  # at the limit it is read


def test_a_chunked_body_is_as_good_as_any(gateway: Gateway, task: str) -> None:
    """Transfer-Encoding: chunked, byte by byte, is one request."""
    data = json.dumps(chat({"tag": task, "text": "heard"})).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-negawatt-task: {task}\r\nconnection: close\r\n"
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    assert b'"heard"' in raw(gateway, f"{head}transfer-encoding: chunked\r\n\r\n".encode() + pieces)
    assert gateway.one_row(task)["ending"] == "answered"


def test_a_body_that_does_not_come_is_not_waited_for(small: Gateway) -> None:
    """A caller who sends slowly, or not at all, gets a 408 after server.body_timeout_s."""
    began = time.monotonic()
    said = raw(small, b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 50\r\n\r\n{")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive" in said
    assert time.monotonic() - began < 3


def test_more_calls_than_may_be_in_flight_are_refused_at_once(small: Gateway, upstream: Upstream, task: str) -> None:
    """Above server.max_in_flight: 429 without waiting; when the others have left there is room again."""
    callers = [
        Caller(small, chat({"do": "silent", "tag": task, "say": str(i)}), f"{task}-in-flight") for i in range(20)
    ]
    end = time.monotonic() + 5
    while upstream.tag(task)["open"] < 20 and time.monotonic() < end:
        time.sleep(0.01)
    answer = small.post(chat({"tag": f"{task}-over"}), task)
    assert (answer.status, answer.error["code"]) == (429, "rate_limited")
    for caller in callers:
        caller.hang_up()
    small.settled_rows(f"{task}-in-flight", 20)
    assert small.post(chat({"tag": task})).status == 200
    assert small.one_row(task)["ending"] == "refused"


# -- paths, methods, heads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/static/none.js", "/v1", "/v1/chat", "/v2/chat/completions", "/v1/chat/completions/", "/%00"]
)
def test_an_unknown_path_is_not_found(gateway: Gateway, path: str) -> None:
    """404 in OpenAI's form, with what there is."""
    answer = gateway.request("POST", path, b"{}")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "/v1/chat/completions" in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/healthz", "GET"),
        ("OPTIONS", "/v1/models", "GET"),
    ],
)
def test_a_wrong_method_is_named_with_the_right_one(gateway: Gateway, method: str, path: str, allowed: str) -> None:
    """405 with what the path answers to, in the message and in Allow (RFC 9110, 15.5.6)."""
    answer = gateway.request(method, path)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert f"answers to {allowed}" in answer.error["message"]
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nno colon\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: ten\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: t\r\nx: \x00\r\n\r\n",
    ],
)
def test_a_broken_head_is_a_400_and_hurts_nobody(gateway: Gateway, data: bytes) -> None:
    """What is not HTTP is answered with 400 or closed; the gateway goes on."""
    said = raw(gateway, data)
    assert said == b"" or said.startswith(b"HTTP/1.1 400 "), said
    assert gateway.get("/healthz").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-negawatt-user": "\xff\xfe\xfd"},
        {"x-negawatt-session": "s" * 10_000},
        {"x-negawatt-permissions": ",,,, ,"},
        {"cache-control": ",;=,,max-age=99999999999999999999"},
        {"authorization": "Bearer \xff"},
        {"authorization": "no kind"},
        {"x-negawatt-deadline-ms": "1e300"},
        {"content-type": "text/plain"},
        {"accept-encoding": "br, gzip"},
        {"expect": "100-continue"},
    ],
)
def test_strange_headers_do_not_matter(gateway: Gateway, task: str, headers: dict[str, str]) -> None:
    """Odd values that mean nothing wrong are no reason to fail."""
    fields = {**headers_of(task), **headers}
    answer = gateway.request("POST", "/v1/chat/completions", json.dumps(chat({"tag": task})).encode(), fields)
    assert answer.status == 200, answer.body
    assert gateway.one_row(task)["ending"] == "answered"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-negawatt-deadline-ms", "0"),
        ("x-negawatt-deadline-ms", "-5"),
        ("x-negawatt-deadline-ms", "nan"),
        ("x-negawatt-class", "unknown"),
        ("cache-control", "max-age=soon"),
    ],
)
def test_a_header_of_ours_with_a_wrong_value_is_named(gateway: Gateway, task: str, name: str, value: str) -> None:
    """400 with the header's name as param."""
    fields = {**headers_of(task), name: value}
    body = json.dumps(chat({"tag": task}, temperature=0)).encode()
    answer = gateway.request("POST", "/v1/chat/completions", body, fields)
    assert (answer.status, answer.error["param"]) == (400, name)
    assert gateway.one_row(task)["ending"] == "refused"


# -- configurations ----------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, text: str, *arguments: str, **environ: str) -> str:
    """Start with a configuration that is wrong; return the one line that says so."""
    path = tmp_path / "negawatt.toml"
    path.write_text(text, encoding="utf-8")
    command = [str(NEGAWATT), "serve", "--config", str(path), "--port", "0", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=15, env={**os.environ, **environ}, check=False
    )
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if line.strip()]
    return line


PROVIDER = '[[providers]]\nname = "p"\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server\n", "not valid TOML"),
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\nprot = 5\n", "server.prot: there is no such field"),
        ('[server]\ndeadline_s = "long"\n', "server.deadline_s"),
        ("[levers.exact_cache]\nttl_s = -1\n", "levers.exact_cache.ttl_s"),
        ('[levers.coalesce]\nmode = "maybe"\n', "levers.coalesce.mode"),
        ('[[providers]]\nkind = "openai"\n', "providers[0].name: this field is required"),
        (f'{PROVIDER}kind = "no-such"\n', "providers[0].kind"),
        (f'{PROVIDER}key_env = "NOT_THERE"\n', "providers[0].key_env: the variable NOT_THERE is not set"),
        (f"{PROVIDER}{PROVIDER}", "providers[1]: 'p' is there twice"),
        (f'{PROVIDER}[[models]]\nname = "m"\nprovider = "q"\n', "models[0].provider: no provider is named 'q'"),
        (PROVIDER + '[[keys]]\nid = "k"\nkey_env = "NO_KEY"\n', "keys[0].key_env: the variable NO_KEY is not set"),
        (PROVIDER + '[cache]\nstore = "redis"\n', "cache.store"),
        (PROVIDER + '[cache]\nstore = "floppy:///x"\n', "cache.store: no backend for 'floppy'"),
        (PROVIDER + '[ledger]\nurl = "sqlite:////no/such/folder/ledger.sqlite"\n', "ledger.url: there is no folder"),
        (PROVIDER + '[economics]\nprices = "no-such.toml"\n', "no-such.toml"),
        ('[classes.c.levers]\nno_lever = "on"\n', "classes.c.levers.no_lever: there is no such lever"),
        ('[[providers]]\nname = "p"\nbase_url = "not a url"\n', "providers[0].base_url"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    """Exit code 2, one line with the path of the field and what is wrong, and no port is opened."""
    assert words in refused(tmp_path, text)


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The file's name and the reason."""
    line = refused(tmp_path, "", "--config", "missing.toml")
    assert "missing.toml" in line


def test_a_ledger_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """Somebody else's file is not written into."""
    (tmp_path / "letter.sqlite").write_bytes(b"Dear reader, " * 1000)
    line = refused(tmp_path, f'{PROVIDER}[ledger]\nurl = "sqlite:///{tmp_path / "letter.sqlite"}"\n')
    assert "letter.sqlite" in line
    assert (tmp_path / "letter.sqlite").read_bytes().startswith(b"Dear reader")


def test_a_port_that_is_taken_is_named(tmp_path: Path, gateway: Gateway) -> None:
    """The address and the reason."""
    line = refused(tmp_path, PROVIDER, "--port", str(gateway.port))
    assert f"127.0.0.1:{gateway.port}" in line
    assert "in use" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_world_may_not_come_in_without_a_key(tmp_path: Path, host: str) -> None:
    """Listening beyond this machine needs a [[keys]] entry."""
    line = refused(tmp_path, f'[server]\nhost = "{host}"\n{PROVIDER}')
    assert "server.host" in line
    assert "[[keys]]" in line


def test_with_keys_the_world_may_come_in(
    start: Callable[..., Gateway], configured: Callable[..., Json], tmp_path: Path
) -> None:
    """With a key configured 0.0.0.0 is served, and asks for the key."""
    command = [str(NEGAWATT), "serve", "--config", str(tmp_path / "open.toml"), "--port", "0"]
    config = configured(
        server={"host": "0.0.0.0"}, keys=[{"id": "a", "key_env": "A_KEY"}],
        ledger={"url": f"sqlite:///{tmp_path / 'open.sqlite'}"},
    )  # fmt: skip
    (tmp_path / "open.toml").write_text(toml(config), encoding="utf-8")
    server = Process(command, tmp_path / "open.log", A_KEY="the-key", STUB_KEY="x")
    try:
        port = server.announced(r"http://0\.0\.0\.0:(\d+)")

        def listening() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        until(listening, 20)
        with pytest.raises(urllib.error.HTTPError) as refused_one:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10)
        assert refused_one.value.code == 401
    finally:
        server.stop()
