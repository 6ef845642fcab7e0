"""Asking a gateway that runs somewhere, for verbs whose matter lives in its process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from negawatt.errors import InputError

_TIMEOUT_S = 30.0


def stats(url: str, key_env: str | None) -> dict[str, Any]:
    """Return what is in the caches of the gateway at *url*. Raises `InputError`, which says what is wrong."""
    return _asked("GET", url, "/v1/cache", key_env)


def delete_tagged(url: str, key_env: str | None, tags: Sequence[str], *, dry_run: bool) -> dict[str, Any]:
    """Delete, there, what has all of *tags* and is of the key's own tenant. Raises `InputError`."""
    from urllib.parse import urlencode

    query = [("tag", tag) for tag in tags]
    path = f"/v1/cache?{urlencode([*query, ('dry_run', '1')] if dry_run else query)}"
    return _asked("DELETE", url, path, key_env)


def asked(url: str, path: str, key_env: str | None) -> dict[str, Any]:
    """Return what the gateway at *url* answers to ``GET`` *path*. Raises `InputError`, which says what is wrong."""
    return _asked("GET", url, path, key_env)


def budgets(url: str, key_env: str | None) -> list[dict[str, Any]]:
    """Return how the budgets of the gateway at *url* stand. Raises `InputError`, which says what is wrong."""
    found = _asked("GET", url, "/admin/budgets", key_env).get("budgets")
    if not isinstance(found, list):
        raise InputError(f"{url}: this is no gateway with budgets")
    return found


def feedback(url: str, key_env: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the gateway at *url* what is *said* of a call or task. Raises `InputError`, which says what is wrong."""
    return _asked("POST", url, "/v1/feedback", key_env, said)


def _asked(
    method: str, url: str, path: str, key_env: str | None, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    import urllib.error
    import urllib.request
    from urllib.parse import urlsplit

    import orjson

    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"--url: {url!r} is not an address such as http://127.0.0.1:4100")
    headers = {} if body is None else {"content-type": "application/json"}
    if key_env is not None:
        if not os.environ.get(key_env):
            raise InputError(f"--key-env: the variable {key_env} is not set")
        headers["authorization"] = f"Bearer {os.environ[key_env]}"
    address = f"{url.rstrip('/').removesuffix('/v1')}{path}"
    data = None if body is None else orjson.dumps(body)
    request = urllib.request.Request(address, data, headers=headers, method=method)
    # Not `urlopen`: it would take the key to wherever an answer sends it.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            found: Any = orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: {_message(error.read()) or f'status {error.code}'}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: cannot be asked: {getattr(error, 'reason', error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{url}: this is no gateway: what it answers is not an object")
    return found


def _message(body: bytes) -> str | None:
    """Return what an error says; None where it is none of ours."""
    import orjson

    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
