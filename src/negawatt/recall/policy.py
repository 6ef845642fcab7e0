"""May this call be answered from a cache, may its answer be kept, and for how long? One policy for every cache.

The class says it, the scope that the class needs must be there, and the caller may forbid more with Cache-Control.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from negawatt.call import Call
from negawatt.caller import Scope
from negawatt.config import CacheLever, RequestClass
from negawatt.errors import InvalidRequest
from negawatt.keys import missing_scope

PERSONAL_TTL_S = 3600.0  # where the class does not say: what is about a person changes sooner
SENSITIVE_TTL_S = 600.0  # and where an answer that is out of date may do harm
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d+)\"?$")
_MOST_TAGS = 16
_TAG = re.compile(r"[\w.-]{1,64}=[^,=\s][^,=]{0,127}")
OWN_TAGS = ("tenant", "class", "model", "corpus_version", "prompt_version", "layer", "function")
ITEM_LAYERS = ("embeddings", "rerank")  # protocols whose answers are layers of their own; all others are "answers"


class Plan(msgspec.Struct, frozen=True):
    """What the class and the caller allow for one call. *reason* says why not more."""

    read: bool = False
    write: bool = False
    ttl_s: float = 0.0
    stale_s: float = 0.0  # beyond *ttl_s*
    max_age_s: float | None = None
    reason: str | None = None

    def state(self, age_s: float) -> str:
        """Return "fresh", "stale" (may be given, and asked anew) or "old" for an answer of *age_s* seconds."""
        if self.max_age_s is not None and age_s > self.max_age_s:
            return "old"
        if age_s <= self.ttl_s:
            return "fresh"
        return "stale" if age_s <= self.ttl_s + self.stale_s else "old"


class CachePolicy:
    """The policy of one lever that keeps answers."""

    def __init__(self, settings: CacheLever, classes: Mapping[str, RequestClass]) -> None:
        self._settings = settings
        self._classes = classes
        self._plain: dict[str, Plan] = {}  # of calls without Cache-Control, by class

    def plan(self, call: Call) -> Plan:
        """Return what may be done for *call*. Raises `InvalidRequest` for a Cache-Control that cannot be read."""
        policy = self._classes.get(call.request_class)
        when = self._settings.when if policy is None or policy.cache is None else policy.cache
        if when == "never":
            return Plan(reason="not for this class")
        missing = missing_scope(policy, call.scope)
        if missing is not None:
            return Plan(reason=missing)
        if when == "deterministic" and not call.wire.deterministic(call.request):
            return Plan(reason="not deterministic: temperature is not 0")
        plain = self._plain.get(call.request_class)
        if plain is None:
            plain = self._plain[call.request_class] = self._usual(policy)
        if call.hints.cache_control is None:
            return plain
        return controlled(plain, call.hints.cache_control)

    def max_bytes(self, request_class: str) -> int | None:
        """Return how much the answers of a class may take up together; None: as much as there is."""
        policy = self._classes.get(request_class)
        return None if policy is None else policy.max_cache_bytes

    def _usual(self, policy: RequestClass | None) -> Plan:
        access = self._settings.access
        return Plan(
            read=access != "write_only",
            write=access != "read_only",
            ttl_s=_ttl_s(self._settings.ttl_s, policy),
            stale_s=0.0 if policy is None else policy.stale_s,
        )


def _ttl_s(usual_s: float, policy: RequestClass | None) -> float:
    if policy is None:
        return usual_s
    if policy.ttl_s is not None:
        return policy.ttl_s
    if policy.sensitive:
        return min(usual_s, SENSITIVE_TTL_S)
    return min(usual_s, PERSONAL_TTL_S) if policy.personal else usual_s


def controlled(plain: Plan, cache_control: str) -> Plan:
    """Return what the request's *cache_control* (RFC 9111, section 5.2.1) leaves of *plain*.

    Raises `InvalidRequest` when it cannot be read.
    """
    words = [word.strip().lower() for word in cache_control.split(",") if word.strip()]
    max_age_s = None
    for word in words:
        if word.startswith("max-age"):
            seconds = _MAX_AGE.match(word)
            if seconds is None:
                raise InvalidRequest("cache-control: max-age needs a number of seconds", param="cache-control")
            max_age_s = float(seconds[1])
    reads = plain.read and "no-cache" not in words and "no-store" not in words and max_age_s != 0
    return msgspec.structs.replace(
        plain, read=reads, write=plain.write and "no-store" not in words, max_age_s=max_age_s,
        reason=f"the caller said {', '.join(words)}"[:100],
    )  # fmt: skip


def tags_of(call: Call) -> tuple[str, ...]:
    """Return the tags by which what is kept of *call* can be deleted: our own, and those that its caller gave."""
    name = call.wire.name
    own = scope_tags(name if name in ITEM_LAYERS else "answers", call.scope)
    return (*own, f"class={call.request_class}", f"model={call.request.model}", *callers_tags(call.hints.cache_tags))


def scope_tags(layer: str, scope: Scope) -> tuple[str, ...]:
    """Return our own tags of what a *layer* keeps within *scope*."""
    tags = [f"tenant={scope.tenant}", f"layer={layer}"]
    if scope.corpus_version is not None:
        tags.append(f"corpus_version={scope.corpus_version}")
    if scope.prompt_version is not None:
        tags.append(f"prompt_version={scope.prompt_version}")
    return tuple(tags)


def callers_tags(text: str | None, where: str = "x-negawatt-cache-tags") -> tuple[str, ...]:
    """Return the tags in *text*, ``name=value, name=value``. Raises `InvalidRequest`, naming *where* they stand."""
    return () if text is None else checked_tags(text.split(","), where)


def checked_tags(given: Iterable[str], where: str) -> tuple[str, ...]:
    """Return the tags *given*, each once. Raises `InvalidRequest`, naming *where* they stand.

    Names of our own tags are refused: nobody may pass for another tenant.
    """
    tags = tuple(dict.fromkeys(tag.strip() for tag in given if tag.strip()))
    if len(tags) > _MOST_TAGS:
        raise InvalidRequest(f"{where}: at most {_MOST_TAGS} tags, got {len(tags)}", param=where)
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise InvalidRequest(f"{where}: {tag[:80]!r} is not a tag such as document=42", param=where)
        if tag.partition("=")[0] in OWN_TAGS:
            raise InvalidRequest(f"{where}: {tag.partition('=')[0]}= is a tag that negawatt sets itself", param=where)
    return tags
