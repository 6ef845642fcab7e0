"""Tool lists shortened: the tools that a conversation may call next stay, those that it surely does not need go.

A tool's score has two parts: the BM25 of its name, description and parameters for what the user asks and what tools
answered last, as a share of the best; and how often recorded conversations called it next, after the tool called last.
Tools that were called before, that the choice names, or that a message names by an unmistakable name, stay. How far
below the best score a tool may lie is read off recorded calls for a recall target (`fit_tools`); without them no tool
goes.

A list that changes within a conversation costs the provider's prefix cache: what is saved must outweigh that.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from negawatt.shape.scores import bm25
from negawatt.shape.terms import asked, nearest, spelled_out, terms

LEAST_TOOLS = 5  # of fewer, too little would be saved
_RESULTS = 0.5  # what tools answered says less about the next call than what the user asks
_SIMILARITY = 0.5
_PRIOR = 20  # calls that count as much as what was seen after the same tool

Json = Mapping[str, Any]


class Need(msgspec.Struct, frozen=True):
    """A recorded call: which tools there were, what stood before it, and the tools that were really *called* next."""

    tools: Sequence[Json]
    messages: Sequence[Json]
    called: frozenset[str]


class ToolCalibration(msgspec.Struct, frozen=True):
    """How large a gap *n* recorded calls needed, the *largest* first, and where they come from.

    *after*: how often each tool was called next, by the tool called last; after "" when none was.
    """

    largest: tuple[float, ...]
    n: int
    source: str
    after: Mapping[str, Mapping[str, int]] = {}

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

    tools: tuple[Json, ...]
    left_out: tuple[str, ...] = ()
    abstained: str | None = None


def prune(
    tools: Sequence[Json],
    messages: Sequence[Json],
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
    if reason is not None or calibration is None:
        return Pruned(tuple(tools), abstained=reason)
    gap = calibration.gap(recall)
    if gap is None:
        return Pruned(tuple(tools), abstained="too few recorded calls for this recall")
    gaps = gaps_of(tools, messages, calibration.after, similarities)
    if gaps is None:
        return Pruned(tuple(tools), abstained="nothing tells the tools apart")
    held = held_tools(tools, messages, tool_choice)
    keeps = [need <= gap or name_of(tool) in held for tool, need in zip(tools, gaps, strict=True)]
    left_out = tuple(name_of(tool) for tool, stays in zip(tools, keeps, strict=True) if not stays)
    return Pruned(tuple(tool for tool, stays in zip(tools, keeps, strict=True) if stays), left_out)


def fit_tools(needs: Sequence[Need], source: str) -> ToolCalibration:
    """Return what *needs* say about which tools are called next. Raises ValueError without any.

    Habits are counted on every second of them and gaps measured on the others, so that no call is its own witness.
    Calls of tools that stay anyway need no gap.
    """
    after: dict[str, dict[str, int]] = {}
    for need in needs[::2]:
        row = after.setdefault(_last_called(need.messages), {})
        for name in need.called:
            row[name] = row.get(name, 0) + 1
    found = sorted((_needed(need, after) for need in needs[1::2]), reverse=True)
    if not found:
        raise ValueError("expected at least two recorded calls")
    return ToolCalibration(tuple(found), len(found), source, after)


def gaps_of(
    tools: Sequence[Json],
    messages: Sequence[Json],
    after: Mapping[str, Mapping[str, int]],
    similarities: Sequence[float] | None = None,
) -> list[float] | None:
    """Return how far below the best score each tool lies; None where the scores say nothing."""
    said = [terms(spelled_out(_text(tool))) for tool in tools]
    counts, lengths = [Counter(words) for words in said], [len(words) for words in said]
    vocabulary = frozenset[str]().union(*counts)
    query = asked(spelled_out(_users(messages)))
    wanted = frozenset(
        found for word in query if (found := word if word in vocabulary else nearest(word, vocabulary)) is not None
    )
    words = bm25(counts, lengths, wanted)
    results = bm25(counts, lengths, asked(spelled_out(_results(messages))) & vocabulary)
    scores = [one + _RESULTS * other for one, other in zip(words, results, strict=True)]
    best = max(scores)
    habits = _habits([name_of(tool) for tool in tools], after, _last_called(messages))
    if best <= 0 and not any(habits):
        return None
    scores = [one / (best or 1.0) + habit for one, habit in zip(scores, habits, strict=True)]
    if similarities is not None:
        scores = [one + _SIMILARITY * max(0.0, like) for one, like in zip(scores, similarities, strict=True)]
    return [max(scores) - one for one in scores]


def _habits(names: Sequence[str], after: Mapping[str, Mapping[str, int]], last: str) -> list[float]:
    """Return how often each tool was called next, as log odds against one call in a thousand, scaled to 0..1.

    What followed the tool called last counts with its number of calls, what is called in general with 20.
    """
    general: Counter[str] = Counter()
    for row in after.values():
        general.update(row)
    calls = general.total()
    if not calls:
        return [0.0] * len(names)
    row = after.get(last, {})
    seen = sum(row.values())
    found = []
    for name in names:
        share = (row.get(name, 0) + _PRIOR * general[name] / calls) / (seen + _PRIOR)
        found.append(max(0.0, math.log(max(share, 1e-3) / 1e-3) / math.log(1e3)))
    return found


def without_duplicates(tools: Sequence[Json]) -> list[Json]:
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


def name_of(tool: Json) -> str:
    """Return the name of *tool*, in the shape of any of the three protocols; empty for one that has none."""
    function = tool.get("function")
    named = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return named if isinstance(named, str) else ""


def _why_all(tools: Sequence[Json], calibration: ToolCalibration | None, choice: object) -> str | None:
    if len(tools) < LEAST_TOOLS:
        return "there are too few tools"
    if not all(name_of(tool) for tool in tools):
        return "a tool has no name"
    if calibration is None:
        return "no recorded calls tell which tools are needed"
    return "the request forbids calls" if choice == "none" else None


def _needed(need: Need, after: Mapping[str, Mapping[str, int]]) -> float:
    """Return the gap with which every tool that was called next stays."""
    gaps = gaps_of(need.tools, need.messages, after)
    if gaps is None:
        return 0.0  # all tools stay
    held = held_tools(need.tools, need.messages, None)
    named = {name_of(tool): gap for tool, gap in zip(need.tools, gaps, strict=True)}
    return max((named.get(name, math.inf) for name in need.called - held), default=0.0)


def held_tools(tools: Sequence[Json], messages: Sequence[Json], choice: object) -> set[str]:
    """Return the names of the tools that stay whatever their score."""
    names = {name_of(tool) for tool in tools}
    text = json.dumps([_said(message) for message in messages], ensure_ascii=False)
    # A name such as "think" is a word of everybody's; "get_user" or "getUser" is not.
    plain = {name for name in names if name.isalpha() and (name.islower() or name.istitle())}
    chosen = json.dumps(choice, default=str, ensure_ascii=False)
    called = {name for message in messages for name in _called(message)}
    return {name for name in names if name in called or f'"{name}"' in chosen or (name not in plain and name in text)}


def _called(message: Json) -> list[str]:
    """Return the names of the tools that *message* calls, in any of the three protocols."""
    calls = [one for one in message.get("tool_calls") or () if isinstance(one, Mapping)]
    found = [name_of(call) for call in calls]
    content = message.get("content")
    parts = [message, *(content if isinstance(content, list) else [])]
    found += [
        str(part.get("name") or "")
        for part in parts
        if isinstance(part, Mapping) and part.get("type") in ("tool_use", "function_call")
    ]
    return [name for name in found if name]


def called_in(answer: Json) -> list[str]:
    """Return the names of the tools that a whole *answer* calls, in any of the three protocols."""
    choices, output = answer.get("choices"), answer.get("output")
    said: list[Any] = [choice.get("message") for choice in choices or () if isinstance(choice, Mapping)]
    said += output if isinstance(output, list) else []
    return [name for one in (answer, *said) if isinstance(one, Mapping) for name in _called(one)]


def _last_called(messages: Sequence[Json]) -> str:
    return next((names[-1] for message in reversed(messages) if (names := _called(message))), "")


def _text(tool: Json) -> str:
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


def _users(messages: Sequence[Json]) -> str:
    """Return what the user said last, and before it as far as it is short of words."""
    texts = [_said(one) for one in messages if one.get("role") == "user" and _said(one).strip()]
    return " ".join(texts[-3:])


def _results(messages: Sequence[Json]) -> str:
    """Return what tools answered since the model last spoke to the user, shortened."""
    found: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "tool":
            found.append(_said(message)[:500])
        elif message.get("role") == "user":
            break
    return " ".join(found)


def _said(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""
