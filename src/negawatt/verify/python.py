"""Your own function as a verifier.

It gets the `Case` and says True or False, a score in 0..1, a pair of a bool and a reason, or a whole `Verdict`. A plain
function runs in a thread of its own, so that it holds up nobody; one that comes back too late is not waited for, and
its thread is left behind: so many of them may be left behind, and no more are begun until one of them ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

from negawatt.verify.verdict import Case, Verdict

_MOST_THREADS = 32


class PythonVerifier:
    """Asks *function*. Raises whatever that raises: see `negawatt.verify.judging.judged`."""

    kind = "python"

    def __init__(self, function: Callable[[Case], Any], name: str, *, least: float = 0.5) -> None:
        self._function = function
        self._name = name
        self._least = least
        self._running = 0  # threads; counted on the event loop alone
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  an object whose call is a coroutine
        )

    async def __call__(self, case: Case) -> Verdict:
        if self._asynchronous:
            return self._verdict(await self._function(case))
        if self._running >= _MOST_THREADS:
            return Verdict(False, 0.0, f"{self._running} runs of {self._name} have not come back", self.kind)
        return self._verdict(await self._in_thread(case))

    async def _in_thread(self, case: Case) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            self._running -= 1
            if done.done():
                return  # nobody waits any more
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = self._function(case)
            except BaseException as raised:  # it is raised again where it is waited for
                error = RuntimeError("StopIteration") if isinstance(raised, StopIteration) else raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        self._running += 1
        threading.Thread(target=run, name=f"verifier {self._name}", daemon=True).start()
        return await done

    def _verdict(self, said: Any) -> Verdict:
        if isinstance(said, Verdict):
            return said._replace(kind=said.kind or self.kind, score=_share(said.score))
        if isinstance(said, tuple) and len(said) == 2 and isinstance(said[0], bool):
            return Verdict(said[0], float(said[0]), None if said[1] is None else str(said[1]), self.kind)
        if isinstance(said, bool):
            return Verdict(said, float(said), None if said else f"{self._name} says no", self.kind)
        if isinstance(said, (int, float)):
            score = _share(said)
            passed = score >= self._least
            return Verdict(passed, score, None if passed else f"{score:.3g} is below {self._least:g}", self.kind)
        raise TypeError(f"expected a bool, a number, a pair or a Verdict, got {type(said).__name__}")


def _share(score: float) -> float:
    if not 0 <= score <= 1:  # not a number, too
        raise ValueError(f"a score is in 0..1, not {score}")
    return float(score)
