"""The configuration of routing: which requests a rule describes, and how a policy chooses a model for them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from negawatt.config_types import Budget, Count, Level, Name, Positive, Protocol, Section, Share

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Match(Section, frozen=True):
    """Describes requests: all that it names must be so. Patterns are those of file names (``*`` and ``?``)."""

    protocols: tuple[Protocol, ...] | None = None
    models: str | tuple[str, ...] | None = None  # patterns of the model asked for
    system: str | tuple[str, ...] | None = None  # patterns of the system prompt, or its signature: sha256:HEX
    says: str | None = None  # regular expression, searched in what a person asked last
    metadata: dict[str, str] | None = None  # fields of the request's metadata, with patterns of their values
    template: str | tuple[str, ...] | None = None  # patterns of the prompt template's name
    tools: bool | tuple[str, ...] | None = None  # whether there are any, or patterns one of which must be there
    schema: bool | None = None  # whether JSON of a given form is asked for
    images: bool | None = None
    min_chars: Count | None = None  # of what a person asked last
    max_chars: Count | None = None
    languages: tuple[str, ...] | None = None  # ISO 639-1 codes of what a person asked last


class Quality(Section, frozen=True):
    """A target. At least one of *success* and *loss* makes it one."""

    success: Share | None = None  # at least this share of the tasks is done right
    loss: Share | None = None  # at most so much less than the reference model
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95


class Measured(Section, frozen=True):
    """What an evaluation found of a candidate; `negawatt eval` writes it."""

    rate: Share  # of the tasks that were done right
    low: Share  # the lower bound at the confidence of the target
    n: Count
    date: str | None = None
    suite: str | None = None


class Candidate(Section, frozen=True):
    """A model that a policy may choose. What is not said of it is looked up, or unknown."""

    model: Name  # a name that callers could use
    effort: Effort | None = None  # of reasoning
    tier: Annotated[int, Meta(ge=0)] | None = None  # default: its place in the order, from 1
    context_tokens: Count | None = None
    inputs: tuple[Literal["text", "image", "audio", "file"], ...] | None = None
    tools: bool | None = None
    region: Name | None = None
    success: Measured | None = None


class Rule(Section, frozen=True):
    """Where *when* describes the request, the candidate of this name is asked."""

    when: Match
    model: Name
    effort: Effort | None = None


class Check(Section, frozen=True):
    """A verifier, with what it needs."""

    kind: Literal[
        "schema", "regex", "python", "agreement", "logprob", "groundedness", "judge", "answer", "draft", "exact"
    ]
    pattern: str | None = None  # regex
    call: str | None = None  # python: package.module:function
    with_models: tuple[Name, ...] = ()  # agreement: of the small model with these; without any, of two samples
    file: str | None = None  # answer: the learned score, made by `negawatt eval --scorer`
    samples: Annotated[int, Meta(ge=2, le=10)] = 2  # agreement, where no other models are named
    model: Name | None = None  # judge, draft (default: the reference)
    least: Share | None = None  # least score to pass, where the calibration does not say it


class Cascade(Section, frozen=True):
    """Ask the small one, verify, escalate."""

    verify: tuple[Check, ...] = ()  # all of them must pass; scores are multiplied
    max_error: Budget = 0.05  # of answers that are accepted
    alpha: Budget = 0.05  # and the chance that it is exceeded
    calibration: str | None = None  # file of scores and verdicts, made by `negawatt eval`
    explore: Share = 0.02  # of accepted answers, asked of the reference too and compared: how a drift is noticed
    stream: Literal["verify", "trust"] = "verify"  # streams wait for the verdict, or the small answer is streamed as is
    predict: bool = False  # give the small answer to the large model as a predicted output, where it takes one


class Policy(Section, frozen=True, kw_only=True):
    """How a model is chosen."""

    how: Literal["fixed", "rule", "learned", "cascade"] = "fixed"
    candidates: tuple[Candidate, ...]
    replaces: tuple[str, ...] = ()  # patterns of models whose calls it takes over, beside those who ask for it by name
    order: Literal["cost", "energy"] = "cost"  # the first key; the other is the second
    quality: Quality | None = None
    model: Name | None = None  # fixed: which; default: the first that reaches the target. rule: where none applies
    effort: Effort | None = None
    rules: tuple[Rule, ...] = ()
    router: str | None = None  # learned: file made by `negawatt eval`
    cascade: Cascade | None = None
    least_tier: dict[Level, Annotated[int, Meta(ge=0)]] = {}  # by risk: never below
    regions: tuple[Name, ...] | None = None  # only candidates of these
    max_cost_usd: Positive | None = None  # of one call, as estimated; what is above is not asked
