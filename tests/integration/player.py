"""A provider that plays what it was given: a real server on 127.0.0.1, one answer for each model's name.

``POST /play/MODEL`` gives it an answer: ``{"body": {}, "events": [], "status": 200, "headers": {}}``, of which a call
gets *body*, or *events* where it asks for a stream. ``GET /last/MODEL`` gives the last request for that model.

Run as ``python player.py``: it prints ``PORT n`` and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

Json = dict[str, Any]


class Player:
    """What is to be played, and what was asked, by model."""

    def __init__(self) -> None:
        self._answers: dict[str, Json] = {}
        self._asked: dict[str, Json] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                _, path, _ = lines[0].split(" ")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(writer, path, headers, json.loads(raw) if raw else {})
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str, headers: dict[str, str], body: Json) -> None:
        kind, _, name = path.lstrip("/").partition("/")
        if kind == "play":
            self._answers[name] = body
            write_whole(writer, {})
        elif kind == "last":
            write_whole(writer, self._asked[name])
        else:
            self._asked[body["model"]] = {"path": path, "headers": headers, "body": body}
            await write_answer(writer, self._answers[body["model"]], streamed=body.get("stream") is True)


async def write_answer(writer: asyncio.StreamWriter, answer: Json, streamed: bool) -> None:
    if not streamed or answer.get("status", 200) != 200:
        write_whole(writer, answer["body"], answer.get("status", 200), answer.get("headers"))
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in answer["events"]:
        name = f"event: {event['type']}\n" if "type" in event else ""
        write_piece(writer, f"{name}data: {json.dumps(event)}\n\n".encode())
        await writer.drain()
        await asyncio.sleep(0)
    if "type" not in answer["events"][-1]:
        write_piece(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


def write_piece(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def write_whole(writer: asyncio.StreamWriter, value: Any, status: int = 200, headers: Json | None = None) -> None:
    data = json.dumps(value).encode()
    fields = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Played\r\n{lines}\r\n".encode() + data)


async def main() -> None:
    server = await asyncio.start_server(Player().serve, "127.0.0.1", 0)
    print("PORT", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
