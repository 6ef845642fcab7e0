"""Fill the generated tables of the documentation from the code that they describe.

    python docs/generate.py                        write them
    python docs/generate.py --check                exit 1 where one is out of date, and name it
    python docs/generate.py --demo-real FILE       write README's table of `make demo-real`; FILE is what it printed

A table stands between ``<!-- generated:NAME -->`` and ``<!-- /generated:NAME -->``. What the code cannot say of a field
stands in `meanings.toml` beside this file; a field without a meaning, or a meaning without a field, is an error.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as types

from negawatt import errors
from negawatt.config import Config
from negawatt.ledger.bills import formats
from negawatt.ledger.outcome import ENDINGS, Outcome
from negawatt.providers.rows import ROWS
from negawatt.telemetry import names
from negawatt.telemetry.instruments import INSTRUMENTS
from negawatt.translate.routes import PAIRS
from negawatt.translate.table import Untranslatable

DOCS = Path(__file__).parent
ROOT = DOCS.parent

MEANINGS = tomllib.loads((DOCS / "meanings.toml").read_text(encoding="utf-8"))
"""What each field of the configuration, each column of the ledger, each ending and each error means."""


# -- configuration ---------------------------------------------------------------------------------------------


def config_fields(kind: type = Config, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (path, type, default) of every field under *kind*; tables of tables are ``[[name]]`` or ``<name>``."""
    for field in types.type_info(kind).fields:  # type: ignore[attr-defined]
        where = f"{path}.{field.encode_name}".removeprefix(".")
        inner = _inner(field.type)
        if inner is not None:
            suffix = {"list": "[]", "dict": ".<name>", "one": ""}[inner[1]]
            yield from config_fields(inner[0], where + suffix)
        else:
            yield where, type_name(field.type), default_name(field)


def _inner(kind: types.Type) -> tuple[type, str] | None:
    if isinstance(kind, types.UnionType):
        there = [one for one in kind.types if not isinstance(one, types.NoneType)]
        return _inner(there[0]) if len(there) == 1 else None
    if isinstance(kind, types.StructType):
        return kind.cls, "one"
    if isinstance(kind, types.VarTupleType) and isinstance(kind.item_type, types.StructType):
        return kind.item_type.cls, "list"
    if isinstance(kind, types.DictType) and isinstance(kind.value_type, types.StructType):
        return kind.value_type.cls, "dict"
    return None


def type_name(kind: types.Type) -> str:
    """Return *kind* in words."""
    if isinstance(kind, types.UnionType):
        return " or ".join(type_name(one) for one in kind.types if not isinstance(one, types.NoneType))
    if isinstance(kind, types.LiteralType):
        return ", ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, (types.VarTupleType, types.ListType)):
        return f"list of {type_name(kind.item_type)}"
    if isinstance(kind, types.DictType):
        return "table" if isinstance(kind.value_type, types.AnyType) else f"table of {type_name(kind.value_type)}"
    if isinstance(kind, types.BoolType):
        return "true or false"
    if isinstance(kind, types.StrType):
        return "text"
    if isinstance(kind, (types.IntType, types.FloatType)):
        return ("integer" if isinstance(kind, types.IntType) else "number") + _bounds(kind)
    raise TypeError(f"no words for {kind}")


def _bounds(kind: types.IntType | types.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge:g} to {kind.le:g}"
    if kind.ge is not None:
        return f", at least {kind.ge:g}"
    return "" if kind.gt is None else f" above {kind.gt:g}"


def default_name(field: types.Field) -> str:
    """Return the default of *field* as TOML writes it."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, dict):
        return "{}"
    return json.dumps(value) if isinstance(value, str) else f"{value}"


def config_table(prefix: str) -> str:
    """Return the rows of the fields under *prefix*."""
    rows = [row for row in config_fields() if row[0].startswith(prefix)]
    meanings = meanings_of("config", [path for path, _, _ in config_fields()])
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for path, kind, default in rows:
        lines.append(f"| `{path.removeprefix(prefix)}` | {kind} | {default} | {meanings[path]} |")
    return "\n".join(lines)


# -- the other tables ------------------------------------------------------------------------------------------


def meanings_of(group: str, names: list[str]) -> Mapping[str, str]:
    """Return the meanings of *names*. Raises `ValueError` when there are others, or one is missing."""
    found: Mapping[str, str] = MEANINGS[group]
    if set(found) != set(names):
        raise ValueError(f"docs/meanings.toml, {group}: missing or extra: {sorted(set(found) ^ set(names))}")
    return found


def providers_table() -> str:
    """Return the rows of the provider table."""
    lines = [
        "| name | base URL | speaks | its own models | key variable | header | streamed usage asked for | priced as |",
        "| --- " * 8 + "|",
    ]
    for row in ROWS.values():
        url = f"`{row.base_url}`" if row.base_url else "yours"
        key = f"`{row.key_env}`" if row.key_env else "none"
        header = f"`{row.key_header}`" if row.key_env else ""
        # The same rule as `negawatt.catalogue.price_ids`.
        priced = "the model's name" if row.local and row.base_url is None else f"`{row.priced_as or row.name}`"
        usage = "yes" if row.usage_in_stream else "no"
        own = ", ".join(f"`{pattern}`" for pattern in row.families)
        lines.append(
            f"| `{row.name}` | {url} | {', '.join(row.protocols)} | {own} | {key} | {header} | {usage} | {priced} |"
        )
    return "\n".join(lines)


def errors_table() -> str:
    """Return one row for each error of the tree that a caller may see."""
    kinds = [
        kind
        for _, kind in [*inspect.getmembers(errors, inspect.isclass), ("", Untranslatable)]
        if issubclass(kind, errors.NegawattError) and kind not in (errors.NegawattError, errors.RequestError)
    ]
    meanings = meanings_of("errors", [kind.__name__ for kind in kinds])
    lines = ["| status | `code` | `type` | error | when |", "| --- | --- | --- | --- | --- |"]
    for kind in sorted(kinds, key=lambda kind: (kind is errors.UpstreamStatus, kind.status, kind.__name__)):
        status = "the provider's" if kind is errors.UpstreamStatus else str(kind.status)
        what = [f"`{kind.code}`", f"`{kind.type}`"] if kind is not errors.UpstreamStatus else ["the provider's"] * 2
        lines.append(f"| {status} | {what[0]} | {what[1]} | `{kind.__name__}` | {meanings[kind.__name__]} |")
    return "\n".join(lines)


def columns_table() -> str:
    """Return the columns of the ledger."""
    fields = types.type_info(Outcome).fields  # type: ignore[attr-defined]
    meanings = meanings_of("columns", [field.name for field in fields])
    lines = ["| column | type | meaning |", "| --- | --- | --- |"]
    for field in fields:
        kind = type_name(field.type) + (" or null" if isinstance(field.type, types.UnionType) else "")
        lines.append(f"| `{field.name}` | {kind} | {meanings[field.name]} |")
    return "\n".join(lines)


def endings_table() -> str:
    """Return the ways in which a call can end."""
    meanings = meanings_of("endings", list(ENDINGS))
    return "\n".join(["| ending | when |", "| --- | --- |", *(f"| `{one}` | {meanings[one]} |" for one in ENDINGS)])


def translation_table(source: str, target: str) -> str:
    """Return what becomes of each field, and each kind of content, of a request in *source* put into *target*."""
    module = importlib.import_module(PAIRS[source, target].partition(":")[0])
    lines = ["| of the request | is | |", "| --- | --- | --- |"]
    for title, table in (("", module.FIELDS), ("content: ", module.CONTENT)):
        for name, field in sorted(table.items()) if not title else table.items():
            lines.append(f"| {title}`{name}` | {field.how} | {field.note} |")
    return "\n".join(lines)


def bills_table() -> str:
    """Return the exports of providers that `negawatt ledger reconcile` knows."""
    lines = [
        "| export | known by its columns | columns read, by field | source, checked |",
        "| --- | --- | --- | --- |",
    ]
    for one in formats():
        known = ", ".join(f"`{name}`" for name in one.known_by)
        columns = ", ".join(f"{field}: `{column}`" for field, column in one.columns.items())
        lines.append(f"| {one.title} | {known} | {columns} | {one.source}; {one.checked.isoformat()} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Return all metrics, as Prometheus names them."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, one in sorted(INSTRUMENTS.items()):
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{name}` | {one.kind} | {labels} | {one.text} |")
    return "\n".join(lines)


def attributes_table() -> str:
    """Return the attributes of a call's span, with the column of the ledger that each is."""
    lines = ["| attribute | column |", "| --- | --- |"]
    for column, attribute in names.ATTRIBUTES.items():
        old = names.OLD_ATTRIBUTES.get(attribute)
        lines.append(f"| `{attribute}`{'' if old is None else f' (old name `{old}`)'} | `{column}` |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {
    **{
        f"config:{prefix}": lambda prefix=prefix: config_table(prefix)  # type: ignore[misc]
        for prefix in (
            "server.", "ledger.", "economics.", "cache.", "recall.", "levers.compose.", "levers.classify.",
            "levers.offload.", "levers.exact_cache.", "levers.item_cache.", "levers.coalesce.",
            "levers.semantic_cache.", "levers.compress.", "levers.structure.", "levers.cap.", "levers.route.",
            "levers.retry.",
            "holdout.", "classes.<name>.", "policies.<name>.", "providers[].", "models[].", "keys[].", "access.",
            "telemetry.", "slo.", "alerts.", "budgets[].", "budgeting.",
        )
    },
    **{
        f"{source}-to-{target}": lambda source=source, target=target: translation_table(source, target)  # type: ignore[misc]
        for source, target in PAIRS
    },
    "bills": bills_table,
    "providers": providers_table,
    "errors": errors_table,
    "columns": columns_table,
    "endings": endings_table,
    "metrics": metrics_table,
    "attributes": attributes_table,
}  # fmt: skip


# -- README's table of `make demo-real` ------------------------------------------------------------------------


def demo_real_table(report: Mapping[str, Any]) -> str:
    """Return the table of *report*, the JSON object that ends the output of `make demo-real`."""
    arms = report["arms"]
    left_out = [(arm, f"all but `{arm.removeprefix('without_')}`") for arm in arms if arm.startswith("without_")]
    shown = [("none", "no levers"), ("all", "all levers"), *left_out]
    heads = (
        "arm",
        "cost, USD",
        "change",
        "energy est., Wh",
        "output tokens",
        "upstream calls",
        "p50, modelled",
        "right",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, title in shown:
        arm = arms[name]
        low, central, high = arm["energy_wh"]
        change = "" if name == "none" else _change(arm["savings"]["cost_pct"])
        lines.append(
            f"| {title} | {arm['cost_usd']:.2f} | {change} | {central:.0f} ({low:.0f} to {high:.0f}) | "
            f"{arm['output_tokens']:,} | {arm['upstream_calls']:,} | {arm['p50_ms'] / 1000:.2f} s | "
            f"{_percent(arm['intervals']['success_rate'])} |"
        )
    method, load, saved = report["method"], report["workload"], report["savings"]
    changes = [
        f"{title} {_change(saved[key])}"
        for title, key in (
            ("energy", "energy_pct"),
            ("input tokens", "input_tokens_pct"),
            ("output tokens", "output_tokens_pct"),
            ("p50", "latency_p50_pct"),
        )
    ]
    sample = f"n = {report['requests']:,} calls in {method['clusters']:,} clusters of equal prompts"
    words = [
        f"{sample}; {load['repeats_share']:.0%} of the calls are repeats. In square brackets:",
        f"{method['confidence']:.0%} intervals, bootstrap over whole clusters, {method['resamples']:,} resamples,",
        f"seed {report['seed']}; of `right`: Clopper-Pearson at the effective sample size.",
        f"All levers against none: {', '.join(changes)}.",
        f"{report['date']}, 2 cores, x86-64, Linux; `make demo-real` (`examples/gsm8k_replay.py`, `negawatt replay`).",
    ]
    lines += ["", *textwrap.wrap(" ".join(words), 119, break_on_hyphens=False)]
    return "\n".join(lines)


def _change(saving: Mapping[str, float]) -> str:
    """Return a saving in percent as the change it is."""
    return f"{-saving['mean']:+.0f} % [{-saving['high']:+.0f}, {-saving['low']:+.0f}]"


def _percent(rate: Mapping[str, float]) -> str:
    return f"{rate['mean']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"


# -- writing ---------------------------------------------------------------------------------------------------


def filled(text: str, page: Path) -> str:
    """Return *text* with every generated table made anew. Raises `ValueError` for a block that does not end."""
    for name, table in TABLES.items():
        text = between(text, f"<!-- generated:{name} -->", f"<!-- /generated:{name} -->", table, page)
    return text


def between(text: str, begin: str, end: str, table: Callable[[], str], page: Path) -> str:
    """Return *text* with *table* between the lines *begin* and *end*, where they are there."""
    before, found, rest = text.partition(f"{begin}\n")
    if not found:
        return text
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"{page}: {begin} has no {end}")
    return f"{before}{begin}\n{table()}\n{end}{after}"


def pages() -> list[Path]:
    return sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is out of date")
    parser.add_argument("--demo-real", type=Path, metavar="FILE", help="what `make demo-real` printed")
    chosen = parser.parse_args()
    stale = []
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = filled(old, page)
        if chosen.demo_real is not None:
            report = json.loads(chosen.demo_real.read_text(encoding="utf-8").strip().splitlines()[-1])
            marks = ("<!-- demo-real:begin -->", "<!-- demo-real:end -->")
            new = between(new, *marks, lambda report=report: demo_real_table(report), page)  # type: ignore[misc]
        if new != old:
            stale.append(page.relative_to(ROOT))
            if not chosen.check:
                page.write_text(new, encoding="utf-8")
    for page in stale:
        print(f"{page}: {'out of date' if chosen.check else 'written'}")
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
