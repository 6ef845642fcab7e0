"""The page writes figures as the reports do. Run by node; skipped where there is none."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from negawatt.proof import formats

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "src" / "negawatt" / "web" / "static" / "format.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node to run the page's code with")
VALUES = [
    None, 0, 1.2e-6, 3.3e-4, 0.0421, 0.5, 0.9994, 1, 1.005, 9.95, 12.345, 99.96, 123.456, 999.5, 1234.5678, 9999.994,
    10_000, 65_432.1, 999_999.4, 1e6, 2.345e7, 1e9, 7.77e11, 1e12, 4.2e14,
]  # fmt: skip


def node(*arguments):
    return subprocess.run([str(NODE), *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_figures_are_written_as_people_read_them():
    """Money, tokens, energy, time and shares, from nothing known to more than there is."""
    done = node("--test", str(HERE / "format.test.mjs"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_and_the_reports_write_one_number_in_one_way():
    """What format.js makes of a value, formats.py makes of it too."""
    code = f"""import * as f from {json.dumps(SCRIPT.as_uri())};
    const values = {json.dumps(VALUES)}, signed = values.concat(values.map((v) => v === null || v === 0 ? v : -v));
    console.log(JSON.stringify(["usd", "count", "wh", "seconds", "grams"].map((n) => signed.map((v) => f[n](v)))));"""
    done = node("--input-type=module", "--eval", code)
    assert done.returncode == 0, done.stderr
    values = [*VALUES, *(value if value is None else -value for value in VALUES)]
    for name, written in zip(("usd", "count", "wh", "seconds", "grams"), json.loads(done.stdout), strict=True):
        expected = {value: getattr(formats, name)(value) for value in values if not _apart(name, value)}
        found = {value: text for value, text in zip(values, written, strict=True) if not _apart(name, value)}
        assert found == expected, name


def _apart(name, value):
    """Return whether the two may differ: the page's scale goes further, and a count has no half."""
    size = abs(value or 0)
    return (name == "wh" and size >= 1e12) or (name == "seconds" and size == 0) or (name == "count" and size % 1 == 0.5)
