"""How the levers of a gateway are put together from what it has opened. Their order is said in `negawatt.gateway`."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import orjson

from negawatt.asides import Asides
from negawatt.call import Call, Saved, Target
from negawatt.catalogue import Catalogue, newer_limit, predicts, takes_schemas, takes_verbosity
from negawatt.choosing import Choosing
from negawatt.clock import Clock
from negawatt.config import Config
from negawatt.economics.accounts import Accounts
from negawatt.economics.capabilities import KnownModels
from negawatt.economics.counting import BUDGET, TokenCounter
from negawatt.economics.prefix_terms import market_of
from negawatt.economics.prices import context_window
from negawatt.economics.usage import Usage
from negawatt.errors import ConfigError
from negawatt.ledger import Ledger
from negawatt.levers.cap import Cap
from negawatt.levers.cap import Parts as CapParts
from negawatt.levers.coalesce import Coalesce
from negawatt.levers.compress import Compress
from negawatt.levers.compress import Parts as CompressParts
from negawatt.levers.conversations import Conversations
from negawatt.levers.exact_cache import ExactCache
from negawatt.levers.item_cache import ItemCache
from negawatt.levers.offload import OffloadLever
from negawatt.levers.offload import Parts as OffloadParts
from negawatt.levers.prefix import Prefix
from negawatt.levers.route import Parts as RouteParts
from negawatt.levers.route import Route
from negawatt.levers.semantic_cache import Parts, SemanticCache
from negawatt.levers.structure import Parts as StructureParts
from negawatt.levers.structure import Structure
from negawatt.offloads.opening import open_handlers
from negawatt.offloads.rules import read_rules
from negawatt.pipeline import Background, Handler, Step
from negawatt.prompts.template import Prompts
from negawatt.providers import Provider
from negawatt.recall.compare import Judge
from negawatt.recall.learner import Learner
from negawatt.recall.originals import Originals
from negawatt.recall.policy import CachePolicy
from negawatt.recalling import Recall, judges
from negawatt.reply import Reply
from negawatt.routing.affinity import Affinity
from negawatt.routing.asked import asked_of
from negawatt.routing.cascades import Wiring, check_cascade, open_cascade
from negawatt.routing.choice import Choice
from negawatt.routing.costs import Costs
from negawatt.routing.exploring import comparing
from negawatt.routing.fits import Fits
from negawatt.routing.policies import Policies, Ranked
from negawatt.stores import Store
from negawatt.telemetry import Telemetry
from negawatt.translate.said import said, spoken
from negawatt.verify.schema import broken_contract

log = logging.getLogger(__name__)

SAVING_LEVERS = (
    "compose", "offload", "exact_cache", "item_cache", "coalesce", "semantic_cache", "compress", "cap", "route"
)  # fmt: skip


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


def prompts(config: Config) -> Prompts | None:
    """Return the templates that *config* names; None where it names none. Raises `ConfigError`."""
    from negawatt.prompts.reading import load_prompts

    folder = config.levers.compose.prompts
    return None if folder is None else load_prompts(folder)


def prefixing(shared: Shared, providers: Mapping[str, Provider]) -> list[Step]:
    """Return what puts the stable part of prompts first, and marks it, as a step; nothing where neither is on."""
    settings = shared.config.levers.compose
    if not settings.stable and settings.marks == "off":
        return []
    market = market_of(shared.accounts, KnownModels(), lambda target: providers[target.provider].speaks)
    return [step("compose", Prefix(settings, market, shared.clock), shared.config)]


def in_use(config: Config, lever: str) -> bool:
    """True when *lever* is anything but off, for whatever class."""
    modes = [
        getattr(config.levers, lever).mode,
        *(policy.levers.get(lever, "off") for policy in config.classes.values()),
    ]
    return any(mode != "off" for mode in modes)


def offload(shared: Shared) -> list[Step]:
    """Return what answers in code as a step; nothing where it is off.

    Raises `ConfigError` for a handler that is unknown or lacks its library, and for a class that allows one which is
    not configured.
    """
    config, settings = shared.config, shared.config.levers.offload
    if not in_use(config, "offload"):
        return []
    handlers = open_handlers(settings.handlers, "levers.offload.handlers")
    if settings.rules is not None:
        handlers.insert(0, read_rules(Path(settings.rules)))
    names = [one.name for one in handlers]
    for name, policy in config.classes.items():
        for i, wanted in enumerate(policy.offload):
            if wanted not in names:
                where, known = f"classes.{name}.offload[{i}]", ", ".join(names) or "none"
                message = f"{where}: levers.offload has no handler {wanted!r}; known: {known}"
                raise ConfigError(message, param=where)

    def spared(call: Call, text: str) -> Saved:
        return spared_by_text(shared.tokens, call, text)

    lever = OffloadLever(handlers, config.classes, OffloadParts(said, broken_contract, spared))
    return [step("offload", lever, config)]


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


def contracts(shared: Shared, policies: Policies) -> Structure:
    """Return what holds answers to their schemas. Raises `ConfigError`."""
    config = shared.config
    takes = takes_schemas(config)

    def all_take(call: Call) -> bool:
        ranked = policies.get(call.policy)
        found = call.targets if ranked is None else [target for one in ranked.choices for target in one.targets]
        return all(map(takes, found))

    def reference(call: Call) -> tuple[Target, ...]:
        ranked = policies.get(call.policy)
        return () if ranked is None else ranked.reference.targets

    def verified(call: Call) -> bool:
        ranked = policies.get(call.policy)
        return ranked is not None and ranked.settings.how == "cascade"

    parts = StructureParts(takes=all_take, reference=reference, verified=verified)
    return Structure(config.levers.structure, config.classes, parts)


def caps(shared: Shared) -> Cap:
    """Return what limits how long answers are."""
    config = shared.config
    parts = CapParts(
        alert=shared.telemetry.alert, takes_verbosity=takes_verbosity(config), newer_word=newer_limit(config)
    )
    return Cap(config.levers.cap, config.classes, parts)


def compress(shared: Shared, originals: Originals) -> list[Step]:
    """Return what shortens requests as a step; nothing where it is off."""
    config, tokens = shared.config, shared.tokens
    if not in_use(config, "compress"):
        return []
    models = KnownModels(context_window)

    def count(call: Call) -> int:
        return tokens.count(call.targets[0].model, call.wire.prompt(call.request)).tokens

    def held(target: Target, marked: bool, at: float) -> int | None:
        cache = models.prefix_cache(target.model)
        if (cache.marked and not marked) or not shared.accounts.reads_cached(target.provider, target.model, at):
            return None
        return cache.least_tokens

    parts = CompressParts(count, partial(text_tokens, tokens), held, originals, shared.background.spawn)
    return [step("compress", Compress(config.levers.compress, config.classes, parts, shared.clock), config)]


def text_tokens(tokens: TokenCounter, model: str, text: str) -> int:
    """Return the tokens of *text*, counted in pieces that are small enough to be tokenised."""
    return sum(tokens.count_text(model, text[at : at + BUDGET]).tokens for at in range(0, len(text), BUDGET))


def rank(shared: Shared, costs: Costs) -> Policies:
    """Return the policies, with their candidates in order. Raises `ConfigError` for one that nobody serves."""
    at = shared.clock.time()

    def order(choices: Sequence[Choice], by: Any) -> Sequence[Choice]:
        return costs.ordered(choices, by, at=at).choices

    return Policies(shared.config.policies, shared.config.classes, shared.catalogue.targets, order)


def routing(
    shared: Shared, choosing: Choosing, conversations: Conversations, providers: Mapping[str, Provider], bottom: Handler
) -> tuple[Policies, Route | None]:
    """Return the policies, and what chooses by them; nothing of the latter where there are none.

    Raises `ConfigError`.
    """
    config = shared.config
    costs = Costs(shared.accounts, shared.tokens)
    policies = rank(shared, costs)
    if not config.policies:
        return policies, None
    wiring = _wiring(shared, choosing, bottom)
    cascades = {}
    for ranked in policies:
        if ranked.settings.how == "learned":
            _check_router(ranked, choosing)
        if ranked.settings.how == "cascade":
            lookup = (shared.catalogue.targets, lambda target: providers[target.provider].speaks)
            for doubt in check_cascade(ranked.name, ranked.settings, config.classes, ranked.rising, lookup):
                log.warning("%s", doubt)
            cascades[ranked.name] = open_cascade(ranked.name, ranked.settings, ranked.rising, wiring)
    models = KnownModels(context_window)
    affinity = Affinity(
        ttl_s=config.levers.route.affinity_s, clock=shared.clock, models=models,
        reads_cached=shared.accounts.reads_cached,
    )  # fmt: skip
    parts = RouteParts(
        policies, costs, affinity, Fits(models, shared.accounts), conversations.held_by, choosing.embedder,
        choosing.routers, cascades,
    )  # fmt: skip
    return policies, Route(parts)


def _check_router(ranked: Ranked, choosing: Choosing) -> None:
    names = tuple(choice.name for choice in ranked.rising)
    embedder = "" if choosing.embedder is None else choosing.embedder.id
    choosing.routers[ranked.name].check(names, embedder, f"policies.{ranked.name}.router")


def _wiring(shared: Shared, choosing: Choosing, bottom: Handler) -> Wiring:
    """Return what all cascades share."""
    config, embedder = shared.config, choosing.embedder
    semantic, targets = config.levers.semantic_cache, judges(config, shared.catalogue)

    def judge_of(call: Call) -> Judge | None:
        return shared.asides.judge(call, targets, bottom, lever="route") if targets else None

    return Wiring(
        targets_of=shared.catalogue.targets, asked=asked_of, spoken=spoken, spawn=shared.background.spawn,
        rng=shared.rng, alert=shared.telemetry.alert,
        predicts=predicts(config),
        schemas={name: policy.schema for name, policy in config.classes.items() if policy.schema is not None},
        embedder=embedder, ask_reference=lambda call, targets: shared.asides.ask_beside(call, targets, bottom),
        compare=comparing(embedder, judge_of, alike=semantic.same_answer, different=semantic.other_answer),
    )  # fmt: skip


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
