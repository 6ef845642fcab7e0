"""The house rules, measured: sizes, layers, nothing swallowed, nothing at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "negawatt").rglob("*.py"))
FILE_LINES, BODY_LINES, PARAMETERS = 400, 50, 6

# A room may import from itself, from the top-level values, and from these rooms.
ROOMS = {
    "economics": set(),
    "wire": {"economics"},
    "verify": {"embedders", "recall"},
    "access": set(),
    "stores": set(),
    "embedders": {"stores"},
    "indexes": {"stores"},
    "recall": {"economics", "wire", "embedders", "indexes", "stores"},
    "ledger": {"economics"},
    "telemetry": {"ledger"},
    "success": {"ledger"},
    "exports": {"economics", "ledger"},
    "translate": {"wire", "economics"},
    "providers": {"wire", "economics", "translate"},
    "layers": {"recall", "stores", "telemetry"},
    "budgets": {"economics", "stores", "wire"},
    "offloads": set(),
    "shape": {"economics", "wire", "embedders", "recall", "offloads"},
    "prompts": {"economics", "wire", "shape"},
    "routing": {"economics", "wire", "embedders", "recall", "verify"},
    "levers": {
        "economics",
        "ledger",
        "wire",
        "stores",
        "embedders",
        "indexes",
        "recall",
        "routing",
        "verify",
        "offloads",
        "shape",
        "prompts",
    },
    "proof": {
        "wire",
        "economics",
        "ledger",
        "providers",
        "embedders",
        "recall",
        "routing",
        "verify",
        "shape",
        "prompts",
        "success",
    },
    "checks": {"wire", "economics", "prompts", "shape"},
    "watch": {"ledger", "shape"},
    "web": {"ledger"},
    "commands": {
        "access",
        "exports",
        "wire",
        "economics",
        "ledger",
        "providers",
        "proof",
        "stores",
        "embedders",
        "indexes",
        "recall",
        "routing",
        "verify",
        "offloads",
        "shape",
        "prompts",
        "checks",
        "watch",
        "success",
        "budgets",
    },
}
# Modules that put the rooms together, or know HTTP or the terminal: no room imports them, proof and commands apart.
TOP = {
    "gateway", "assembly", "asides", "recalling", "layering", "closing", "http_head", "guard", "layer_routes", "server",
    "serving", "cli", "registry", "catalogue", "choosing", "monitoring", "metrics_routes",
    "doors", "key_routes", "watching", "watch_routes",
    "feedback_routes", "succeeding",
    "budgeting", "budget_routes",
    "web_routes", "web_sources", "governing", "origins", "readiness", "dashboard",
}  # fmt: skip
# What the values at the top may be made of.
VALUES_MAY_USE = {"economics"}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_a_file_stays_small_enough_to_be_read(path: Path):
    """At most 400 lines a file, 50 a function body."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno + 1 <= BODY_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_nothing_is_swallowed(path: Path):
    """No handler catches everything and passes; no state is global; every module says what it is for."""
    tree = tree_of(path)
    if path.name != "__init__.py" or path.stat().st_size:
        assert ast.get_docstring(tree), "a module begins with what it is for"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), "no global"
        if isinstance(node, ast.ExceptHandler) and all(isinstance(body, ast.Pass) for body in node.body):
            kind = ast.unparse(node.type) if node.type else "everything"
            assert kind not in ("Exception", "BaseException", "everything"), f"line {node.lineno} swallows {kind}"


def imported(path: Path) -> set[str]:
    """Return the dotted names of our own modules that *path* imports, at any depth of its code."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("negawatt"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("negawatt")}
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name != "negawatt"], ids=lambda p: p.stem)
def test_a_room_knows_only_the_rooms_below_it(path: Path):
    """A lever never imports a backend or another lever; proof imports the gateway, never the other way."""
    room = path.relative_to(ROOT / "src" / "negawatt").parts[0]
    for module in imported(path):
        parts = module.split(".")
        other = parts[1] if len(parts) > 1 else ""
        if other in ROOMS and other != room:
            assert other in ROOMS[room], f"{room} imports {module}"
        if other in TOP:
            assert room in ("proof", "commands"), f"{room} imports {module}"
        if room == "levers" and other == "levers":
            pytest.fail(f"a lever imports another: {module}")


def test_there_are_no_import_cycles():
    """Leaving aside imports that only type checkers see, no module imports itself by way of others."""
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        name = ".".join(("negawatt", *path.relative_to(ROOT / "src" / "negawatt").with_suffix("").parts))
        graph[name.removesuffix(".__init__")] = {
            node.module
            for node in tree_of(path).body
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("negawatt")
        }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a cycle: {' -> '.join((*above, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_importing_the_package_costs_next_to_nothing():
    """``import negawatt`` loads none of its dependencies."""
    heavy = ("orjson", "msgspec", "numpy", "genai_prices", "uvicorn", "jinja2", "rich", "aiohttp", "click")
    code = f"import sys, negawatt; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


def test_serving_loads_nothing_that_only_reports_need():
    """The server's process is kept light: no numpy, no templates, no terminal tables."""
    heavy = ("numpy", "jinja2", "rich", "aiohttp", "genai_prices")
    code = f"import sys, negawatt.serving, negawatt.cli; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.strip() == "[]"


def test_every_dependency_has_its_reason():
    """docs/dependencies.md names each one."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    required = project["project"]["dependencies"]
    required += [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    required += project["dependency-groups"]["dev"]
    for requirement in required:
        name = requirement.split(">")[0].split("[")[0].split(";")[0].strip()
        assert f"`{name}`" in page, f"{name} has no reason in docs/dependencies.md"
        assert "<" in requirement, f"{name} is not pinned to a range"
