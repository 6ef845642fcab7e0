"""A Prometheus of the tests' own: on a free port of this machine, scraping every second, ended by its pid."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from world import Json, Process, until

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MISSING = "no prometheus and no promtool here (Debian: apt-get install prometheus)"
_START_S = 60.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Prometheus(Process):
    """One server. *key* is what it shows where it scrapes."""

    def __init__(self, folder: Path, target: str, rules: Path, key: str) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port: int = one.getsockname()[1]
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n"
            f"rule_files: [{json.dumps(str(rules))}]\n"
            f"scrape_configs:\n"
            f"  - job_name: negawatt\n"
            f"    static_configs: [{{targets: [{json.dumps(target)}]}}]\n"
            f"    authorization: {{credentials: {json.dumps(key)}}}\n",
            encoding="utf-8",
        )
        command = [
            str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=1d",
        ]  # fmt: skip
        super().__init__(command, folder / "prometheus.log")
        until(self._ready, _START_S)

    def _ready(self) -> bool:
        assert self._child.poll() is None, f"it ended at once: {self.output[-2000:]}"
        try:
            with _OPENER.open(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def api(self, path: str, **query: str) -> Any:
        """Return the data of what the HTTP API answers. Fails where it reports an error."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with _OPENER.open(url, timeout=10) as answer:
                said: Json = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[Json]:
        """Return the series that *expression* has now."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector"
        found: list[Json] = data["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the one number that *expression* is; None while there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None
