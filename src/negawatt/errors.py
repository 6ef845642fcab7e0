"""Everything that can go wrong, as one tree.

    NegawattError
    ├── ConfigError               the configuration is wrong; nothing was started
    │   └── IndexMismatch         an index holds vectors of another embedder
    ├── InputError                a file given to a command (trace, recording, ledger) is wrong
    ├── StoreError                a cache backend failed; on the request path this makes a miss
    ├── KeyFileError         503  the file of keys cannot be read or written
    ├── EmbedderError             no vectors could be made; on the request path this makes a miss
    ├── RequestError              the caller can mend it: a 4xx
    │   ├── InvalidRequest        400  bad JSON, wrong type, missing field
    │   ├── AuthenticationError   401  no key, or an unknown one
    │   │   ├── ExpiredKey        401  its time has passed
    │   │   └── RevokedKey        401  it was revoked, or another took its place
    │   ├── PermissionDenied      403  the key may not do this
    │   ├── NotFound              404  no such path
    │   ├── UnknownLayer          404  no such layer of the application's own work
    │   ├── NotKept               404  a layer has nothing under this key
    │   ├── ModelNotFound         404  no such model
    │   ├── NotRecorded           404  the recorded provider never saw this request
    │   ├── MethodNotAllowed      405
    │   ├── RequestTimeout        408  the request's own body did not arrive in time
    │   ├── RequestTooLarge       413
    │   ├── RateLimited           429
    │   └── BudgetExceeded        429  a budget has not enough left for this call
    ├── BudgetsUnavailable        503  the books of the budgets cannot be asked
    ├── DeadlineExceeded          504  the call's own deadline passed
    └── UpstreamError             502  the provider's fault
        ├── UpstreamConnectError  502  no connection, so nothing was sent
        ├── UpstreamTimeout       504  it did not answer, or stopped answering, in time
        ├── UpstreamProtocolError 502  what came back is not what the protocol allows
        ├── UpstreamBroken        502  the answer broke off
        ├── UpstreamStatus             it answered with an error status, which is passed on
        └── CircuitOpen           503  it failed so often that it is left alone for a while

`status_of` and `body_of` turn any of them into what the OpenAI API would send. Libraries' own exceptions are
translated once, where they are called (`translating`), and keep their cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class NegawattError(Exception):
    """The root of the tree. *message* is written for the person who has to act on it."""

    status: int = 500
    type: str = "internal_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ConfigError(NegawattError):
    """The configuration is wrong. *param* is the path of the bad value, such as ``levers.exact_cache.ttl_s``."""

    code = "bad_config"


class IndexMismatch(ConfigError):
    """An index holds vectors of another embedder, or of another dimension; the message names both."""

    code = "index_mismatch"


class InputError(NegawattError):
    """A file given to a command is wrong; the message names the file and the line."""

    code = "bad_input"


class StoreError(NegawattError):
    """A store cannot be asked, or its disk takes nothing. Levers turn it into a miss with a Decision that says so."""

    status = 503
    type = "service_unavailable_error"
    code = "store_failed"


class KeyFileError(NegawattError):
    """The file of keys cannot be read or written: nobody is let in by a key that may lie there."""

    status = 503
    code = "keys_unavailable"


class EmbedderError(NegawattError):
    """No vectors could be made. Levers turn it into a miss with a Decision that says so."""

    code = "embedder_failed"


class RequestError(NegawattError):
    """The caller can mend it."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(RequestError):
    code = "invalid_request"


class StateNotFound(InvalidRequest):
    """The request goes on from what a provider keeps, and that was not given to this caller."""

    status = 404
    code = "state_not_found"


class AuthenticationError(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ExpiredKey(AuthenticationError):
    code = "expired_api_key"


class RevokedKey(AuthenticationError):
    code = "revoked_api_key"


class PermissionDenied(RequestError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(RequestError):
    status = 404
    code = "not_found"


class UnknownLayer(NotFound):
    """There is no such layer of the application's own work; the message names those that are there."""

    code = "layer_not_found"


class NotKept(NotFound):
    """A layer has nothing under this key, or nothing that may be given."""

    code = "not_kept"


class ModelNotFound(RequestError):
    status = 404
    code = "model_not_found"


class NotRecorded(RequestError):
    status = 404
    code = "not_recorded"


class MethodNotAllowed(RequestError):
    """*allow*: the methods that the path answers to, as the header of that name lists them."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(RequestError):
    status = 408
    code = "request_timeout"


class RequestTooLarge(RequestError):
    status = 413
    code = "request_too_large"


class RateLimited(RequestError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limited"


class BudgetExceeded(RequestError):
    """*budget* has not enough left. *resets_at*: when it begins anew, in seconds since 1970.

    *passing*: what is missing is only reserved by calls under way, and may come back in a moment.
    """

    status = 429
    type = "rate_limit_error"
    code = "budget_exceeded"

    def __init__(self, message: str, *, budget: str, resets_at: float, retry_after_s: float, passing: bool) -> None:
        super().__init__(message)
        self.budget = budget
        self.resets_at = resets_at
        self.retry_after_s = retry_after_s
        self.passing = passing


class BudgetsUnavailable(NegawattError):
    """Nobody knows what is left, so nothing is spent (``budgeting.when_down``)."""

    status = 503
    type = "service_unavailable_error"
    code = "budgets_unavailable"


class DeadlineExceeded(NegawattError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class UpstreamError(NegawattError):
    """The provider's fault. *provider* names it."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"

    def __init__(self, message: str, *, provider: str | None = None, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.provider = provider


class UpstreamConnectError(UpstreamError):
    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class UpstreamProtocolError(UpstreamError):
    code = "upstream_protocol_error"


class UpstreamBroken(UpstreamError):
    code = "upstream_broken"


class UpstreamStatus(UpstreamError):
    """The provider answered with an error status. Its *body* and safe *headers* are passed on unchanged."""

    code = "upstream_status"

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str], *, provider: str | None = None) -> None:
        super().__init__(f"the provider answered with status {status}", provider=provider)
        self.status = status
        self.body = body
        self.headers = headers


class CircuitOpen(UpstreamError):
    status = 503
    code = "circuit_open"

    def __init__(self, message: str, *, provider: str | None = None, retry_after_s: float) -> None:
        super().__init__(message, provider=provider)
        self.retry_after_s = retry_after_s


def status_of(error: BaseException) -> int:
    """Return the HTTP status of *error*; what is not ours is a 500."""
    return error.status if isinstance(error, NegawattError) else 500


def body_of(error: BaseException) -> dict[str, Any]:
    """Return *error* in the shape of the OpenAI API: ``{"error": {message, type, param, code}}``.

    An error that is not ours is not described to the caller: its text may hold what the caller may not see.
    """
    if isinstance(error, NegawattError):
        detail = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    else:
        message = "the gateway failed; its log has the details"
        detail = {"message": message, "type": "internal_error", "param": None, "code": "internal_error"}
    return {"error": detail}


def forget_frames(error: BaseException) -> None:
    """Drop the frames through which *error* came, and those of what it came from, once nobody asks for them.

    A call keeps how it ended, and the frames keep the call: left so, every failed call would stay until the garbage
    collector comes.
    """
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            rest += one.__cause__, one.__context__


@contextmanager
def translating(
    table: Mapping[type[BaseException], type[UpstreamError]], *, provider: str | None = None
) -> Iterator[None]:
    """Raise a library's exceptions as ours, by *table* (first match wins), with the cause kept."""
    try:
        yield
    except tuple(table) as error:
        for kind, ours in table.items():
            if isinstance(error, kind):
                raise ours(str(error) or kind.__name__, provider=provider) from error
        raise
