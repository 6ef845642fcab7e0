"""Counting the tokens of long texts without reading all of them at once.

One call tokenises at most a *budget* of characters that it has not seen before. A longer text is cut into chunks; each
call that brings it again tokenises a few more of them, evenly spread, until it is counted whole. Until then the rest
goes by the ratio of tokens to size in what was tokenised.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import gcd

CHUNK = 128  # characters, unless told
_SEARCH = 64  # how far from its place a cut may be, for a space
_MOST_KEPT = 8192  # texts, of which only counts are kept: about 3 MB
_GOLDEN = 0.6180339887498949
_SIZED = 4096  # characters that a call may estimate the size of
_BLOCK = 512  # characters; of a longer text, blocks at even distances are estimated
_MOST_SIZED = 16  # texts; for more of them, sizes are characters

Tokenize = Callable[[str], float]


class _Partly:
    """How far a long text has been counted."""

    __slots__ = ("chunks", "clean", "seen", "size", "sized", "stride", "taken", "tokens")

    def __init__(self, length: int, chunk: int) -> None:
        self.chunks = max(2, length // chunk)
        self.stride = _coprime_near(self.chunks * _GOLDEN, self.chunks)
        self.taken = 0  # chunks
        self.tokens = 0.0  # in those
        self.seen = 0  # characters in them
        self.size = 0.0  # estimated tokens in them
        self.sized: float | None = None  # estimated tokens in all of the text
        self.clean = True  # no cut went through a token

    @property
    def whole(self) -> bool:
        return self.taken == self.chunks


class SampledCounter:
    """Counts with *tokenize* at most *budget* new characters a call; None: all of them.

    Where the new ones are more, a call reads what fits, and of the rest no more than a quarter of the budget.
    *size* estimates the tokens of a text at a tenth of the time: what ratios are taken to. *joins*: tokens never span
    from a character to a space after it, so that the chunks of a text sum up to its count.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        *,
        budget: int | None,
        size: Tokenize | None = None,
        joins: bool = True,
        chunk: int = CHUNK,
    ) -> None:
        self.tokenize = tokenize
        self._budget = budget
        self._size = size
        self._joins = joins
        self._chunk = chunk
        # Keyed by hash and length: a text of 100 KB is not kept to recognise it. Hashes are of 64 bits, and seeded.
        self._known: OrderedDict[tuple[int, int], float | _Partly] = OrderedDict()

    def count(self, texts: Sequence[str]) -> tuple[float, bool]:
        """Return the tokens in *texts*, and whether every one of them was tokenised."""
        total = 0.0
        known = self._known
        left = self._budget
        rest: list[tuple[str, _Partly]] = []
        scraps: list[str] = []
        for text in texts:
            key = (hash(text), len(text))
            found = known.get(key)
            if type(found) is float:
                known.move_to_end(key)
                total += found
            elif left is None or key[1] <= left:
                total += self._keep(key, float(self.tokenize(text)))
                left = None if left is None else left - key[1]
            elif key[1] < _BLOCK:
                scraps.append(text)
            else:
                rest.append((text, self._part(key, found)))
        if scraps:  # each of them is counted whole by a later call that has budget for it
            joined = "".join(scraps)
            rest.append((joined, _Partly(len(joined), self._chunk)))
        if not rest:
            return total, True
        self._take(rest, min(left or 0, (self._budget or 0) // 4))
        return total + self._scaled(rest), not scraps and all(part.whole and part.clean for _, part in rest)

    def _keep(self, key: tuple[int, int], found: float | _Partly) -> float:
        self._known[key] = found
        if len(self._known) > _MOST_KEPT:
            self._known.popitem(last=False)
        return found if isinstance(found, float) else found.tokens

    def _part(self, key: tuple[int, int], found: float | _Partly | None) -> _Partly:
        part = found if isinstance(found, _Partly) else _Partly(key[1], self._chunk)
        self._keep(key, part)
        self._known.move_to_end(key)
        return part

    def _take(self, rest: list[tuple[str, _Partly]], left: int) -> None:
        """Tokenise chunks at even distances over all that is left to count, as many as *left* characters allow."""
        ends = list(accumulate(len(text) for text, _ in rest))
        takes = max(1, left // self._chunk)
        places = [bisect_right(ends, int((i + 0.5) * ends[-1] / takes)) for i in range(takes)]
        for place in sorted(set(places)):
            self._advance(*rest[place], places.count(place))

    def _advance(self, text: str, part: _Partly, chunks: int) -> None:
        """Tokenise the next *chunks* of *text*."""
        read = []
        for _ in range(min(chunks, part.chunks - part.taken)):
            part.taken += 1
            k = part.stride * part.taken % part.chunks
            (start, clean_start), (end, clean_end) = _cut(text, k, part.chunks), _cut(text, k + 1, part.chunks)
            part.clean = part.clean and clean_start and clean_end
            chunk = text[start:end]
            part.tokens += self.tokenize(chunk) if chunk else 0
            part.seen += len(chunk)
            read.append(chunk)
        if part.whole and part.clean and self._joins:
            self._keep((hash(text), len(text)), part.tokens)
        elif self._size is not None:
            part.size += self._size("".join(read))

    def _scaled(self, rest: list[tuple[str, _Partly]]) -> float:
        """Return the tokens in *rest*: what was tokenised of it, and the remainder by its ratio to the sizes."""
        estimate = self._size if len(rest) <= _MOST_SIZED else None
        length = sum(len(text) for text, _ in rest)
        taken = [part for _, part in rest if part.taken]
        pooled = _ratio(sum(p.tokens for p in taken), sum(p.seen if estimate is None else p.size for p in taken))
        total = 0.0
        for text, part in rest:
            total += part.tokens
            if part.whole:
                continue
            seen, size = float(part.seen), float(len(text))
            if estimate is not None:
                if part.sized is None:
                    part.sized = _estimated(text, _SIZED * len(text) // length, estimate)
                seen, size = part.size, part.sized
            total += (_ratio(part.tokens, seen) if part.taken else pooled) * max(0.0, size - seen)
        return total


def _estimated(text: str, most: int, estimate: Tokenize) -> float:
    """Return the estimated tokens in *text*, of which no more than *most* characters are read."""
    if len(text) <= max(most, _BLOCK):
        return estimate(text)
    blocks = max(1, most // _BLOCK)
    starts = ((2 * i + 1) * (len(text) - _BLOCK) // (2 * blocks) for i in range(blocks))
    return estimate("".join([text[start : start + _BLOCK] for start in starts])) * len(text) / (blocks * _BLOCK)


def _ratio(tokens: float, size: float) -> float:
    return tokens / size if size > 0 else 0.0


def _cut(text: str, k: int, chunks: int) -> tuple[int, bool]:
    """Return where chunk *k* begins, and whether no token spans the cut: before a space that follows no other."""
    if k == 0 or k == chunks:
        return (0 if k == 0 else len(text)), True
    place = k * len(text) // chunks
    found = text.find(" ", place, place + _SEARCH)
    while found > 0 and text[found - 1].isspace():
        found = text.find(" ", found + 1, place + _SEARCH)
    return (found, True) if found > 0 else (place, False)


def _coprime_near(value: float, n: int) -> int:
    stride = max(1, int(value))
    while gcd(stride, n) != 1:
        stride += 1
    return stride
