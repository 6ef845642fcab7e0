"""Model names, and the providers they lead to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from negawatt.call import Target
from negawatt.caller import Headers
from negawatt.clock import Clock
from negawatt.config import Config, Model
from negawatt.config import Provider as Settings
from negawatt.errors import ConfigError, UpstreamError
from negawatt.providers import Provider
from negawatt.providers.rows import ROWS, Row

log = logging.getLogger(__name__)

AUTO = "auto"  # callers who ask for it leave the model to the policy of their request's class
_MOST_KEPT = 10_000
_LISTED_S = 60.0
_LISTING_S = 3.0


class Catalogue:
    """Finds where a name leads: a configured model, ``provider/model``, or the first provider that serves it."""

    def __init__(self, config: Config) -> None:
        self._models = {model.name: model for model in config.models}
        self._policies = config.policies
        self._providers = config.providers
        self._kept: dict[str, tuple[Target, ...]] = {}
        # Those who take any model, with the vendor's own ones.
        self._families = [
            (one.name, row.families) for one in config.providers if "*" in one.models and (row := ROWS.get(_kind(one)))
        ]

    def targets(self, model: str) -> tuple[Target, ...]:
        """Return the target of *model* and its fallbacks, in order; none when the name is unknown."""
        found = self._kept.get(model)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:  # callers choose names: keep the table bounded
                self._kept.clear()
            found = self._kept[model] = self._find(model)
        return found

    def names(self) -> list[str]:
        """Return the names that callers may use, as far as the configuration says them."""
        listed = [*(AUTO, *self._policies)] if self._policies else []
        listed += self._models
        for provider in self._providers:
            listed += [name for name in provider.models if not _is_pattern(name)]
        return list(dict.fromkeys(listed))

    def matching(self, provider: str, names: list[str]) -> list[str]:
        """Return those of *names* that a pattern of *provider* lets through, and that lead to it."""
        patterns = [p for one in self._providers if one.name == provider for p in one.models if _is_pattern(p)]
        return [
            name
            for name in names
            if any(fnmatchcase(name, pattern) for pattern in patterns)
            and [target.provider for target in self.targets(name)[:1]] == [provider]
        ]

    def patterned(self) -> list[str]:
        """Return the providers that serve more than they name."""
        return [one.name for one in self._providers if any(_is_pattern(name) for name in one.models)]

    def _find(self, name: str) -> tuple[Target, ...]:
        if self._policies and (name == AUTO or name in self._policies):
            # Where it leads is decided later, by its policy: until then, to one that the policy may choose.
            policy = self._policies.get(name) or next(iter(self._policies.values()))
            return self.targets(policy.candidates[-1].model)
        if name in self._models:
            # Of a fallback only its own target: models may be each other's fallbacks.
            return tuple(_target(self._models[one]) for one in (name, *self._models[name].fallbacks))
        for provider in self._providers:
            if any(fnmatchcase(name, pattern) for pattern in provider.models if pattern != "*"):
                return (Target(provider.name, name, name),)
        for vendor, families in self._families:
            if any(fnmatchcase(name, pattern) for pattern in families):
                return (Target(vendor, name, name),)
        prefix, _, rest = name.partition("/")
        for provider in self._providers:
            if rest and provider.name == prefix and any(fnmatchcase(rest, pattern) for pattern in provider.models):
                return (Target(provider.name, rest, name),)
        for provider in self._providers:
            if "*" in provider.models:
                return (Target(provider.name, name, name),)
        return ()


class Listed:
    """The names that callers may use, those among them that only the providers can say."""

    def __init__(self, catalogue: Catalogue, providers: Mapping[str, Provider], clock: Clock) -> None:
        self._catalogue = catalogue
        self._providers = providers
        self._clock = clock
        self._known: tuple[float, list[str]] | None = None

    async def names(self) -> list[str]:
        """Ask the providers, at most once a minute; one that does not answer in time is left out."""
        now = self._clock.monotonic()
        if self._known is None or now - self._known[0] > _LISTED_S:
            names = self._catalogue.names()
            for provider in self._catalogue.patterned():
                try:
                    async with asyncio.timeout(_LISTING_S):
                        names += self._catalogue.matching(provider, await self._providers[provider].models())
                except (UpstreamError, TimeoutError) as error:
                    log.info("provider %s does not list its models: %s", provider, error)
            self._known = (now, list(dict.fromkeys(names)))
        return self._known[1]


def _target(model: Model) -> Target:
    return Target(model.provider, model.upstream or model.name, model.name, model.effort)


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def predicts(config: Config) -> Callable[[Target], bool]:
    """Return what says whether a target takes predicted outputs."""
    return _known(config, Row.takes_predictions)


def takes_schemas(config: Config) -> Callable[[Target], bool]:
    """Return what says whether a target is known to be held to a JSON schema."""
    return _known(config, Row.takes_schemas)


def takes_verbosity(config: Config) -> Callable[[Target], bool]:
    """Return what says whether a target is known to take a word for how much to say."""
    return _known(config, Row.takes_verbosity)


def newer_limit(config: Config) -> Callable[[Target], bool]:
    """Return what says whether a target takes ``max_completion_tokens``."""
    return _known(config, lambda row, _: row.newer_limit)


def _known(config: Config, says: Callable[[Row, str], bool]) -> Callable[[Target], bool]:
    """Return what a target's row says of its model; False where there is no row."""
    rows = {one.name: ROWS.get(_kind(one)) for one in config.providers}

    def known(target: Target) -> bool:
        row = rows.get(target.provider)
        return row is not None and says(row, target.model)

    return known


def price_ids(config: Config) -> dict[str, str | None]:
    """Return for each provider its id in the price tables; None where anybody may run the models."""
    ids: dict[str, str | None] = {}
    for provider in config.providers:
        row = ROWS.get(_kind(provider))
        if provider.priced_as is not None:
            ids[provider.name] = provider.priced_as
        elif row is None:
            ids[provider.name] = None
        else:
            ids[provider.name] = None if row.local and row.base_url is None else row.priced_as or row.name
    return ids


def open_providers(config: Config, environ: Mapping[str, str]) -> dict[str, Provider]:
    """Open the providers of *config*. Raises `ConfigError` that names the entry and what is missing."""
    return {settings.name: _open(settings, f"providers[{i}]", environ) for i, settings in enumerate(config.providers)}


def _kind(settings: Settings) -> str:
    if settings.kind is not None:
        return settings.kind
    if settings.url is not None:
        return settings.url.partition(":")[0]
    return settings.name if settings.name in ROWS else "openai-compatible"


def _open(settings: Settings, where: str, environ: Mapping[str, str]) -> Provider:
    kind = _kind(settings)
    if kind in ("recorded", "modelled"):
        return open_stand_in(settings.name, settings.url or f"{kind}:", f"{where}.url")
    row = ROWS.get(kind)
    if row is None:
        known = ", ".join([*ROWS, "recorded", "modelled"])
        raise ConfigError(f"{where}.kind: there is no kind {kind!r}; known: {known}", param=f"{where}.kind")
    base_url = settings.base_url or row.base_url
    if base_url is None:
        raise ConfigError(f"{where}.base_url: {kind} needs the address of your own server", param=f"{where}.base_url")
    headers = _key_header(settings, row, where, environ)
    try:
        return _over_http(settings, row, base_url, headers)
    except ConfigError as error:
        raise ConfigError(f"{where}.base_url: {error.message}", param=f"{where}.base_url") from error


def _over_http(settings: Settings, row: Row, base_url: str, headers: Headers) -> Provider:
    from negawatt.providers.http_api import HttpApi
    from negawatt.providers.transport import Limits, Timeouts, open_transport

    return HttpApi(
        settings.name,
        base_url,
        transport=open_transport(
            settings.transport, limits=Limits(max_connections=settings.max_connections), ca_file=settings.ca_file
        ),
        speaks=row.protocols if settings.protocols is None else settings.protocols,
        timeouts=Timeouts(
            connect_s=settings.connect_timeout_s,
            first_byte_s=settings.first_byte_timeout_s,
            idle_s=settings.idle_timeout_s,
        ),
        headers=(*headers, *settings.headers.items()),
        default_headers=tuple(row.headers.items()),
        usage_in_stream=row.usage_in_stream,
    )


def _key_header(settings: Settings, row: Row, where: str, environ: Mapping[str, str]) -> Headers:
    variable = settings.key_env or row.key_env
    if variable is None or (settings.key_env is None and settings.base_url is not None and variable not in environ):
        return ()
    key = environ.get(variable)
    if not key:
        raise ConfigError(f"{where}.key_env: the variable {variable} is not set", param=f"{where}.key_env")
    value = f"Bearer {key}" if row.key_header == "authorization" else key
    return ((row.key_header, value),)


def open_stand_in(name: str, url: str, where: str) -> Provider:
    """Open ``recorded:FILE`` or ``modelled:?a=0.3&b=0.02``. Raises `ConfigError` or `InputError`."""
    scheme, _, rest = url.partition(":")
    if scheme == "recorded" and rest:
        from negawatt.providers.recorded import Recorded
        from negawatt.providers.recording import Recording

        return Recorded(name, Recording.load(Path(rest.removeprefix("//"))))
    if scheme == "modelled":
        from negawatt.providers.modelled import Modelled

        return Modelled.of(name, rest.removeprefix("//").removeprefix("?"))
    raise ConfigError(f"{where}: {url!r} is neither recorded:FILE nor modelled:?a=SECONDS&b=SECONDS", param=where)
