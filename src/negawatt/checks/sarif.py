"""SARIF 2.1.0 (OASIS, 27 March 2020): findings with their places, as code hosts show them beside the lines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from negawatt import __version__
from negawatt.checks.findings import WHAT, Finding

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "inconclusive": "note"}


def sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the log of one run, ready to become JSON. Paths are relative to the folder of the check's file."""
    names = list(WHAT)
    rules = [{"id": name, "shortDescription": {"text": WHAT[name]}} for name in names]
    driver = {"name": "negawatt check", "version": __version__, "rules": rules}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(one, names.index(one.rule)) for one in findings]}],
    }


def _result(one: Finding, rule: int) -> dict[str, Any]:
    # What the line says may change, and where it stands: the same finding keeps its fingerprint.
    same = hashlib.sha256(f"{one.rule}\0{one.surface}\0{one.what.split(',')[0]}".encode()).hexdigest()
    place = {"artifactLocation": {"uri": quote(one.path)}, "region": {"startLine": max(one.line, 1)}}
    return {
        "ruleId": one.rule,
        "ruleIndex": rule,
        "level": _LEVELS[one.level],
        "message": {"text": f"{one.what}. Remedy: {one.remedy}."},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"negawattCheck/v1": same},
    }
