"""A webhook on this machine, to which alerts go."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from world import Json

SECRET = "the-hook-secret"


class Hook:
    """A webhook on this machine that keeps what it is sent, or refuses it with *status*."""

    def __init__(self) -> None:
        self.status = 200
        self.tries = 0
        self.alerts: list[Json] = []
        self.unsigned = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.take(body, self.headers)
                self.send_response(hook.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is said."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/a-secret-path"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def take(self, body: bytes, headers: Any) -> None:
        self.tries += 1
        signed = headers["x-negawatt-timestamp"].encode() + b"." + body
        expected = "v1=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        self.unsigned += headers["x-negawatt-signature"] != expected
        if self.status == 200:
            self.alerts += json.loads(body)["alerts"]

    def states(self) -> list[str]:
        return [one["status"] for one in self.alerts]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
