"""What the page is made of: vendored files as they were released, nothing from elsewhere, nothing that reads markup."""

import gzip
import hashlib
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parent.parent / "src" / "negawatt" / "web" / "static"
OURS = sorted(path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".html") and "uPlot" not in path.name)
MOST_FIRST, MOST_OURS, MOST_VENDORED = 36_000, 52_000, 24_000  # bytes, compressed


def test_vendored_files_are_as_they_were_released():
    """Their SHA-256 is what uPlot.sha256.txt says, and their licence lies beside them."""
    listed = dict(reversed(line.split()) for line in (STATIC / "uPlot.sha256.txt").read_text().splitlines())
    there = {path.name for path in STATIC.glob("uPlot.*") if path.name != "uPlot.sha256.txt"}
    assert set(listed) == there
    assert "uPlot.LICENSE.txt" in there
    for name, digest in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_code_takes_nothing_from_elsewhere_and_reads_no_markup(path):
    """No other host is named, and nothing turns text into nodes or code."""
    text = path.read_text(encoding="utf-8")
    allowed = {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"'`]*", text)) <= allowed
    for banned in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert banned not in text, f"{banned} in {path.name}"
    if path.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text)


@pytest.mark.parametrize("path", [p for p in OURS if p.suffix == ".js"], ids=lambda path: path.name)
def test_a_script_stays_small_enough_to_be_read(path):
    """At most 400 lines, and a first line that says what it is for."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    assert lines[0].startswith("// ")


def test_only_theme_and_zone_are_kept_in_the_browser():
    """The storage is touched in two files, by those two names; no key of anybody goes there."""
    for path in OURS:
        text = path.read_text(encoding="utf-8")
        assert "sessionStorage" not in text
        assert "document.cookie" not in text
        if path.name not in ("settings.js", "theme.js"):
            assert "localStorage" not in text, path.name
    settings = (STATIC / "settings.js").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:write|read)\(\"(\w+)\"", settings)) == {"theme", "zone"}


def test_all_of_it_is_small():
    """What a browser fetches, compressed: ours for the first screen at most 36 KB, for all pages 52; uPlot 24."""
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.iterdir() if path.suffix != ".txt"}
    ours = {name: size for name, size in sizes.items() if "uPlot" not in name}
    later = {name for name in ours if name.startswith(("page_", "request"))} - {"page_overview.js"}
    assert sum(size for name, size in ours.items() if name not in later) <= MOST_FIRST, sizes
    assert sum(ours.values()) <= MOST_OURS, sizes
    assert sum(sizes.values()) - sum(ours.values()) <= MOST_VENDORED, sizes
