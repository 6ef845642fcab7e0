"""Taking requests apart for counting, and counting without a tokenizer. Basis: ``estimated``.

A text is mapped to classes of bytes; a token count is a weighted sum of how often some short patterns of classes
occur. Linear in the length of the text, about 1 microsecond per 100 characters. Its error against a real tokenizer
is in docs/energy.md; the weights are in ``data/tokens.toml``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
import orjson

from negawatt.economics.tables import shipped
from negawatt.economics.usage import Usage


class _Text(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    words: float
    long_words: float
    digits: float
    numbers: float
    capitals: float
    camel_case: float
    punctuation: float
    spaced_punctuation: float
    newlines: float
    double_spaces: float
    two_byte_pairs: float
    indic: float
    cjk: float
    symbols: float
    astral: float


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    per_message: int
    per_name: int
    per_answer: int
    per_tool: int
    image: int
    image_low: int


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    source: str
    text: _Text
    request: _Request


def estimate_tokens(text: str) -> int:
    """Return about how many tokens *text* has; 0 only for the empty one."""
    if not text:
        return 0
    return max(1, round(_estimator().tokens(text)))


def tokens_in(text: str) -> float:
    """Return the same, not rounded: for adding up the parts of a text."""
    return _estimator().tokens(text)


class Said(NamedTuple):
    """A request taken apart for counting: its *texts*, and in *frame* the tokens of everything else.

    *tokenized* says that all of it is text; pictures, sound, files and what we do not know are not. *framed* says that
    there are only messages of plain text, whose frame OpenAI has published: no tools, no tool calls, no pictures.
    """

    texts: list[str]
    frame: int
    tokenized: bool
    framed: bool


def taken_apart(messages: Any, tools: Any = None) -> Said:
    """Return what a chat request says, message by message. What is not shaped like a message counts as nothing."""
    table = _estimator().table.request
    texts: list[str] = []
    frame = table.per_answer
    tokenized = framed = True
    for message in _mappings(messages):
        frame += table.per_message
        role, name, refusal = message.get("role"), message.get("name"), message.get("refusal")
        if name:
            frame += table.per_name
            texts.append(name if isinstance(name, str) else str(name))
        if role:
            texts.append(role if isinstance(role, str) else str(role))
        content = message.get("content")
        if type(content) is str:
            texts.append(content)
        else:
            pictures, whole = _parts(content, texts, table)
            frame += pictures
            tokenized = tokenized and whole
        if refusal is not None:
            pictures, whole = _parts(refusal, texts, table)
            tokenized = tokenized and whole
        for call in _mappings(message.get("tool_calls")):
            frame += table.per_name
            _written(call.get("function"), texts)
            framed = False
        framed = framed and role != "tool" and "function_call" not in message
    for tool in _mappings(tools):
        frame += table.per_tool
        _written(tool.get("function", tool), texts)
        framed = False
    return Said(texts, frame, tokenized, framed and tokenized)


def estimate_request_tokens(messages: Any, tools: Any = None) -> int:
    """Return about how many input tokens a chat request has: its *messages* and *tools*, as the caller sent them.

    Text, tool calls and tool definitions are estimated; a picture counts as a constant, sound and files as nothing.
    What is not shaped like a message counts as nothing.
    """
    said = taken_apart(messages, tools)
    return said.frame + sum(map(estimate_tokens, said.texts))


def estimate_usage(messages: Any, answer: str, tools: Any = None) -> Usage:
    """Return the estimated usage of a call whose provider sent none."""
    return Usage(
        input_tokens=estimate_request_tokens(messages, tools), output_tokens=estimate_tokens(answer), basis="estimated"
    )


def _parts(content: Any, texts: list[str], table: _Request) -> tuple[int, bool]:
    """Add the texts of *content* to *texts*. Return the tokens of its pictures, and whether there was only text."""
    if content is None:
        return 0, True
    if isinstance(content, str):
        texts.append(content)
        return 0, True
    if not isinstance(content, list | tuple):
        return 0, False
    total, whole = 0, True
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else None
        if isinstance(text, str):
            texts.append(text)
            continue
        whole = False
        if isinstance(part, Mapping) and part.get("type") in ("image_url", "input_image", "image"):
            image = part.get("image_url", part)
            low = isinstance(image, Mapping) and image.get("detail") == "low"
            total += table.image_low if low else table.image
    return total, whole


def _written(value: Any, texts: list[str]) -> None:
    """Add *value* to *texts* as compact JSON; its strings are not escaped a second time."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, Mapping) and isinstance(value.get("arguments"), str):
        texts.append(str(value.get("name") or ""))
        texts.append(value["arguments"])
    elif value is not None:
        texts.append(as_json(value))


def as_json(value: Any) -> str:
    """Return *value* as compact JSON, or as Python prints it where JSON has no words for it."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return str(value)


def _mappings(values: Any) -> Iterable[Mapping[str, Any]]:
    return (value for value in values if isinstance(value, Mapping)) if isinstance(values, list | tuple) else ()


class _Estimator:
    """The weights, and the tables that map UTF-8 bytes to classes.

    Classes: a and A letters, 0 digits, s space, n newline, c, i, q, k and f the lead bytes of two-byte, Indic, symbol,
    CJK and four-byte characters, p the rest. Continuation bytes are dropped.
    """

    def __init__(self) -> None:
        self.table = shipped("tokens.toml", _Table)
        classes = bytearray(b"p" * 256)
        for name, members in (
            (b"a", range(97, 123)), (b"A", range(65, 91)), (b"0", range(48, 58)), (b"s", b" \t\r"), (b"n", b"\n"),
            (b"c", range(0xC2, 0xE0)), (b"i", (0xE0, 0xE1)), (b"q", (0xE2,)), (b"k", range(0xE3, 0xF0)),
            (b"f", range(0xF0, 0xF5)),
        ):  # fmt: skip
            for byte in members:
                classes[byte] = name[0]
        self._classes = bytes(classes)
        self._letters = bytes(ord("a") if byte in b"aA" else ord("-") for byte in range(256))
        self._digits = bytes(ord("0") if byte == ord("0") else ord("-") for byte in range(256))
        self._continuations = bytes(range(0x80, 0xC0))

    def tokens(self, text: str) -> float:
        weights = self.table.text
        plain = text.isascii()
        encoded = text.encode("utf-8", "surrogatepass")
        classes = encoded.translate(self._classes, b"" if plain else self._continuations)
        letters = b"-" + classes.translate(self._letters)
        digits = classes.count(b"0")
        numbers = (classes.translate(self._digits) + b"-").count(b"0-") if digits else 0
        total = (
            weights.words * letters.count(b"-a")
            + weights.long_words * letters.count(b"aaaaa")
            + weights.digits * digits
            + weights.numbers * numbers
            + weights.capitals * classes.count(b"A")
            + weights.camel_case * classes.count(b"aA")
            + weights.punctuation * classes.count(b"p")
            + weights.spaced_punctuation * classes.count(b"sp")
            + weights.newlines * classes.count(b"n")
            + weights.double_spaces * classes.count(b"ss")
        )
        if plain:
            return total
        return (
            total
            + weights.two_byte_pairs * classes.count(b"cc")
            + weights.indic * classes.count(b"i")
            + weights.cjk * classes.count(b"k")
            + weights.symbols * classes.count(b"q")
            + weights.astral * classes.count(b"f")
        )


@cache
def _estimator() -> _Estimator:
    return _Estimator()
