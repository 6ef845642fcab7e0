"""What a case looks like to a gateway: the call that it would be."""

from __future__ import annotations

from negawatt.call import Call, Request, Trail
from negawatt.clock import SystemClock
from negawatt.proof.cases import SuiteCase
from negawatt.routing.asked import Asked, asked_of
from negawatt.wire.wires import WIRES


def call_of(case: SuiteCase, model: str = "auto") -> Call:
    """Return the call that *case* would be, were it asked for *model*. It is sent nowhere."""
    return Call(
        id=case.id,
        wire=WIRES[case.protocol],
        request=Request(data={"model": model, **case.request}),
        trail=Trail(SystemClock()),
        received_at=0.0,
        started=0.0,
        request_class=case.request_class or "default",
    )


def asked_in(case: SuiteCase) -> Asked:
    """Return what rules and routers see of *case*: the same as of a live request."""
    return asked_of(call_of(case))
