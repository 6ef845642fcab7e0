"""A new user's first steps with the semantic cache: the starter file, `serve --check`, and what it says is wrong."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from negawatt.config import parse_config
from negawatt.embedders import opening
from negawatt.errors import ConfigError
from negawatt.serving import dry_run

STARTER = resources.files("negawatt.commands").joinpath("starter.toml").read_text(encoding="utf-8")
NEGAWATT = Path(sys.executable).parent / "negawatt"
PROVIDER = {"providers": [{"name": "p", "base_url": "http://127.0.0.1:9/v1", "models": ["small"]}]}


def uncommented() -> str:
    """Return the starter file with its examples taken out of their comments."""
    lines = []
    for line in STARTER.splitlines():
        found = re.match(r"# (\[|[a-z_]+ = )", line)
        lines.append(line.removeprefix("# ") if found else line)
    return "\n".join(lines)


def test_the_starter_file_says_what_there_is():
    """The semantic cache, curated answers, and what classes may say, each with the word of the configuration."""
    for word in ("semantic_cache", "item_cache", "curated", "max_error", "needs", "personal", "sensitive", "stale_s"):
        assert word in STARTER
    parse_config(tomllib.loads(STARTER))


def test_its_examples_are_sound():
    """All of them, taken out of their comments at once."""
    config = parse_config(tomllib.loads(uncommented()))
    assert set(config.classes) == {"faq", "account"} and config.recall.curated == "curated.toml"
    assert config.levers.semantic_cache.judge == "small" and config.classes["faq"].needs == ("corpus_version",)


def test_its_defaults_are_those_of_the_code():
    """What it shows as a default is one."""
    shown, plain = parse_config(tomllib.loads(STARTER)), parse_config({})
    assert shown.levers == plain.levers and shown.recall == plain.recall and shown.holdout == plain.holdout


def test_without_the_extra_there_is_one_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Turned on where MiniLM is not installed: it works, by words, and says once what to install."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    monkeypatch.setattr(opening, "default_folder", lambda: None)
    with caplog.at_level(logging.WARNING):
        dry_run(parse_config({**PROVIDER, "levers": {"semantic_cache": {"mode": "on"}}}))
    [record] = caplog.records
    assert "compared by their words" in record.getMessage() and "pip install" in record.getMessage()


WRONG = {
    "embedder": ({"embedder": "minilm:///no/such/folder"}, "recall.embedder: /no/such/folder"),
    "no colon": ({"embedder": "hashing"}, "recall.embedder: 'hashing' is not a URL; did you mean 'hashing:'?"),
    "no URL": ({"index": "index.sqlite"}, "recall.index: 'index.sqlite' is not a URL such as sqlite:///file"),
    "folder": ({"index": "sqlite:///no/such/index.sqlite"}, "recall.index: there is no folder no/such"),
    "option": ({"index": "memory:?max_entrys=5"}, "recall.index: unknown option 'max_entrys'; known: max_entries"),
    "number": ({"index": "memory:?max_entries=0"}, "recall.index: max_entries='0' is not a number above 0"),
    "scheme": ({"index": "floppy:///x"}, "recall.index: no backend for 'floppy'"),
    "curated": ({"curated": "nope.toml"}, "recall.curated: nope.toml: cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_check_finds_what_the_start_would_refuse(name: str):
    """Before anything is opened, with the field's path and what was expected; where it is off nobody minds."""
    recall, said = WRONG[name]
    tables = {**PROVIDER, "recall": {"embedder": "hashing:", **recall}}
    with pytest.raises(ConfigError) as caught:
        dry_run(parse_config({**tables, "classes": {"faq": {"levers": {"semantic_cache": "shadow"}}}}))
    assert caught.value.message.startswith(said)
    dry_run(parse_config(tables))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"cache": {"store": "floppy:///x"}}, "cache.store: no backend for 'floppy'"),
        ({"cache": {"store": "memory:?max_byte=5"}}, "cache.store: unknown option 'max_byte'; known: max_bytes"),
        ({"ledger": {"url": "sqlite:///no/such/l.sqlite"}}, "ledger.url: there is no folder no/such"),
        (
            {"levers": {"semantic_cache": {"mode": "on", "judge": "large"}}, "recall": {"embedder": "hashing:"}},
            "levers.semantic_cache.judge: no provider here serves 'large'; known: small",
        ),
    ],
)
def test_the_check_looks_at_all_that_is_opened(tables: dict[str, object], said: str):
    """Store, ledger and judge too."""
    with pytest.raises(ConfigError) as caught:
        dry_run(parse_config({**PROVIDER, **tables}))
    assert caught.value.message.startswith(said)


def test_init_then_check(tmp_path: Path):
    """What `init` writes passes `serve --check` once there is a provider, with the semantic cache on as well."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"OPENAI_API_KEY": "x", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
        command = [str(NEGAWATT), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=30, env=environ, check=False
        )

    assert run("init").returncode == 0
    path = tmp_path / "negawatt.toml"
    text = path.read_text(encoding="utf-8")
    for changed in (
        text,
        text.replace('[levers.semantic_cache]\nmode = "off"', '[levers.semantic_cache]\nmode = "on"'),
    ):
        path.write_text(changed.replace('"default:"', '"hashing:"'), encoding="utf-8")
        done = run("serve", "--check")
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "the configuration is sound", "")
    assert [one.name for one in tmp_path.iterdir()] == ["negawatt.toml"], "nothing was opened"
