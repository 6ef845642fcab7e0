"""Make the pictures of docs/dashboard.md: what a browser shows of the rows of `negawatt demo`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
import web_world as web  # noqa: E402

DESK, PHONE = {"width": 1280, "height": 820}, {"width": 390, "height": 844}
# name: (view, window, theme)
PICTURES = {
    "dashboard-overview": ("overview", {"width": 1280, "height": 1000}, "light"),
    "dashboard-dark": ("overview", DESK, "dark"),
    "dashboard-phone": ("overview", PHONE, "light"),
    "dashboard-classes": ("classes", DESK, "light"),
    "dashboard-call": ("", {"width": 1280, "height": 1180}, "light"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        verbs = [sys.executable, "-m", "negawatt"]
        subprocess.run([*verbs, "demo", "--ledger", "demo.sqlite"], cwd=folder, check=True, capture_output=True)
        command = [*verbs, "dashboard", "--ledger", "demo.sqlite", "--port", "0", "--json"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as serving:
            try:
                assert serving.stdout is not None
                draw(json.loads(serving.stdout.readline())["address"])
            finally:
                serving.terminate()


def draw(address: str) -> None:
    with web.browser() as browser:
        for name, (view, window, theme) in PICTURES.items():
            viewer = web.Viewer(browser, address, viewport=window, color_scheme=theme, timezone_id="UTC")
            viewer.open(view or "requests?cache=exact")
            viewer.page.wait_for_selector(".notice >> text=being made", state="detached")
            if not view:
                viewer.page.locator("main tbody th a").first.click()
                viewer.page.wait_for_selector(".trace")
            viewer.page.wait_for_timeout(500)
            path = HERE / f"{name}.png"
            viewer.page.screenshot(path=path)
            print(path.name, path.stat().st_size)
            viewer.close()


if __name__ == "__main__":
    main()
