"""What the verdicts in a ledger teach: which prompts the small model of a cascade could answer.

A cascade leaves its verdict on each small answer in the books. Where the request was kept as well, and its class
consents, that is a row to learn from: the small model was accepted or not, and the reference counts as right. These
are the verifiers' words, not the truth: a router learned from them asks the small model what its verifiers would
accept, and so spares the calls that would have been thrown away. Where somebody has said whether an accepted answer
was a success (`negawatt.success`), that counts in their place: they have seen what it was good for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from negawatt.call import Call, Request, Trail
from negawatt.clock import SystemClock
from negawatt.config import Config
from negawatt.errors import ConfigError, InputError
from negawatt.ledger.sqlite import read_content, read_rows
from negawatt.proof.against import ranked_in
from negawatt.proof.router_fit import Learnable
from negawatt.routing.asked import asked_of
from negawatt.success.listing import said_of_calls
from negawatt.wire.wires import WIRES

_SAYS = {"accepted": 1.0, "escalated": 0.0}


def verdicts_in(path: Path, config: Config, policy: str, since: float = 0.0) -> Learnable:
    """Return what the ledger in *path* knows of the cascade *policy*, a row for each call that was judged.

    Raises `ConfigError` for a policy that is no cascade, and `InputError` where there is nothing to learn from, with
    the reason.
    """
    found = config.policies.get(policy)
    if found is None or found.how != "cascade":
        cascades = ", ".join(name for name, one in config.policies.items() if one.how == "cascade") or "none"
        raise ConfigError(f"policies: no cascade is named {policy!r}; known: {cascades}", param="policies")
    consent = {name for name, one in config.classes.items() if one.evaluate}
    reference = ranked_in(config, policy).reference.name
    texts: list[str] = []
    outcomes: list[float] = []
    judged = withheld = 0
    small: set[str] = set()
    said = said_of_calls(path)
    heard = 0
    for row in read_rows(path, since):
        verdict = _verdict(row.decisions)
        if verdict is None:
            continue
        judged += 1
        content = read_content(path, row.id) if row.request_class in consent else None
        ask = None if content is None else _ask(content.request, row.protocol)
        if ask is None:
            withheld += 1
            continue
        texts.append(ask)
        spoken = said.get(row.id) if verdict[1] else None  # of another answer than the small one, elsewhere
        heard += spoken is not None
        outcomes.append(verdict[1] if spoken is None else float(spoken))
        small.add(verdict[0])
    if not texts:
        remedy = "ledger.keep_content keeps requests, and evaluate = true under [classes.NAME] lets them be used"
        what = (
            f"{judged} calls were judged by a cascade, {withheld} of them without a request that may be used; {remedy}"
        )
        raise InputError(f"{path}: nothing to learn from: {what}")
    if len(small) > 1:
        raise InputError(f"{path}: verdicts on {', '.join(sorted(small))}: a router is learned for one small model")
    names = (*small, reference)
    return Learnable(
        names=names, texts=texts, outcomes=np.column_stack([outcomes, np.ones(len(outcomes))]),
        source=f"{path}, verdicts of {policy}{f' and feedback on {heard}' if heard else ''}",
    )  # fmt: skip


def _verdict(decisions: str) -> tuple[str, float] | None:
    """Return which model was judged, and how; None where none was, or its call failed."""
    for one in orjson.loads(decisions):
        detail: dict[str, Any] = one.get("detail") or {}
        if one.get("lever") == "route" and one.get("action") in _SAYS and "verdicts" in detail:
            return str(detail["model"]), _SAYS[one["action"]]
    return None


def _ask(request: bytes, protocol: str) -> str | None:
    """Return what a person asked last in *request*; None where nobody did."""
    wire = WIRES.get(protocol)
    if wire is None:
        return None
    call = Call(
        id="", wire=wire, request=Request(request), trail=Trail(SystemClock()), received_at=0.0, started=0.0
    )  # fmt: skip
    return asked_of(call).ask.strip() or None
