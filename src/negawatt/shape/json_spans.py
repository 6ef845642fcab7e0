"""Where the parts of a JSON text stand, so that whole members can be taken out and the rest stays byte for byte."""

from __future__ import annotations

import re

import msgspec

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{},:]', re.DOTALL)
_MOST_DEPTH = 200


class Node(msgspec.Struct):
    """A value, or a member with its key: ``text[start:end]``. *kind*: object, array, string or other."""

    start: int
    end: int
    kind: str
    children: list[Node] = []


def parse(text: str) -> Node | None:
    """Return the root of *text*, or None when it is no JSON that RFC 8259 allows, or names a key twice.

    Nesting beyond 200 levels counts as none.
    """
    try:
        msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    stack: list[Node] = []
    root: Node | None = None
    key: int | None = None  # where the key of the coming member begins
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == ":" or token == ",":
            continue
        if token in "]}":
            node = stack.pop()
            node.end = match.end()
            continue
        within = stack[-1] if stack else None
        if within is not None and within.kind == "object" and key is None:
            key = match.start()
            continue
        node = Node(match.start() if key is None else key, match.end(), _kind(token))
        key = None
        if within is None:
            root = node
        else:
            within.children.append(node)
        if token in "[{":
            stack.append(node)
            if len(stack) > _MOST_DEPTH:
                return None
    return root


def _kind(token: str) -> str:
    if token == "{":
        return "object"
    if token == "[":
        return "array"
    return "string" if token[0] == '"' else "other"
