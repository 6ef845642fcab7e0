"""The suite of an evaluation: one TOML file that says which models are asked what, and who judges.

    name = "support"
    config = "negawatt.toml"          # who serves the models; or a table of its own

    [quality]
    success = 0.9                     # the target; confidence = 0.95

    [[datasets]]
    file = "questions.jsonl"          # prompt (or messages), expected, context, schema, group, class, tags, id
    verify = [{ kind = "exact" }]

    [[candidates]]                    # in any order, but the last is the reference
    model = "gpt-4o-mini"

    [[candidates]]
    model = "gpt-4o"
    answers = "recorded:large.jsonl"  # instead of asking it

Files are named relative to the suite; what a configuration in a file of its own names, to where you stand.
Unknown fields, unknown models and verifiers that lack what they need are refused before anything is asked.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from negawatt.catalogue import AUTO, Catalogue
from negawatt.config import Config, convert, load_config, parse_config, with_found_providers
from negawatt.config_routes import Cascade, Check, Effort, Quality
from negawatt.config_types import Count, Name, Section
from negawatt.errors import ConfigError, InputError

Text = Annotated[str, Meta(min_length=1)]
COLUMNS = ("id", "prompt", "messages", "expected", "context", "schema", "group", "class", "tags")
Column = Literal["id", "prompt", "messages", "expected", "context", "schema", "group", "class", "tags"]


class Dataset(Section, frozen=True):
    """Where cases come from: a file (JSONL or CSV, gzip or plain), or the ledger of a gateway that keeps content."""

    name: Name | None = None  # default: the file's
    file: Text | None = None
    columns: dict[Column, Text] = {}  # what the file calls them, where it is something else
    ledger: Text | None = None  # sqlite:///FILE
    request_class: Name | None = msgspec.field(default=None, name="class")  # of the ledger's rows; of a file's cases
    since: str | None = None  # of the ledger: a date such as 2026-11-01, or a span such as 7d
    sample: Count | None = None  # so many, drawn at random by the suite's seed
    limit: Count | None = None  # only so many first ones, before any are drawn
    expected: Literal["kept"] | None = None  # the kept answer of the reference is what is expected: agreement
    system: str | None = None
    template: str | None = None  # of the question, with {prompt} and {context}
    verify: tuple[Check, ...] = ()
    decides: tuple[Text, ...] = ()  # kinds of verifiers that make a success; default: all of them

    @property
    def called(self) -> str:
        return self.name or Path(self.file or self.ledger or "").name


class EvalCandidate(Section, frozen=True):
    """A model to be asked, at an effort and with settings. *name* tells two of the same model apart."""

    model: Name
    name: Name | None = None
    effort: Effort | None = None
    settings: dict[str, Any] = {}  # fields of the request: temperature, max_tokens, ...
    system: str | None = None  # instead of the dataset's
    answers: Text = "live"  # or recorded:FILE
    policy: bool = False  # *model* is a policy of the configuration, which chooses as it would live; never the last one

    @property
    def called(self) -> str:
        return self.choice if self.name is None else self.name

    @property
    def choice(self) -> str:
        """What a policy calls it: `negawatt.routing.choice.Choice.name`."""
        return self.model if self.effort is None else f"{self.model} at {self.effort}"

    @property
    def recording(self) -> str | None:
        """The file of its answers; None where it is asked."""
        return None if self.answers == "live" else self.answers.removeprefix("recorded:")


class SuiteFile(Section, frozen=True):
    """The file as it stands."""

    name: Name
    datasets: Annotated[tuple[Dataset, ...], Meta(min_length=1)]
    candidates: Annotated[tuple[EvalCandidate, ...], Meta(min_length=1)]
    config: str | dict[str, Any] | None = None
    quality: Quality = Quality()
    cascade: Cascade | None = None  # to be calibrated by --cascade
    seed: int = 1
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    repeats: Annotated[int, Meta(ge=1, le=100)] = 1
    answer_tokens: Count = 300  # of an answer, for the estimate of the cost before anything is asked


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A suite that can be run: the file, and the configuration that it names."""

    path: Path
    file: SuiteFile
    config: Config

    @property
    def candidates(self) -> tuple[EvalCandidate, ...]:
        return self.file.candidates

    @property
    def reference(self) -> EvalCandidate:
        return self.file.candidates[-1]

    def beside(self, file: str) -> Path:
        """Return the path of *file*, which the suite names relative to itself."""
        return self.path.parent / file


def load_suite(path: Path, environ: Mapping[str, str]) -> Suite:
    """Return the suite in *path*. Raises `ConfigError` or `InputError`: ``file: field: what is wrong``."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    file = convert(data, SuiteFile, str(path))
    suite = Suite(path=path, file=file, config=_config(path, file, environ))
    _Problems(suite).check()
    return suite


def _config(path: Path, file: SuiteFile, environ: Mapping[str, str]) -> Config:
    if file.config is None:
        return with_found_providers(Config(), environ)
    if isinstance(file.config, str):
        found = path.parent / file.config
        if not found.exists():
            raise ConfigError(f"{path}: config: there is no file {found}", param="config")
        return load_config(found, environ=environ)
    config = parse_config(file.config, f"{path}: config")
    tables = {
        name: str(path.parent / said)
        for name in ("prices", "litellm_prices", "energy")
        if (said := getattr(config.economics, name)) is not None
    }
    economics = msgspec.structs.replace(config.economics, **tables)
    return with_found_providers(msgspec.structs.replace(config, economics=economics), environ)


class _Problems:
    """What the types cannot say."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._known = Catalogue(suite.config)

    def check(self) -> None:
        suite = self._suite
        names = [one.called for one in suite.candidates]
        for i, candidate in enumerate(suite.candidates):
            where = f"candidates[{i}]"
            if candidate.called in names[:i]:
                self._refuse(f"{where}.name", f"{candidate.called!r} is there twice; give one of them another name")
            self._answers(where, candidate)
            if candidate.policy:
                self._policy(where, candidate, last=i == len(names) - 1)
        datasets = [one.called for one in suite.file.datasets]
        for i, dataset in enumerate(suite.file.datasets):
            if dataset.called in datasets[:i]:
                self._refuse(f"datasets[{i}].name", f"{dataset.called!r} is there twice; give one of them another name")
            self._dataset(f"datasets[{i}]", dataset)
        cascade = suite.file.cascade
        for i, check in enumerate(() if cascade is None else cascade.verify):
            self._check(f"cascade.verify[{i}]", check)

    def _answers(self, where: str, candidate: EvalCandidate) -> None:
        recording = candidate.recording
        if recording is None:
            self._model(f"{where}.model", candidate.model)
        elif not candidate.answers.startswith("recorded:") or not recording:
            self._refuse(f"{where}.answers", f"expected live or recorded:FILE, got {candidate.answers!r}")
        elif not self._suite.beside(recording).is_file():
            self._refuse(f"{where}.answers", f"there is no file {self._suite.beside(recording)}")
        for field in ("model", "messages", "stream", "n"):
            if field in candidate.settings:
                self._refuse(f"{where}.settings.{field}", "this is not a setting of a candidate")

    def _policy(self, where: str, candidate: EvalCandidate, *, last: bool) -> None:
        if last:
            self._refuse(f"{where}.policy", "the last candidate is the reference, and that is a model")
        known = self._suite.config.policies
        if candidate.model != AUTO and candidate.model not in known:
            self._refuse(
                f"{where}.model", f"no policy is named {candidate.model!r}; known: {', '.join(known) or 'none'}"
            )
        if candidate.effort is not None:
            self._refuse(f"{where}.effort", "a policy chooses the effort itself")

    def _model(self, where: str, model: str) -> None:
        if not self._suite.config.providers:
            what = "no provider is configured: set one under [config], or the key variable of one that is known"
            self._refuse(where, what)
        if not self._known.targets(model):
            known = ", ".join(sorted(self._known.names())) or "none"
            self._refuse(where, f"no provider serves {model!r}; known: {known}")

    def _dataset(self, where: str, dataset: Dataset) -> None:
        if (dataset.file is None) == (dataset.ledger is None):
            self._refuse(where, "expected one of file and ledger")
        if dataset.file is not None and not self._suite.beside(dataset.file).is_file():
            self._refuse(f"{where}.file", f"there is no file {self._suite.beside(dataset.file)}")
        for field in ("since", "expected") if dataset.ledger is None else ("columns", "system", "template"):
            if getattr(dataset, field):
                kind = "file" if dataset.ledger is None else "ledger"
                self._refuse(f"{where}.{field}", f"a dataset from a {kind} has no such field")
        kinds = [check.kind for check in dataset.verify]
        for i, check in enumerate(dataset.verify):
            self._check(f"{where}.verify[{i}]", check)
        for i, kind in enumerate(dataset.decides):
            if kind not in kinds:
                known = ", ".join(kinds) or "none"
                self._refuse(
                    f"{where}.decides[{i}]", f"no verifier of this dataset is of kind {kind!r}; there: {known}"
                )

    def _check(self, where: str, check: Check) -> None:
        if check.kind == "judge" and check.model is None:
            self._refuse(f"{where}.model", "a verifier of kind judge needs a model that judges")
        if check.kind == "draft":
            self._refuse(f"{where}.kind", "draft belongs to a cascade: it makes an answer, and judges none")
        if check.model is not None:  # those of an agreement are candidates, and were asked already
            self._model(f"{where}.model", check.model)

    def _refuse(self, where: str, what: str) -> None:
        raise ConfigError(f"{self._suite.path}: {where}: {what}", param=where)


def no_cases(suite: Suite, where: str, why: str) -> InputError:
    """Return the error for a dataset of *suite* that has nothing to ask."""
    return InputError(f"{suite.path}: {where}: no case: {why}", param=where)
