"""What the pages show that does not lie in the ledger: from the configuration, the gateway, and what governs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from negawatt import __version__
from negawatt.config import Config, RequestClass
from negawatt.errors import NegawattError
from negawatt.gateway import Gateway
from negawatt.recall.originals import whose
from negawatt.recall.state import learned_rows
from negawatt.recalling import recalls
from negawatt.shape.edits import id_of
from negawatt.web.facts import Facts

# A call meets the levers in this order on its way down.
LEVERS = (
    "compose", "classify", "offload", "exact_cache", "item_cache", "coalesce", "semantic_cache", "compress",
    "structure", "cap", "route", "prefix", "retry",
)  # fmt: skip
Json = Mapping[str, Any]


class Success(Protocol):
    """Returns what tasks came to that began in [since, until); of *classes*, by the name of each."""

    def __call__(self, since: float, until: float, *, classes: bool) -> Json | None: ...


async def _none() -> None:
    return None


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What other rooms add to the pages; each gives None where it is not configured.

    *success*: of tasks in [since, until), of all or by class; called in a thread. *budgets*: their rows, the one that
    covers everything first named by ``covers`` empty. *alerts*: ``slos`` and ``alerts``. The shapes of the rows are in
    docs/dashboard_api.md.
    """

    success: Success = lambda since, until, *, classes: None
    budgets: Callable[[], Awaitable[Sequence[Json] | None]] = _none
    alerts: Callable[[], Awaitable[Json | None]] = _none


def whole_budget(budgets: Sequence[Json] | None) -> Json | None:
    """Return, of *budgets*, the one in dollars by the month that covers everything, as the first screen has it."""
    for budget in budgets or ():
        if not budget.get("covers") and budget.get("unit") == "usd" and budget.get("period") == "month":
            return {
                "name": budget["name"], "limit_usd": budget["limit"], "spent_usd": budget["spent"],
                "resets_s": budget["resets_s"],
            }  # fmt: skip
    return None


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """What is behind the pages: a gateway that serves since *started_s*, or, None, a ledger alone.

    *config*: what to say of classes, policies, caches and holdout; None: it is not known how the ledger was written.
    """

    config: Config | None
    started_s: float | None


async def facts_of(gateway: Gateway, behind: Behind, success: Json | None, budgets: Sequence[Json] | None) -> Facts:
    """Return what the first screen says that no ledger knows."""
    config, carbon = behind.config, gateway.accounts.carbon
    checks = {} if behind.started_s is None else await gateway.checks()
    problems = {name: problem for name, problem in checks.items() if problem is not None}
    return Facts(
        levers=LEVERS,
        kinds={} if config is None else {one.name: one.kind or one.name for one in config.providers},
        holdout_share=None if config is None else config.holdout.share,
        versions={"negawatt": __version__, **gateway.accounts.versions},
        grid={"zone": carbon.zone, "year": carbon.year, "source": carbon.source},
        started_s=behind.started_s,
        problems=problems,
        success=success,
        budget=whole_budget(budgets),
    )


def classes_of(config: Config | None) -> dict[str, Json]:
    """Return what the configuration says of each class."""
    return {} if config is None else {name: _class(policy) for name, policy in config.classes.items()}


def _class(policy: RequestClass) -> Json:
    return {
        "owner": policy.owner, "quality_target": None if policy.quality is None else policy.quality.success,
        "risk": policy.risk, "latency_class": policy.latency, "policy": policy.policy,
    }  # fmt: skip


def policies_of(config: Config | None) -> list[Json] | None:
    """Return the policies by which models are chosen; None: they are not known."""
    return None if config is None else [
        {
            "name": name, "how": policy.how, "candidates": [one.model for one in policy.candidates],
            "reference": policy.candidates[-1].model if policy.candidates else None,
            "quality": None if policy.quality is None else policy.quality.success,
        }
        for name, policy in config.policies.items()
    ]  # fmt: skip


def cache_modes(config: Config | None) -> dict[str, str]:
    """Return the mode of each cache; nothing where it is not known."""
    if config is None:
        return {}
    levers = config.levers
    names = ("exact_cache", "item_cache", "coalesce", "semantic_cache")
    return {name: getattr(levers, name).mode for name in names}


async def learned_of(gateway: Gateway, behind: Behind) -> dict[str, Any]:
    """Return what the semantic cache has learned, or why that is not known."""
    if behind.started_s is None:
        note = "what the semantic cache has learned lies with its gateway, and these are the pages of a ledger alone"
        return {"learned": None, "learned_note": note, "review": {"waiting": None, "command": None}}
    if gateway.recall is None or not recalls(gateway.config):
        return {"learned": [], "learned_note": None, "review": {"waiting": 0, "command": "negawatt cache review"}}
    try:
        rows = await learned_rows(gateway.config, gateway.recall.index.cases)
    except NegawattError as error:
        return {"learned": None, "learned_note": error.message, "review": {"waiting": None, "command": None}}
    waiting = sum(row["waiting"] for row in rows)
    return {"learned": rows, "learned_note": None, "review": {"waiting": waiting, "command": "negawatt cache review"}}


async def shaped_of(gateway: Gateway, row: Json) -> dict[str, Any]:
    """Return what was shortened of the call of *row*, as it was, or why that is not known."""
    mine = whose(row["tenant"] or "default", row["permissions"] or "", row["user"])
    try:
        found = await gateway.originals.of_call(row["id"], mine)
    except NegawattError as error:
        return {"shaped": None, "shaped_note": error.message}
    if found is None:
        return {"shaped": None, "shaped_note": "nothing was shortened of it, or it is not kept any more"}
    texts = [
        {"path": "/".join(map(str, path)), "id": id_of(text), "text": text, "sent": found.sent.get(path)}
        for path, text in found.texts.items()
    ]
    return {"shaped": {"texts": texts, "tools": found.tools}, "shaped_note": None}


async def success_of(sources: Sources, since: float, until: float, *, classes: bool) -> Json | None:
    """Return what is known of the success of tasks: of all, or by class."""
    return await asyncio.to_thread(sources.success, since, until, classes=classes)
