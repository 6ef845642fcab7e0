"""Who asks, what they said beside the body, and within which bounds an answer may be shared."""

from __future__ import annotations

import msgspec

Headers = tuple[tuple[str, str], ...]


class Caller(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Who asks. Nothing is ever shared between callers whose *tenant* or *permissions* differ."""

    tenant: str = "default"
    user: str | None = None
    key_id: str | None = None
    permissions: str = ""  # digest of the sorted permission names; "" when there are none
    models: frozenset[str] | None = None  # None: any
    classes: frozenset[str] | None = None  # that its calls may be of; None: any
    budgets: tuple[str, ...] = ()  # names of those that its calls count against, beside the ones that fit anyway
    admin: bool = False  # may look at everything that is kept, and change keys and budgets
    use: bool = True  # may make calls

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def may_be_of(self, request_class: str) -> bool:
        return self.classes is None or request_class in self.classes


class Hints(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the caller said beside the body, in headers. All optional; none can loosen a policy."""

    key: str | None = None
    request_class: str | None = None
    task: str | None = None
    user: str | None = None
    permissions: str | None = None
    corpus_version: str | None = None
    prompt_version: str | None = None
    tool_digests: str | None = None
    cache_tags: str | None = None
    claim: str | None = None  # token of a layer's entry that the caller is making
    session: str | None = None
    mode: str | None = None
    quality: str | None = None  # the least share of right answers; counts only where it is above the target
    risk: str | None = None  # counts only where it is above the class's
    deadline_ms: str | None = None
    cache_control: str | None = None
    traceparent: str | None = None  # the trace that the call is part of


class Scope(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What, beside the request itself, may change an answer. Part of every cache key."""

    tenant: str = "default"
    permissions: str = ""
    user: str | None = None  # only for classes whose answers are personal
    corpus_version: str | None = None
    prompt_version: str | None = None
    tool_digests: str | None = None  # of what tools returned and the request does not show
    model_policy: str | None = None  # where the model's name leads, as long as the configuration stays as it is
    headers: Headers | None = None  # those of the caller that the provider obeys


NO_HINTS = Hints()
NO_SCOPE = Scope()
