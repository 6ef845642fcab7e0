"""What the command line asks of a gateway elsewhere."""

from __future__ import annotations

import http.server
import threading

import pytest

from negawatt.commands.remote import asked
from negawatt.errors import InputError


class _Sends(http.server.BaseHTTPRequestHandler):
    """Sends whoever asks for one path to another, and notes what came."""

    came: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.came.append((self.path, self.headers.get("authorization")))
        self.send_response(302)
        self.send_header("location", f"http://localhost:{self.server.server_port}/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Nothing is printed."""


def test_a_key_goes_nowhere_but_to_the_address_that_was_named(monkeypatch):
    """An answer that leads elsewhere is not followed: the key stays where it was meant to go."""
    monkeypatch.setenv("OPS_KEY", "the-key")
    _Sends.came = []
    server = http.server.HTTPServer(("127.0.0.1", 0), _Sends)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(InputError, match="status 302"):
            asked(f"http://127.0.0.1:{server.server_port}", "/admin/slo", "OPS_KEY")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert _Sends.came == [("/admin/slo", "Bearer the-key")]
