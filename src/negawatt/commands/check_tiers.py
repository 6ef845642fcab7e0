"""The tiers of ``negawatt check`` beyond the static one: recorded answers, and base against head."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.checks.findings import Finding
    from negawatt.checks.plan import Plan
    from negawatt.checks.replay import Cassette, Rendering
    from negawatt.checks.static import Checked
    from negawatt.proof.outcome_table import OutcomeTable

_ENDS = (".jsonl", ".jsonl.gz")


def replay(checked: Checked, paths: Sequence[Path], *, update: bool) -> tuple[list[Finding], dict[str, Any]]:
    """Hold the recordings in *paths*, or those that the plan names, against the prompts; with *update* agree to them.

    Raises `ConfigError` and `InputError`.
    """
    import msgspec

    from negawatt.checks.measure import write_lock
    from negawatt.checks.replay import replayed, unanswered
    from negawatt.providers.recording import Recording

    plan = checked.plan
    cassettes = [_cassette(plan, path) for path in _cassettes(plan, paths)]
    found = replayed(plan, checked.measured, checked.lock, cassettes)
    if update:
        lock = msgspec.structs.replace(checked.measured.lock, cassettes=found.cassettes)
        write_lock(plan.lock, lock)
        found = replayed(plan, checked.measured, lock, cassettes)
    recording = Recording(answer for one in cassettes for _, answer in one.answers)  # type: ignore[misc]
    return [*found.findings, *unanswered(_renderings(plan), recording.lookup)], found.as_json()


def _cassettes(plan: Plan, paths: Sequence[Path]) -> list[Path]:
    named = [*paths] or [plan.folder / name for name in plan.file.cassettes]
    if not named:
        raise InputError(f"{plan.path}: cassettes: --replay needs some; name recordings there, or with --cassettes")
    found: list[Path] = []
    for path in named:
        inside = sorted(one for one in path.rglob("*") if one.name.endswith(_ENDS)) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: there is no recording in it ({', '.join(_ENDS)})")
        found += inside
    return found


def _cassette(plan: Plan, path: Path) -> Cassette:
    from negawatt.checks.replay import Cassette
    from negawatt.providers.recording import read_answers

    answers = [(place.line, answer) for place, answer in read_answers(path) if answer is not None]
    if not answers:
        raise InputError(f"{path}: no recorded answer in it")
    inside = path.resolve().is_relative_to(plan.folder.resolve())
    name = path.resolve().relative_to(plan.folder.resolve()).as_posix() if inside else path.as_posix()
    return Cassette(name, answers)


def _renderings(plan: Plan) -> list[Rendering]:
    """Return the requests of the plan's `renders`, each with the messages that its template gives today."""
    from negawatt.checks.replay import Rendering
    from negawatt.checks.surfaces import Place, files
    from negawatt.errors import InvalidRequest
    from negawatt.lines import read_lines
    from negawatt.prompts import load_prompts

    folders = [plan.folder / group.templates for group in plan.file.surfaces if group.templates is not None]
    prompts = {template.name: template for folder in folders for template in load_prompts(folder)}
    found = []
    for at, pattern in enumerate(plan.file.renders):
        for path in files(plan, pattern, f"renders[{at}]"):
            for place, raw in read_lines(path):
                request = place.parse(raw)
                name = request.pop("template", None)
                if name not in prompts:
                    raise place.error(
                        f"there is no template {name!r}; known: {', '.join(prompts) or 'none'}", "template"
                    )
                try:
                    rendered = prompts[name].render(request.pop("variables", {}))
                except InvalidRequest as error:
                    raise place.error(error.message) from error
                request["messages"] = [*rendered.messages]
                place.check(request, "chat")
                found.append(Rendering(Place(plan.relative(path), place.line), name, request))
    return found


def live(plan: Plan, suite: Path, base: Path, out: Path, *, yes: bool) -> tuple[list[Finding], dict[str, Any]]:
    """Run *suite*, and the suite of the same name in the folder *base*, and compare them candidate by candidate.

    Raises `ConfigError` and `InputError`.
    """
    from negawatt.checks.live import Side, compared, summary

    before = base / _within(plan, suite)
    if not before.is_file():
        raise InputError(f"--base: there is no suite {before}, so that nothing can be compared")
    tables = [_measured(path, out / side, yes=yes) for path, side in ((before, "base"), (suite, "head"))]
    named = [{column.name: column for column in table.columns} for table in tables]
    rows = [{(case.id, repeat): at for at, (case, repeat) in enumerate(table.rows)} for table in tables]
    both = [key for key in rows[0] if key in rows[1]]
    findings: list[Finding] = []
    figures = []
    for name in named[1]:
        if name not in named[0]:
            continue
        sides = []
        for columns, places in zip(named, rows, strict=True):
            at, column = [places[key] for key in both], columns[name]
            sides.append(Side(column.success[at], column.output_tokens[at], column.cost_usd[at]))
        found = compared(plan.file.live, name, [case for case, _ in both], (sides[0], sides[1]), suite.as_posix())
        findings += found.findings
        figures.append(found.figures)
    if not figures:
        raise InputError(f"{suite}: no candidate of it is in {before} too")
    return findings, {"said": summary(figures), "candidates": figures}


def _within(plan: Plan, suite: Path) -> Path:
    """Return the path of *suite* from the folder of the plan."""
    try:
        return suite.resolve().relative_to(plan.folder.resolve())
    except ValueError:
        raise InputError(
            f"--live: {suite} does not lie in {plan.folder.resolve()}, so --base has no such file"
        ) from None


def _measured(path: Path, folder: Path, *, yes: bool) -> OutcomeTable:
    """Ask and judge what is missing in *folder* of the suite in *path*."""
    from negawatt.commands import evaluate
    from negawatt.proof.suite import load_suite

    suite = load_suite(path, os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    return evaluate.measured(suite, folder, yes=yes)


@contextmanager
def checkout(plan: Plan, said: str | None) -> Iterator[Path | None]:
    """Give the folder that *said* names: a folder, or a commit, which is checked out beside and removed afterwards.

    Raises `InputError`.
    """
    if said is None or Path(said).is_dir():
        yield None if said is None else Path(said)
        return
    folder = plan.folder.resolve()
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit = None if said.startswith("-") else _git(folder, "rev-parse", "--verify", "--quiet", f"{said}^{{commit}}")
    if top is None or commit is None:
        raise InputError(f"--base: {said!r} is neither a folder nor a commit of a repository here")
    with tempfile.TemporaryDirectory() as place:
        there = Path(place) / "base"
        if _git(folder, "worktree", "add", "--detach", "--quiet", str(there), commit) is None:
            raise InputError(f"--base: git cannot check out {said!r}")
        try:
            yield there / folder.relative_to(Path(top).resolve())
        finally:
            _git(folder, "worktree", "remove", "--force", str(there))


def _git(folder: Path, *words: str) -> str | None:
    """Return what ``git`` prints; None where it fails, or is not there."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
