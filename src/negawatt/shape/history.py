"""Old turns of a conversation folded by rule, without a model: every message stays, and old ones say less.

A turn is what the user says and all that follows until the user speaks again. System prompts, the last turns, and what
the user says briefly are never touched. Of older turns there stay: tool results that later turns refer to, by an id,
code or number that came up there first; of other results a note of their length; and of what was said, the first
sentence and those that have a word of the last question, or an id that later turns use. Calls of tools stay as they
are, and so does each message, so that every result still has its call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from negawatt.shape.edits import Cut, Edit, Shaped, apply, restore
from negawatt.shape.scores import score
from negawatt.shape.sentences import units

KEEP_TURNS = 3
_LEAST = 240  # characters of a text: of a shorter one nothing is saved that a note would not cost
_BRIEF = 60  # words of a user
_SUITS = 0.6  # of the best score of a text's sentences
_CODE = re.compile(r"[^\W_](?:[\w.:/@+#-]*[^\W_])?")
_LEAST_CODE = 4
_SPOKEN = ("user", "assistant")

Path = tuple[str | int, ...]
Message = Mapping[str, Any]


class Folded(msgspec.Struct, frozen=True):
    """The messages, shorter; what was done to the text at each path; what was removed, by id; or why nothing was.

    A path leads from the list of messages to a string: ``(3, "content")``, ``(5, "content", 0, "text")``.
    """

    messages: tuple[Message, ...]
    edits: Mapping[Path, tuple[Edit, ...]] = {}
    removed: Mapping[str, str] = {}
    abstained: str | None = None

    @property
    def saved(self) -> int:
        """How many characters shorter the messages are."""
        return sum(edit.length - len(edit.put) for edits in self.edits.values() for edit in edits)


class _Text(msgspec.Struct, frozen=True):
    path: Path
    text: str
    speaker: str  # user, assistant or tool


def fold(messages: Sequence[Message], *, keep_turns: int = KEEP_TURNS) -> Folded:
    """Return *messages* with all but the last *keep_turns* turns folded. Raises ValueError for less than one turn."""
    if keep_turns < 1:
        raise ValueError(f"expected at least one turn to keep, not {keep_turns}")
    texts = list(_texts(messages))
    begins = sorted({int(one.path[0]) for one in texts if one.speaker == "user"})
    if len(begins) <= keep_turns:
        return Folded(tuple(messages), abstained="the conversation is short")
    first_kept = begins[-keep_turns]
    asked = " ".join(one.text for one in texts if one.path[0] == begins[-1] and one.speaker == "user")
    used = _used_later(messages)
    edits: dict[Path, tuple[Edit, ...]] = {}
    removed: dict[str, str] = {}
    found: list[Message] = list(messages)
    for one in texts:
        place = int(one.path[0])
        if place >= first_kept or len(one.text) < _LEAST:
            continue
        shaped = _shorter(one, asked, _codes(one.text) & used[place])
        if shaped is None or shaped.saved <= 0:
            continue
        found[place] = _with(found[place], one.path[1:], shaped.text)
        edits[one.path] = shaped.edits
        removed.update(shaped.removed)
    return Folded(tuple(found), edits, removed, None if edits else "nothing old is long enough")


def unfold(folded: Folded, get: Callable[[str], str | None]) -> list[Message]:
    """Return the original messages. *get* returns a removed piece by its id. Raises what `restore` raises."""
    found = list(folded.messages)
    for path, edits in folded.edits.items():
        place = int(path[0])
        found[place] = _with(found[place], path[1:], restore(_at(found[place], path[1:]), edits, get))
    return found


def _texts(messages: Sequence[Message]) -> Iterator[_Text]:
    """Yield the texts of *messages* that may be folded, or tell where a turn begins, in order."""
    for place, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role in ("tool", "function"):
            yield from _parts((place, "content"), content, "tool")
        elif role in _SPOKEN:
            yield from _parts((place, "content"), content, str(role))


def _parts(path: Path, content: object, speaker: str) -> Iterator[_Text]:
    if isinstance(content, str):
        yield _Text(path, content, speaker)
    elif isinstance(content, Sequence):
        for i, part in enumerate(content):
            if not isinstance(part, Mapping):
                continue
            if part.get("type") == "tool_result":
                yield from _parts((*path, i, "content"), part.get("content"), "tool")
            elif part.get("type") == "text" and isinstance(part.get("text"), str):
                yield _Text((*path, i, "text"), part["text"], speaker)


def _used_later(messages: Sequence[Message]) -> list[set[str]]:
    """Return, for each message, the codes that any later one has and none before it had."""
    each = [_codes(msgspec.json.encode(message, enc_hook=str).decode()) for message in messages]
    later: list[set[str]] = []
    after: set[str] = set()
    for codes in reversed(each):
        later.append(set(after))
        after |= codes
    later.reverse()
    before: set[str] = set()
    found = []
    for codes, coming in zip(each, later, strict=True):
        found.append(coming - before)
        before |= codes
    return found


def _codes(text: str) -> set[str]:
    """Return the ids, codes and numbers of *text* that are long enough to be nobody else's."""
    return {
        word for word in _CODE.findall(text) if len(word) >= _LEAST_CODE and any(c.isdigit() or c == "_" for c in word)
    }


def _shorter(one: _Text, asked: str, referred: set[str]) -> Shaped | None:
    """Return the text *one* folded, or None where it stays. *referred*: codes that came up here and are used later."""
    if one.speaker == "tool":
        if referred:
            return None
        note = f"[tool result left out: {len(one.text):,} characters]"
        return apply(one.text, [Cut(0, len(one.text), note, "tool_result")])
    if one.speaker == "user" and len(one.text.split()) <= _BRIEF:
        return None
    return _first_and_fitting(one.text, asked, referred)


def _first_and_fitting(text: str, asked: str, referred: set[str]) -> Shaped:
    """Return *text* with its first sentence, its code, and those that suit *asked* or have a code *referred* to."""
    parts = units(text)
    scores = score(parts, asked).of
    least = _SUITS * max(scores)
    first = next((i for i, unit in enumerate(parts) if unit.words), 0)
    keeps = [
        i == first
        or unit.kind in ("code", "blank")
        or (least > 0 and one >= least)
        or bool(_codes(unit.text) & referred)
        for i, (unit, one) in enumerate(zip(parts, scores, strict=True))
    ]
    cuts: list[Cut] = []
    for unit, stays in zip(parts, keeps, strict=True):
        end = unit.start + len(unit.text.rstrip())
        if stays:
            continue
        if cuts and not text[cuts[-1].end : unit.start].strip():
            cuts[-1] = Cut(cuts[-1].start, end, "[...]", "turn")
        else:
            cuts.append(Cut(unit.start, end, "[...]", "turn"))
    return apply(text, [cut for cut in cuts if cut.end - cut.start > len(cut.put)])


def _at(value: Any, path: Path) -> str:
    for step in path:
        value = value[step]
    return str(value)


def _with(value: Any, path: Path, text: str) -> Any:
    """Return a copy of *value* in which *text* stands at *path*; what lies beside the path is shared."""
    if not path:
        return text
    step, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return {**value, step: _with(value[step], rest, text)}
    return [_with(one, rest, text) if i == step else one for i, one in enumerate(value)]
