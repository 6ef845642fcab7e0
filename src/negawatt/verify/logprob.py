"""How sure was the model of its own words? From the probabilities of its tokens, where the provider tells them.

The score is the mean margin of the least sure tenth of the tokens: the probability of the token that was taken, less
that of the next likely one; where only the taken one is told, its probability alone. A mean over all tokens would say
how long the answer is: most tokens of a sentence follow from those before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from negawatt.call import Request
from negawatt.verify.verdict import Case, Verdict

_SHARE = 10  # one in so many tokens counts: the least sure ones
_RESPONSES = "message.output_text.logprobs"


class LogprobVerifier:
    """Passes an answer whose least sure tokens have at least the margin *least*."""

    kind = "logprob"

    def __init__(self, *, least: float = 0.5) -> None:
        self._least = least

    async def __call__(self, case: Case) -> Verdict:
        scores = [margin(tokens) for tokens in _tokens(case.data)]
        known = [score for score in scores if score is not None]
        if not known or len(known) < len(scores):
            return Verdict(False, 0.0, "the provider tells no probabilities of tokens", self.kind)
        score = min(known)
        passed = score >= self._least
        reason = None if passed else f"the margin of its least sure tokens is {score:.2f}, below {self._least:g}"
        return Verdict(passed, score, reason, self.kind)


def wants(protocol: str, request: Request) -> Request | None:
    """Return *request* so changed that its answer tells probabilities; itself if it does; None where none can."""
    if protocol == "chat":
        more = max(_whole(request.get("top_logprobs")), 2)
        return request.replace(logprobs=True, top_logprobs=more)
    if protocol == "responses":
        include = list(request.get("include") or ())
        included = include if _RESPONSES in include else [*include, _RESPONSES]
        return request.replace(include=included, top_logprobs=max(_whole(request.get("top_logprobs")), 2))
    return None


def without(protocol: str, request: Request, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the answer *data* as the caller of *request* wanted it, less the probabilities; None if it is that."""
    if protocol == "chat":
        return (
            None
            if request.get("logprobs") is True and _whole(request.get("top_logprobs")) >= 2
            else _chat(request, data)
        )
    if protocol == "responses" and _RESPONSES not in (request.get("include") or ()):
        return {**data, "output": [_silent(item) for item in _objects(data.get("output"))]}
    return None


def _chat(request: Request, data: Mapping[str, Any]) -> dict[str, Any]:
    most = _whole(request.get("top_logprobs")) if request.get("logprobs") is True else None
    choices = []
    for choice in _objects(data.get("choices")):
        told = None if most is None else _fewer(choice.get("logprobs"), most)
        choices.append({**choice, "logprobs": told} if "logprobs" in choice else choice)
    return {**data, "choices": choices}


def _fewer(logprobs: Any, most: int) -> Any:
    """Return *logprobs* with at most so many alternatives for each token."""
    if not isinstance(logprobs, Mapping):
        return logprobs
    told = {}
    for name, tokens in logprobs.items():
        told[name] = [{**t, "top_logprobs": (t.get("top_logprobs") or [])[:most]} for t in _objects(tokens)] or tokens
    return told


def _silent(item: Mapping[str, Any]) -> dict[str, Any]:
    if item.get("type") != "message":
        return dict(item)
    parts = [{**p, "logprobs": []} if p.get("logprobs") else p for p in _objects(item.get("content"))]
    return {**item, "content": parts}


def margin(tokens: list[Mapping[str, Any]]) -> float | None:
    """Return the mean margin of the least sure tenth of *tokens*; None where nothing is told of them."""
    margins = sorted(found for found in map(_margin, tokens) if found is not None)
    if not margins:
        return None
    least = margins[: max(1, math.ceil(len(margins) / _SHARE))]
    return sum(least) / len(least)


def _margin(token: Mapping[str, Any]) -> float | None:
    taken = _probability(token.get("logprob"))
    if taken is None:
        return None
    others = [
        probability
        for other in _objects(token.get("top_logprobs"))
        if other.get("token") != token.get("token") and (probability := _probability(other.get("logprob"))) is not None
    ]
    return max(0.0, taken - max(others, default=0.0))


def _probability(logprob: Any) -> float | None:
    if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or math.isnan(logprob):
        return None
    return math.exp(min(0.0, float(logprob)))


def _tokens(data: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the tokens of each text in a whole answer of Chat Completions or the Responses API."""
    for choice in _objects(data.get("choices")):
        logprobs = choice.get("logprobs")
        yield _objects(logprobs.get("content")) if isinstance(logprobs, Mapping) else []
    for item in _objects(data.get("output")):
        if item.get("type") == "message":
            for part in _objects(item.get("content")):
                if part.get("type") == "output_text":
                    yield _objects(part.get("logprobs"))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
