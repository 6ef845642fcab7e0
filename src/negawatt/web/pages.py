"""The pages' own files: read once, at the start, from the package; nothing else is ever served."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import NamedTuple

TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
STRICT = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}")
_VERSION = re.compile(rb"\{\{v:([a-zA-Z0-9._-]{1,100})\}\}")
_HASH_CHARS = 12


class File(NamedTuple):
    """One file. *version*: the beginning of its SHA-256."""

    body: bytes
    content_type: str
    version: str


def load(folder: Traversable | None = None) -> dict[str, File]:
    """Return the files of *folder*, or of the package, by name; empty where there are none.

    Raises ValueError where the index refers to a file that there is not.

    In the index, ``{{v:NAME}}`` is replaced by the version of that file.
    """
    if folder is None:
        folder = resources.files("negawatt.web").joinpath("static")
    found: dict[str, File] = {}
    if not folder.is_dir():
        return found
    for entry in folder.iterdir():
        kind = TYPES.get(PurePosixPath(entry.name).suffix)
        if entry.is_file() and kind is not None and _NAME.fullmatch(entry.name):
            found[entry.name] = _file(entry.read_bytes(), kind)
    index = found.get(INDEX)
    if index is not None:
        found[INDEX] = _file(_VERSION.sub(lambda match: _version(found, match[1].decode()), index.body), TYPES[".html"])
    return found


def _file(body: bytes, kind: str) -> File:
    return File(body, kind, hashlib.sha256(body).hexdigest()[:_HASH_CHARS])


def _version(files: dict[str, File], name: str) -> bytes:
    if name not in files:
        raise ValueError(f"{INDEX} refers to {name}, which there is not")
    return files[name].version.encode()
