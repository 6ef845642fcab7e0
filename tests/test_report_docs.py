"""docs/report.md shows keys that a report really has."""

import json
import re
from pathlib import Path

from report_world import a_run, priced

from negawatt.proof.summary import LedgerView, summarise, summarise_ledger

PAGE = (Path(__file__).parent.parent / "docs" / "report.md").read_text("utf-8")


def missing(shown, real, path=""):
    """Return the paths of *shown* that *real* has not."""
    if not isinstance(shown, dict):
        return []
    return [f"{path}.{key}" for key in shown if key not in real] + [
        lost for key in shown if key in real for lost in missing(shown[key], real[key], f"{path}.{key}")
    ]


def test_the_documented_json_is_the_json():
    """Every key of the example is in a report, and at the top a report has no others."""
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    real = summarise(a_run())
    assert missing(shown, real) == []
    assert set(shown) == set(real)
    assert set(shown["arms"]["none"]) == set(real["arms"]["none"])
    assert set(shown["levers"]["exact_cache"]) == set(real["levers"]["exact_cache"])


def test_what_a_ledger_adds_is_documented():
    """Each further key of a ledger's summary has its row."""
    ledger = summarise_ledger([priced(0, 1.0)], LedgerView(title="x", date="2026-11-23"))
    for key in set(ledger) - set(summarise(a_run())):
        assert f"| `{key}` |" in PAGE
