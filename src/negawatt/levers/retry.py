"""retry: try again, then try the next target, and leave alone what keeps failing. Only before the first byte."""

from __future__ import annotations

import asyncio
import email.utils
import random
from collections.abc import Mapping

from negawatt.call import Call, Target
from negawatt.clock import Clock
from negawatt.config import Retry as Settings
from negawatt.errors import (
    BudgetExceeded,
    CircuitOpen,
    NegawattError,
    UpstreamBroken,
    UpstreamConnectError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    forget_frames,
)
from negawatt.pipeline import Handler
from negawatt.reply import Reply

NAME = "retry"
_EARLY_S = 0.002  # an event loop's timer may wake a moment early; who asked for a second gets a whole one
# 529 is what Anthropic says when overloaded, 498 Groq's capacity.
_AGAIN = frozenset({408, 409, 429, 498, 500, 502, 503, 504, 529})
# The target answered, and said that the request is wrong: another target would say the same.
_FINAL = frozenset({400, 404, 405, 413, 415, 422})


class Breaker:
    """Leaves a target alone after *failures* in a row, for *cooldown_s*; then one call may try it."""

    __slots__ = ("_cooldown_s", "_failures", "_in_a_row", "_open_until", "_probing")

    def __init__(self, failures: int, cooldown_s: float) -> None:
        self._failures = failures
        self._cooldown_s = cooldown_s
        self._in_a_row = 0
        self._open_until: float | None = None
        self._probing = False

    def wait_s(self, now: float) -> float:
        """Return 0 when a call may go, else how long the target is still left alone."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._probing:
            return self._cooldown_s
        self._probing = True
        return 0.0

    def closed(self, now: float) -> bool:
        """True when calls go through as usual."""
        return self._open_until is None or now >= self._open_until

    def succeeded(self) -> None:
        self._in_a_row, self._open_until, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        self._in_a_row += 1
        if self._probing or self._in_a_row >= self._failures:
            self._open_until, self._probing = now + self._cooldown_s, False

    def gave_up(self) -> None:
        """The call that tried ended without a word on the target: let another one try."""
        self._probing = False


class Retry:
    """Asks each of the call's targets in order, each several times, until one answers or the reason is final."""

    def __init__(self, settings: Settings, clock: Clock, rng: random.Random) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._breakers: dict[tuple[str, str], Breaker] = {}

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        last = len(call.targets) - 1
        for place, target in enumerate(call.targets):
            if place:
                call.note(NAME, "fallback", f"to {target.name} at {target.provider}")
            try:
                return await self._ask(call, target, forward)
            except UpstreamError as error:
                if place == last or (isinstance(error, UpstreamStatus) and error.status in _FINAL):
                    raise
                forget_frames(error)
            except BudgetExceeded:  # nobody was asked; what comes next may cost less, or be another's budget
                if place == last:
                    raise
        raise NegawattError("the call has no target")

    async def _ask(self, call: Call, target: Target, forward: Handler) -> Reply:
        breaker = self._breaker(target)
        one = call if len(call.targets) == 1 else call.with_(targets=(target,))
        attempt = 1
        while True:
            wait_s = breaker.wait_s(self._clock.monotonic())
            if wait_s > 0:
                message = f"{target.provider} failed repeatedly and is left alone for {wait_s:.1f} s more"
                raise CircuitOpen(message, provider=target.provider, retry_after_s=wait_s)
            try:
                reply = await forward(one)
            except UpstreamError as error:
                if not _retryable(error):
                    breaker.succeeded()  # it answered, if only to say no
                    raise
                breaker.failed(self._clock.monotonic())
                pause_s = None if call.hurried else self._pause(attempt, error)
                if pause_s is None or not _fits(call, pause_s) or not breaker.closed(self._clock.monotonic()):
                    raise
                call.note(NAME, "again", f"{type(error).__name__}: {error.message}"[:200])
                forget_frames(error)
                await self._sleep(call, pause_s)
                attempt += 1
            except BaseException:
                breaker.gave_up()
                raise
            else:
                breaker.succeeded()
                return reply

    async def _sleep(self, call: Call, pause_s: float) -> None:
        began = self._clock.monotonic()
        await asyncio.sleep(pause_s)
        if not call.shadow:
            call.trail.waited_s += self._clock.monotonic() - began

    def _breaker(self, target: Target) -> Breaker:
        key = (target.provider, target.model)
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= 10_000:  # models may be named by callers: keep the table bounded
                self._breakers.clear()
            settings = self._settings
            breaker = self._breakers[key] = Breaker(settings.breaker_failures, settings.breaker_cooldown_s)
        return breaker

    def _pause(self, attempt: int, error: UpstreamError) -> float | None:
        """Return how long to wait before the next attempt, None when there is none.

        Exponential with full jitter; never shorter than what the provider asked for in Retry-After.
        """
        settings = self._settings
        if attempt >= settings.attempts:
            return None
        most_s = min(settings.max_backoff_s, settings.backoff_s * 2 ** (attempt - 1))
        pause_s = self._rng.uniform(0, most_s)
        asked_s = retry_after_s(error.headers, self._clock.time()) if isinstance(error, UpstreamStatus) else None
        if asked_s is None:
            return pause_s
        if asked_s > settings.max_backoff_s:
            return None
        return asked_s + _EARLY_S + self._rng.uniform(0, settings.backoff_s / 4)


def _retryable(error: UpstreamError) -> bool:
    if isinstance(error, UpstreamStatus):
        return error.status in _AGAIN
    return isinstance(error, (UpstreamConnectError, UpstreamTimeout, UpstreamBroken)) or type(error) is UpstreamError


def _fits(call: Call, pause_s: float) -> bool:
    return call.deadline is None or pause_s < call.deadline.left_s


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that Retry-After asks for: a number or an HTTP date; None when it says nothing usable."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        text = headers.get("retry-after")
        if text is None:
            return None
        if text.strip().replace(".", "", 1).isdigit():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return None
