"""The documentation is true: its examples run, its tables are the code's, its links lead somewhere."""

import asyncio
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from negawatt.checks.plan import CheckFile
from negawatt.cli import cli
from negawatt.config import LEVER_NAMES, convert, load_config, parse_config
from negawatt.gateway import Gateway
from negawatt.proof.suite import SuiteFile

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?P<mark><!-- run -->\n)?^```(?P<kind>[a-z]+)\n(?P<text>.*?)^```$", re.M | re.S)
# Files of other kinds, which the tests of their readers read.
OTHER_TABLES = {
    "price": "test_prices", "energy": "test_energy", "zone": "test_carbon", "answer": "test_curated",
    "examples": "test_intents", "rules": "test_offloads_answers",
}  # fmt: skip
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Where is my order?"}], "temperature": 0}
OTHER_QUESTION = {**QUESTION, "temperature": 0.5}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Here."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
}
CONFIG = """
[ledger]
keep_content = true
[cache]
store = "sqlite:///cache.sqlite"
[holdout]
share = 0.0
[[providers]]
name = "modelled"
url = "modelled:?a=0.005&b=0.0"
"""
# A repository with prompts, for `negawatt check`.
PROMPTS = {
    "negawatt.check.toml": '[[surfaces]]\nconstants = ["desk.py:*_PROMPT"]\ncalls_per_day = 20_000\n',
    "desk.py": 'SUPPORT_PROMPT = "You answer questions about orders, in two sentences.\\n{question}"\n',
}
ENVIRON = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}


def blocks(*kinds, marked=False):
    """Return (page and line, text) of the pages' blocks of *kinds*."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if block["kind"] in kinds and (block["mark"] or not marked):
                line = text.count("\n", 0, block.start("text"))
                found.append(pytest.param(block["text"], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def tool(name):
    """Return the script docs/*name*.py as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page):
    """Return the text of *page* without its code blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """Return the anchors that GitHub gives the headings of *page*."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the examples suppose it: a configuration, a ledger with calls, a trace and a recording."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "negawatt.toml").write_text(CONFIG)
    for name, value in {"first.json": QUESTION, "second.json": OTHER_QUESTION}.items():
        (folder / name).write_text(json.dumps(value))
    entries = [{"arrival_s": at, "request": QUESTION} for at in (0, 2, 4)]
    for name, text in PROMPTS.items():
        (folder / name).write_text(text)
    (folder / "trace.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    timing = {"duration_s": 0.5, "basis": "modelled"}
    (folder / "answers.jsonl").write_text(json.dumps({"request": QUESTION, "response": ANSWER, "timing": timing}))
    here = Path.cwd()
    os.chdir(folder)
    try:
        asyncio.run(_ask())
        rows = [json.loads(line) for line in _run("ledger export", folder).stdout.splitlines()]
    finally:
        os.chdir(here)
    (folder / "usage.csv").write_text(_bill(rows))
    return folder


def _bill(rows):
    """Return what a provider would export of *rows*."""
    asked = [row for row in rows if row["attempts"]]
    day = datetime.fromtimestamp(rows[0]["received_at"], UTC).date().isoformat()
    tokens = f"{sum(row['input_tokens'] for row in asked)},0,{sum(row['output_tokens'] for row in asked)}"
    head = "start_time,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens"
    return f"{head}\n{day},gpt-4o-mini,{len(asked)},{tokens}\n"


async def _ask():
    async with Gateway.open(load_config(environ={}), environ={}) as gateway:
        for request in (QUESTION, QUESTION, OTHER_QUESTION):
            await gateway.chat(request)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a real server with a modelled provider."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "negawatt.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "negawatt", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRON, stdout=subprocess.PIPE, text=True) as server:
        try:
            found = re.search(r"http://([\d.]+:\d+)", server.stdout.readline())[1]
            until = time.monotonic() + 10
            while not _is_up(found) and time.monotonic() < until:
                time.sleep(0.02)
            yield found
        finally:
            server.terminate()
            server.wait(20)


def _is_up(address):
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=5) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


@pytest.mark.parametrize("text", blocks("toml"))
def test_each_configuration_shown_is_one(text):
    """Every TOML block is a whole configuration, a suite, or a file that its own reader's test reads."""
    data = tomllib.loads(text)
    if "surfaces" in data:
        assert convert(data, CheckFile, "documentation").surfaces
        return
    if "candidates" in data:
        assert convert(data, SuiteFile, "documentation").candidates
        return
    assert set(data) <= set(OTHER_TABLES) or parse_config(data, "documentation") is not None


@pytest.mark.parametrize("text", blocks("python"))
def test_each_python_example_runs(text, folder, address):
    """Every Python block runs as it stands, against a gateway at the address that it names, and prints what it says."""
    code = text.replace("127.0.0.1:4100", address)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRON, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"# prints (.+)", text)
    assert (said[1] if said else "modelled answer") in done.stdout


@pytest.mark.parametrize("text", blocks("sh", marked=True))
def test_each_command_that_is_said_to_run_does(text, folder):
    """Every marked command ends with the exit code that its comment gives, 0 without one."""
    calls = json.loads(_run("ledger export", folder).stdout.splitlines()[0])["id"]
    for line in text.splitlines():
        command, _, comment = line.partition("#")
        expected = re.search(r"exit (\d)", comment)
        done = _run(command.strip().removeprefix("negawatt ").replace("CALL_ID", calls), folder)
        assert done.returncode == int(expected[1] if expected else 0), f"{line}\n{done.stderr}"


def _run(arguments, folder):
    command = [sys.executable, "-m", "negawatt", *shlex.split(arguments)]
    return subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("text", blocks("sh"))
def test_each_command_shown_exists(text):
    """Every `negawatt` command has its verb and its options, and every `make` its target."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert words[1].rstrip(",") in targets, line
        elif words and words[0].rpartition("/")[2] == "negawatt":
            command, rest = cli, words[1:]
            while isinstance(command, click.Group):
                command, rest = command.commands[rest[0]], rest[1:]
            known = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_targets_lead_somewhere(page):
    """Every relative link names a file, and a heading of it where it has one; every `make` in the text is a target."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for name in re.findall(r"`make ([a-z-]+)", prose(page)):
        assert name in targets, f"there is no `make {name}`"


def test_generated_tables_are_what_the_code_says():
    """Each table between marks equals what the code gives today; every table of the generator has its place."""
    generate = tool("generate")
    text = ""
    for page in generate.pages():
        old = page.read_text(encoding="utf-8")
        assert generate.filled(old, page) == old, f"{page.name} is out of date: python docs/generate.py"
        text += old
    for name in generate.TABLES:
        assert text.count(f"<!-- generated:{name} -->") == 1, f"the table {name} stands nowhere, or twice"


def test_every_field_of_the_configuration_is_in_its_table():
    """No field of the configuration lies outside the documented tables."""
    generate = tool("generate")
    prefixes = [name.removeprefix("config:") for name in generate.TABLES if name.startswith("config:")]
    for path, _, _ in generate.config_fields():
        assert sum(path.startswith(prefix) for prefix in prefixes) == 1, path


def test_the_picture_is_what_its_script_draws():
    """docs/negawatt.svg was not edited by hand."""
    assert (ROOT / "docs" / "negawatt.svg").read_text(encoding="utf-8") == tool("picture").picture()


def test_every_lever_has_its_page_with_the_same_headings():
    """One page for each lever, and for the layers beside them: five headings each, in one order."""
    expected = ["What it does", "When it answers", "When it does not", "Configure it", "What it costs and saves"]
    pages = {page.stem: page for page in (ROOT / "docs" / "levers").glob("*.md")}
    assert set(pages) == {"meter", "admit", "layers", *LEVER_NAMES}
    for name, page in pages.items():
        assert page.read_text(encoding="utf-8").startswith(f"# {name}\n")
        assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.M) == expected


def test_every_verb_of_the_command_line_is_described():
    """docs/cli.md has a heading for each verb."""
    assert set(cli.commands) <= anchors(ROOT / "docs" / "cli.md")


def test_the_headers_that_are_read_and_sent_are_described():
    """Every x-negawatt- header that the code reads or sends stands in docs/http.md, and no other does."""
    source = (ROOT / "src" / "negawatt" / "http_head.py").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    name = re.compile(r"x-negawatt-[a-z-]+[a-z]")
    assert set(name.findall(page)) == set(name.findall(source))


def test_the_readme_keeps_the_marks_of_its_measured_tables():
    """The scripts that fill the tables find their places, and the replay's table is filled."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("overhead", "demo-real"):
        assert readme.count(f"<!-- {name}:begin -->") == readme.count(f"<!-- {name}:end -->") == 1
    assert "| no levers |" in readme.partition("<!-- demo-real:begin -->")[2].partition("<!-- demo-real:end -->")[0]
