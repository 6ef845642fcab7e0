"""How many tokens each block of a template has, to the model that was asked. Counted once for each text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

_MOST_KEPT = 4_096
_MOST_BLOCKS = 200  # of one template in one row; what is beyond is added up under `OTHERS`
OTHERS = "..."


class BlockTokens:
    """*count*: the tokens of a text, by the name of a model. Only digests of texts are remembered."""

    def __init__(self, count: Callable[[str, str], int]) -> None:
        self._count = count
        self._kept: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def of(self, model: str, blocks: Sequence[tuple[str, str]]) -> str:
        """Return the JSON object {name: tokens} of *blocks*, (name, text) each."""
        found: dict[str, int] = {}
        for place, (name, text) in enumerate(blocks):
            key = name if place < _MOST_BLOCKS else OTHERS
            found[key] = found.get(key, 0) + self._tokens(model, text)
        return msgspec.json.encode(found).decode()

    def _tokens(self, model: str, text: str) -> int:
        key = (model, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        known = self._kept.pop(key, None)
        found = self._count(model, text) if known is None else known
        self._kept[key] = found
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found
