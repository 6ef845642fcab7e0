"""A whole request, shortened: each text of it by what its place and the settings allow, all else as it was.

What is lossless depends on nothing but the text and what stands before it: the beginning of a conversation is shortened
in the same way at each of its turns, so that the provider's prefix cache goes on to hold it. Folded turns, chosen
context and pruned tools depend on what is asked; whether they are worth a changed beginning is not decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from negawatt.config_shape import Compress as Settings
from negawatt.shape.code import is_code
from negawatt.shape.context import shape_context
from negawatt.shape.edits import Cut, Edit, Shaped, apply
from negawatt.shape.history import Path, fold
from negawatt.shape.lossless import fold_blobs, fold_boilerplate, fold_repeats_in, minify_json, trim_space
from negawatt.shape.passages import about_form
from negawatt.shape.places import Place, Read, as_turns, at, path_of, put_back
from negawatt.shape.tools import ToolCalibration, prune, without_duplicates

NOTHING_LEFT = "[left out: it is about something else]"  # providers refuse blocks without any text
_LEAST_CHOSEN = 400  # characters of a text of which a part may be chosen


class Short(NamedTuple):
    """What to send instead.

    *fields* of the request that change, *texts* (path, before, after) that did, *tools* as they were where some went,
    and how many characters went, by why. *abstained*: why more was not done.
    """

    fields: Mapping[str, Any]
    texts: tuple[tuple[Path, str, str], ...]
    tools: tuple[Any, ...] | None
    saved: Mapping[str, int]
    abstained: tuple[str, ...]

    @property
    def chars(self) -> int:
        """How many characters shorter the request is."""
        return sum(self.saved.values())


class _Text:
    """A place and what has become of its text. *folded*: its whole string has been, and is not to be touched again."""

    __slots__ = ("folded", "place", "text")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.text = place.text
        self.folded = False


class Shortener:
    """Shortens requests as *settings* say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.chooses = settings.context or settings.history_turns is not None or settings.tools_recall is not None
        """True where what is asked decides on what is sent."""

    def __call__(
        self,
        data: Mapping[str, Any],
        read: Read,
        *,
        chosen: bool,
        pruned: bool = False,
        tools: ToolCalibration | None = None,
    ) -> Short:
        """Return *data*, whose places are *read*, shortened.

        *chosen*: also by what is asked, behind the last mark. *pruned*: the tools as well, by what *tools* knows.
        """
        work = _Work(data, read, self._settings)
        if self._settings.lossless:
            work.each("json", minify_json, work.free())
            work.each("space", trim_space, (one for one in work.free() if not _is_code(one)))
        if self._settings.blobs:
            brought = [one for one in work.free() if one.place.kind in ("tool", "document")]
            work.each("blob", fold_blobs, brought)
            work.each("boilerplate", fold_boilerplate, brought)
        if chosen and self._settings.history_turns is not None:
            work.fold(self._settings.history_turns)
        if chosen and self._settings.context:
            work.choose(self._settings.retention)
        if self._settings.lossless:
            work.repeats()
            work.duplicates()
        if pruned and self._settings.tools_recall is not None:
            work.prune(self._settings.tools_recall, tools)
        return work.done()


class _Work:
    """One request in the making."""

    def __init__(self, data: Mapping[str, Any], read: Read, settings: Settings) -> None:
        self._data = data
        self._read = read
        self._texts = [_Text(place) for place in read.places]
        self._folded: dict[Path, str] = {}
        self._tools: list[Any] | None = None
        self._saved: Counter[str] = Counter()
        self._abstained: dict[str, None] = {}

    def free(self) -> Iterator[_Text]:
        """Yield the texts that may change: whose user does not ask about how they are written, and not folded ones."""
        return (one for one in self._texts if not one.place.bound and not one.folded)

    def each(self, kind: str, shape: Callable[[str], Shaped], texts: Iterable[_Text]) -> None:
        for one in texts:
            self._take(one, shape(one.text), kind)

    def repeats(self) -> None:
        texts = list(self.free())
        for one, shaped in zip(texts, fold_repeats_in([one.text for one in texts]), strict=True):
            self._take(one, shaped, "repeat")

    def duplicates(self) -> None:
        tools = self._data.get("tools")
        if isinstance(tools, list) and len(tools) > 1 and all(isinstance(tool, dict) for tool in tools):
            self._keep_tools(without_duplicates(tools), "duplicate_tools")

    def fold(self, turns: int) -> None:
        """Fold old turns, but for what was asked last, and what stands before a mark of the caller's."""
        if self._read.asked_at is None:
            self._abstained["no person's ask to fold old turns by"] = None
            return
        data = {**self._data, **put_back(self._data, self._strings())}
        folded = fold(as_turns(self._read.protocol, data), keep_turns=turns)
        if folded.abstained is not None:
            self._abstained[folded.abstained] = None
        for path, edits in folded.edits.items():
            if int(path[0]) <= self._read.marked or path[0] == self._read.asked_at:
                continue
            where = path_of(self._read.protocol, data, path)
            self._folded[where] = self._refolded(at(data, where), edits, folded.removed)
            self._saved["turn"] += sum(edit.length - len(edit.put) for edit in edits)
            for one in self._texts:
                one.folded = one.folded or one.place.path == where

    @staticmethod
    def _refolded(text: str, edits: Sequence[Edit], removed: Mapping[str, str]) -> str:
        """Return *text* with *edits* made: they are given where they stand in what becomes of it."""
        shift, cuts = 0, []
        for edit in edits:
            start = edit.at + shift
            cuts.append(Cut(start, start + len(removed[edit.id]), edit.put, edit.kind))
            shift += edit.length - len(edit.put)
        return apply(text, cuts).text

    def choose(self, retention: float) -> None:
        """Choose by the last ask what of the context stays: of documents together, of a tool's result by itself."""
        ask = self._read.ask
        if not ask or self._read.asked_at is None:
            self._abstained["no person's ask to choose context by"] = None
            return
        if about_form(ask):
            self._abstained["the ask is about how the text is written"] = None
            return
        open_ = [one for one in self.free() if one.place.message > self._read.marked and len(one.text) >= _LEAST_CHOSEN]
        documents = [one for one in open_ if one.place.kind != "tool"]
        if documents:
            self._chosen(documents, shape_context([one.text for one in documents], ask, retention=retention))
        for one in open_:
            if one.place.kind == "tool":
                query = " ".join(filter(None, (ask, self._read.searched.get(one.place.message))))
                self._chosen([one], shape_context([one.text], query, retention=retention))

    def _chosen(self, texts: Sequence[_Text], shaped: Sequence[Shaped]) -> None:
        for one, found in zip(texts, shaped, strict=True):
            if found.abstained is not None:
                self._abstained[found.abstained] = None
            if found.edits and not found.text.strip():
                found = apply(one.text, [Cut(0, len(one.text), NOTHING_LEFT, "sentences")])
            self._take(one, found, "context")

    def prune(self, recall: float, calibration: ToolCalibration | None) -> None:
        tools = self._tools if self._tools is not None else self._data.get("tools")
        if not isinstance(tools, list) or not tools or not all(isinstance(tool, dict) for tool in tools):
            return
        if self._read.marked >= 0 or any("cache_control" in tool for tool in tools):
            self._abstained["the caller marks what the provider is to keep"] = None
            return
        turns = as_turns(self._read.protocol, self._data)
        choice = self._data.get("tool_choice")
        found = prune(tools, turns, calibration=calibration, recall=recall, tool_choice=choice)
        if found.abstained is not None:
            self._abstained[found.abstained] = None
        else:
            self._keep_tools(list(found.tools), "tools")

    def done(self) -> Short:
        """Return what has become of the request."""
        found = self._strings() | self._folded
        texts = tuple((path, before, text) for path, text in found.items() if (before := at(self._data, path)) != text)
        fields = put_back(self._data, {path: text for path, _, text in texts})
        tools = None
        if self._tools is not None:
            fields["tools"], tools = self._tools, tuple(self._data["tools"])
        return Short(fields, texts, tools, dict(self._saved), tuple(self._abstained))

    def _take(self, one: _Text, shaped: Shaped, kind: str) -> None:
        if shaped.edits and shaped.saved > 0:
            self._saved[kind] += shaped.saved
            one.text = shaped.text

    def _keep_tools(self, tools: list[Any], kind: str) -> None:
        before = self._tools if self._tools is not None else self._data["tools"]
        if len(tools) < len(before):
            self._saved[kind] += len(str(before)) - len(str(tools))
            self._tools = tools

    def _strings(self) -> dict[Path, str]:
        """Return the strings that hold the texts, with what has become of these; folded ones left out."""
        by_path: dict[Path, list[_Text]] = {}
        for one in self._texts:
            if not one.folded and one.text != one.place.text:
                by_path.setdefault(one.place.path, []).append(one)
        found: dict[Path, str] = {}
        for path, changed in by_path.items():
            string = at(self._data, path)
            for one in sorted(changed, key=lambda one: -one.place.start):
                string = string[: one.place.start] + one.text + string[one.place.end :]
            found[path] = string
        return found


def _is_code(one: _Text) -> bool:
    """True for a tool's result that is code: who edits it by its exact text needs every space."""
    return one.place.kind == "tool" and is_code(one.text)
