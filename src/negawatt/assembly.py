"""How the levers of a gateway are put together from what it has opened. Their order is said in `negawatt.gateway`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from negawatt.asides import Asides
from negawatt.call import Call, Saved
from negawatt.catalogue import Catalogue
from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.economics.accounts import Accounts
from negawatt.economics.counting import TokenCounter
from negawatt.economics.usage import Usage
from negawatt.ledger import Ledger
from negawatt.levers.coalesce import Coalesce
from negawatt.levers.exact_cache import ExactCache
from negawatt.levers.item_cache import ItemCache
from negawatt.levers.semantic_cache import Parts, SemanticCache
from negawatt.pipeline import Background, Handler, Step
from negawatt.recall.compare import Judge
from negawatt.recall.learner import Learner
from negawatt.recall.policy import CachePolicy
from negawatt.recalling import Recall, judges
from negawatt.reply import Reply
from negawatt.stores import Store
from negawatt.telemetry import Telemetry
from negawatt.translate.said import said
from negawatt.verify.schema import broken_contract

SAVING_LEVERS = ("exact_cache", "item_cache", "coalesce", "semantic_cache", "route")


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What several levers work with."""

    config: Config
    clock: Clock
    rng: random.Random
    store: Store
    ledger: Ledger
    accounts: Accounts
    tokens: TokenCounter
    catalogue: Catalogue
    background: Background
    telemetry: Telemetry
    asides: Asides


def step(name: str, lever: Any, config: Config) -> Step:
    """Return *lever* in its place, in the mode that *config* says."""
    settings = getattr(config.levers, name)
    return Step(name, lever, name in SAVING_LEVERS, settings.mode, settings.share)


def mode_of(config: Config, lever: str, call: Call) -> str:
    """Return the mode of *lever* for the class of *call*."""
    policy = config.classes.get(call.request_class)
    usual: str = getattr(config.levers, lever).mode
    return usual if policy is None else policy.levers.get(lever, usual)


def certain(shared: Shared, pipeline: Callable[[], Handler]) -> tuple[ExactCache, ItemCache, Coalesce]:
    """Return what answers without guessing: caches of whole answers and of items, and calls in flight."""
    config, clock, background = shared.config, shared.clock, shared.background
    coalesce = Coalesce(config.levers.coalesce, config.classes)
    items = ItemCache(
        config.levers.item_cache, config.classes, store=shared.store, clock=clock, background=background,
        count=shared.tokens.count,
    )  # fmt: skip
    cache = ExactCache(
        config.levers.exact_cache, config.classes, store=shared.store, validate=broken_contract, clock=clock,
        background=background, ask_again=lambda call: shared.asides.ask_again(call, pipeline()),
        itemized=lambda call: items.itemized(call) and mode_of(config, "item_cache", call) == "on",
        shares=lambda call: mode_of(config, "coalesce", call) == "on" and coalesce.shares(call),
    )  # fmt: skip
    return cache, items, coalesce


def semantic(shared: Shared, recall: Recall | None, bottom: Handler) -> tuple[Learner | None, list[Step]]:
    """Return the semantic cache as a step, and what it learns with; nothing of it where it is off."""
    if recall is None:
        return None, []
    settings, classes = shared.config.levers.semantic_cache, shared.config.classes
    learner = Learner(
        settings, classes, cases=recall.index.cases, clock=shared.clock, rng=shared.rng,
        alert=shared.telemetry.alert, spawn=shared.background.spawn,
    )  # fmt: skip
    targets = judges(shared.config, shared.catalogue)

    def judge_of(call: Call) -> Judge | None:
        return shared.asides.judge(call, targets, bottom) if targets else None

    def spared(call: Call, text: str) -> Saved:
        return spared_by_text(shared.tokens, call, text)

    parts = Parts(recall.embedder, recall.index, learner, recall.curated, said, broken_contract, judge_of, spared)
    policy = CachePolicy(settings, classes)
    lever = SemanticCache(settings, policy, parts, clock=shared.clock, background=shared.background)
    return learner, [step("semantic_cache", lever, shared.config)]


def spared_by_text(tokens: TokenCounter, call: Call, text: str) -> Saved:
    """Return what a model would have used that had said *text* in answer to *call*, by our own count."""
    target = call.targets[0]
    asked = tokens.count(target.model, call.wire.prompt(call.request), call.wire.contract(call.request))
    said_ = tokens.count_text(target.model, text)
    usage = Usage(input_tokens=asked.tokens, output_tokens=said_.tokens, basis="estimated")
    return Saved(usage=usage, model=target.model, provider=target.provider, basis="estimated")


def counted_here(tokens: TokenCounter, call: Call) -> Reply:
    """Answer how many tokens *call* has, for a provider that does not offer to count; and say how we know."""
    found = tokens.count(call.targets[0].model, call.wire.prompt(call.request), call.wire.contract(call.request))
    reply = Reply(call.wire, body=orjson.dumps({"input_tokens": found.tokens, "negawatt": {"basis": found.basis}}))
    reply.answered_by = "negawatt"
    return reply


def with_modes(config: Config, modes: Mapping[str, Any]) -> Config:
    """Return *config* with the levers named in *modes* set to their mode. A class's own ``off`` stays."""
    levers = {name: msgspec.structs.replace(getattr(config.levers, name), mode=mode) for name, mode in modes.items()}
    classes = {
        name: msgspec.structs.replace(
            policy, levers={n: m for n, m in policy.levers.items() if n not in modes or m == "off"}
        )
        for name, policy in config.classes.items()
    }
    return msgspec.structs.replace(config, levers=msgspec.structs.replace(config.levers, **levers), classes=classes)
