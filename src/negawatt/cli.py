"""``negawatt``: the terminal.

Exit codes: 0 done, 1 the check failed, 2 bad input or configuration, 3 inconclusive.
"""

from __future__ import annotations

import sys

import click

from negawatt import __version__
from negawatt.commands.budgets import budgets
from negawatt.commands.cache import cache
from negawatt.commands.check import check
from negawatt.commands.dashboard import dashboard
from negawatt.commands.evaluate import evaluate
from negawatt.commands.export import export
from negawatt.commands.keys import keys
from negawatt.commands.ledger import ledger
from negawatt.commands.prompts import prompts
from negawatt.commands.proof import demo, replay, report
from negawatt.commands.route import route
from negawatt.commands.serve import init, serve
from negawatt.commands.tasks import feedback, tasks
from negawatt.commands.tokens import tokens
from negawatt.commands.watch import alerts, slo
from negawatt.errors import NegawattError

_HELP = """A gateway for language models that meters, caches and coalesces, and proves what it saves by replay.

\b
  negawatt init                         write a negawatt.toml that explains itself
  negawatt serve                        then change one line: base_url="http://127.0.0.1:4100/v1"
  negawatt keys create                  a key for a caller, or for an administrator
  negawatt report                       what was saved since
  negawatt dashboard                    the same as a page, of a ledger that no gateway writes
  negawatt tasks summary                what one successful task costs
  negawatt export --format focus-csv    what it cost, for other programs
  negawatt demo                         a replay of the sample workload: what each lever saves
  negawatt replay TRACE --provider ...  what each lever would save on recorded traffic
  negawatt eval SUITE                   which is the smallest model that is good enough
  negawatt check                        have the prompts of this repository grown?
  negawatt route test PROMPT            which model a request would go to, and why
  negawatt slo status                   is what was promised of each class kept
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="negawatt")
def cli() -> None:
    pass


_COMMANDS = (
    init, serve, dashboard, demo, replay, report, evaluate, check, route, prompts, cache, budgets, tasks, feedback,
    keys, slo, alerts, ledger, export, tokens,
)  # fmt: skip
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line; our own errors become one line and exit code 2."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except NegawattError as error:
        click.echo(f"negawatt: {error.message}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
