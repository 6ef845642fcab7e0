"""A browser and pages: Debian's Chromium, driven by playwright, looking at a server on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

STATIC = Path(__file__).parent.parent / "src" / "negawatt" / "web" / "static"
SCREENS = Path(__file__).parent.parent / "out" / "screens"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


class _Files(http.server.BaseHTTPRequestHandler):
    """The pages' files under the content-security policy that the gateway sends."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/admin/api/live":
            self._live()
            return
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        file = STATIC / Path(name).name
        if "/" in name or not file.is_file():
            self.send_error(404)
            return
        body = file.read_bytes()
        if name == "index.html":
            body = re.sub(rb"\{\{v:([^}]+)\}\}", lambda found: _hash(found[1].decode()), body)
        self.send_response(200)
        self.send_header("content-type", KINDS[file.suffix])
        self.send_header("content-security-policy", CSP)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _live(self) -> None:
        """Say hello, then whatever `Files.tell` is told, until the server stops or says ``bye``."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        events: queue.Queue[str | None] = queue.Queue()
        self.server.watchers.append(events)
        event: str | None = 'event: hello\ndata: {"in_flight": 0}\n\n'
        with contextlib.suppress(OSError):  # the browser has left
            while event is not None:
                self.wfile.write(event.encode())
                self.wfile.flush()
                event = None if "event: bye" in event else events.get()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Files(http.server.ThreadingHTTPServer):
    """A server of the pages' files, and of a stream that says what `tell` is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.watchers: list[queue.Queue[str | None]] = []

    def tell(self, event: str, data: Any) -> None:
        for events in self.watchers:
            events.put(f"event: {event}\ndata: {json.dumps(data)}\n\n")


def _hash(name: str) -> bytes:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12].encode()


@contextlib.contextmanager
def files() -> Iterator[Files]:
    """Serve the pages' files."""
    server = Files()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for events in server.watchers:
            events.put(None)
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser with a profile of its own that is thrown away."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield started
        finally:
            started.close()


class Viewer:
    """One person's window, and all that went wrong in it."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "Europe/Berlin", **options}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective}`))"
        )

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    @property
    def strangers(self) -> list[str]:
        """What was asked of anybody but the server."""
        return [url for url in self.asked if not url.startswith((self.url + "/", "data:"))]

    def answers(self, answers: dict[str, Any]) -> None:
        """Answer the API by *answers* from here on; a number is a status. The stream goes to the server."""

        def answer(route: Any) -> None:
            name = urlsplit(route.request.url).path.removeprefix("/admin/api/")
            if name == "live":
                route.continue_()
            elif name in answers and not isinstance(answers[name], int):
                route.fulfill(status=200, json=answers[name])
            else:
                status = answers.get(name, 404)
                route.fulfill(
                    status=status,
                    json={"error": {"message": f"there is nothing at {name}", "param": None, "code": "x"}},
                )

        self.page.route("**/admin/api/**", answer)

    def open(self, view: str = "overview") -> None:
        """Go to a view, and wait until it is drawn."""
        self.page.goto(f"{self.url}/#/{view}")
        self.page.wait_for_selector("main h1")
        self.page.wait_for_selector(f'body[data-signed=no], #page[data-shown="#/{view}"]')

    def screen(self, name: str, *, whole: bool = True) -> Path:
        """Keep a picture of the window."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        path = SCREENS / f"{name}.png"
        self.page.wait_for_timeout(150)  # two frames: pictures find their size when they are in the page
        self.page.screenshot(path=path, full_page=whole)
        return path

    def close(self) -> None:
        self.context.close()
