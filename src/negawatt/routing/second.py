"""Second opinions: what a cascade asks on the way to its answer, on the books of the same call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from negawatt.call import Call, Request, Target
from negawatt.errors import ConfigError, NegawattError, RequestError, UpstreamBroken, UpstreamError, UpstreamStatus
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.verify.agreeing import AgreementVerifier
from negawatt.wire.chat import CHAT

TargetsOf = Callable[[str], tuple[Target, ...]]
_WARM = 0.7  # samples of a model that always says the likeliest would be one and the same
_CAPS = ("max_tokens", "max_completion_tokens")


async def read(reply: Reply) -> Reply:
    """Read *reply* whole, and return it. Raises `UpstreamError` when it broke off; then it is closed, as when cut."""
    try:
        await reply.whole()
        if not reply.finished:
            raise UpstreamBroken("the answer broke off before its end")
    except BaseException:
        await reply.close()
        raise
    return reply


class Seconds:
    """Asks models in words of our own, and others what the caller asked. *targets_of*: where a model's name leads."""

    def __init__(self, targets_of: TargetsOf) -> None:
        self._targets_of = targets_of
        self._not_cold: set[str] = set()  # models that refuse a temperature

    def asker(self, call: Call, forward: Handler) -> Callable[[str, str], Awaitable[str]]:
        """Return what verifiers ask with, on the books of *call*."""

        async def ask(model: str, prompt: str) -> str:
            targets = self._targets_of(model)
            if not targets:
                raise ConfigError(f"no provider here serves {model!r}", param="model")
            reply = await self.say(call, forward, targets, prompt)
            return "\n".join(CHAT.answers(reply.data))

        return ask

    async def say(
        self, call: Call, forward: Handler, targets: tuple[Target, ...], prompt: str, *, capped: bool = False
    ) -> Reply:
        """Return the whole answer of the first of *targets* to *prompt*, as Chat Completions. Raises `NegawattError`.

        *capped*: it may be as long as the caller's own, as far as Chat Completions says that.
        """
        body: dict[str, Any] = {"model": targets[0].name, "messages": [{"role": "user", "content": prompt}]}
        if capped and call.wire.name == "chat":
            body |= {name: call.request.get(name) for name in _CAPS if call.request.get(name) is not None}
        cold = targets[0].name not in self._not_cold
        try:
            return await self._ask(call, forward, targets, {**body, "temperature": 0} if cold else body)
        except UpstreamStatus as error:
            if not cold or error.status != 400:
                raise
        reply = await self._ask(call, forward, targets, body)
        self._not_cold.add(targets[0].name)
        return reply

    async def _ask(self, call: Call, forward: Handler, targets: tuple[Target, ...], body: dict[str, Any]) -> Reply:
        asked = call.beside(wire=CHAT, request=Request(data=body), targets=targets, headers=())
        reply = await read(await forward(asked))
        await reply.close()
        return reply

    def others(
        self, call: Call, forward: Handler, targets: tuple[Target, ...], verifier: AgreementVerifier
    ) -> list[asyncio.Task[str]]:
        """Begin to ask those whose answers are compared with that of *targets*; return what will be their texts."""
        if verifier.with_models:
            asked = [call.beside(targets=self._targets_of(model)) for model in verifier.with_models]
        else:
            request = call.request
            if request.get("temperature") == 0:
                request = request.replace(temperature=_WARM)
            asked = [call.beside(targets=targets, request=request)] * (verifier.samples - 1)
        return [asyncio.ensure_future(self._text(one, forward)) for one in asked]

    async def _text(self, call: Call, forward: Handler) -> str:
        """Return the text of the answer to *call*; "" where there is none, which agrees with nothing."""
        try:
            reply = await read(await forward(call))
        except (UpstreamError, RequestError):
            return ""  # it is on the books, with its error
        await reply.close()
        texts = call.wire.answers(reply.data) if call.wire.complete(reply.data) else []
        return texts[0] if len(texts) == 1 else ""


async def gathered(tasks: Sequence[asyncio.Task[str]]) -> list[str]:
    """Return what *tasks* give. Raises what one of them raises."""
    return list(await asyncio.gather(*tasks))


async def dropped(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel those of *tasks* that still run, and wait until they have."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled() and isinstance(task.exception(), NegawattError):
            continue  # seen: its call is on the books
