"""``negawatt prompts``: templates, what their blocks cost, and which of them are needed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from negawatt.commands.options import (
    config_option,
    json_option,
    ledger_file,
    ledger_option,
    load,
    moment,
    since_option,
    until_option,
)
from negawatt.errors import InputError

if TYPE_CHECKING:
    from negawatt.prompts import Prompts, Rendered, Template
    from negawatt.proof.prompt_ablation import Ablation, BlockFinding
    from negawatt.proof.prompt_costs import PromptCosts
    from negawatt.proof.suite import EvalCandidate, Suite
    from negawatt.statistics import Interval

_FILE = click.Path(path_type=Path)
prompts_option = click.option(
    "--prompts", "folder", type=_FILE, metavar="FOLDER",
    help="Folder of templates; default: levers.compose.prompts of the configuration, else prompts.",
)  # fmt: skip
variables_option = click.option(
    "-v", "--variable", "given", multiple=True, metavar="NAME=VALUE",
    help="Value of a variable; lists and JSON as JSON, NAME=@FILE from a file.",
)  # fmt: skip
_VERDICTS = {
    "needed": "needed: without it fewer answers are right",
    "baggage": "legacy baggage: at most the margin is lost without it",
    "unclear": "too few cases to tell",
    "unsaid": "no case says it",
    "unasked": "the recording has no answer to prompts without it",
}


@click.group()
def prompts() -> None:
    """Prompt templates: list and render them, see what their blocks cost, and which of them are needed."""


@prompts.command("list")
@prompts_option
@config_option
@json_option
def list_(folder: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the templates of a folder: version, blocks by part, variables. A mistake in any is named, with its line."""
    found = [_described(one) for one in _opened(folder, config_path)]
    if as_json:
        _say(found)
        return
    table = _table("template", "version", "base", "context", "task", "variables")
    for one in found:
        parts = (", ".join(block["name"] for block in one["blocks"] if block["part"] == p) for p in _PARTS)
        table.add_row(one["name"], one["version"], *parts, ", ".join(one["variables"]))
    _print(table)


_PARTS = ("base", "context", "task")


def _described(one: Template) -> dict[str, Any]:
    blocks = [
        {"name": block.name, "part": block.part, "when": [c.text for c in block.when], "stable": block.stable,
         "file": block.path, "line": block.line}
        for block in one.blocks
    ]  # fmt: skip
    variables = {name: {"type": variable.type, "required": variable.needed} for name, variable in one.variables.items()}
    return {
        "name": one.name, "version": one.version, "digest": one.digest, "file": one.path,
        "description": one.description, "includes": one.includes, "blocks": blocks, "variables": variables,
    }  # fmt: skip


@prompts.command()
@click.argument("name")
@variables_option
@click.option("--model", default="gpt-4o-mini", show_default=True, help="Whose tokens are counted.")
@click.option("--version", help="Refuse any other version: the digest, or its beginning.")
@prompts_option
@config_option
@json_option
def render(name: str, given: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Print template NAME with its variables, as messages, and the tokens of each block.

    \b
      negawatt prompts render support -v question='Where is my order?' -v tier=gold
    """
    import msgspec

    from negawatt.economics.counting import TokenCounter

    found = _opened(options["folder"], options["config_path"])
    template = found.template(name, options["version"])
    rendered = template.render(_values(template, given))
    counter = TokenCounter(budget=None)
    blocks = [
        msgspec.structs.replace(one, tokens=counter.count_text(options["model"], one.text).tokens)
        for one in rendered.blocks
    ]
    rendered = msgspec.structs.replace(rendered, blocks=tuple(blocks))
    if as_json:
        _say(msgspec.to_builtins(rendered))
    else:
        _show(rendered)


def _show(rendered: Rendered) -> None:
    for message in rendered.messages:
        click.echo(f"--- {message['role']}\n{message['content']}")
    click.echo(f"--- {rendered.name}, version {rendered.version}", err=True)
    for block in rendered.blocks:
        click.echo(f"{block.tokens:>7,} tokens  {block.part:<8} {block.name}", err=True)


@prompts.command()
@config_option
@ledger_option
@since_option
@until_option
@json_option
def cost(config_path: Path | None, ledger_path: Path | None, as_json: bool, **when: Any) -> None:
    """Say what each block costs: tokens a call, calls a day, money a month, by the calls in the ledger.

    Money is the block's share of the input of its calls, at list prices, with what providers read from their caches
    at its lower price; a month has 30 days. Calls that our caches answered cost nothing.
    """
    from negawatt.books import open_accounts
    from negawatt.ledger.sqlite import read_rows
    from negawatt.proof.prompt_costs import prompt_costs

    config = load(config_path)
    path = ledger_file(ledger_path, config)
    since, until = moment(when["since"], 0.0, "--since"), moment(when["until"], float("inf"), "--until")
    span = None if not since else min(until, time.time()) - since
    found = prompt_costs(read_rows(path, since, until), open_accounts(config), span)
    if as_json:
        _say(_costs(found))
    elif not found.blocks:
        click.echo("no call in the ledger was rendered from a template")
    else:
        _print_costs(found)


def _costs(found: PromptCosts) -> dict[str, Any]:
    blocks = [
        {
            "template": one.template, "block": one.block, "versions": sorted(one.versions), "calls": one.calls,
            "asked": one.asked, "tokens": one.tokens, "tokens_a_call": round(one.tokens_a_call, 1),
            "calls_a_day": one.calls_a_day, "usd": float(one.usd), "usd_month": one.usd_month,
            "unpriced": one.unpriced,
        }
        for one in found.blocks
    ]  # fmt: skip
    return {"rows": found.rows, "days": found.days, "blocks": blocks}


def _print_costs(found: PromptCosts) -> None:
    from negawatt.proof.formats import count, usd

    table = _table("template", "block", *(name for name in ("tokens", "calls a day", "a month", "calls")))
    for one in found.blocks:
        unpriced = f" ({one.unpriced:,} unpriced)" if one.unpriced else ""
        a_day = "unknown" if one.calls_a_day is None else f"{one.calls_a_day:,.1f}"
        table.add_row(one.template, one.block, count(one.tokens_a_call), a_day, usd(one.usd_month),
                      f"{one.calls:,}{unpriced}")  # fmt: skip
    _print(table)
    days = "too little time to reckon with" if found.days is None else f"{found.days:,.1f} days"
    click.echo(f"{found.rows:,} rows, {days}")


@prompts.command()
@click.argument("suite", type=_FILE)
@click.argument("name")
@variables_option
@click.option("--candidate", help="Of the suite, the one to ask; default: its reference.")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.02, show_default=True,
              help="Share of right answers that a block may be worth and still be called baggage.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Only so many first cases of each dataset.")
@click.option("--out", type=_FILE, metavar="FOLDER",
              help="Where the run lies; default: NAME-ablation in this folder.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Ask live models without asking you first.")
@prompts_option
@json_option
def ablate(suite: Path, name: str, given: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Ask the cases of SUITE with template NAME, and without each of its blocks: quality against tokens.

    A case fills the variables `prompt` (or `question`) and `context` where the template has them; else its messages
    follow the template. Every case is a pair, and figures have 95 % intervals. Exit codes: 0 each block is known to be
    needed or not, 2 bad input, 3 some are not.

    A recording answers only prompts that were recorded: it cannot tell what a changed prompt would have done, and
    where it is asked for one the block stays unknown.
    """
    from negawatt.proof.cases import read_cases
    from negawatt.proof.judging import verifiable
    from negawatt.proof.prompt_ablation import plan_of
    from negawatt.proof.suite import load_suite

    loaded = load_suite(suite, os.environ)
    folder = options["folder"] or Path(loaded.config.levers.compose.prompts or "prompts")
    template = _opened(folder, None).template(name)
    cases = read_cases(loaded, options["limit"])
    verifiable(loaded)
    values = _values(template, given)
    plan = plan_of(loaded, template, cases, values, _candidate(loaded, options["candidate"]), options["margin"])
    out = options["out"] or Path(f"{name.replace('/', '-')}-ablation")
    found = _ablated(plan, out, options["yes"])
    if as_json:
        import msgspec

        _say({**found._asdict(), "quality": msgspec.to_builtins(found.quality),
              "input_tokens": msgspec.to_builtins(found.input_tokens),
              "blocks": msgspec.to_builtins(found.blocks)})  # fmt: skip
    else:
        _print_ablation(found)
    raise SystemExit(0 if all(one.verdict in ("needed", "baggage") for one in found.blocks) else 3)


def _candidate(suite: Suite, name: str | None) -> EvalCandidate:
    if name is None:
        return suite.reference
    found = next((one for one in suite.candidates if one.called == name), None)
    if found is None or found.policy:
        known = ", ".join(one.called for one in suite.candidates if not one.policy)
        raise InputError(f"--candidate: no model of the suite is called {name!r}; known: {known}")
    return found


def _ablated(plan: Any, folder: Path, yes: bool) -> Ablation:
    from negawatt.commands.evaluate import agreed, counting
    from negawatt.commands.proof import progress
    from negawatt.proof.prompt_ablation import ablate as asked_without
    from negawatt.proof.prompt_ablation import to_ask
    from negawatt.proof.run_file import RunFile

    with RunFile(folder / "run.jsonl") as found:
        todo = to_ask(plan, found)
        agreed(plan.suite, list(plan.cases), todo, yes)
        with progress("asking") as (begin, step):
            begin(len(todo))
            return asked_without(plan, found, counting(step))


def _print_ablation(found: Ablation) -> None:
    table = _table("block", "part", "tokens", "right answers", "a call", "cases", "")
    for one in found.blocks:
        table.add_row(
            one.block, one.part, _interval(one.input_tokens, 1, "+.0f"), _interval(one.quality, 100, "+.1f", " %"),
            _interval(one.cost_usd, 1e6, "+,.0f", " µ$"), _cases(one), _VERDICTS[one.verdict],
        )  # fmt: skip
    click.echo(
        f"{found.template}, version {found.version}, {found.model}; with all blocks "
        f"{_interval(found.quality, 100, '.1f', ' %')} right, "
        f"{_interval(found.input_tokens, 1, ',.0f')} tokens a call.\n"
        f"Without each block (margin {100 * found.margin:g} %):"
    )
    _print(table)


def _cases(one: BlockFinding) -> str:
    return f"{one.cases:,}: {one.worse} worse, {one.better} better"


def _interval(value: Interval, times: float, form: str, unit: str = "") -> str:
    if value.mean is None:
        return "unknown"
    shown = f"{times * value.mean:{form}}"
    if value.low is not None and value.high is not None:
        shown += f" [{times * value.low:{form}}, {times * value.high:{form}}]"
    return shown.replace("-", "−") + unit


# -- what the verbs share --------------------------------------------------------------------------------------


def _opened(folder: Path | None, config_path: Path | None) -> Prompts:
    from negawatt.prompts import load_prompts

    if folder is None:
        folder = Path(load(config_path).levers.compose.prompts or "prompts")
    return load_prompts(folder)


def _values(template: Template, given: tuple[str, ...]) -> dict[str, Any]:
    """Return the variables that were typed. Raises `InputError` and `InvalidRequest`."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise InputError(f"-v {one}: expected NAME=VALUE")
        variable = template.variables.get(name)
        if variable is None:
            known = ", ".join(sorted(template.variables)) or "none"
            raise InputError(f"-v {name}: template {template.name!r} has no such variable; known: {known}")
        found[name] = variable.read(_from_file(text) if text.startswith("@") else text, f"-v {name}")
    return found


def _from_file(text: str) -> str:
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{text[1:]}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{text[1:]}: not UTF-8") from error


def _say(value: Any) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _table(*names: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("tokens", "calls a day", "a month", "calls") else "left")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if Console().is_terminal else 160, markup=False, highlight=False).print(table)
