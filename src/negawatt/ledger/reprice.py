"""Pricing stored usage again: the ledger keeps what was used, so what it comes to can be computed anew."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.economics.accounts import Accounts, Amount, difference, to_pusd, total
from negawatt.economics.energy import Joules
from negawatt.economics.usage import Usage
from negawatt.ledger.export import usd
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import read_rows, update_rows

_BATCH = 5_000


def reprice_ledger(
    path: Path, accounts: Accounts, since: float, until: float, *, dry_run: bool = False
) -> dict[str, Any]:
    """Price every row in [since, until) anew. Returns counts and sums. Raises `InputError`."""
    rows = changed = unpriced = before = after = 0
    waiting: list[Outcome] = []
    versions = orjson.dumps(accounts.versions).decode()
    for row in list(read_rows(path, since, until)):
        new = repriced(row, accounts, versions)
        rows += 1
        changed += new != row
        unpriced += new.cost_pusd is None
        before += row.cost_pusd or 0
        after += new.cost_pusd or 0
        if new != row and not dry_run:
            waiting.append(new)
        if len(waiting) >= _BATCH:
            update_rows(path, waiting)
            waiting = []
    if waiting:
        update_rows(path, waiting)
    return {
        "rows": rows, "changed": changed, "unpriced": unpriced, "before_usd": usd(before), "after_usd": usd(after),
        "dry_run": dry_run,
    }  # fmt: skip


def repriced(row: Outcome, accounts: Accounts, versions: str) -> Outcome:
    """Return *row* with cost, energy and carbon computed from its stored usage."""
    attempts = orjson.loads(row.attempt_log)
    decisions = orjson.loads(row.decisions)
    amounts = [_attempt(attempt, accounts, row.received_at) for attempt in attempts]
    for attempt, amount in zip(attempts, amounts, strict=True):
        attempt["cost_pusd"] = to_pusd(amount.cost_usd)
    spared = []
    actual, instead = total(amounts), False
    for decision in decisions:
        saved = decision.get("saved")
        if saved is None:
            continue
        amount, shadow = _amount(saved, accounts, row.received_at), decision.get("mode", "on") == "shadow"
        if not shadow:
            spared.append(amount)
        if saved.get("instead"):
            amount = difference(actual, amount) if shadow else difference(amount, actual)
            instead = instead or not shadow
        saved["cost_pusd"] = to_pusd(amount.cost_usd)
        saved["energy_j"] = None if amount.joules is None else list(msgspec.structs.astuple(amount.joules))
    baseline = total(spared if instead else [actual, *spared])
    joules = None if actual.joules is None else actual.joules + accounts.own(row.overhead_s)
    named = next((a for a in [actual, *spared] if a.price_source is not None), actual)
    return msgspec.structs.replace(
        row,
        cost_pusd=to_pusd(actual.cost_usd),
        baseline_cost_pusd=to_pusd(baseline.cost_usd),
        price_source=named.price_source,
        **_joules("energy", joules),
        **_joules("baseline_energy", baseline.joules),
        energy_basis=named.energy_basis,
        co2e_g=None if joules is None else accounts.carbon.grams(joules).central,
        decisions=orjson.dumps(decisions).decode(),
        attempt_log=orjson.dumps(attempts).decode(),
        versions=versions,
    )


def _attempt(attempt: dict[str, Any], accounts: Accounts, at: float) -> Amount:
    if not attempt["billed"]:
        return total([])
    return _amount(attempt, accounts, at)


def _amount(stored: dict[str, Any], accounts: Accounts, at: float) -> Amount:
    # Under the price id of then: the provider may have another name by now, or be gone from the configuration.
    return accounts.amount_as(stored["priced_as"], stored["model"], _usage(stored["usage"]), at)


def _usage(stored: dict[str, Any] | None) -> Usage | None:
    if stored is None:
        return None
    cost = stored.get("cost_usd")
    return msgspec.convert({**stored, "cost_usd": None if cost is None else Decimal(str(cost))}, Usage)


def _joules(name: str, joules: Joules | None) -> dict[str, float | None]:
    low, central, high = (None, None, None) if joules is None else msgspec.structs.astuple(joules)
    return {f"{name}_low_j": low, f"{name}_j": central, f"{name}_high_j": high}
