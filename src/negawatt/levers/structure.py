"""structure: an answer that should be JSON keeps its schema, or it is mended, asked for again, or said to be broken.

The contract is what the request asks for, else the schema of its class. It is sent in the provider's own way where it
has one, else said in words. An answer is held until it has been read: mended where there is one way to mend it, asked
for once more with the error, then asked of the policy's reference; what is broken even so is passed on as it came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.call import Attempt, Call, Request, Target
from negawatt.config import RequestClass
from negawatt.config_shape import Structure as Settings
from negawatt.economics.reference import in_place_of
from negawatt.errors import ConfigError, InvalidRequest, NotRecorded, RequestError, UpstreamError, UpstreamStatus
from negawatt.pipeline import Handler
from negawatt.protocol import Contract
from negawatt.reply import Reply
from negawatt.routing.asked import asked_of
from negawatt.routing.held import Held
from negawatt.schemas import no_schema
from negawatt.shape.contract import instruction, strictly
from negawatt.shape.sought import Extract, Read, Sought, found_by_code, sought
from negawatt.wire import contracts
from negawatt.wire.limits import cut_off

NAME = "structure"
_MOST_REFUSED = 1024
_MOST_SAID = 20_000  # characters of a broken answer that its model is shown again
_ABOUT_FORMS = (b"response_format", b"json_schema", b"output_config", b"output_format", b"text.format", b"schema",
                b"structured")  # fmt: skip
_AGAIN = (
    "That is not what was asked for: {problem}. Answer once more, with the whole JSON and nothing else: no Markdown, "
    "no words around it. Change nothing else, and invent nothing."
)


def _nothing(_: Call) -> tuple[Target, ...]:
    return ()


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the lever works with.

    *takes*: whether the target of a call takes schemas in its own way; *reference*: where the policy of a call leads
    when nothing less will do, () without a policy; *extract*: what code finds in a text.
    *verified*: whether others compare an answer to a call with its
    contract before it gets here: it has to be the caller's own words then.
    """

    takes: Callable[[Call], bool]
    reference: Callable[[Call], tuple[Target, ...]] = _nothing
    extract: Extract = found_by_code
    verified: Callable[[Call], bool] = lambda call: False


class Plan(NamedTuple):
    """What is sought, and who asks for it. *held*: it may be read before its caller gets it."""

    sought: Sought
    own: bool
    held: bool


class Tried(NamedTuple):
    """An answer that is there. *reads* is empty where nothing in it has to keep the contract; *why* says why."""

    held: Held
    attempt: Attempt | None
    request: Request
    texts: Sequence[str]
    reads: Sequence[Read]
    why: str | None = None
    cut: bool = False

    @property
    def problem(self) -> str | None:
        return next((read.problem for read in self.reads if read.problem is not None), None)


class Structure:
    """Holds answers to their contracts. Raises `ConfigError` for a class whose schema is none."""

    def __init__(self, settings: Settings, classes: Mapping[str, RequestClass], parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._schemas = {name: policy.schema for name, policy in classes.items() if policy.schema is not None}
        self._refused: dict[tuple[str, bytes], None] = {}  # targets and schemas that do not go together
        self._digests = {
            name: hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
            for name, schema in self._schemas.items()
            if classes[name].levers.get(NAME, settings.mode) in ("on", "canary")
        }
        for name, schema in self._schemas.items():
            wrong = no_schema(schema)
            if wrong is not None:
                raise ConfigError(f"classes.{name}.schema: {wrong}", param=f"classes.{name}.schema")

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        plan = self._plan(call)
        if plan is None:
            return await forward(call)
        if call.shadow:
            reply = await forward(call)
            reply.on_end(partial(self._looked_at, call, plan))
            return reply
        before = len(call.trail.attempts)
        try:
            reply, request = await self._ask(call, forward, plan)
        except NotRecorded:
            # A recording knows what its caller asked, in its own words: its answer is held to the contract as it is.
            plan = plan._replace(sought=self._plain(plan.sought.schema))
            reply, request = await self._sent(call, forward, call.request), call.request
            call.note(NAME, "as asked", "there is no recording of the request in another form")
        if not plan.held:
            reply.on_end(partial(self._looked_at, call, plan))
            return reply
        tried = self._tried(call, plan, await Held.of(call, reply), request, before)
        found = tried if tried.problem is None else await self._mended(call, forward, plan, tried)
        return self._given(call, plan, found)

    def scoped(self, call: Call) -> Call:
        """Return *call* with what its class asks of it, and that in its scope: others' answers to the same are none."""
        digest = self._digests.get(call.request_class)
        if digest is None:
            return call
        scope = msgspec.structs.replace(call.scope, model_policy=f"{call.scope.model_policy} schema {digest}")
        return call.with_(scope=scope, class_contract=Contract(self._schemas[call.request_class]))

    # -- what is asked for -----------------------------------------------------------------------------------------

    def _plan(self, call: Call) -> Plan | None:
        """Return what is sought of *call*, None where any text will do. Raises `InvalidRequest` for no schema."""
        name = call.wire.name
        if name not in contracts.FORMS:
            return None
        own, of_class = call.wire.contract(call.request), self._schemas.get(call.request_class)
        if own is None and of_class is None:
            return None
        if contracts.continued(name, call.request):
            call.note(NAME, "bypass", "its caller has begun the answer, which goes on from there")
            return None
        # A request for any object says less than its class does.
        if own is None or (own.schema is None and of_class is not None):
            return self._sought(call, of_class, own=False)
        wrong = None if own.schema is None else no_schema(own.schema)
        if wrong is not None:
            field = contracts.schema_field(name, call.request)
            raise InvalidRequest(f"{field}: {wrong}", param=field)
        return self._sought(call, own.schema, own=True)

    def _sought(self, call: Call, schema: Any, *, own: bool) -> Plan:
        settings = self._settings
        held = not (call.streams and settings.stream == "trust")
        # The control group gets its JSON too; what makes it shorter is left out.
        control = call.shadow or call.trail.holdout or call.hints.mode in ("off", "shadow")
        shorter = held and not control and not self._parts.verified(call)
        found = sought(
            schema, mend=settings.repair, compact=shorter and settings.compact,
            words=_words(call) if shorter and settings.split else None, extract=self._parts.extract,
        )  # fmt: skip
        return Plan(found, own, held)

    def _plain(self, schema: Any) -> Sought:
        return sought(schema, mend=self._settings.repair, compact=False, words=None, extract=self._parts.extract)

    async def _ask(self, call: Call, forward: Handler, plan: Plan) -> tuple[Reply, Request]:
        """Ask for what is sought, natively or in words; return the reply, and the request that was sent."""
        target = call.targets[0].label
        key = (target, b"" if plan.sought.shown is None else orjson.dumps(plan.sought.shown))
        native = self._native(call, plan) if self._settings.native and key not in self._refused else None
        if native is not None:
            try:
                return await self._sent(call, forward, native), native
            except (UpstreamStatus, RequestError) as error:
                if not _about_forms(error):
                    raise
                reason = f"not taken, so it is said in words: {error.message}"[:200]
        words = contracts.without_schema(call.wire.name, call.request) if plan.own else call.request
        said = contracts.with_instruction(call.wire.name, words, instruction(plan.sought.shown))
        reply = await self._sent(call, forward, said)
        if native is not None:
            call.note(NAME, "said", reason)
            if len(self._refused) >= _MOST_REFUSED:  # callers make schemas: keep the table bounded
                self._refused.clear()
            self._refused[key] = None
        return reply, said

    def _native(self, call: Call, plan: Plan) -> Request | None:
        """Return the request that asks in the provider's own way; None where there is none.

        A caller who asked so knows that there is. Of classes, the table of providers says it.
        """
        name, shown = call.wire.name, plan.sought.shown
        if plan.own:
            own = call.wire.contract(call.request)
            if own is not None and own.schema == shown:
                return call.request
        elif not self._parts.takes(call):
            return None
        strict = strictly(shown)
        if name == "messages" and not (strict or plan.own):
            return None  # there all schemas are strict
        return contracts.with_schema(name, call.request, contracts.Asking(shown, strict))

    async def _sent(self, call: Call, forward: Handler, request: Request) -> Reply:
        """Forward *call* with *request*; the newest copy of the call is then again what its caller asked."""
        try:
            return await forward(msgspec.structs.replace(call, request=request))
        finally:
            newest = call.trail.call
            call.with_(targets=call.targets if newest is None else newest.targets)

    # -- an answer -------------------------------------------------------------------------------------------------

    def _tried(self, call: Call, plan: Plan, held: Held, request: Request, before: int) -> Tried:
        made = call.trail.attempts[before:]
        answered = call.trail.answered
        if answered is None or answered not in made:
            answered = next((one for one in reversed(made) if not one.aside and one.error is None), None)
        texts, reads, why, cut = self._read(call, plan, held.data)
        return Tried(held, answered, request, texts, reads, why, cut)

    def _read(self, call: Call, plan: Plan, data: Mapping[str, Any]) -> tuple[list[str], list[Read], str | None, bool]:
        """Return the texts of *data*, each as it is read, why there is nothing to read, and whether it was cut."""
        texts, complete = call.wire.answers(data), call.wire.complete(data)
        cut = not complete and cut_off(call.wire.name, data)
        if not texts:
            return [], [], "it refuses, or calls a tool", cut
        if not complete and not cut:
            return texts, [], "it did not come to its own end", cut
        return texts, [plan.sought.read(text, cut=cut) for text in texts], None, cut

    async def _mended(self, call: Call, forward: Handler, plan: Plan, first: Tried) -> Tried:
        """Return an answer that keeps the contract, of the same model or the reference's; else the best there is."""
        newest = first
        why = _not_again(call, first)
        for _ in range(0 if why is not None else self._settings.ask_again):
            found = await self._again(call, forward, plan, newest)
            if found is None:
                break
            if found.problem is None:
                return found
            newest = found
        if why is not None:
            call.note(NAME, "not asked again", why)
            return first
        referred = await self._referred(call, forward, plan, newest) if self._settings.escalate else None
        return first if referred is None else referred

    async def _again(self, call: Call, forward: Handler, plan: Plan, tried: Tried) -> Tried | None:
        """Ask who answered once more, with the error. None where that fails, or takes longer than there is time."""
        assert tried.attempt is not None
        said = tried.texts[0]
        objection = next(read.objection for read in tried.reads if read.problem is not None)
        note = partial(call.note, NAME, "asked again", detail={"model": tried.attempt.target.name, "said": objection})
        if not _in_time(call, tried.attempt):
            note("not asked again: there is no time left for it")
            return None
        told = _AGAIN.format(problem=objection)
        request = contracts.with_turn(call.wire.name, tried.request, said[:_MOST_SAID], told)
        # The same target, whatever the policy would choose now.
        again = msgspec.structs.replace(call, targets=(tried.attempt.target,), policy=None)
        before = len(call.trail.attempts)
        try:
            held = await Held.of(call, await self._sent(again, forward, request))
        except (UpstreamError, RequestError) as error:
            note(f"it failed: {type(error).__name__}: {error.message}"[:200])
            return None
        found = self._tried(call, plan, held, tried.request, before)
        if not found.reads:
            note(f"it was no answer: {found.why}")
            return None
        note(found.problem or "it keeps the contract")
        return found

    async def _referred(self, call: Call, forward: Handler, plan: Plan, tried: Tried) -> Tried | None:
        """Ask the policy's reference, as if it alone had been asked. None without one, and where it fails."""
        targets = self._parts.reference(call)
        if not targets or tried.attempt is None or tried.attempt.target.label == targets[0].label:
            return None
        before = len(call.trail.attempts)
        asked = msgspec.structs.replace(call, targets=targets, policy=None)
        try:
            reply, request = await self._ask(asked, forward, plan)
            held = await Held.of(call, reply)
        except (UpstreamError, RequestError) as error:
            call.note(NAME, "escalated", f"it failed: {type(error).__name__}: {error.message}"[:200],
                      detail={"model": targets[0].name})  # fmt: skip
            return None
        found = self._tried(call, plan, held, request, before)
        if found.attempt is None or not call.wire.complete(held.data):
            call.note(NAME, "escalated", f"it was no answer: {found.why}", detail={"model": targets[0].name})
            return None
        call.trail.answered, call.trail.chosen = found.attempt, found.attempt.target
        saved = in_place_of(call.trail, targets[0])
        call.note(NAME, "escalated", tried.problem, saved=saved, detail={"model": targets[0].name})
        return found

    # -- what the caller gets --------------------------------------------------------------------------------------

    def _given(self, call: Call, plan: Plan, tried: Tried) -> Reply:
        if tried.attempt is not None and tried.attempt is not call.trail.answerer:
            call.trail.answered = tried.attempt
        newest = call.trail.call
        call.with_(targets=call.targets if newest is None else newest.targets)
        action, reason = _verdict(tried.reads, tried.why)
        call.note(NAME, action, reason, detail=_detail(plan, tried.reads))
        texts = [read.text for read in tried.reads]
        if not texts or texts == list(tried.texts):
            return tried.held.reply(call)
        return tried.held.saying(contracts.with_answers(call.wire.name, tried.held.data, texts)).reply(call)

    def _looked_at(self, call: Call, plan: Plan, reply: Reply) -> None:
        """Note whether an answer that nothing was done to keeps the contract."""
        if reply.finished and reply.error is None:
            _, reads, why, _ = self._read(call, plan, reply.data)
            action, reason = _verdict(reads, why)
            if action == "repaired":
                action, reason = "broken", "it could have been repaired, had it been held"
            call.note(NAME, action, reason, detail=_detail(plan, reads))


def _verdict(reads: Sequence[Read], why: str | None) -> tuple[str, str | None]:
    if not reads:
        return "passed", why
    problem = next((read.problem for read in reads if read.problem is not None), None)
    if problem is not None:
        return "broken", problem
    return ("repaired" if any(read.changes for read in reads) else "kept"), None


def _detail(plan: Plan, reads: Sequence[Read]) -> dict[str, Any] | None:
    sought = plan.sought
    changes = sorted({change for read in reads for change in read.changes})
    found: dict[str, Any] = {
        "contract": "request" if plan.own else "class", "changes": changes,
        "filled": [".".join(path) for path in sought.values],
        "left": {".".join(path): why for path, why in sought.left.items()},
        "short_keys": sought.compact is not None, "long_keys": sought.long,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value} or None


def _not_again(call: Call, tried: Tried) -> str | None:
    """Return why nobody is asked once more, None where somebody may be."""
    if tried.cut:
        return "it was cut off at the limit that its caller set"
    if tried.attempt is None or len(tried.texts) != 1:
        return "there are several answers"
    if any(field != "previous_response_id" for field, _ in call.wire.continues(call.request)):
        return "the provider keeps something that each answer changes"
    return None


def _in_time(call: Call, attempt: Attempt) -> bool:
    """True when there is as much time left as *attempt* took."""
    took_s = 0.0 if attempt.ended is None else attempt.ended - attempt.started
    return call.deadline is None or call.deadline.left_s > took_s


def _about_forms(error: UpstreamStatus | RequestError) -> bool:
    """True when *error* says that the way in which the schema was sent is not taken."""
    said = error.message.encode() + (error.body if isinstance(error, UpstreamStatus) else b"")
    return error.status in (400, 422) and any(word in said.lower() for word in _ABOUT_FORMS)


def _words(call: Call) -> str | None:
    """Return all that the request says beside its instructions; None where it says things that are no words."""
    if asked_of(call).inputs or call.wire.continues(call.request):
        return None
    told: list[str] = []
    for message in call.wire.prompt(call.request).messages:
        if not isinstance(message, dict) or message.get("role") in ("system", "developer"):
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        told += [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n\n".join(told)
