"""A small repository with prompts, for the tests of the check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from negawatt.checks.plan import load_plan
from negawatt.checks.static import Checked, check

STABLE = "You answer questions of customers about their orders, kindly, in two sentences at most."
TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Look an order up when the customer names its number.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "string", "description": "Seven digits, as on the invoice."}},
            "required": ["number"],
        },
    },
}


def words(n: int, seed: str = "w") -> str:
    """So many different words, in sentences."""
    return " ".join(f"{seed}{at}" for at in range(n)) + "."


def repository(folder: Path, files: dict[str, Any], *, surfaces: str, more: str = "") -> Path:
    """Write *files* and the check's file, and return the path of that."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    path = folder / "negawatt.check.toml"
    path.write_text(f"[[surfaces]]\n{surfaces}\n{more}\n", encoding="utf-8")
    return path


def checked(path: Path, *, update: bool = False) -> Checked:
    return check(load_plan(path), update=update)


def rules(found: Checked) -> list[tuple[str, str]]:
    """(rule, level) of each finding."""
    return [(one.rule, one.level) for one in found.findings]


def agreed(path: Path) -> Checked:
    """Write the lock, and return the check after that."""
    checked(path, update=True)
    return checked(path)
