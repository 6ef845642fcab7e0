"""What a gateway would do with a request, found out by its own levers, without asking anybody."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from negawatt.call import Call
from negawatt.caller import Caller, Hints
from negawatt.config import Config
from negawatt.config_routes import Quality
from negawatt.errors import InvalidRequest, NotRecorded
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.providers import Provider
from negawatt.reply import Reply
from negawatt.wire.wires import WIRES

log = logging.getLogger(__name__)


class _Nobody:
    """A provider that is never asked."""

    speaks = frozenset(WIRES)

    async def ask(self, call: Call, target: Any) -> Reply:
        raise NotRecorded("nobody is asked in a rehearsal")

    async def models(self) -> list[str]:
        return []

    async def close(self) -> None:
        """Nothing is open."""


class _Anyone:
    """Whoever rehearses may ask for anything."""

    open, divided = True, False

    def caller(self, secret: str | None) -> Caller:
        return Caller()

    holder = caller


async def rehearse(config: Config, body: bytes, hints: Hints, protocol: str = "chat") -> dict[str, Any]:
    """Return what would become of the request *body*: plain values, in the shape that `negawatt route test` prints.

    Raises `NegawattError` for a request or a configuration that is refused.
    """
    wire = WIRES.get(protocol)
    if wire is None:
        raise InvalidRequest(
            f"protocol: there is no protocol {protocol!r}; known: {', '.join(WIRES)}", param="protocol"
        )
    nobody: Provider = _Nobody()
    providers = {provider.name: nobody for provider in config.providers}
    config = msgspec.structs.replace(config, budgets=())  # nothing is asked, and the books may be another process's
    async with Gateway.open(
        config, ledger=MemoryLedger(), providers=providers, keyring=_Anyone(), environ={}
    ) as gateway:
        await gateway.ready()
        call = await gateway.arrived(gateway.new_call(body, hints, wire=wire))
        return await _told(gateway, call)


async def _told(gateway: Gateway, call: Call) -> dict[str, Any]:
    by = call.trail.decided("classify")
    found: dict[str, Any] = {
        "class": {
            "name": call.request_class,
            "why": "nothing says another" if by is None else by.reason or by.action,
            "candidates": [
                {"name": one.name, "by": one.by, "why": one.reason, "probability": one.probability}
                for one in await gateway.classify.explain(call)
            ],
        },
        "policy": None,
        "chosen": {"model": call.targets[0].model, "why": "the caller asked for it"},
    }
    ranked = gateway.policies.get(call.policy)
    if ranked is None or gateway.route is None:
        return found
    considered = await gateway.route.consider(call, ranked)
    pick = await gateway.route.pick(call, considered) if considered.open else None
    probabilities = {} if pick is None else (pick.detail or {}).get("probabilities") or {}
    asked = considered.asked
    return {
        **found,
        "policy": {"name": ranked.name, "how": ranked.settings.how, "target": _target(considered.demand.quality)},
        "chosen": None if pick is None else {"model": pick.choice.name, "by": pick.by, "why": pick.reason,
                                             "expected_success": pick.expected_success},
        "candidates": [
            {
                "name": choice.name, "tier": choice.tier, "shut": considered.shut.get(choice.name),
                "probability": probabilities.get(choice.name, _measured(choice)),
                "cost_usd": _number(considered.costs[choice.name].usd),
                "energy_j": None if (joules := considered.costs[choice.name].joules) is None else joules.central,
            }
            for choice in ranked.choices
        ],
        "features": {
            "ask": asked.ask[:200], "ask_chars": len(asked.ask), "language": asked.language, "turns": asked.turns,
            "tools": list(asked.tools), "inputs": sorted(asked.inputs), "json": asked.contract is not None,
            "system": asked.signature, "after_tool": asked.after_tool,
            "gain": None if pick is None else (pick.detail or {}).get("gain"),
        },
    }  # fmt: skip


def _measured(choice: Any) -> float | None:
    return None if choice.candidate.success is None else choice.candidate.success.rate


def _number(amount: Any) -> float | None:
    return None if amount is None else float(amount)


def _target(quality: Quality | None) -> str | None:
    if quality is None:
        return None
    shares = (("success", quality.success), ("loss", quality.loss), ("confidence", quality.confidence))
    return ", ".join(f"{name} {share:g}" for name, share in shares if share is not None)
