"""The configuration: one TOML file, checked whole before anything is opened.

Every field has its default here; a file names only what differs. Unknown fields, wrong types and references to
nothing are refused with the file, the path of the field and what was expected. Secrets are named (``key_env``:
the name of an environment variable), never written down.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from negawatt.config_access import Access
from negawatt.config_budgets import Budget as SpendingBudget
from negawatt.config_budgets import Budgeting
from negawatt.config_routes import Effort, Match, Policy, Quality
from negawatt.config_shape import Cap, Compose, Compress, Offload, Structure
from negawatt.config_success import Success
from negawatt.config_telemetry import Telemetry
from negawatt.config_types import (
    Budget,
    Count,
    Level,
    Mode,
    Name,
    NotNegative,
    Positive,
    Protocol,
    Section,
    Share,
)
from negawatt.config_watch import Alerts, Slo
from negawatt.errors import ConfigError

Need = Literal["permissions", "corpus_version", "prompt_version", "tool_digests"]
_T = TypeVar("_T")


class Server(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 4100
    max_body_bytes: Count = 20 * 1024 * 1024
    max_in_flight: Count = 4000  # above it, calls get a 429 at once
    body_timeout_s: Positive = 30.0
    deadline_s: Positive = 600.0  # of a whole call; callers may ask for less
    allow_origins: tuple[str, ...] = ()  # browsers' pages that may call; none by default


class Ledger(Section, frozen=True):
    url: str = "sqlite:///negawatt.sqlite"
    keep_content: bool = False  # keep requests and answers as well, so that they can be replayed
    rollups: bool = True  # keep sums of the rows, for the dashboard and for the cost of a success; SQLite alone has any


class Tokenizer(Section, frozen=True):
    models: str | tuple[str, ...]  # patterns of model names, as their provider has them
    file: str  # a tokenizer.json


class Economics(Section, frozen=True):
    prices: str | None = None  # TOML file of your own prices, asked first
    litellm_prices: str | None = None  # JSON file in LiteLLM's format, asked last
    energy: str | None = None  # TOML file of your own energy coefficients
    zone: str = "WORLD"  # of the electricity grid, ISO 3166-1 alpha-3
    batch: Count | None = None  # running batch of your own inference server, where you know it
    tokenizers: tuple[Tokenizer, ...] = ()  # of models whose tokenizer you have


class LayerRules(Section, frozen=True):
    """Of one layer of the application's own work."""

    ttl_s: Positive = 3600.0
    stale_s: NotNegative = 0.0  # beyond its lifetime an entry may still be given, while it is made anew
    needs: tuple[Need | Literal["user"], ...] | None = None  # without it, nothing is kept; default: `LAYERS`
    max_entry_bytes: Count = 1024 * 1024
    wait_s: NotNegative = 30.0  # for what somebody else is making; then everyone makes it for themselves


class Cache(Section, frozen=True):
    store: str = "memory://?max_bytes=268435456"
    vary: tuple[str, ...] = ()  # headers of requests, beside the vendors' own, that can change an answer
    layers: dict[str, LayerRules] = {}  # of the application's own work, where they differ from the usual ones


class Recall(Section, frozen=True):
    embedder: str = "default:"
    index: str = "memory:"
    curated: str | None = None  # TOML file of questions with their answers, kept by people


class Lever(Section, frozen=True):
    """What every lever has."""

    mode: Mode = "on"
    share: Share = 0.1  # of callers, in mode canary


class CacheLever(Lever, frozen=True):
    """What every lever has that keeps answers."""

    ttl_s: Positive = 86_400.0
    max_entry_bytes: Count = 1024 * 1024
    access: Literal["read_write", "read_only", "write_only"] = "read_write"
    when: Literal["deterministic", "always", "never"] = "deterministic"


class ExactCache(CacheLever, frozen=True):
    wait_for_others_s: Annotated[float, Meta(ge=0, le=600)] = 10.0  # for what another replica is asking already


class ItemCache(CacheLever, frozen=True):
    ttl_s: Positive = 604_800.0
    rerank_models: tuple[str, ...] = ()  # patterns of models that score each document by itself, beside the known ones


class SemanticCache(CacheLever, frozen=True):
    mode: Mode = "off"
    max_error: Budget = 0.01  # share of all requests that may get a wrong answer
    alpha: Budget = 0.05  # and the chance that it is exceeded
    explore: Budget = 0.05  # of would-be hits, on average, asked and compared
    review: Share = 0.01  # of hits, drawn for a person to look at
    follow_ups: Literal["same", "decline"] = "same"  # in a conversation: only where all that went before is the same
    max_question_chars: Count = 2000
    same_answer: Share = 0.9  # similarity from which two answers say the same, where their facts agree
    other_answer: Share = 0.75  # below it they do not; between the two the judge is asked
    judge: Name | None = None  # a model; without one, what lies between counts as wrong
    curated_similarity: Share = 0.7  # of a question to a curated one, from which its answer is given


class Coalesce(Lever, frozen=True):
    when: Literal["not_sampled", "deterministic", "always", "never"] = "not_sampled"
    max_buffer_bytes: Count = 1024 * 1024  # of a stream, for those who join it late; beyond, nobody can


class Retry(Lever, frozen=True):
    attempts: Annotated[int, Meta(ge=1, le=20)] = 3  # at each target, the first included
    backoff_s: Positive = 0.5  # doubles each time, with full jitter
    max_backoff_s: Positive = 20.0  # a longer Retry-After goes to the next target, or back to the caller
    breaker_failures: Count = 5  # in a row, at one target
    breaker_cooldown_s: Positive = 10.0


class Classify(Lever, frozen=True):
    intents: str | None = None  # TOML file of examples: the classes are learned from it
    confidence: Share = 0.5  # of the likeliest class; below it, the request is of class default


class Route(Lever, frozen=True):
    affinity_s: NotNegative = 300.0  # how long a provider's prefix cache is counted on


class Levers(Section, frozen=True):
    compose: Compose = Compose()
    classify: Classify = Classify()
    offload: Offload = Offload()
    exact_cache: ExactCache = ExactCache()
    item_cache: ItemCache = ItemCache()
    semantic_cache: SemanticCache = SemanticCache()
    coalesce: Coalesce = Coalesce()
    compress: Compress = Compress()
    structure: Structure = Structure()
    cap: Cap = Cap()
    route: Route = Route()
    retry: Retry = Retry()


class Holdout(Section, frozen=True):
    share: Share = 0.01  # of calls that pass through none of the saving levers: the control group


class RequestClass(Section, frozen=True):
    """A kind of request, with what differs for it. Levers that it does not name stay as they are."""

    owner: str | None = None
    personal: bool = False  # answers depend on the user: never shared between users
    sensitive: bool = False  # a stale answer may do harm: kept for ten minutes at most, unless ttl_s says otherwise
    needs: tuple[Need, ...] = ()  # without it, nothing of this class is cached or shared
    ttl_s: Positive | None = None
    stale_s: NotNegative = 0.0  # beyond its lifetime an answer may still be given, while it is asked anew
    max_error: Budget | None = None  # of the semantic cache, where it differs
    max_cache_bytes: Count | None = None
    cache: Literal["deterministic", "always", "never"] | None = None
    task: Name | None = None
    path: Literal["retrieve", "transform", "generate", "reason"] | None = None
    complexity: Level | None = None
    risk: Level | None = None  # what harm a wrong answer does; callers may say a higher one, never a lower
    latency: Literal["interactive", "standard", "batch"] | None = None
    quality: Quality | None = None  # the target, where it differs from the policy's
    policy: Name | None = None  # which of [policies] chooses the model
    evaluate: bool = False  # its kept requests and answers may be used in evaluations (`negawatt eval`)
    match: tuple[Match, ...] = ()  # a request that one of these describes is of this class
    offload: tuple[str, ...] = ()  # handlers in code that may answer it
    success: Success | None = None  # what counts as one, where nobody says so
    schema: dict[str, Any] | None = None  # JSON schema that answers have to keep, beside what a request asks for
    levers: dict[str, Mode] = {}
    slo: Slo = Slo()  # what is promised of it, where it differs


class Provider(Section, frozen=True):
    name: Name
    kind: str | None = None  # a row of providers/rows.toml, or recorded, or modelled; default: the name
    base_url: str | None = None
    key_env: str | None = None
    models: tuple[str, ...] = ("*",)
    priced_as: str | None = None  # provider id in the price table, where it differs
    headers: dict[str, str] = {}
    protocols: tuple[Protocol, ...] | None = None  # that it speaks; default: what its kind is known to speak
    connect_timeout_s: Positive = 10.0
    first_byte_timeout_s: Positive = 300.0
    idle_timeout_s: Positive = 120.0
    max_connections: Count = 2000
    ca_file: str | None = None
    transport: Literal["httptools", "aiohttp"] = "httptools"
    url: str | None = None  # recorded:FILE or modelled:?a=..., for those two kinds


class Model(Section, frozen=True):
    """A name that callers may use, and where it leads."""

    name: Name
    provider: Name
    upstream: str | None = None  # the provider's own name for it; default: the same
    fallbacks: tuple[str, ...] = ()  # names of other models, tried in order
    effort: Effort | None = None  # of reasoning, where the caller's own word is not to count


class Key(Section, frozen=True):
    id: Name
    key_env: Name
    tenant: Name = "default"
    user: str | None = None
    permissions: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None  # that its calls may be of
    budgets: tuple[str, ...] = ()  # names of those that its calls count against
    admin: bool = False  # may look at everything that is kept, and change keys and budgets
    use: bool = True  # may make calls


class Config(Section, frozen=True):
    server: Server = Server()
    ledger: Ledger = Ledger()
    economics: Economics = Economics()
    cache: Cache = Cache()
    recall: Recall = Recall()
    levers: Levers = Levers()
    holdout: Holdout = Holdout()
    classes: dict[str, RequestClass] = {}
    policies: dict[str, Policy] = {}
    providers: tuple[Provider, ...] = ()
    models: tuple[Model, ...] = ()
    keys: tuple[Key, ...] = ()
    telemetry: Telemetry = Telemetry()
    access: Access = Access()
    slo: Slo = Slo()
    alerts: Alerts = Alerts()
    budgets: tuple[SpendingBudget, ...] = ()
    budgeting: Budgeting = Budgeting()


LEVER_NAMES = tuple(Levers.__struct_fields__)
LAYERS: Mapping[str, tuple[Need | Literal["user"], ...]] = {
    "retrieval": ("corpus_version",),
    "tools": (),
    "prompts": ("prompt_version",),
    "answers": (),
}
"""The layers that are there anyway, and what each needs unless the configuration says otherwise."""


def load_config(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration in *path*, or the defaults where there is no ``negawatt.toml`` in this folder.

    Without any provider in it, every known provider whose key variable is set in *environ* is used.
    Raises `ConfigError`, which names the file and the field.
    """
    if path is None:
        path = Path("negawatt.toml")
        if not path.exists():
            return with_found_providers(Config(), environ)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return with_found_providers(parse_config(data, str(path)), environ)


def parse_config(data: Mapping[str, Any], source: str = "config") -> Config:
    """Return *data* as a `Config`. Raises `ConfigError`: ``source: path.of.field: what was expected``."""
    _name_entries(data, source)
    config = convert(data, Config, source)
    from negawatt.config_checks import Problems

    Problems(config, source).check()
    return config


def _name_entries(data: Mapping[str, Any], source: str) -> None:
    """Raise `ConfigError` for a bad entry of a table whose keys are names, which alone says whose entry it is."""
    cache = data.get("cache")
    layers = cache.get("layers") if isinstance(cache, dict) else None
    tables = (
        ("classes", data.get("classes"), RequestClass),
        ("policies", data.get("policies"), Policy),
        ("cache.layers", layers, LayerRules),
    )
    for path, table, kind in tables:
        for name, entry in table.items() if isinstance(table, dict) else ():
            convert(entry, kind, source, f"{path}.{name}")


def convert(data: object, kind: type[_T], source: str, path: str = "") -> _T:
    """Return *data*, which stands at *path*, as *kind*. Raises `ConfigError` that names *source* and the bad value."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`").removeprefix(".")
        unknown = re.search(r"contains unknown field `(.+)`", what)
        if unknown:
            where, what = f"{where}.{unknown[1]}".removeprefix("."), "there is no such field"
        missing = re.search(r"missing required field `(.+)`", what)
        if missing:
            where, what = f"{where}.{missing[1]}".removeprefix("."), "this field is required"
        where = ".".join(filter(None, (path, where)))
        raise ConfigError(f"{source}: {where or 'top level'}: {what.replace('`', '')}", param=where) from error


def with_found_providers(config: Config, environ: Mapping[str, str]) -> Config:
    """Return *config* with the providers whose keys lie in *environ*, where it names none itself."""
    if config.providers:
        return config
    from negawatt.providers.rows import ROWS

    found = tuple(
        Provider(name=row.name) for row in ROWS.values() if row.key_env and row.base_url and environ.get(row.key_env)
    )
    return msgspec.structs.replace(config, providers=found)
