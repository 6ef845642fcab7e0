"""JUnit XML: a test case for each surface and rule, as CI systems show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree

from negawatt.checks.findings import Finding
from negawatt.checks.surfaces import Surface

_NOT_XML = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 65534, 65535), "�")


def junit(surfaces: Sequence[Surface], findings: Sequence[Finding]) -> str:
    """Return a suite in which a surface without errors has one test that passes, and each error fails one.

    A warning is what its surface printed; what cannot be told was skipped.
    """
    by_surface: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_surface[finding.surface].append(finding)
    suite = ElementTree.Element("testsuite", name="negawatt check")
    failures = skipped = 0
    for name in dict.fromkeys([*(surface.name for surface in surfaces), *by_surface]):
        wrong = [one for one in by_surface[name] if one.level != "warning"]
        said = "\n".join(f"{one}\n  {one.remedy}" for one in by_surface[name] if one.level == "warning")
        shown: list[tuple[str, Finding | None]] = [(one.rule, one) for one in wrong] or [("check", None)]
        for rule, one in shown:
            case = ElementTree.SubElement(suite, "testcase", classname=_safe(name), name=rule)
            if one is not None and one.level == "error":
                failures += 1
                failure = ElementTree.SubElement(case, "failure", type=one.rule, message=_safe(one.what))
                failure.text = _safe(f"{one}\n{one.remedy}")
            elif one is not None:
                skipped += 1
                ElementTree.SubElement(case, "skipped", message=_safe(one.what))
            if said:
                ElementTree.SubElement(case, "system-out").text = _safe(said)
                said = ""
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    suite.set("errors", "0")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _safe(text: str) -> str:
    return text.translate(_NOT_XML)
