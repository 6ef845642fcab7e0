"""Candidates for the tests of routing."""

from __future__ import annotations

from typing import Any

from negawatt.call import Target
from negawatt.config_routes import Candidate
from negawatt.economics.accounts import Accounts
from negawatt.economics.capabilities import KnownModels
from negawatt.economics.carbon import Carbon
from negawatt.economics.energy import Energy
from negawatt.economics.prices import Prices, context_window
from negawatt.routing.choice import Choice

ACCOUNTS = Accounts(Prices(), Energy(), Carbon("WORLD"), {})
MODELS = KnownModels(context_window)


def choice(model: str, tier: int = 1, *, provider: str = "openai", **fields: Any) -> Choice:
    """Return the candidate *model*, whose name at its provider is the same."""
    candidate = Candidate(model=model, **fields)
    return Choice(candidate, tier, (Target(provider, model, model, candidate.effort),))
