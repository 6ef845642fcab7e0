"""admit: who may ask, for what, how much and how long. Nothing is computed for a caller who may not ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from negawatt.call import Call, Target
from negawatt.caller import Caller, Headers, Hints, Scope
from negawatt.config import Config
from negawatt.deadline import Alarms, Deadline
from negawatt.errors import (
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
)
from negawatt.keys import scope_of, user_of
from negawatt.pipeline import Handler
from negawatt.recall.policy import callers_tags
from negawatt.reply import Reply

ANYONE = Caller()
_OWNER = Caller(admin=True)  # where no key is asked for, nobody else can reach the door
_VENDORS = ("anthropic-", "openai-", "cohere-", "x-goog-")  # of headers that choose a version or a beta


class Catalogue(Protocol):
    """Where model names lead."""

    def targets(self, model: str) -> tuple[Target, ...]: ...

    def names(self) -> list[str]: ...


class Callers(Protocol):
    """Knows whose key is whose."""

    @property
    def open(self) -> bool: ...

    @property
    def divided(self) -> bool:
        """True when there are callers who must not see each other's answers."""
        ...

    def caller(self, secret: str | None) -> Caller:
        """Return whose key *secret* is, which has to be one to use. Raises `RequestError`."""
        ...

    def holder(self, secret: str | None) -> Caller:
        """Return whose key *secret* is, whatever it is for. Raises `RequestError`."""
        ...


class Conversations(Protocol):
    """Knows to whom each answer was given that a later call may go on from."""

    async def check(self, call: Call, state: Sequence[tuple[str, str]]) -> None: ...

    def remember(self, call: Call, reply: Reply) -> None: ...


def administrator(callers: Callers, secret: str | None) -> Caller:
    """Return the administrator whose key *secret* is. Raises `AuthenticationError` or `PermissionDenied`."""
    if callers.open:
        return _OWNER
    caller = callers.holder(secret)
    if not caller.admin:
        raise PermissionDenied("this key is for calls; what is asked for here needs the key of an administrator")
    return caller


def within_scope(forward: Handler) -> Handler:
    """Return *forward*, behind a check that each call is of a class that its key may use, however it came to it."""

    def checked(call: Call) -> Awaitable[Reply]:
        if call.caller is not None and call.caller.classes is not None:
            _check_class(call.caller, call.request_class)
        return forward(call)

    return checked


def _check_class(caller: Caller, name: str) -> None:
    if not caller.may_be_of(name):
        raise PermissionDenied(f"class: this key may not make calls of the class {name[:100]!r}", param="class")


class Admit:
    """Turns a stranger's bytes into a call with a caller, a class, a scope, a deadline and targets."""

    def __init__(
        self,
        config: Config,
        *,
        keyring: Callers,
        catalogue: Catalogue,
        alarms: Alarms,
        conversations: Conversations,
        compose: Callable[[Call], Call] = lambda call: call,
    ) -> None:
        self._alarms = alarms
        self._conversations = conversations
        self._server = config.server
        self._classes = config.classes
        self._keyring = keyring
        self._compose = compose
        self._catalogue = catalogue
        self._vary = frozenset(name.lower() for name in config.cache.vary)
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        call = call.with_(caller=self._keyring.caller(call.hints.key))  # known from here on: the row names them
        self._check_size(call)
        call = self._compose(call)  # before its fields are looked at: a template may bring them
        call.wire.check(call.request)
        call = self._admitted(call)
        if self._in_flight >= self._server.max_in_flight:
            raise RateLimited(f"{self._in_flight} calls are in flight already; try again shortly")
        self._in_flight += 1
        assert call.deadline is not None
        try:
            state = call.wire.continues(call.request)
            if state:
                await self._conversations.check(call, state)
            reply = await call.deadline.hold(forward(call), "the call's deadline passed before an answer came")
        except BaseException:
            self._in_flight -= 1
            raise
        reply.deadline = call.deadline
        if call.wire.stateful:
            reply.on_read(partial(self._remember, call))
        reply.on_end(self._leave)
        return reply

    def _remember(self, call: Call, reply: Reply) -> None:
        """Note whose answer it is, by the class that the call has come to have."""
        self._conversations.remember(call.trail.call or call, reply)

    def _leave(self, _: Reply) -> None:
        self._in_flight -= 1

    def _check_size(self, call: Call) -> None:
        size, most = call.body_bytes, self._server.max_body_bytes
        if size > most:
            raise RequestTooLarge(f"the request body has {size} bytes; the limit is {most} (server.max_body_bytes)")

    def _admitted(self, call: Call) -> Call:
        caller = call.caller or ANYONE
        if call.hints.user is not None:
            caller = msgspec.structs.replace(caller, user=user_of(caller, call.hints))
        model = call.request.model
        if not caller.may_use(model):
            raise PermissionDenied(f"model: this key may not use {model!r}", param="model")
        targets = self._catalogue.targets(model)
        if not targets:
            known = ", ".join(list(filter(caller.may_use, self._catalogue.names()))[:20]) or "none"
            raise ModelNotFound(f"model: no provider here serves {model!r}; known: {known}", param="model")
        if call.hints.mode not in (None, "on", "shadow", "off"):
            header = "x-negawatt-mode"
            raise InvalidRequest(f"{header}: expected off, shadow or on, got {call.hints.mode[:50]!r}", param=header)
        callers_tags(call.hints.cache_tags)  # refused here: where they are used, the answer has left
        name = self._class_name(call.hints, caller)
        return call.with_(
            caller=caller,
            request_class=name,
            scope=self._scope(caller, name, call, targets),
            targets=targets,
            deadline=Deadline(self._alarms, self._seconds(call.hints)),
        )

    def _class_name(self, hints: Hints, caller: Caller) -> str:
        name = hints.request_class
        if name is None:
            return "default"
        _check_class(caller, name)  # first: whether there is a class of that name is not for everybody
        if name != "default" and name not in self._classes:
            known = ", ".join(sorted(filter(caller.may_be_of, self._classes))) or "none"
            message = f"x-negawatt-class: no class is named {name[:100]!r}; known: {known}"
            raise InvalidRequest(message, param="x-negawatt-class")
        return name

    def _scope(self, caller: Caller, name: str, call: Call, targets: tuple[Target, ...]) -> Scope:
        policy = self._classes.get(name)
        return scope_of(
            caller, call.hints, personal=policy is not None and policy.personal,
            model_policy=targets[0].label,
            headers=self._obeyed(call.headers) if call.headers else None,
        )  # fmt: skip

    def _obeyed(self, headers: Headers) -> Headers | None:
        """Return those of *headers* that can change the answer: the vendors' own, and what the configuration names."""
        return tuple([h for h in headers if h[0].startswith(_VENDORS) or h[0] in self._vary]) or None

    def _seconds(self, hints: Hints) -> float:
        most = self._server.deadline_s
        if hints.deadline_ms is None:
            return most
        try:
            asked = float(hints.deadline_ms) / 1000
        except ValueError:
            asked = -1.0
        if not asked > 0:
            name = "x-negawatt-deadline-ms"
            raise InvalidRequest(f"{name}: expected a number of milliseconds above 0", param=name)
        return min(asked, most)
