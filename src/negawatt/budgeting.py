"""Opening the purse that a configuration fills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negawatt.catalogue import newer_limit
from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.economics.accounts import Accounts
from negawatt.errors import StoreError
from negawatt.registry import BUDGETS, Url, check_url, open_backend
from negawatt.telemetry import Sample, Telemetry

if TYPE_CHECKING:
    from negawatt.budgets import Books
    from negawatt.budgets.purse import Purse

_BESIDE = "ledger"
_WHERE = "budgeting.store"


def store_of(config: Config, *, ledger_given: bool = False) -> str:
    """Return the URL of the books: beside the ledger, unless the configuration says where. Raises `ConfigError`.

    Of ``sqlite:///negawatt.sqlite`` they are ``sqlite:///negawatt-budgets.sqlite``; beside a ledger that is no file,
    or that was *ledger_given* by whoever opens the gateway, they last as long as the process.
    """
    own = config.budgeting.store
    if own.partition(":")[0] != _BESIDE:
        return own
    ledger = Url.parse(config.ledger.url, "ledger.url")
    if ledger_given or ledger.scheme != "sqlite":
        return "memory:"
    stem, dot, suffix = ledger.text.partition("?")[0].rpartition(".")
    return f"{stem}-budgets.{suffix}" if dot and "/" not in suffix else f"{ledger.text}-budgets"


def check_store(config: Config) -> None:
    """Raise `ConfigError` where no books could be opened by what the configuration says; open nothing."""
    if config.budgets:
        check_url(BUDGETS, "negawatt.budgets", store_of(config), _WHERE)


def open_books(config: Config, clock: Clock, *, ledger_given: bool = False) -> Books | None:
    """Return the books that *config* names; None where it has no budgets. Raises `ConfigError`."""
    if not config.budgets:
        return None
    books: Books = open_backend(
        BUDGETS, "negawatt.budgets", store_of(config, ledger_given=ledger_given), _WHERE, clock,
        lease_s=config.budgeting.lease_s,
    )  # fmt: skip
    return books


def purse_of(
    config: Config, books: Books | None, accounts: Accounts, clock: Clock, telemetry: Telemetry
) -> Purse | None:  # fmt: skip
    """Return what pays for attempts, out of *books*."""
    if books is None:
        return None
    from negawatt.budgets.purse import Purse

    return Purse(
        config.budgets, config.budgeting, books=books, accounts=accounts, clock=clock, counts=telemetry,
        newer_word=newer_limit(config),
    )  # fmt: skip


async def budget_samples(purse: Purse | None) -> list[Sample]:
    """Return what is left of each budget, as a share; of those with one for each, of the one with the least.

    Names alone are labels: users and keys are too many.
    """
    if purse is None:
        return []
    least: dict[str, float] = {}
    try:
        await purse.check()  # what cannot be written does not show when it is read
        for state in await purse.states(most=1):
            least[state.budget] = min(least.get(state.budget, 1.0), state.left_share)
    except StoreError:
        return [Sample("negawatt_up", (("part", "budgets"),), 0.0)]
    shares = [Sample("negawatt_budget_remaining_ratio", (("budget", name),), share) for name, share in least.items()]
    return [*shares, Sample("negawatt_up", (("part", "budgets"),), 1.0)]
