"""What is checked: ``negawatt.check.toml``, a file of the repository whose prompts these are.

    models = ["gpt-4o", "claude-sonnet-4-5"]   # whose tokens are counted; the first one's prices are used

    [[surfaces]]
    templates = "prompts"                      # a folder
    constants = ["src/app.py:*_PROMPT", "app.judge:ASKED"]
    tools = ["tools/*.json"]
    few_shots = ["shots/*.jsonl"]
    calls_per_day = 20_000

    [[budgets]]
    surface = "prompts/*"
    most = 1_200

Paths are relative to the file. Unknown fields, surfaces that are not there, and budgets for no surface are refused.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from negawatt.config import convert
from negawatt.config_types import Count, Name, NotNegative, Positive, Section, Share
from negawatt.errors import ConfigError

FILE = "negawatt.check.toml"
Rule = Literal["budget", "growth", "lock", "volatile", "prefix", "duplicate", "tool-schema", "replay", "live"]


class Group(Section, frozen=True):
    """Surfaces that are sent alike."""

    templates: Name | None = None  # a folder of prompt templates
    constants: tuple[Name, ...] = ()  # FILE.py:NAME or module:NAME; both halves may have * in them
    tools: tuple[Name, ...] = ()  # JSON: a list of tools, an object with one under "tools", or one tool
    few_shots: tuple[Name, ...] = ()  # JSONL, an example a line
    calls_per_day: NotNegative | None = None  # that send each of them
    request_class: Name | None = msgspec.field(default=None, name="class")  # whose calls of the ledger send them
    cached: Share | None = None  # of the input, what comes from the provider's cache; None: unknown, taken as none


class TokenBudget(Section, frozen=True):
    """The most tokens that a surface, or a block of it, may have."""

    surface: Name  # with * in it: each that it fits
    most: Count
    block: Name | None = None
    model: Name | None = None  # None: to each of the models


class Growth(Section, frozen=True):
    """How much a surface may grow against the lock: the larger of the two."""

    percent: NotNegative = 3.0
    tokens: Annotated[int, Meta(ge=0)] = 50


class Duplicates(Section, frozen=True):
    """Which passages count as said twice."""

    words: Annotated[int, Meta(ge=8)] = 20  # shorter ones do not count
    similarity: Annotated[float, Meta(ge=0.5, le=1)] = 0.8  # Jaccard, of runs of four words


class Live(Section, frozen=True):
    """When base and head of an evaluation differ too much."""

    inflation_percent: Positive = 10.0  # of output tokens
    accuracy_loss: Share = 0.02
    pairs: Count = 20  # fewer cases than these decide nothing


class Ignore(Section, frozen=True):
    """A rule that does not hold for a surface. *because* is for whoever reads the file."""

    rule: Rule
    surface: Name
    because: Name


class CheckFile(Section, frozen=True):
    """The file as it stands."""

    surfaces: Annotated[tuple[Group, ...], Meta(min_length=1)]
    models: Annotated[tuple[Name, ...], Meta(min_length=1)] = ("gpt-4o",)
    lock: Name = "tokens.lock.json"
    provider: Name | None = None  # as the price tables call it; None: found by the model's name
    prefix_minimum: Annotated[int, Meta(ge=0)] = 1024  # tokens from which providers keep a prefix
    cassettes: tuple[Name, ...] = ()  # for --replay: recordings, or folders of them
    renders: tuple[Name, ...] = ()  # for --replay: JSONL of requests that name a template and its variables
    growth: Growth = Growth()
    duplicates: Duplicates = Duplicates()
    live: Live = Live()
    budgets: tuple[TokenBudget, ...] = ()
    ignore: tuple[Ignore, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The file, and where it lies."""

    path: Path
    file: CheckFile

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def lock(self) -> Path:
        return self.folder / self.file.lock

    def relative(self, path: Path) -> str:
        """Return *path* as the reports name it: from the folder of the plan, with slashes."""
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def refused(self, where: str, what: str) -> ConfigError:
        """Return the error that the field *where* of the file is wrong."""
        return ConfigError(f"{self.path}: {where}: {what}", param=where)


def load_plan(path: Path) -> Plan:
    """Return the plan in *path*. Raises `ConfigError`: ``file: field: what is wrong``."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; docs/check.md says what it holds") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    plan = Plan(path=path, file=convert(data, CheckFile, str(path)))
    for at, group in enumerate(plan.file.surfaces):
        if not (group.templates or group.constants or group.tools or group.few_shots):
            raise plan.refused(f"surfaces[{at}]", "expected one of templates, constants, tools and few_shots")
    for at, budget in enumerate(plan.file.budgets):
        if budget.model is not None and budget.model not in plan.file.models:
            known = ", ".join(plan.file.models)
            raise plan.refused(f"budgets[{at}].model", f"{budget.model!r} is not counted; models: {known}")
    return plan
