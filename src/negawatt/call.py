"""The values that travel: a Call goes down through the levers, a Reply (`negawatt.reply`) comes back up.

A `Call` is frozen; a lever that changes it forwards a changed copy. What happened to it on the way is written
into its `Trail`, which all copies share and which only grows: the decisions of the levers, the attempts at
providers, and how it ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from negawatt.caller import NO_HINTS, NO_SCOPE, Caller, Headers, Hints, Scope
from negawatt.errors import InvalidRequest

if TYPE_CHECKING:
    from negawatt.clock import Clock
    from negawatt.deadline import Deadline
    from negawatt.economics.accounts import Bill
    from negawatt.economics.counting import Count
    from negawatt.economics.usage import Usage
    from negawatt.protocol import Contract, Wire
    from negawatt.reply import Reply
    from negawatt.routing.asked import Asked


class Request:
    """A read-only view over the caller's JSON. Unknown fields are kept, in their order.

    *raw* is what the caller sent; it is parsed when first looked into, and sent on unchanged if nothing changed it.
    """

    __slots__ = ("_data", "_raw", "asked", "digest", "origin")

    def __init__(self, raw: bytes | None = None, data: dict[str, Any] | None = None) -> None:
        self._raw = raw
        self._data = data
        self.digest: bytes | None = None  # kept by `negawatt.keys`, which makes it
        self.asked: Asked | None = None  # kept by `negawatt.routing.asked`, likewise
        self.origin: Request | None = None  # what was asked, where a lever has shortened it; None: this

    @property
    def data(self) -> Mapping[str, Any]:
        """The parsed body. Raises `InvalidRequest` when it is not a JSON object."""
        if self._data is None:
            wrong = None
            try:
                data = orjson.loads(self._raw or b"")
            except orjson.JSONDecodeError as error:
                wrong = f"the request body is not valid JSON: {error}"
            if wrong is not None:
                raise InvalidRequest(wrong)  # not from the decoder's error, which holds all of the text
            if not isinstance(data, dict):
                raise InvalidRequest(f"the request body must be a JSON object, not {json_name(data)}")
            self._data = data
        return self._data

    @property
    def body(self) -> bytes:
        """The bytes to send on."""
        if self._raw is None:
            self._raw = self.canonical(self._data)
        return self._raw

    @staticmethod
    def canonical(value: Any, *, sort: bool = False) -> bytes:
        """Return *value* as JSON. Raises `InvalidRequest` when it is nested too deeply to be written again."""
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)
        except orjson.JSONEncodeError as error:
            raise InvalidRequest(f"the request body cannot be written as JSON again: {error}") from error

    @property
    def model(self) -> str:
        return str(self.data["model"])

    @property
    def stream(self) -> bool:
        return self.data.get("stream") is True

    def get(self, name: str, default: Any = None) -> Any:
        return self.data.get(name, default)

    def without(self, name: str) -> Request:
        """Return a copy without the field *name*; itself where there is none."""
        if name not in self.data:
            return self
        return Request(data={field: value for field, value in self.data.items() if field != name})

    def replace(self, **fields: Any) -> Request:
        """Return a copy with *fields* changed; a field changed to the value it had leaves the bytes alone."""
        if all(self.data.get(name) == value for name, value in fields.items()):
            return self
        changed = Request(data={**self.data, **fields})
        changed.origin = self.origin
        return changed

    def shortened(self, **fields: Any) -> Request:
        """Return the same, which stands for this request: the ledger keeps this one."""
        changed = self.replace(**fields)
        if changed is not self and changed.origin is None:
            changed.origin = self
        return changed


def json_name(value: object) -> str:
    """Return what JSON calls the type of *value*, with its article."""
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {
        dict: "an object", list: "an array", str: "a string", int: "an integer", float: "a number", type(None): "null"
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)


class Target(msgspec.Struct, frozen=True, gc=False):
    """One model at one provider."""

    provider: str
    model: str  # as the provider names it
    name: str  # as callers name it
    effort: str | None = None  # of reasoning; None: as the request says

    @property
    def label(self) -> str:
        """Where the model's name leads, as caches are divided by it: ``openai/gpt-5 at low``."""
        where = f"{self.provider}/{self.model}"
        return where if self.effort is None else f"{where} at {self.effort}"


class FromTemplate(msgspec.Struct, frozen=True, gc=False):
    """The prompt template that a request was rendered from, and what each of its blocks says: (name, text)."""

    name: str
    version: str
    blocks: tuple[tuple[str, str], ...]


class Saved(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a decision spared, against the call as it would have gone on without it. Priced by the meter.

    *instead*: the call would have used this in place of its attempts, not beside them. What was saved is then the
    difference, which may be negative. Of several such decisions the newest counts, and only where something was asked.
    In shadow it is the other way round: what the attempts would have been replaced by.
    """

    usage: Usage
    model: str
    provider: str
    upstream_s: float | None = None
    basis: str = "measured"
    instead: bool = False


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one lever did with one call."""

    lever: str
    action: str
    reason: str | None = None
    mode: str = "on"
    saved: Saved | None = None
    detail: dict[str, Any] | None = None


class Attempt:
    """One call to one provider. It is billed, whether or not its answer was used.

    *usage* None means that the provider did not say; *billed* False means that it answered with an error status,
    or was never reached, which providers do not charge.
    """

    __slots__ = (
        "aside", "billed", "ended", "error", "first_chunk", "on_close", "started", "status", "target", "usage"
    )  # fmt: skip

    def __init__(self, target: Target, started: float) -> None:
        self.target = target
        self.aside = False  # asked beside the call: a judge, a second opinion
        self.started = started
        self.first_chunk: float | None = None
        self.ended: float | None = None
        self.status: int | None = None
        self.error: str | None = None
        self.usage: Usage | None = None
        self.billed = True
        self.on_close: Callable[[Attempt], None] | None = None  # who reserved what it may cost is told once it is known


class Trail:
    """What happened to one call so far. Shared by every copy of it; append-only.

    It is complete when nobody holds it any more: the caller's reply, each attempt at a provider, and each shadow
    run hold it while they last. Then *on_complete* is called, once.
    """

    __slots__ = (
        "_holds", "answered", "attempts", "bill", "budget_left", "call", "chosen", "clock", "counted", "decisions",
        "ended", "ending", "error", "first_byte", "holdout", "on_complete", "reply", "status", "waited_s",
    )  # fmt: skip

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.call: Call | None = None  # the newest copy
        self.decisions: list[Decision] = []
        self.attempts: list[Attempt] = []
        self.chosen: Target | None = None  # a policy's choice that has answered: no fallback of what the call led to
        self.answered: Attempt | None = None  # whose answer the caller gets, where a lever chose between several
        self.waited_s = 0.0  # time spent waiting on purpose: queue, backoff, a shared answer
        self.first_byte: float | None = None
        self.ended: float | None = None
        self.ending: str | None = None
        self.status: int | None = None
        self.error: BaseException | None = None
        self.holdout = False
        self.reply: Reply | None = None  # as the caller has it
        self.counted: Count | None = None  # input tokens of the attempt that answered, as counted here
        self.bill: Bill | None = None  # once nothing can change it any more
        self.budget_left: Callable[[], tuple[str, float]] | None = None  # of the caller's own, that with least left
        self.on_complete: Callable[[Trail], None] | None = None
        self._holds = 1  # the caller's own

    def hold(self) -> None:
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0:
            if self.on_complete is not None:
                self.on_complete(self)
            # Nobody needs them now. The trail and its call refer to each other: left so, they would wait for the
            # garbage collector, which on a busy gateway is a large part of the work.
            self.call = self.reply = self.on_complete = self.budget_left = None

    @property
    def answerer(self) -> Attempt | None:
        """The attempt whose answer the caller gets; where there is none yet, the last one."""
        if self.answered is not None:
            return self.answered
        for attempt in reversed(self.attempts):
            if attempt.error is None:
                return attempt
        return self.attempts[-1] if self.attempts else None

    def open_attempt(self, target: Target) -> Attempt:
        attempt = Attempt(target, self.clock.monotonic())
        self.attempts.append(attempt)
        self.hold()
        return attempt

    def close_attempt(self, attempt: Attempt, *, error: str | None = None) -> None:
        """End *attempt*; a second time is a no-op."""
        if attempt.ended is None:
            attempt.ended = self.clock.monotonic()
            attempt.error = error
            if attempt.on_close is not None:
                told, attempt.on_close = attempt.on_close, None  # it holds the call, which holds this
                told(attempt)
            self.release()

    def end(self, ending: str, *, status: int | None = None, error: BaseException | None = None) -> None:
        """Say how the call ended for its caller; only the first word counts."""
        if self.ending is None:
            self.ending, self.status, self.error = ending, status, error
            self.ended = self.clock.monotonic()
            self.release()

    def upstream_s(self, until: float) -> float:
        """Return the seconds up to *until* in which an attempt was under way; several at the same time count once."""
        spans = sorted((one.started, until if one.ended is None else min(one.ended, until)) for one in self.attempts)
        spent, reached = 0.0, -math.inf
        for started, ended in spans:
            begun = max(started, reached)
            if ended > begun:
                spent, reached = spent + ended - begun, ended
        return spent

    def decided(self, lever: str) -> Decision | None:
        """Return the newest real decision of *lever*."""
        return next((d for d in reversed(self.decisions) if d.lever == lever and d.mode != "shadow"), None)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way down."""

    id: str
    wire: Wire  # the protocol that its caller speaks
    request: Request
    trail: Trail
    received_at: float  # seconds since 1970, UTC
    started: float  # the clock's monotonic reading at the same moment
    headers: Headers = ()  # the caller's, as far as they are for the provider
    body_bytes: int = 0  # as declared or as read; an oversize body is not read to its end
    hints: Hints = NO_HINTS
    caller: Caller | None = None
    template: FromTemplate | None = None
    request_class: str = "default"
    policy: str | None = None  # that chooses the model; None: the caller chose it
    class_contract: Contract | None = None  # that answers of its class are held to; None: to none
    scope: Scope = NO_SCOPE
    deadline: Deadline | None = None
    targets: tuple[Target, ...] = ()
    shadow: bool = False
    aside: bool = False  # asked on the way to an answer, on the same books, and not itself what the caller asked
    hurried: bool = False  # somebody else can be asked: a failure is not waited out
    aside_for: str | None = None  # id of the call for whose sake the gateway makes this one, which has its own row

    @property
    def streams(self) -> bool:
        """True when the caller wants the answer in chunks."""
        return self.wire.streams and self.request.stream

    @property
    def contract(self) -> Contract | None:
        """The JSON that its answer has to be, by the request's own word, else by its class's; None: any text will do.

        Where the request asks for any object, its class may say which.
        """
        own = self.wire.contract(self.request)
        if own is None or own.schema is None:
            return self.class_contract or own
        return own

    def with_(self, **fields: Any) -> Call:
        """Return a copy with *fields* changed, and make it the newest one of its trail."""
        changed = msgspec.structs.replace(self, **fields)
        if not changed.shadow and not changed.aside:
            self.trail.call = changed
        return changed

    def beside(self, **fields: Any) -> Call:
        """Return a copy with *fields* changed that asks something of its own, on the books of this call.

        Neither it nor a copy of it becomes the newest one of the trail.
        """
        return msgspec.structs.replace(self, aside=True, hurried=True, **fields)

    def with_request(self, **fields: Any) -> Call:
        return self.with_(request=self.request.replace(**fields))

    def note(
        self,
        lever: str,
        action: str,
        reason: str | None = None,
        *,
        saved: Saved | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Write down what *lever* decided."""
        mode = "shadow" if self.shadow else "on"
        self.trail.decisions.append(Decision(lever, action, reason, mode, saved, detail))
