"""The gateway of an evaluation: its candidates under names of their own, and nothing on that saves, routing apart.

A candidate that is a policy is asked as callers would ask it: its own levers choose. Recorded answers of a policy come
from whichever model it chose; on the virtual clock every model of the recording answers under its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from negawatt.assembly import with_modes
from negawatt.catalogue import AUTO, Catalogue
from negawatt.config import Config, Model, Provider
from negawatt.errors import ConfigError
from negawatt.proof.suite import EvalCandidate, Suite
from negawatt.providers import Provider as OpenProvider
from negawatt.providers.recorded import Recorded
from negawatt.providers.recording import Recording


def alias(place: int) -> str:
    """Return the name under which the candidate at *place* is asked."""
    return f"evaluated-{place}"


def config_for(suite: Suite, *, recorded: bool) -> Config:
    """Return the suite's configuration with a name for each candidate, and with all that saves turned off.

    A candidate has no fallbacks: what another model answered would be counted as its own. *recorded*: only recordings
    are asked.
    """
    config = suite.config
    known = Catalogue(config)
    models, providers = [*config.models], [*config.providers]
    for i, candidate in enumerate(suite.candidates):
        if candidate.policy:
            if recorded and candidate.recording is not None:
                rows = _rows(i, _recording(suite, candidate))
                own = {name for row in rows for name in row.models}
                models = [model for model in models if model.name not in own]
                providers = [*rows, *providers]
            continue
        provider, model = _target(suite, i, known, providers)
        models.append(Model(name=alias(i), provider=provider, upstream=model, effort=candidate.effort))
    routed = any(candidate.policy for candidate in suite.candidates)
    kept = ("retry", "classify", "route") if routed else ("retry",)
    off = dict.fromkeys((name for name in config.levers.__struct_fields__ if name not in kept), "off")
    return msgspec.structs.replace(
        with_modes(config, off),
        keys=(),
        budgets=(),  # an evaluation has its own limit, and the books may be another process's
        models=tuple(models),
        providers=tuple(providers),
        classes=config.classes if routed else {},
        policies=config.policies if routed else {},
        holdout=msgspec.structs.replace(config.holdout, share=0.0),
        cache=msgspec.structs.replace(config.cache, store="memory:"),
        server=msgspec.structs.replace(config.server, max_in_flight=1_000_000),
    )


def complete(config: Config, opened: Mapping[str, OpenProvider]) -> dict[str, OpenProvider]:
    """Return *opened*, with something in the place of what is not asked on this clock."""
    nothing = Recorded("nothing", Recording(()))
    return {provider.name: opened.get(provider.name, nothing) for provider in config.providers}


def recordings(suite: Suite) -> dict[str, OpenProvider]:
    """Open the recordings of *suite*, under the names that `config_for` gives them."""
    opened: dict[str, OpenProvider] = {}
    for i, candidate in enumerate(suite.candidates):
        if candidate.recording is not None:
            recording = _recording(suite, candidate)
            names = [row.name for row in _rows(i, recording)] if candidate.policy else [f"{alias(i)}-recorded"]
            opened |= {name: Recorded(name, recording) for name in names}
    return opened


def policy_digest(suite: Suite, name: str) -> str:
    """Return a digest of all that the policy *name* chooses by: itself, the classes, and what it has learned."""
    config = suite.config
    policies = config.policies.values() if name == AUTO else [config.policies[name]]
    files = [policy.router for policy in policies]
    for policy in policies:
        if policy.cascade is not None:
            files += [policy.cascade.calibration, *(check.file for check in policy.cascade.verify)]
    learned = [Path(file).read_bytes() for file in files if file is not None and Path(file).is_file()]
    said = msgspec.json.encode([config.policies, config.classes, config.levers.classify], order="sorted")
    return hashlib.sha256(said + b"".join(hashlib.sha256(one).digest() for one in learned)).hexdigest()[:32]


def _target(suite: Suite, place: int, known: Catalogue, providers: list[Provider]) -> tuple[str, str]:
    """Return the provider and the model of the candidate at *place*; a recording becomes one of *providers*."""
    candidate = suite.candidates[place]
    if candidate.recording is None:
        found = known.targets(candidate.model)[0]
        return found.provider, found.model
    recording = _recording(suite, candidate)
    if candidate.model not in recording.models:
        there = ", ".join(sorted(recording.models))
        where = f"candidates[{place}].model"
        what = f"{candidate.answers} has no answer of {candidate.model!r}; there: {there}"
        raise ConfigError(f"{suite.path}: {where}: {what}", param=where)
    name = f"{alias(place)}-recorded"
    providers.append(Provider(name=name, kind="recorded", priced_as=recording.models[candidate.model]))
    return name, candidate.model


def _recording(suite: Suite, candidate: EvalCandidate) -> Recording:
    assert candidate.recording is not None
    return Recording.load(suite.beside(candidate.recording))


def _rows(place: int, recording: Recording) -> list[Provider]:
    """Return a provider for each whose prices the recording names, with the models that answered."""
    by_provider: dict[str | None, list[str]] = {}
    for model, provider in recording.models.items():
        by_provider.setdefault(provider, []).append(model)
    return [
        Provider(name=f"{alias(place)}-recorded-{i}", kind="recorded", models=tuple(models), priced_as=priced_as)
        for i, (priced_as, models) in enumerate(by_provider.items())
    ]
