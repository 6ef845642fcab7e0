"""Does an answer keep the contract that its request asked for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from negawatt.protocol import Contract
from negawatt.schemas import broken
from negawatt.verify.verdict import Case, Verdict


def broken_contract(contract: Contract, answers: Sequence[str]) -> str | None:
    """Return why one of *answers* breaks *contract*, None when all of them keep it."""
    for answer in answers:
        try:
            value = orjson.loads(answer)
        except orjson.JSONDecodeError:
            return "the answer is not the JSON that was asked for"
        problem = _problem(contract.schema, value)
        if problem is not None:
            return problem
    return None


class SchemaVerifier:
    """Passes what keeps the JSON that the request, or its class, asks for. Knows only yes and no."""

    kind = "schema"

    async def __call__(self, case: Case) -> Verdict:
        contracts = [one for one in (case.contract, case.class_contract) if one is not None]
        if not contracts:
            return Verdict(False, 0.0, "neither the request nor its class asks for JSON", self.kind)
        if not case.answers:
            return Verdict(False, 0.0, "the answer says nothing that a schema could hold for", self.kind)
        broken = next(filter(None, (broken_contract(one, case.answers) for one in contracts)), None)
        return Verdict(broken is None, float(broken is None), broken, self.kind)


def _problem(schema: Any, value: Any) -> str | None:
    if schema is None:
        return None if isinstance(value, dict) else "the answer is not the JSON object that was asked for"
    return broken(schema, value)
