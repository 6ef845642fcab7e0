"""How many input tokens a call has, before it is made and without asking anybody.

Four ways, the first that can be had: the model's own tokenizer (OpenAI's families), the user's ``tokenizer.json``, the
estimator corrected by what the provider has returned for this model, the estimator alone. No call tokenises more than a
bounded number of characters: ``count_sampling``. docs/tokens.md has the error and the time of each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from negawatt.economics.count_corrections import Corrections
from negawatt.economics.count_sampling import SampledCounter
from negawatt.economics.counting_models import Encodings, Tokenize
from negawatt.economics.tokenizer_files import TokenizerFiles
from negawatt.economics.tokens import as_json, taken_apart, tokens_in
from negawatt.protocol import Contract, Prompt

# From best to worst.
BASES = (
    "exact",  # all of it by the model's own tokenizer, in a frame that its maker has published
    "tokenizer",  # all of its text by the model's own tokenizer or the user's file; the frame is assumed, or learned
    "sampled",  # parts of its text by that tokenizer, the rest by their ratio
    "corrected",  # the estimator, corrected by what the provider returned for this model
    "estimated",  # the estimator, or a prompt with pictures, sound or files, which nobody can count here
)
BUDGET = 4096  # characters that a call may have tokenised; a quarter of it where its new texts are longer
ESTIMATED_BUDGET = 8192  # characters that a call may have estimated
_MOST_KEPT = 4096  # models


class Count(NamedTuple):
    """*tokens* and how they were counted, one of `BASES`.

    *raw* is the count before correction: what `TokenCounter.learn` learns from. None: nothing can be learned.
    """

    tokens: int
    basis: str
    raw: int | None = None


class _Way(NamedTuple):
    """How the texts of a model are counted."""

    counter: SampledCounter
    published: bool  # the frame
    own: bool  # the tokenizer is the model's, by the word of its maker


class TokenCounter:
    """Counts for one gateway. Not for several threads at once.

    *budget*: characters that a call may have tokenised, None for all of them. *background*: read tokenizers in threads
    of their own, and estimate until they are there.
    """

    def __init__(
        self,
        files: TokenizerFiles | None = None,
        *,
        budget: int | None = BUDGET,
        background: bool = False,
        corrections: Corrections | None = None,
    ) -> None:
        self._files = files or TokenizerFiles()
        self._budget = budget
        self._encodings = Encodings(background=background)
        self._corrections = corrections or Corrections()
        self._counters: dict[object, SampledCounter] = {}
        self._ways: OrderedDict[str, _Way] = OrderedDict()
        most = None if budget is None else ESTIMATED_BUDGET
        self._estimated = SampledCounter(tokens_in, budget=most, chunk=1024)

    def count(self, model: str, prompt: Prompt, contract: Contract | None = None) -> Count:
        """Return the input tokens of *prompt* to *model*, as its provider names it. Never raises for any prompt.

        *contract*: the schema that the request asks for; providers put it before the model, and count it.
        """
        texts, frame, tokenized, framed = [*prompt.texts], prompt.tokens, True, True
        if prompt.messages or prompt.tools:
            said = taken_apart(prompt.messages, prompt.tools)
            texts += said.texts
            frame, tokenized, framed = frame + said.frame, said.tokenized, said.framed
        if contract is not None and contract.schema:
            texts.append(as_json(contract.schema))
            framed = False
        way = self._way(model)
        if way is None:
            return self._finished(model, "estimated", self._estimated.count(texts)[0] + frame, tokenized)
        tokens, whole = way.counter.count(texts)
        known = way.own and framed and (way.published or not prompt.messages)
        basis = "sampled" if not whole else "exact" if known else "tokenizer"
        return self._finished(model, basis, tokens + frame, tokenized)

    def count_text(self, model: str, text: str) -> Count:
        """Return the tokens of *text* alone, such as an answer: without what stands around calls. Not remembered."""
        way, limited = self._way(model), self._budget is not None and len(text) > self._budget
        if way is None or limited:  # answers come once: reading them in parts would teach nothing for the next
            return self._finished(model, "estimated", tokens_in(text), True, call=False)
        return self._finished(model, "exact" if way.own else "tokenizer", way.counter.tokenize(text), True, call=False)

    def learn(self, model: str, count: Count, measured: int) -> None:
        """Take in that the provider counted *measured* input tokens (cached ones included) where we counted *count*.

        Call it only with what a provider measured in one attempt, never with an estimate or a sum of attempts.
        """
        if count.raw is not None:
            self._corrections.learn(model, count.basis, count.raw, measured)

    def warm(self, *models: str) -> None:
        """Read the tokenizers of *models* now (in the background, if so made), and not in the middle of a call."""
        for model in models:
            self._way(model)

    def wait(self, timeout_s: float = 30.0) -> None:
        """Wait until what is being read in the background is there."""
        self._encodings.wait(timeout_s)

    def _finished(self, model: str, basis: str, raw: float, tokenized: bool, *, call: bool = True) -> Count:
        rounded = max(0, round(raw))
        if not tokenized:
            return Count(rounded, "estimated")
        corrected = None if basis == "exact" else self._corrections.corrected(model, basis, raw, call=call)
        if corrected is None:
            return Count(rounded, basis, None if basis == "exact" else rounded)
        return Count(round(corrected), "corrected" if basis == "estimated" else basis, rounded)

    def _way(self, model: str) -> _Way | None:
        way = self._ways.get(model)
        if way is not None:
            return way
        own = self._files.of(model)
        family = self._encodings.family(model) if own is None else None
        if family is not None:
            tokenize = self._encodings.tokenizer(family.encoding)
            if tokenize is None:
                return None
            way = _Way(self._counter(family.encoding, tokenize, joins=True), family.frame == "published", True)
        elif own is not None:
            way = _Way(self._counter(own, own, joins=False), False, False)
        else:
            return None
        self._ways[model] = way
        if len(self._ways) > _MOST_KEPT:
            self._ways.popitem(last=False)
        return way

    def _counter(self, key: object, tokenize: Tokenize, *, joins: bool) -> SampledCounter:
        """Return the one counter of this tokenizer: models that share it share what was counted."""
        if key not in self._counters:
            self._counters[key] = SampledCounter(tokenize, budget=self._budget, size=tokens_in, joins=joins)
        return self._counters[key]
