"""Reading JSON as models write it, where there is one way to read it.

The reader goes through the text once and writes it out again as JSON, piece by piece as it stood; whatever it changes
it names. Where a value would have to be chosen, it refuses.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_DEEP = 200
_SPACE = " \t\n\r\u00a0\ufeff\u200b\u2028\u2029"
_WORD = re.compile(r"[A-Za-z_$][\w$-]*")
# JSON's, and those with a plus, or with no digit on one side of the point
_LOOSE_NUMBER = re.compile(r"([+-]?)(?=\.?\d)(0|[1-9]\d*)?(\.\d+|\.(?![\deE]))?([eE][+-]?\d+)?")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PYTHON = re.compile(r"\\(?:x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8}))")
_LITERALS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_CLOSING = {'"': '"', "'": "'", "“": "”", "„": "“", "‘": "’"}
_QUOTES = "".join(_CLOSING)
_KEY = re.compile(
    rf"(?:\"(?:[^\"\\]|\\.){{0,400}}\"|'(?:[^'\\]|\\.){{0,400}}'|[“„][^”“]{{0,400}}[”“]|‘[^’]{{0,400}}’"
    rf"|[A-Za-z_$][\w$-]{{0,400}})[{_SPACE}]*:"
)
_BETWEEN = re.compile(rf"(?:[{_SPACE}]|(?://|#)[^\n]*|/\*.{{0,2000}}?\*/)*", re.S)
_OPENS_INNER = re.compile(r"[\s(\[—–/-]")
_ENDS_INNER = re.compile(r"[\s.,;!?)…—–/-]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


class Refused(Exception):
    """There is no one way to read it; the message says why."""


class Frame(NamedTuple):
    """A container that was still open at the end of the text: the keys of an object, or how many items of a list."""

    keys: tuple[str, ...] | None
    items: int


class Read(NamedTuple):
    """*text* is JSON; *end*: where reading stopped; *open*: what had to be closed at the end, outermost first."""

    text: str
    end: int
    changes: frozenset[str]
    open: tuple[Frame, ...]
    number_last: bool  # the text ends with a number, which may have had more digits


class Reader:
    """Reads one object or list that begins at *at*. Used once."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.changes: set[str] = set()
        self._out: list[str] = []
        self._open: list[Frame] = []
        self._deep = 0
        self._number_last = False

    def read(self) -> Read:
        """Raises `Refused`."""
        self._value(in_list=False)
        return Read("".join(self._out), self.at, frozenset(self.changes), tuple(self._open), self._number_last)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self) -> None:
        """Go past white space, which is kept, and comments, which are not."""
        while True:
            begin = self.at
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            self._out.append("".join(c if c in " \t\n\r" else " " for c in self.text[begin : self.at]))
            if self.text.startswith(("//", "#"), self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text.startswith("/*", self.at):
                end = self.text.find("*/", self.at)
                if end < 0:
                    raise Refused("a comment does not end")
                self.at = end + 2
            else:
                return
            self.changes.add("comments")

    def _value(self, in_list: bool) -> None:
        first = self._peek()
        self._number_last = False
        if first in ("{", "["):
            self._deep += 1
            if self._deep > MOST_DEEP:
                raise Refused(f"it is nested more than {MOST_DEEP} deep")
            if first == "{":
                self._object()
            else:
                self._list()
            self._deep -= 1
        elif first and first in _QUOTES:
            self._out.append(self._string("list" if in_list else "value"))
        elif not first:
            raise Refused("it ends where a value should come")
        else:
            self._bare()

    def _bare(self) -> None:
        """Read a number or a literal."""
        word = _WORD.match(self.text, self.at)
        if word is not None:
            literal = _LITERALS.get(word[0])
            if literal is None:
                raise Refused(f"{word[0][:40]!r} is no JSON value")
            if literal != word[0]:
                self.changes.add("literals")
            self._out.append(literal)
            self.at = word.end()
            return
        number = _LOOSE_NUMBER.match(self.text, self.at)
        text = "" if number is None else f"{number[1].strip('+')}{number[2] or '0'}{number[3] or ''}{number[4] or ''}"
        if text.endswith("."):
            text += "0"
        end = self.at if number is None else number.end()
        if text != self.text[self.at : end]:
            self.changes.add("numbers")
        after = self.text[end : end + 1]
        if not text or (after and (after.isalnum() or after in "._'\"$%+-")):
            raise Refused(f"{self.text[self.at : self.at + 20]!r} is no JSON value")
        self._out.append(text)
        self.at = end
        self._number_last = end == len(self.text)

    def _object(self) -> None:
        doubled = self._begin("{")
        keys: list[str] = []
        while True:
            self._skip()
            if self._peek() == "}":
                break
            if not self._peek():
                return self._close(Frame(tuple(keys), len(keys)), "}", bool(keys))
            if keys:
                self._comma(certain=_KEY.match(self.text, self.at) is not None, close="}")
                if self._peek() == "}":
                    break
            key = self._key()
            if key in keys:
                raise Refused(f"the key {key[:40]} is there twice")
            self._skip()
            if self._peek() != ":":
                raise Refused(f"no colon after the key {key[:40]}")
            self._out.append(":")
            self.at += 1
            self._skip()
            self._value(in_list=False)
            keys.append(key)
        self._end("}", doubled)

    def _list(self) -> None:
        self._begin("[")
        items = 0
        while True:
            self._skip()
            if self._peek() == "]":
                break
            if not self._peek():
                return self._close(Frame(None, items), "]", bool(items))
            if items:
                between = self.text[: self.at].rstrip(_SPACE)[-1:] + self._peek()
                self._comma(certain=between in ("}{", "]["), close="]")
                if self._peek() == "]":
                    break
            self._value(in_list=True)
            items += 1
        self._end("]", False)

    def _begin(self, bracket: str) -> bool:
        """Go past *bracket*; return whether it is a doubled brace, as templates have it."""
        self._out.append(bracket)
        self.at += 1
        doubled = bracket == "{" and self._peek() == "{"
        if doubled:
            self.at += 1
            self.changes.add("doubled braces")
        return doubled

    def _end(self, bracket: str, doubled: bool) -> None:
        if doubled and not self.text.startswith("}}", self.at):
            raise Refused("a doubled brace is closed by a single one")
        self.at += 1 + doubled
        self._out.append(bracket)

    def _close(self, frame: Frame, bracket: str, something: bool) -> None:
        """Close what the text leaves open."""
        if not something:
            raise Refused("it ends where a value should come")
        self._open.insert(0, frame)
        self._out.append(bracket)
        self.changes.add("closed")

    def _comma(self, certain: bool, close: str) -> None:
        """Go past a comma; put one in where *certain*; leave one out that stands before *close*."""
        if self._peek() != ",":
            if not certain:
                raise Refused(f"{self.text[self.at : self.at + 20]!r} where a comma or {close} should come")
            self._out.append(",")
            self.changes.add("missing commas")
            return
        at = len(self._out)
        self._out.append(",")
        self.at += 1
        self._skip()
        if self._peek() == close:
            self._out[at] = ""
            self.changes.add("trailing commas")
        elif not self._peek():
            raise Refused("it ends where a value should come")

    def _key(self) -> str:
        """Read and write a key; return it as it is written."""
        if self._peek() in _QUOTES:
            key = self._string("key")
        else:
            word = _WORD.match(self.text, self.at)
            if word is None:
                raise Refused(f"{self.text[self.at : self.at + 20]!r} where a key should come")
            key = f'"{word[0]}"'
            self.at = word.end()
            self.changes.add("unquoted keys")
        self._out.append(key)
        return key

    def _string(self, place: str) -> str:
        """Read a string that stands as *place*: key, value (of an object) or list; return it as JSON."""
        quote = self.text[self.at]
        if quote != '"':
            self.changes.add("quotes")
        found, inner = ['"'], 0
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                found.append(self._escape(quote))
                continue
            if char == _CLOSING[quote]:
                if quote not in "\"'" or self._closes(self.at, place):
                    break
                inner += self._inner(char, inner, place)
                found.append('\\"' if char == '"' else char)
            elif char == quote:
                raise Refused("a quotation stands inside of one of its own kind")
            elif char == '"':
                found.append('\\"')
            elif char < " ":
                found.append(_SHORT.get(char) or f"\\u{ord(char):04x}")
                self.changes.add("control characters")
            else:
                found.append(char)
            self.at += 1
        else:
            raise Refused("it ends within a text")
        if inner % 2:
            raise Refused("it cannot be told where a text ends that has quotes in it")
        self.at += 1
        return "".join([*found, '"'])

    def _escape(self, quote: str) -> str:
        """Read what a backslash begins; return it as JSON."""
        escape = _ESCAPE.match(self.text, self.at)
        if escape is not None:
            self.at = escape.end()
            return escape[0]
        python = _PYTHON.match(self.text, self.at) if quote == "'" else None
        if python is not None:
            self.at = python.end()
            code = int(python[1] or python[2], 16)
            if code > 0x10FFFF:
                raise Refused("an escape stands for no character")
            return f"\\u{code:04x}" if code < 32 or chr(code) in '"\\' else chr(code)
        if self.text.startswith("\\'", self.at):
            self.at += 2
            self.changes.add("escapes")
            return "'"
        raise Refused(f"{self.text[self.at : self.at + 2]!r} is no escape, and may mean either")

    def _closes(self, at: int, place: str) -> bool:
        """True when the quote at *at* is followed by what follows a text that stands as *place*."""
        after = self._past(at + 1)
        following = self.text[after : after + 1]
        end = "]" if place == "list" else "}"
        if place == "key":
            return following == ":"
        if following == ",":
            after = self._past(after + 1)
            rest = self.text[after : after + 1]
            if not rest or rest == end:
                return True
            if place == "list":
                return rest in _QUOTES or rest in "{[-+." or rest.isdigit() or _literal(self.text, after)
            return _KEY.match(self.text, after) is not None
        if place == "value" and after > at + 1 and _KEY.match(self.text, after) is not None:
            return True  # with no comma
        return following == end or (not following and not self.text[at + 1 :].strip(_SPACE))

    def _past(self, at: int) -> int:
        """Return where white space and comments from *at* on end."""
        found = _BETWEEN.match(self.text, at)
        return at if found is None else found.end()

    def _inner(self, quote: str, before: int, place: str) -> int:
        """Return how many quotes count for the pairs: 1 within a text, 0 for an apostrophe. Raises `Refused`."""
        left, right = self.text[self.at - 1 : self.at], self.text[self.at + 1 : self.at + 2]
        if quote == "'":
            if left.isalnum() and right.isalnum():
                self.changes.add("inner quotes")
                return 0
            raise Refused("it cannot be told where a text ends that has quotes in it")
        begins = self.text[self.at - 1] == '"' and before == 0
        opening = before % 2 == 0 and (begins or _OPENS_INNER.match(left)) and right and right not in ' \n\t",:{}[]'
        closing = (
            before % 2 == 1
            and not left.isspace()
            and (_ENDS_INNER.match(right) or (right == '"' and self._closes(self.at + 1, place)))
        )
        if place == "key" or not (opening or closing):
            raise Refused("it cannot be told where a text ends that has quotes in it")
        self.changes.add("inner quotes")
        return 1


def _literal(text: str, at: int) -> bool:
    word = _WORD.match(text, at)
    return word is not None and word[0] in _LITERALS
