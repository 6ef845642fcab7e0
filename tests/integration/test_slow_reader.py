"""Callers who do not read what they asked for: they cost a bounded amount of memory, for a bounded time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from test_protocol_endings import FIRST, PATHS, asking
from world import AT_ONCE_S, CHAT, Gateway, Json, Upstream, chat, headers_of, until

READERS = 20
FEW_READERS = 5  # of the other protocols: the kernel has to hold some of it for each
MEGABYTES = 40  # offered to each reader; the kernel holds some of it for each, and we may hold a little more


@pytest.fixture(scope="module")
def patient(
    upstream: Upstream, configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway of our own, so that its memory is ours alone."""
    config = configured()
    config["providers"][0]["protocols"] = ["chat", "responses", "messages"]
    config["providers"][1] |= {"name": "translated", "models": ["translated"], "protocols": ["messages"]}
    gateway = Gateway(tmp_path_factory.mktemp("patient"), config, STUB_KEY="the-provider-key")
    yield gateway
    gateway.stop()


class Stalled:
    """A caller who asks, and then does not read."""

    def __init__(self, gateway: Gateway, body: Json, task: str, path: str = CHAT, **headers: str) -> None:
        data = json.dumps(body).encode()
        fields = {"host": "t", "content-length": str(len(data)), **headers_of(task, **headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", gateway.port))
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)

    def read_all(self, mark: bytes, pause_s: float = 0.0) -> int:
        """Read until *mark*; return how many bytes came."""
        size, last = 0, b""
        while mark not in last:
            piece = self.socket.recv(1 << 20)
            assert piece and b"upstream_broken" not in last, last
            size, last = size + len(piece), last[-100:] + piece
            time.sleep(pause_s)
        return size


def flood(tag: str, megabytes: float = MEGABYTES, say: str = "") -> Json:
    return chat({"do": "flood", "tag": tag, "megabytes": megabytes, "say": say}, stream=True)


def comes_to_rest(upstream: Upstream) -> int:
    """Wait until the stub sends nothing more, because nobody takes it; return what it has sent so far."""
    seen = [-1]

    def still() -> bool:
        seen.append(upstream.stats()["sent_bytes"])
        return seen[-1] - seen[-2] < 100_000  # /stats itself is answered, too

    until(still, 15, every_s=0.2)
    return seen[-1]


def flooding(case: str, tag: str, say: str = "") -> tuple[str, Json]:
    """Return the path and the request of a flood in the protocol *case*, or by translation."""
    if case == "chat":
        return CHAT, flood(tag, say=say)
    caller, provider = ("chat", "messages") if case == "translated" else (case, case)
    script = {"do": "flood", "tag": tag, "megabytes": MEGABYTES, "say": say, "events": FIRST[provider]}
    body = asking(caller, "translated" if case == "translated" else "plain")
    said = json.dumps(script)
    told: Json = {"messages": [{"role": "user", "content": said}]} if "messages" in body else {"input": said}
    return PATHS[caller], {**body, **told}


@pytest.mark.parametrize("case", ["chat", "responses", "messages", "translated"])
def test_stalled_streams_keep_memory_bounded(patient: Gateway, upstream: Upstream, task: str, case: str) -> None:
    """Callers who do not read what is offered hold the provider back, not the answers in memory."""
    readers = READERS if case == "chat" else FEW_READERS
    patient.post(flood(f"{task}-warm", 1))
    time.sleep(0.1)
    before, sockets, sent = patient.rss_mb, patient.sockets, upstream.stats()["sent_bytes"]
    asked = [flooding(case, task, str(i)) for i in range(readers)]
    callers = [Stalled(patient, body, task, path) for path, body in asked]
    until(lambda: upstream.tag(task)["open"] == readers)
    taken_mb = (comes_to_rest(upstream) - sent) / 1e6
    grown = patient.rss_mb - before
    assert taken_mb < readers * MEGABYTES / 2
    # What has been passed on is kept once more, folded, for the books; translated answers in both protocols.
    assert grown < readers * (16 if case == "translated" else 10)
    began = time.monotonic()
    assert patient.post(chat({"tag": f"{task}-other"})).status == 200
    assert time.monotonic() - began < 1  # the others are served as ever
    for caller in callers:
        caller.socket.close()
    until(lambda: upstream.tag(task)["open"] == 0)
    rows = patient.settled_rows(task, readers)
    assert {row["ending"] for row in rows} == {"cancelled"}
    until(lambda: patient.sockets <= sockets + 1)


def test_a_slow_reader_gets_everything(patient: Gateway, task: str) -> None:
    """Slow is not gone: who reads in small sips gets the whole stream, and the call is answered."""
    caller = Stalled(patient, flood(task, 3), task)
    assert caller.read_all(b"[DONE]", pause_s=0.002) > 2_900_000
    caller.socket.close()
    assert patient.one_row(task)["ending"] == "answered"


@pytest.mark.parametrize("stream", [False, True])
def test_one_who_stalls_does_not_hold_up_those_who_share(
    patient: Gateway, upstream: Upstream, task: str, stream: bool
) -> None:
    """Of two callers who share an answer one does not read: the other has all of it, in its own time."""
    text = "x" * 3_000_000
    body = chat({"tag": task, "gate": task, "text": text}, stream=stream)
    stalled = Stalled(patient, body, f"{task}-stalled")
    until(lambda: upstream.tag(task)["open"])
    reader = Stalled(patient, body, task)
    time.sleep(0.1)
    upstream.open_gate(task)
    assert reader.read_all(b"[DONE]" if stream else b'"usage"') > 3_000_000
    assert patient.one_row(task)["ending"] == "coalesced"
    assert upstream.tag(task)["calls"] == 1
    for caller in (stalled, reader):
        caller.socket.close()
    patient.one_row(f"{task}-stalled")


def test_a_stalled_stream_ends_at_its_deadline(patient: Gateway, upstream: Upstream, task: str) -> None:
    """The deadline counts although the caller does not read: provider and connection are let go, the row is written."""
    sockets = patient.sockets
    began = time.time()
    callers = [Stalled(patient, flood(task, say=str(i)), task, x_negawatt_deadline_ms="4000") for i in range(3)]
    until(lambda: upstream.tag(task)["open"] == 3, 3)
    comes_to_rest(upstream)
    assert patient.rows(task) == [], "all three are still going on"
    assert time.time() - began < 3.9
    until(lambda: upstream.tag(task)["open"] == 0, 5)
    assert max(upstream.tag(task)["hung_up_at"]) - began < 4 + 2 * AT_ONCE_S
    rows = patient.settled_rows(task, 3)
    assert {row["ending"] for row in rows} <= {"deadline", "cancelled"}
    until(lambda: patient.sockets <= sockets + 1, 3)  # the callers' connections are closed, and what they held is freed
    for caller in callers:
        caller.socket.close()


def test_a_hang_up_of_a_stalled_reader_is_noticed(patient: Gateway, upstream: Upstream, task: str) -> None:
    """A caller who stops reading and then resets is gone at once, though much is still unsent."""
    caller = Stalled(patient, flood(task), task)
    until(lambda: upstream.tag(task)["open"])
    comes_to_rest(upstream)
    now = time.time()
    caller.socket.close()  # unread bytes: the kernel sends a reset
    [hung_up_at] = until(lambda: upstream.tag(task)["hung_up_at"])
    assert hung_up_at - now < AT_ONCE_S
    assert patient.one_row(task)["ending"] == "cancelled"
