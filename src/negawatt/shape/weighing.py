"""Whether a request that is shorter, but begins otherwise, costs less than one whose beginning the provider holds.

What is remembered of a conversation is what was sent of it last: a digest up to and with each message. What a provider
holds of a prompt costs a tenth when it is read again; so much is reckoned with everywhere, though some take a quarter
or a half: in doubt the beginning stays as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from negawatt.shape.places import FIELDS

READ = 0.1  # price of input that is read from the provider's cache, input = 1
HELD_S = 300.0  # since it was sent last
_MOST = 10_000  # conversations


class Sending(NamedTuple):
    """A prompt, as it would be sent: characters of each part, and digests up to and with it."""

    chars: tuple[int, ...]
    digests: tuple[bytes, ...]

    @property
    def total(self) -> int:
        return sum(self.chars)


class _Sent(NamedTuple):
    digests: tuple[bytes, ...]
    at: float


class Weighing:
    """Remembers what was sent of each conversation. *most* conversations at a time."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()

    def held(self, conversation: bytes, sending: Sending, now: float, least_chars: int) -> int:
        """Return how many characters at the beginning of *sending* the provider is likely to hold at *now*."""
        last = self._sent.get(conversation)
        if last is None or now - last.at > HELD_S:
            return 0
        same = 0
        for chars, digest, before in zip(sending.chars, sending.digests, last.digests, strict=False):
            if digest != before:
                break
            same += chars
        return same if same >= least_chars else 0

    def cost(self, conversation: bytes, sending: Sending, now: float, least_chars: int) -> float:
        """Return what *sending* costs at *now*, in characters at the price of input."""
        return sending.total - (1 - READ) * self.held(conversation, sending, now, least_chars)

    def sent(self, conversation: bytes, sending: Sending, now: float) -> None:
        """Note that *sending* was sent."""
        self._sent[conversation] = _Sent(sending.digests, now)
        self._sent.move_to_end(conversation)
        if len(self._sent) > self._most:
            self._sent.popitem(last=False)


def outweighs(saved: int, rest: int) -> bool:
    """True when *saved* characters of the tools are worth that the *rest* of the prompt is read anew.

    Tools stand at the very beginning, and which of them are needed changes from call to call: a list that is pruned
    for one call is another for the next, and nothing of either is held.
    """
    return saved > (1 - READ) * rest


def sending_of(protocol: str, data: Mapping[str, Any]) -> Sending:
    """Return *data* as it is sent: its tools, its instructions, then message by message."""
    field = FIELDS[protocol]
    messages = data.get(field)
    parts = [data.get("tools"), data.get("system"), data.get("instructions")]
    parts += messages if isinstance(messages, list) else [messages]
    chars, digests = [], []
    digest = blake2b(digest_size=16)
    for part in parts:
        written = orjson.dumps(part)
        digest.update(written)
        digest.update(b"\0")
        chars.append(len(written))
        digests.append(digest.digest())
    return Sending(tuple(chars), tuple(digests))


def conversation_of(protocol: str, data: Mapping[str, Any], scope: bytes) -> bytes:
    """Return what all turns of a conversation have in common: *scope*, instructions, and what a user said first."""
    messages = data.get(FIELDS[protocol])
    first: list[Any] = [messages]
    if isinstance(messages, list):
        user = next((i for i, one in enumerate(messages) if isinstance(one, dict) and one.get("role") == "user"), 0)
        first = messages[: user + 1]
    written = orjson.dumps([data.get("system"), data.get("instructions"), first])
    return blake2b(scope + b"\0" + written, digest_size=16).digest()
