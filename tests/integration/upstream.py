"""A provider for the integration tests: a real server on 127.0.0.1 that does what the request tells it to.

The last message of a request may be a JSON object, its script: ``{"do": "stall", "tag": "t1", "chunks": 2}``; so may
``metadata.script``, beside a question in words. What a help desk is asked (`desk.py`) is answered as it would; anything
else is answered as it is. ``GET /stats`` counts calls, connections, hang-ups and tokens charged for, in all or for
each tag; ``GET /last/TAG`` gives the tag's last request; ``POST /gate/NAME`` opens a gate that scripts wait at.

Run as ``python upstream.py``: it prints ``PORT n`` and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import Any

from desk import answer_to

Json = dict[str, Any]
_CREATED = 1_700_000_000


class Tag:
    """What happened under one tag."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = 0
        self.most_open = 0
        self.hung_up_at: list[float] = []  # seconds since 1970
        self.tokens = 0  # that are charged for, of the answers that it sent whole
        self.last: Json = {}


class Stub:
    """All connections together."""

    def __init__(self) -> None:
        self.calls = 0
        self.connections = 0
        self.sent_bytes = 0
        self.tags: dict[str, Tag] = {}
        self._gates: dict[str, asyncio.Event] = {}

    def tag(self, name: str) -> Tag:
        return self.tags.setdefault(name, Tag())

    def gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    def stats(self) -> Json:
        tags = {
            name: {"calls": t.calls, "open": t.open, "most_open": t.most_open, "hung_up_at": t.hung_up_at,
                   "tokens": t.tokens}
            for name, t in self.tags.items()
        }  # fmt: skip
        return {
            "calls": self.calls, "connections": self.connections, "sent_bytes": self.sent_bytes, "tags": tags,
        }  # fmt: skip


class Conversation(asyncio.Protocol):
    """One connection: requests come one after the other."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = b""
        self._playing: asyncio.Task[None] | None = None
        self._tag: Tag | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._stub.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._stub.connections -= 1
        if self._tag is not None:
            self._tag.hung_up_at.append(time.time())
        if self._playing is not None:
            self._playing.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._playing is None:
            self._next()

    def _next(self) -> None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
        length = int(fields.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = head.decode("latin-1").split("\r\n")[0].split(" ")
        self._playing = asyncio.ensure_future(self._play(method, path, fields, rest[:length]))

    async def _play(self, method: str, path: str, fields: dict[str, str], body: bytes) -> None:
        if method == "GET" and path == "/stats":
            self.whole(self._stub.stats())
        elif method == "GET" and path.startswith("/last/"):
            self.whole(self._stub.tag(path.removeprefix("/last/")).last)
        elif method == "POST" and path.startswith("/gate/"):
            self._stub.gate(path.removeprefix("/gate/")).set()
            self.whole({})
        else:
            await self._call(path, fields, json.loads(body))
        self._playing = None
        if self._buffer:
            self._next()

    async def _call(self, path: str, fields: dict[str, str], request: Json) -> None:
        script = script_of(request)
        self._stub.calls += 1
        tag = self._tag = self._stub.tag(script.get("tag", ""))
        number = tag.calls = tag.calls + 1
        tag.open += 1
        tag.most_open = max(tag.most_open, tag.open)
        tag.last = {"path": path, "headers": fields, "body": request}
        try:
            if "gate" in script:
                await self._stub.gate(script["gate"]).wait()
            await asyncio.sleep(script.get("delay_s", 0))
            failing = script.get("times") is None or number <= script["times"]
            doing, part = script.get("do", "answer") if failing else "answer", Part(request, script, number)
            await DOINGS[doing](self, part)
            tag.tokens += part.tokens if doing == "answer" else 0
            self._tag = None  # from here on a close is nobody's hang-up
        finally:
            tag.open -= 1

    # What the scripts are made of.

    def say(self, data: bytes) -> None:
        self._stub.sent_bytes += len(data)
        self.transport.write(data)

    async def drain(self) -> None:
        await self._writable.wait()

    def whole(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.body(json.dumps(value).encode(), status, headers)

    def body(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        fields = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.say(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + data)

    def begin(self) -> None:
        self.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(self, value: Json | str) -> None:
        data = value if isinstance(value, str) else json.dumps(value)
        piece = f"data: {data}\n\n".encode()
        self.say(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> None:
        self.say(b"0\r\n\r\n")

    def reset(self) -> None:
        """Close so that the other end sees a reset, and not an end."""
        self._tag = None
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def hang_up(self) -> None:
        self._tag = None
        self.transport.close()


class Part:
    """One request with its script, and the answer that it stands for."""

    def __init__(self, request: Json, script: Json, number: int) -> None:
        self.request = request
        self.script = script
        self.streamed = request.get("stream") is True
        self.number = number  # of the call under its tag
        self._head = {
            "id": f"chatcmpl-{script.get('tag', '')}-{number}", "created": _CREATED, "model": request["model"],
            "system_fingerprint": "fp_stub",
        }  # fmt: skip

    @property
    def text(self) -> str:
        asked = str(self.request["messages"][-1]["content"])[:200]
        said = self.script.get("say", "") if self.script else asked
        return str(self.script.get("text") or answer_to(asked) or f"answer {self.number} to {said}")

    @property
    def words(self) -> list[str]:
        pieces = [f"{word} " for word in self.text.split(" ")]
        pieces[-1] = pieces[-1][:-1]
        return pieces

    @property
    def tokens(self) -> int:
        """What an answer to it is charged for."""
        return 10 + len(self.words)

    def answer(self) -> Json:
        message: Json = {"role": "assistant", "content": self.text, "refusal": None}
        reason = self.script.get("finish", "stop")
        if "tool" in self.script:
            tool = {"id": "call_1", "type": "function", "function": self.script["tool"]}
            message, reason = {"role": "assistant", "content": None, "tool_calls": [tool]}, "tool_calls"
        choices = [
            {"index": i, "message": message, "logprobs": None, "finish_reason": reason}
            for i in range(self.request.get("n") or 1)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, **self._usage()}

    def _usage(self) -> Json:
        if self.script.get("no_usage"):
            return {}
        made = len(self.words)
        return {"usage": {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made}}

    def _chunk(self, index: int, delta: Json, reason: str | None = None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage() else chunk

    def _include_usage(self) -> bool:
        return bool((self.request.get("stream_options") or {}).get("include_usage"))

    def chunks(self) -> list[Json]:
        chunks = []
        for i in range(self.request.get("n") or 1):
            chunks.append(self._chunk(i, {"role": "assistant", "content": None if "tool" in self.script else ""}))
            chunks += [self._chunk(i, delta) for delta in self._deltas()]
            reason = "tool_calls" if "tool" in self.script else self.script.get("finish", "stop")
            chunks.append(self._chunk(i, {}, reason))
        if self._include_usage() and not self.script.get("no_usage"):
            chunks.append({**self._head, "object": "chat.completion.chunk", "choices": [], **self._usage()})
        return chunks

    def _deltas(self) -> list[Json]:
        if "tool" not in self.script:
            return [{"content": word} for word in self.words]
        tool = self.script["tool"]
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": tool["name"], "arguments": ""}}
        pieces = [tool["arguments"][i : i + 4] for i in range(0, len(tool["arguments"]), 4)]
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
        return [{"tool_calls": [first]}, *rest]


def script_of(request: Json) -> Json:
    """Return the script in the last message, or in the input, an empty one where there is none."""
    content = request["messages"][-1].get("content") if "messages" in request else request.get("input")
    beside = (request.get("metadata") or {}).get("script")
    if beside is not None:
        content = beside
    if isinstance(content, str) and content.startswith("{"):
        script = json.loads(content)
        assert isinstance(script, dict)
        return script
    return {}


# -- what a script may ask for -----------------------------------------------------------------------------------------


async def answer(to: Conversation, part: Part) -> None:
    """Answer, whole or streamed; *gap_s* between chunks."""
    if not part.streamed:
        to.whole(part.answer(), headers=part.script.get("headers"))
        return
    to.begin()
    for chunk in part.chunks():
        to.event(chunk)
        await asyncio.sleep(part.script.get("gap_s", 0))
    if not part.script.get("no_done"):
        to.event("[DONE]")
    to.end()


async def status(to: Conversation, part: Part) -> None:
    """Answer with *status*, *headers* and an error in OpenAI's form."""
    error = {"message": "the stub refuses", "type": "stub_error", "param": None, "code": "stub_said_no"}
    to.whole({"error": {**error, **part.script.get("error", {})}}, part.script["status"], part.script.get("headers"))


async def bare(to: Conversation, part: Part) -> None:
    """Answer with *status* and the bytes of *body*."""
    to.body(part.script["body"].encode(), part.script.get("status", 200))


async def events(to: Conversation, part: Part) -> None:
    """Stream the *events* as they stand, *gap_s* between them, then end, or do what *then* says."""
    to.begin()
    for one in part.script["events"]:
        to.event(one)
        await asyncio.sleep(part.script.get("gap_s", 0))
    await THEN[part.script.get("then", "end")](to)


async def _some(to: Conversation, part: Part) -> None:
    if part.streamed:
        to.begin()
        for chunk in part.chunks()[: part.script.get("chunks", 2)]:
            to.event(chunk)
    else:
        to.say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
    await asyncio.sleep(part.script.get("gap_s", 0.02))  # so that what was sent has left


async def die(to: Conversation, part: Part) -> None:
    """Hang up after *chunks* chunks, or in the middle of a whole body."""
    await _some(to, part)
    to.hang_up()


async def reset_in_the_middle(to: Conversation, part: Part) -> None:
    await _some(to, part)
    to.reset()


async def stall(to: Conversation, part: Part) -> None:
    """Send *chunks* chunks, or the head of a whole body, and then nothing for ever."""
    await _some(to, part)
    await asyncio.Event().wait()


async def silent(to: Conversation, part: Part) -> None:
    """Take the request and never say a word."""
    await asyncio.Event().wait()


async def reset(to: Conversation, part: Part) -> None:
    """Reset before the first byte."""
    to.reset()


async def hang_up(to: Conversation, part: Part) -> None:
    """Close before the first byte."""
    to.hang_up()


async def garbage(to: Conversation, part: Part) -> None:
    """Say what is not HTTP."""
    to.say(b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n")
    await asyncio.sleep(0.02)
    to.hang_up()


async def flood(to: Conversation, part: Part) -> None:
    """Stream *megabytes* as fast as they are taken, then end well; of *events*, the last one again and again."""
    to.begin()
    if "events" in part.script:
        *begun, again = part.script["events"]
        for one in begun:
            to.event(one)
        chunk, rest = json.dumps(again).replace("so far so good", "x" * 16_000), []
    else:
        first, *rest = part.chunks()
        to.event(first)
        choice = {"index": 0, "delta": {"content": "x" * 16_000}, "finish_reason": None}
        chunk = json.dumps({**first, "choices": [choice]})
    for _ in range(int(part.script["megabytes"] * 1_000_000 / len(chunk))):
        to.event(chunk)
        await to.drain()
        await asyncio.sleep(0)
    for last in [*rest, "[DONE]"]:
        to.event(last)
    to.end()


async def _end(to: Conversation) -> None:
    to.end()


async def _wait(to: Conversation) -> None:
    await asyncio.Event().wait()


async def _hang_up(to: Conversation) -> None:
    await asyncio.sleep(0.05)
    to.hang_up()


async def _reset(to: Conversation) -> None:
    await asyncio.sleep(0.05)
    to.reset()


async def _long_line(to: Conversation) -> None:
    """Begin an event that has no end, for ten megabytes."""
    for _ in range(10):
        to.say(b"f4240\r\n" + b"data: x"[:7].ljust(1_000_000, b"x") + b"\r\n")
        await to.drain()
    to.end()


async def _garbage(to: Conversation) -> None:
    to.event("{no")
    to.end()


THEN = {"end": _end, "wait": _wait, "hang_up": _hang_up, "reset": _reset, "long line": _long_line, "garbage": _garbage}

DOINGS = {
    doing.__name__: doing
    for doing in (
        answer, status, bare, events, die, reset_in_the_middle, stall, silent, reset, hang_up, garbage, flood,
    )
}  # fmt: skip


async def main() -> None:
    stub = Stub()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(stub), "127.0.0.1", 0, backlog=2000)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
