"""The configuration of what makes prompts and answers shorter: templates, offload, compression, contracts, caps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from negawatt.config_types import Count, Mode, Section, Share

Ratio = Annotated[float, Meta(ge=1)]


class Shaping(Section, frozen=True):
    """What every lever has; `negawatt.config.Lever` is the same for the others."""

    mode: Mode = "off"
    share: Share = 0.1  # of callers, in mode canary


class Compose(Shaping, frozen=True):
    mode: Mode = "on"
    prompts: str | None = None  # folder of prompt templates
    stable: bool = False  # move what changes (dates, ids) behind what does not, where that is safe
    marks: Literal["off", "auto"] = "off"  # place the provider's cache marks where the past says that it pays


class Offload(Shaping, frozen=True):
    handlers: tuple[str, ...] = ()  # names of handlers in code; which of them a class allows, it says itself
    rules: str | None = None  # TOML file of business rules


class Compress(Shaping, frozen=True):
    lossless: bool = True  # white space, JSON, repeated passages, duplicate tool schemas
    blobs: bool = False  # base64 and the like, and boilerplate: what is left out is noted
    context: bool = False  # sentences and records of supplied context, chosen by the question
    retention: Share = 0.98  # share of the answers that must survive in what is kept of a context
    history_turns: Count | None = None  # newer turns stay as they are, older ones are folded; None: none are
    tools_recall: Share | None = None  # of the tools that are called, so many must stay in the list; None: all stay
    least_tokens: Count = 500  # of a prompt, below which nothing is tried


class Structure(Shaping, frozen=True):
    native: bool = True  # ask for the schema in the provider's own way, where it has one; else by instruction
    repair: bool = True
    ask_again: Annotated[int, Meta(ge=0, le=3)] = 1  # times, with the error, after repair has failed
    escalate: bool = True  # and then the policy's reference, where the call is under one
    compact: bool = False  # short keys towards the model
    split: bool = True  # fields marked x-negawatt-extract are filled by code
    stream: Literal["hold", "trust"] = "hold"  # until the answer keeps its contract; or stream it as it comes


class Cap(Shaping, frozen=True):
    quantile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.99  # of the useful tokens that answers of the class had
    margin: Ratio = 1.25  # times that
    least_seen: Count = 200  # answers, before anything is capped
    least_tokens: Count = 64
    again: bool = True  # an answer that was cut off is asked once more, without the cap
    inflation: Ratio = 1.5  # times the usual length: an alert
    stop: tuple[str, ...] = ()  # sequences, where the request has none
    verbosity: Literal["low", "medium", "high"] | None = None
