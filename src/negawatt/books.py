"""Opening the books that a configuration names: the ledger, and the tables that price its rows."""

from __future__ import annotations

from pathlib import Path

from negawatt.catalogue import price_ids
from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.economics.accounts import Accounts
from negawatt.economics.carbon import Carbon
from negawatt.economics.energy import Energy
from negawatt.economics.prices import Prices
from negawatt.ledger import Ledger
from negawatt.registry import LEDGERS, open_backend


def open_ledger(config: Config, clock: Clock) -> Ledger:
    """Return the ledger that *config* names. Raises `ConfigError`, or `InputError` for a file that is none."""
    url = config.ledger.url
    more = {} if config.ledger.rollups or not url.startswith("sqlite:") else {"rollups": False}
    ledger: Ledger = open_backend(LEDGERS, "negawatt.ledgers", url, "ledger.url", clock, **more)
    return ledger


def open_accounts(config: Config) -> Accounts:
    """Return the books with the tables that *config* names. Raises `ConfigError`."""
    economics = config.economics
    prices = Prices(
        None if economics.prices is None else Path(economics.prices),
        None if economics.litellm_prices is None else Path(economics.litellm_prices),
    )
    energy = Energy(None if economics.energy is None else Path(economics.energy), batch=economics.batch)
    return Accounts(prices, energy, Carbon(economics.zone), price_ids(config))
