"""MiniLM, or any BERT in the layout of sentence-transformers, on onnxruntime: mean of the tokens, length 1.

The vector of a text is the same to the last bit in whatever company it is asked for. Only texts of exactly the same
number of tokens share a run, so nothing is padded; the mean is taken text by text; and whether the runtime's
arithmetic on this machine really gives the same bits is tried out when the model is loaded: where it does not, each
text runs alone.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from negawatt.embedders.graph import build
from negawatt.embedders.weights import Folder, read_weights, wrong

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EMBEDDINGS = "embeddings.{}_embeddings.weight"
_RUN_TOKENS = 128  # in one run: beyond that, nothing is gained
_TRIED = ((2, 4), (9, 3), (14, 5))  # (tokens, texts) of the trial
_SOON, _LOOKED_AT = 8, 64  # characters a token: so much of a text is looked at first, and at all
_LONGEST_WORD = 200  # characters; WordPiece does not divide words of more than 100


class MiniLm:
    """Makes vectors, in the thread that asks; `negawatt.embedders.batching` puts it off the event loop."""

    learned = True

    def __init__(self, folder: Folder, where: str) -> None:
        """Load what is in *folder*. Raises `ConfigError`, which names the file, and ImportError."""
        self.id = folder.id
        self.dimensions = folder.shape.hidden_size
        self._heads = folder.shape.num_attention_heads
        self._max_tokens = folder.max_tokens
        self._lower = folder.lower
        self._tokenizer = _tokenizer(folder, where)
        weights, mapped = read_weights(folder, where)
        # 47 MB of words, of which a text needs a dozen rows: they stay in the mapped file.
        self._words, places, kinds = (
            weights.pop(_EMBEDDINGS.format(name)) for name in ("word", "position", "token_type")
        )
        self._places = np.array(places[: folder.max_tokens], np.float32) + np.array(kinds[0], np.float32)
        self._session, self._held = _session(build(folder.shape), weights)
        # The session has packed its weights anew; what it still needs of the file's pages is read again.
        if hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
        self._together = self._same_together()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of length 1 for each of *texts*: shape (len(texts), dimensions)."""
        alike: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
        for place, text in enumerate(texts):
            ids = self._ids(text)
            alike[len(ids)].append((place, ids))
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for length, group in alike.items():
            most = max(1, _RUN_TOKENS // length) if self._together else 1
            for start in range(0, len(group), most):
                run = group[start : start + most]
                rows[[place for place, _ in run]] = self._rows([ids for _, ids in run])
        return rows

    def size_of(self, text: str) -> int:
        """Return about how many tokens *text* has."""
        return min(len(text) // 4 + 2, self._max_tokens)

    def _ids(self, text: str) -> list[int]:
        """Return the tokens of *text*, as many as count."""
        text = text.strip()[: self._max_tokens * _LOOKED_AT]
        if self._lower:
            text = text.lower()
        # The tokenizer holds the interpreter until it is done, so a book is not given to it as a whole.
        soon = self._max_tokens * _SOON
        if len(text) > soon:
            begin = self._tokenizer.encode(text[:soon])
            reached = max(end for _, end in begin.offsets)
            if len(begin.ids) == self._max_tokens and reached <= soon - _LONGEST_WORD:
                return list(begin.ids)
        return list(self._tokenizer.encode(text).ids)

    def _rows(self, ids: list[list[int]]) -> NDArray[np.float32]:
        """Return the rows of texts that have equally many tokens."""
        count, length = len(ids), len(ids[0])
        given = {
            "tokens": self._words[np.array(ids)].astype(np.float32, copy=False) + self._places[:length],
            "heads": np.array([count, length, self._heads, self.dimensions // self._heads], np.int64),
            "whole": np.array([count, length, self.dimensions], np.int64),
        }
        (states,) = self._session.run(["states"], given)
        means = np.stack([one.mean(axis=0) for one in states])
        rows: NDArray[np.float32] = np.stack([mean / np.linalg.norm(mean) for mean in means])
        return rows

    def _same_together(self) -> bool:
        """Return whether texts that share a run get the very rows that they get alone, on this machine."""
        many = np.random.default_rng(0)
        for length, count in _TRIED:
            if length > self._max_tokens:
                continue
            ids = many.integers(0, len(self._words), (count, length)).tolist()
            if not np.array_equal(self._rows(ids), np.concatenate([self._rows([one]) for one in ids])):
                return False
        return True


def _tokenizer(folder: Folder, where: str) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    except Exception as error:  # it raises no narrower kind
        raise wrong(folder.tokenizer, f"not a tokenizer: {error}", where) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.max_tokens)
    if not tokenizer.encode("").ids:
        raise wrong(folder.tokenizer, "expected one that puts marks such as [CLS] around a text", where)
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= folder.shape.vocab_size:
        what = f"it has the token {highest}, but the model has only {folder.shape.vocab_size}"
        raise wrong(folder.tokenizer, what, where)
    return tokenizer


def _session(graph: bytes, weights: dict[str, NDArray[np.float32]]) -> tuple[Any, list[Any]]:
    """Return the session, and what has to live as long as it does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    held = [
        onnxruntime.OrtValue.ortvalue_from_numpy(array.astype(np.float32, copy=False)) for array in weights.values()
    ]
    options.add_external_initializers(list(weights), held)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), held
