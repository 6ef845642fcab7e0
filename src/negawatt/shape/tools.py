"""Tool lists shortened: the tools that a conversation may call next stay, those that it surely does not need go.

A tool's score is the BM25 of its name, description and parameters for what the user asks, and for the last answers of
tools. Tools that were called before, that the choice names, or that the system prompt or a message names, stay.
How far below the best score a tool may lie is read off recorded calls for a recall target (`fit_tools`); without
them, or where too little is asked to tell, no tool goes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from negawatt.shape.scores import bm25
from negawatt.shape.terms import asked, nearest, spelled_out, terms

LEAST_TOOLS = 5  # of fewer, too little would be saved
_LEAST_KNOWN = 0.25
_RESULTS = 0.5  # what tools answered says less about the next call than what the user asks
_SIMILARITY = 0.5


class Need(msgspec.Struct, frozen=True):
    """A recorded call: which tools there were, what stood before it, and the tools that were really *called* next."""

    tools: Sequence[Mapping[str, Any]]
    messages: Sequence[Mapping[str, Any]]
    called: frozenset[str]


class ToolCalibration(msgspec.Struct, frozen=True):
    """How large a gap *n* recorded calls needed, the *largest* first, and where they come from."""

    largest: tuple[float, ...]
    n: int
    source: str

    def gap(self, recall: float) -> float | None:
        """Return the gap that keeps the tools called next with the chance *recall*; None when too few calls tell."""
        if not 0 < recall < 1:
            raise ValueError(f"expected a recall between 0 and 1, not {recall}")
        above = self.n - math.ceil(round((self.n + 1) * recall, 9))
        if above < 0:
            return None
        gap = self.largest[min(above, len(self.largest) - 1)]
        return None if math.isinf(gap) else gap


class Pruned(msgspec.Struct, frozen=True):
    """The tools that stay, in their order, and the names of those *left_out*; or why all stay."""

    tools: tuple[Mapping[str, Any], ...]
    left_out: tuple[str, ...] = ()
    abstained: str | None = None


def prune(
    tools: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    *,
    calibration: ToolCalibration | None,
    recall: float = 0.99,
    tool_choice: object = None,
    similarities: Sequence[float] | None = None,
) -> Pruned:
    """Return *tools* (of chat completions, messages or responses) that *messages* may call next.

    *similarities*: cosines of each tool's vector with the query's, where an embedder is at hand.
    """
    reason = _why_all(tools, calibration, tool_choice)
    gap = None if calibration is None else calibration.gap(recall)
    if reason is None and gap is None:
        reason = "too few recorded calls for this recall"
    gaps = gaps_of(tools, messages, similarities) if reason is None else None
    if reason is None and gaps is None:
        reason = "too little of what is asked stands in the tools"
    if reason is not None or gaps is None or gap is None:
        return Pruned(tuple(tools), abstained=reason)
    held = _held(tools, messages, tool_choice)
    keeps = [need <= gap or name_of(tool) in held for tool, need in zip(tools, gaps, strict=True)]
    left_out = tuple(name_of(tool) for tool, stays in zip(tools, keeps, strict=True) if not stays)
    return Pruned(tuple(tool for tool, stays in zip(tools, keeps, strict=True) if stays), left_out)


def fit_tools(needs: Iterable[Need], source: str) -> ToolCalibration:
    """Return how large a gap *needs* had. Calls of tools that stay anyway need none. Raises ValueError without any."""
    found = sorted((_needed(need) for need in needs), reverse=True)
    if not found:
        raise ValueError("expected at least one recorded call")
    return ToolCalibration(tuple(found), len(found), source)


def gaps_of(
    tools: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    similarities: Sequence[float] | None = None,
) -> list[float] | None:
    """Return how far below the best score each tool lies, as a share of it; None where the scores say nothing."""
    said = [terms(spelled_out(_text(tool))) for tool in tools]
    counts, lengths = [Counter(words) for words in said], [len(words) for words in said]
    vocabulary = frozenset[str]().union(*counts)
    query = asked(spelled_out(_users(messages)))
    wanted = frozenset(
        found for word in query if (found := word if word in vocabulary else nearest(word, vocabulary)) is not None
    )
    if not query or len(wanted) < _LEAST_KNOWN * min(len(query), 8):
        return None
    scores = bm25(counts, lengths, wanted)
    results = bm25(counts, lengths, asked(spelled_out(_results(messages))) & vocabulary)
    scores = [one + _RESULTS * other for one, other in zip(scores, results, strict=True)]
    best = max(scores)
    if best <= 0:
        return None
    if similarities is not None:
        scores = [one + _SIMILARITY * best * max(0.0, like) for one, like in zip(scores, similarities, strict=True)]
        best = max(scores)
    return [1 - one / best for one in scores]


def without_duplicates(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return *tools* without those that are the same as one before, whatever the order of their keys.

    Two tools of one name with different schemas both stay: which one counts is the provider's to say.
    """
    seen: set[str] = set()
    found = []
    for tool in tools:
        key = json.dumps(tool, sort_keys=True, ensure_ascii=True, default=str)
        if key not in seen:
            found.append(tool)
        seen.add(key)
    return found


def name_of(tool: Mapping[str, Any]) -> str:
    """Return the name of *tool*, in the shape of any of the three protocols; empty for one that has none."""
    function = tool.get("function")
    named = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return named if isinstance(named, str) else ""


def _why_all(tools: Sequence[Mapping[str, Any]], calibration: ToolCalibration | None, choice: object) -> str | None:
    if len(tools) < LEAST_TOOLS:
        return "there are too few tools"
    if not all(name_of(tool) for tool in tools):
        return "a tool has no name"
    if calibration is None:
        return "no recorded calls tell which tools are needed"
    return "the request forbids calls" if choice == "none" else None


def _needed(need: Need) -> float:
    """Return the gap with which every tool that was called next stays."""
    gaps = gaps_of(need.tools, need.messages)
    if gaps is None:
        return 0.0  # all tools stay
    held = _held(need.tools, need.messages, None)
    named = {name_of(tool): gap for tool, gap in zip(need.tools, gaps, strict=True)}
    return max((named.get(name, math.inf) for name in need.called - held), default=0.0)


def _held(tools: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]], choice: object) -> set[str]:
    """Return the names of the tools that stay whatever their score."""
    names = {name_of(tool) for tool in tools}
    text = json.dumps([messages, choice], default=str, ensure_ascii=False)
    return {name for name in names if name in text}


def _text(tool: Mapping[str, Any]) -> str:
    """Return what *tool* says about itself: each string in it, and the names of its parameters."""
    parts: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, Mapping):
            properties = value.get("properties")
            if isinstance(properties, Mapping):
                parts.extend(map(str, properties))
            for key, one in value.items():
                if key not in ("type", "$schema", "format"):
                    walk(one)
        elif isinstance(value, Sequence):
            for one in value:
                walk(one)

    walk(tool.get("function", tool))
    return " ".join(parts)


def _users(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what the user said last, and before it as far as it is short of words."""
    texts = [_said(one) for one in messages if one.get("role") == "user" and _said(one).strip()]
    return " ".join(texts[-3:])


def _results(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what tools answered since the model last spoke to the user, shortened."""
    found: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "tool":
            found.append(_said(message)[:500])
        elif message.get("role") == "user":
            break
    return " ".join(found)


def _said(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""
