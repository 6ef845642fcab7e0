"""Calibration files: what the verifiers of a cascade said of answers of which it is known whether they are right.

``negawatt eval`` writes them. A file is one JSON object for one small model, or a list of them::

    {"format": 1, "policy": "cheap", "model": "gpt-4o-mini", "checks": [{"kind": "judge"}],
     "scores": [0.9, 0.2], "right": [true, false], "date": "2026-11-27", "suite": "support"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson

from negawatt.config_routes import Cascade as Settings
from negawatt.config_routes import Check
from negawatt.errors import ConfigError
from negawatt.routing.gate import Bar
from negawatt.routing.guarantee import accept_threshold

FORMAT = 1


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one small model. *scores* are products over all *checks*; *right* says of each whether the answer was."""

    format: int = FORMAT
    policy: str
    model: str  # with its effort: `negawatt.routing.choice.Choice.name`
    checks: tuple[Check, ...]
    scores: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]
    right: tuple[bool, ...]
    date: str | None = None
    suite: str | None = None


def load_calibration(path: Path, where: str) -> list[Calibration]:
    """Return what is in the file *path*. Raises `ConfigError` with the remedy; *where* is the field that names it."""
    again = "make it again with `negawatt eval`"
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        reason = f"{where}: {path} cannot be read: {error.strerror}; {again}, or leave the field out"
        raise ConfigError(reason, param=where) from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{where}: {path} is no JSON: {error}; {again}", param=where) from error
    rows = data if isinstance(data, list) else [data]
    for row in rows:
        found = row.get("format") if isinstance(row, dict) else None
        if found != FORMAT:
            message = f"{where}: {path} is of format {found!r}, and this version reads {FORMAT}; {again}"
            raise ConfigError(message, param=where)
    try:
        calibrations = msgspec.convert(rows, list[Calibration])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {path}: {error}; {again}", param=where) from error
    for one in calibrations:
        if len(one.scores) != len(one.right):
            message = f"{where}: {path} has {len(one.scores)} scores and {len(one.right)} verdicts; {again}"
            raise ConfigError(message, param=where)
    return calibrations


def write_calibration(path: Path, calibrations: Sequence[Calibration]) -> None:
    """Write *calibrations* into the file *path*: one as an object, several as a list. Raises `OSError`."""
    rows = [{**msgspec.to_builtins(one), "checks": plain_checks(one.checks)} for one in calibrations]
    path.write_bytes(orjson.dumps(rows[0] if len(rows) == 1 else rows, option=orjson.OPT_INDENT_2) + b"\n")


def bars_of(calibrations: Sequence[Calibration], policy: str, settings: Settings, where: str) -> dict[str, Bar]:
    """Return the bar of each calibrated model. Raises `ConfigError` for calibrations of another policy or of others."""
    bars: dict[str, Bar] = {}
    for one in calibrations:
        if one.policy != policy:
            message = f"{where}: it is of policy {one.policy!r}, not of {policy!r}; name the file of this one"
            raise ConfigError(message, param=where)
        if plain_checks(one.checks) != plain_checks(settings.verify):
            message = (
                f"{where}: it was made with the checks {_named(one.checks)}, and {_named(settings.verify)} are "
                "configured; make it again with `negawatt eval`"
            )
            raise ConfigError(message, param=where)
        bars[one.model] = bar_of(one.scores, one.right, settings)
    return bars


def bar_of(scores: Sequence[float], right: Sequence[bool], settings: Settings) -> Bar:
    """Return what it takes to accept an answer, by *scores* of answers that were *right* or not.

    Nothing is accepted where the evidence is too thin, or the scores do not tell right from wrong; the reason says
    which, and how many answers it would take.
    """
    import numpy as np

    wrong = ~np.asarray(right, bool)
    found = accept_threshold(
        np.asarray(scores, np.float64), wrong.astype(np.float64), delta=settings.max_error, alpha=settings.alpha
    )
    if found.threshold is None:
        return Bar("nothing", None, found.reason)
    return Bar("score", found.threshold, found.reason)


def plain_checks(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return *checks* as they stand in a configuration, without what is usual."""
    found = []
    for check in checks:
        usual = Check(kind=check.kind)
        fields = {name: getattr(check, name) for name in Check.__struct_fields__}
        changed = {name: value for name, value in fields.items() if name == "kind" or value != getattr(usual, name)}
        found.append(msgspec.to_builtins(changed))
    return found


def _named(checks: Sequence[Check]) -> str:
    return orjson.dumps(plain_checks(checks)).decode()[:300]
