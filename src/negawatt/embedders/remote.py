"""Embedders over HTTP: endpoints in the form of OpenAI's ``/v1/embeddings``, and text-embeddings-inference.

How bytes get there is not this room's business: the constructor takes a `Post`. Nothing is tried twice; whatever goes
wrong is an `EmbedderError` that names the endpoint, and on the path of a request a miss. One that was silent is left
alone for a while: every request would wait for it in vain.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson

from negawatt.errors import ConfigError, EmbedderError, NegawattError, UpstreamTimeout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# (url, body, headers, timeout_s) -> (status, body). Raises NegawattError, OSError or TimeoutError.
Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[tuple[int, bytes]]]

_TIMEOUT_S = 10.0
_REST_S = 5.0
_KNOWN = ("model", "dimensions", "key_env", "timeout_s")
_MOST_SHOWN = 200  # characters of what an endpoint says about an error


class Dialect(msgspec.Struct, frozen=True):
    """How one kind of endpoint is asked, and what it answers."""

    path: str  # after the URL's own
    most_texts: int  # in one request
    asked: Callable[[str, Sequence[str]], dict[str, Any]]  # (model, texts) -> body
    rows: Callable[[Any, int], list[Any]]  # (answer, how many) -> one list of numbers a text; raises ValueError


class Remote:
    """Asks an endpoint. It awaits by itself: put `Batching` over it without threads."""

    learned = True

    def __init__(self, endpoint: Endpoint, post: Post) -> None:
        self.id = f"{endpoint.model}@{endpoint.host}"
        self.dimensions = endpoint.dimensions
        self._endpoint = endpoint
        self._post = post
        self._rests_until = 0.0  # by the loop's clock

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each of *texts*. Raises `EmbedderError`, which names the endpoint."""
        import numpy as np

        rows = np.empty((len(texts), self.dimensions), np.float32)
        most = self._endpoint.dialect.most_texts
        for start in range(0, len(texts), most):
            some = texts[start : start + most]
            rows[start : start + len(some)] = self._vectors(await self._answer(some), len(some))
        return rows

    def size_of(self, text: str) -> int:
        """Return about how many tokens *text* has."""
        return len(text) // 4 + 2

    async def _answer(self, texts: Sequence[str]) -> bytes:
        endpoint, clock = self._endpoint, asyncio.get_running_loop()
        if clock.time() < self._rests_until:
            raise self._error("left alone for a while, for it was silent")
        # Both kinds of endpoints refuse a text of no characters.
        body = orjson.dumps(endpoint.dialect.asked(endpoint.model, [text or " " for text in texts]))
        try:
            async with asyncio.timeout(endpoint.timeout_s):
                status, answer = await self._post(endpoint.url, body, endpoint.headers, endpoint.timeout_s)
        except (TimeoutError, UpstreamTimeout) as error:
            self._rests_until = clock.time() + _REST_S
            raise self._error(f"no answer within {endpoint.timeout_s:g} s") from error
        except (NegawattError, OSError) as error:
            raise self._error(str(error) or type(error).__name__) from error
        if status != 200:
            raise self._error(f"status {status}: {answer[:_MOST_SHOWN].decode('utf-8', 'replace')}")
        return answer

    def _vectors(self, answer: bytes, count: int) -> NDArray[np.float32]:
        """Return the rows that *answer* holds, each of length 1."""
        import numpy as np

        try:
            rows = self._endpoint.dialect.rows(orjson.loads(answer), count)
        except ValueError as error:  # of bad JSON too
            raise self._error(f"not an answer with {count} vectors: {error}") from error
        for row in rows:
            if not isinstance(row, list) or len(row) != self.dimensions:
                what = f"{len(row)} numbers" if isinstance(row, list) else type(row).__name__
                raise self._error(f"expected a vector of {self.dimensions} numbers, got {what}")
            if not all(type(number) in (float, int) and abs(number) < 1e30 for number in row):
                raise self._error("a vector holds what is not a finite number")
        found = np.array(rows, np.float64)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise self._error("a vector of nothing but zeros")
        unit: NDArray[np.float32] = (found / lengths).astype(np.float32)
        return unit

    def _error(self, what: str) -> EmbedderError:
        return EmbedderError(f"{self._endpoint.url}: {what}")


class Endpoint(msgspec.Struct, frozen=True):
    """Where an embedder is, and what it must answer with."""

    url: str
    host: str  # with the port, where it is not the usual one
    dialect: Dialect
    model: str
    dimensions: int
    headers: Mapping[str, str]
    timeout_s: float

    @classmethod
    def parse(cls, text: str, where: str, environ: Mapping[str, str] = os.environ) -> Endpoint:
        """Return what ``[tei+]http[s]://host[:port][/path]?model=NAME&dimensions=N`` names.

        ``key_env=VARIABLE`` names the variable that holds the key, ``timeout_s=SECONDS`` how long an answer may take
        (default 10). Raises `ConfigError`.
        """
        scheme, _, rest = text.partition("://")
        dialect = TEI if scheme.startswith("tei+") else OPENAI
        parts = urlsplit(f"{scheme.removeprefix('tei+')}://{rest}")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(set(query) - set(_KNOWN))
        if unknown:
            raise ConfigError(f"{where}: unknown {unknown[0]!r}; known: {', '.join(_KNOWN)}", param=where)
        if not parts.hostname or "@" in parts.netloc:
            raise ConfigError(f"{where}: expected scheme://host, without a user; a key goes in key_env", param=where)
        if not query.get("model"):
            raise ConfigError(f"{where}: needs model=NAME: vectors of different models cannot be compared", param=where)
        headers = {"content-type": "application/json", **_key(query.get("key_env"), where, environ)}
        return cls(
            url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{dialect.path}",
            host=parts.netloc.lower(),
            dialect=dialect,
            model=query["model"],
            dimensions=int(_positive(query, "dimensions", None, where)),
            headers=headers,
            timeout_s=_positive(query, "timeout_s", _TIMEOUT_S, where),
        )


def _key(variable: str | None, where: str, environ: Mapping[str, str]) -> dict[str, str]:
    if variable is None:
        return {}
    key = environ.get(variable)
    if not key:
        raise ConfigError(f"{where}: the environment variable {variable!r} is not set", param=where)
    return {"authorization": f"Bearer {key}"}


def _positive(query: Mapping[str, str], name: str, default: float | None, where: str) -> float:
    text = query.get(name)
    if text is None and default is not None:
        return default
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6 or (name == "dimensions" and value != int(value)):
        got = "" if text is None else f", got {text!r}"
        raise ConfigError(f"{where}: needs {name}=N, a number above 0{got}", param=where)
    return value


def _openai_rows(answer: Any, count: int) -> list[Any]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError("no list of objects under 'data'")
    # Each says which text it belongs to; where one says nothing, their order does.
    places = [item.get("index", place) for place, item in enumerate(data)]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(count)):
        raise ValueError(f"the vectors are for the texts {places[:8]}")
    rows: list[Any] = [None] * count
    for place, item in zip(places, data, strict=True):
        rows[place] = item.get("embedding")
    return rows


def _tei_rows(answer: Any, count: int) -> list[Any]:
    if not isinstance(answer, list) or len(answer) != count:
        raise ValueError("not a list of as many vectors as texts")
    return answer


OPENAI = Dialect(
    "/embeddings", 256,
    lambda model, texts: {"model": model, "input": texts, "encoding_format": "float"},
    _openai_rows,
)  # fmt: skip
TEI = Dialect("/embed", 32, lambda _, texts: {"inputs": texts, "truncate": False}, _tei_rows)
