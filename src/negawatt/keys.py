"""What makes two calls the same: one definition for every cache and for coalescing.

Two calls are the same when everything that can change the answer is the same: the request (`Wire.identity`) and
its scope. The digest does not depend on the order of keys in the JSON and is the same after a restart. The
application's own work (`negawatt.layers`) is kept under keys of the same kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from negawatt.call import Call, Request
from negawatt.caller import Caller, Headers, Hints, Scope
from negawatt.config import RequestClass
from negawatt.errors import PermissionDenied
from negawatt.protocol import Identified

NEEDS = {
    "user": "a user",
    "permissions": "permissions",
    "corpus_version": "a corpus version",
    "prompt_version": "a prompt version",
    "tool_digests": "digests of tool results",
}
VERSION = b"3"  # counts up when the same call would get another key


def request_digest(request: Request, wire: Identified) -> bytes:
    """Return the SHA-256 of the request's canonical form; it is made once for each request."""
    if request.digest is None:
        canonical = Request.canonical(wire.identity(request), sort=True)
        request.digest = hashlib.sha256(wire.name.encode() + b"\0" + canonical).digest()
    return request.digest


def key_of(call: Call) -> str:
    """Return the key of *call*: 64 hexadecimal digits."""
    return hashlib.sha256(_scope_bytes(call.scope) + request_digest(call.request, call.wire)).hexdigest()


def context_key(call: Call, around: dict[str, Any]) -> str:
    """Return what two calls have in common that differ in their question only: scope, and all *around* the question."""
    canonical = Request.canonical(around, sort=True)
    digest = hashlib.sha256(call.wire.name.encode() + b"\0" + canonical).digest()
    return hashlib.sha256(b"context" + _scope_bytes(call.scope) + digest).hexdigest()


def item_key(call: Call, shared: bytes, item: bytes) -> str:
    """Return the key of one *item* of a request, of which all items have *shared* (a digest) in common."""
    return hashlib.sha256(b"item" + _scope_bytes(call.scope) + shared + hashlib.sha256(item).digest()).hexdigest()


def layer_key(layer: str, scope: Scope, material: bytes) -> str:
    """Return the key of what a *layer* keeps for *material*, the canonical JSON of all that it was made of."""
    digest = hashlib.sha256(layer.encode() + b"\0" + material).digest()
    return hashlib.sha256(b"layer" + _scope_bytes(scope) + digest).hexdigest()


@lru_cache(maxsize=10_000)
def _scope_bytes(scope: Scope) -> bytes:
    return VERSION + msgspec.json.encode(scope)


def permissions_digest(names: Iterable[str]) -> str:
    """Return a digest of the set of permission *names*, whatever their order; "" for none."""
    wanted = sorted({name.strip() for name in names if name.strip()})
    return hashlib.sha256("\0".join(wanted).encode()).hexdigest()[:32] if wanted else ""


def divided(permissions: str, names: Iterable[str]) -> str:
    """Return *permissions*, the digest of a key's own, divided further by *names*: these never join what was apart."""
    return f"{permissions}+{permissions_digest(names)}"


def digests_of(digests: Iterable[str]) -> str | None:
    """Return digests of what tools returned in one order: they are a set. None for none."""
    return ",".join(sorted({one.strip() for one in digests if one.strip()})) or None


def user_of(caller: Caller, hints: Hints) -> str | None:
    """Return on whose behalf *caller* asks. Raises `PermissionDenied` where the key is another user's own."""
    if hints.user is None or caller.user in (None, hints.user):
        return hints.user or caller.user
    header = "x-negawatt-user"
    raise PermissionDenied(f"{header}: this key is one user's own, and speaks for nobody else", param=header)


def scope_of(
    caller: Caller, hints: Hints, *, personal: bool, model_policy: str | None = None, headers: Headers | None = None
) -> Scope:
    """Return the scope of what *caller* asks for. *personal*: answers depend on the user."""
    permissions = caller.permissions
    if hints.permissions:  # the caller's own users' permissions
        permissions = divided(permissions, hints.permissions.split(","))
    return Scope(
        tenant=caller.tenant,
        permissions=permissions,
        user=user_of(caller, hints) if personal else None,
        corpus_version=hints.corpus_version,
        prompt_version=hints.prompt_version,
        tool_digests=None if hints.tool_digests is None else digests_of(hints.tool_digests.split(",")),
        model_policy=model_policy,
        headers=headers,
    )


def narrowed(scope: Scope, caller: Caller | None, *, personal: bool) -> Scope:
    """Return *scope* for a call that turned out to be of another class: as strict as it was, or stricter."""
    if not personal or scope.user is not None or caller is None:
        return scope
    return msgspec.structs.replace(scope, user=caller.user)


def missing_scope(policy: RequestClass | None, scope: Scope) -> str | None:
    """Return what a class needs before its answers may be kept or shared, and *scope* has not; None if all is there."""
    if policy is None:
        return None
    if policy.personal and scope.user is None:
        return "the class is personal and the call names no user"
    name = lacking(policy.needs, scope)
    return None if name is None else f"the class needs {NEEDS[name]} and the call has none"


def lacking(needs: Sequence[str], scope: Scope) -> str | None:
    """Return the first of *needs* (names in `NEEDS`) that *scope* has not; None if all is there."""
    return next((name for name in needs if not getattr(scope, name)), None)


def differences(one: tuple[Request, Scope], other: tuple[Request, Scope], wire: Identified) -> list[str]:
    """Return the paths at which two calls differ in what makes the key; an empty list when they are the same."""
    found: list[str] = []
    _compare(wire.identity(one[0]), wire.identity(other[0]), "", found)
    _compare(msgspec.to_builtins(one[1]), msgspec.to_builtins(other[1]), "scope", found)
    return found


def _compare(one: Any, other: Any, path: str, found: list[str]) -> None:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            where = f"{path}.{name}" if path else name
            if name not in one:
                found.append(f"{where}: only in the second: {_short(other[name])}")
            elif name not in other:
                found.append(f"{where}: only in the first: {_short(one[name])}")
            else:
                _compare(one[name], other[name], where, found)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            found.append(f"{path}: {len(one)} entries, and {len(other)}")
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            _compare(a, b, f"{path}[{i}]", found)
    elif orjson.dumps(one) != orjson.dumps(other):
        found.append(f"{path}: {_short(one)}, and {_short(other)}")


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
