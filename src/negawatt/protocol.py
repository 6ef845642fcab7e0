"""What the gateway must know of a protocol: how a request is read, how an answer is written, whole and in chunks.

One object per protocol has all of it (``negawatt.wire``); a call carries the one that its caller speaks. Whoever uses
it asks for the few members that they need, so these are small protocols, and `Wire` is all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from negawatt.call import Request
    from negawatt.economics.usage import Usage
    from negawatt.reply import Chunk


class Prompt(NamedTuple):
    """What a request says, in the one form that tokens are counted in, whatever its protocol.

    *messages* have the shape of Chat Completions: ``role``, ``name``, ``content`` (text, or parts of type ``text`` and
    ``image_url``), ``tool_calls``; *tools* are function definitions. *texts* stand for themselves, without the frame
    that models put around messages (embeddings, rerank, legacy completions). *tokens* were counted by the caller:
    input that came as token ids.
    """

    messages: Sequence[Any] = ()
    tools: Sequence[Any] = ()
    texts: Sequence[str] = ()
    tokens: int = 0


class Contract(NamedTuple):
    """The JSON that a request asks for. *schema* None: any object. Whether it is a valid schema is not known yet."""

    schema: Any


class Question(NamedTuple):
    """What a person asked last, and everything around it that can change the answer, with a hole in its place.

    *follows_up*: something was said before it that is no instruction.
    """

    text: str
    around: dict[str, Any]
    follows_up: bool


class Folder(Protocol):
    """Gathers chunks into the whole body that they stand for."""

    @property
    def complete(self) -> bool:
        """True when every part that was begun has ended."""
        ...

    @property
    def faithful(self) -> bool:
        """True when unfolding the result would give an equal answer."""
        ...

    def add(self, data: dict[str, Any]) -> None:
        """Add one chunk. What cannot be joined makes the result unfaithful; it never raises."""
        ...

    def result(self) -> dict[str, Any]:
        """Return what has been gathered so far, as a whole answer. May be called at any time, and again."""
        ...


class Folded(Protocol):
    """What a Reply must know: whole and chunks stand for each other."""

    def folder(self) -> Folder: ...

    def unfold(self, whole: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks that *whole* stands for; ``fold(unfold(whole)) == whole``."""
        ...


class Identified(Protocol):
    """What the keys must know."""

    name: str

    def identity(self, request: Request) -> dict[str, Any]:
        """Return what can change the answer; null is absent, 1.0 is 1."""
        ...

    def question(self, request: Request) -> Question | None:
        """Return what was asked in words; None where it was not, or where other things than words belong to it."""
        ...


class Asked(Protocol):
    """What can be read off a request."""

    name: str  # "chat", "responses", "messages", ...: one word, the same in the ledger and the documentation
    operation: str  # OpenTelemetry gen_ai.operation.name
    path: str  # below /v1
    streams: bool  # False: `stream` means nothing here, answers are always whole
    billed: bool  # False: providers answer for nothing
    stateful: bool  # True: providers may keep what was said, and later calls may go on from it

    def check(self, request: Request) -> None:
        """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
        ...

    def deterministic(self, request: Request) -> bool:
        """True when the caller asked for the likeliest answer: temperature 0, or there is only one."""
        ...

    def sampled(self, request: Request) -> bool:
        """True when the caller asked for draws of its own."""
        ...

    def continues(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return what earlier calls left with the provider that *request* goes on from: (field, id) of each."""
        ...

    def prompt(self, request: Request) -> Prompt: ...

    def contract(self, request: Request) -> Contract | None:
        """Return the JSON that the answer has to be; None when any text will do."""
        ...

    def wants_usage(self, request: Request) -> bool:
        """True when the caller of a stream gets to see the usage in it."""
        ...

    def with_effort(self, request: Request, effort: str) -> Request:
        """Return *request* with *effort* in place of what its caller said of it; itself where nobody thinks."""
        ...

    def with_usage(self, request: Request) -> Request:
        """Return *request* so changed that the stream it asks for will carry its usage; itself if it does already."""
        ...


class Answered(Protocol):
    """What can be read off a whole answer, or off what has been folded of a broken one."""

    def complete(self, data: Mapping[str, Any]) -> bool:
        """True when a whole answer came to its own end, neither cut off nor filtered nor failed."""
        ...

    def text_of(self, data: Mapping[str, Any]) -> str:
        """Return everything the answer says, reasoning and tool calls included, as one text; for counting."""
        ...

    def answers(self, data: Mapping[str, Any]) -> list[str]:
        """Return what has to keep the contract: the text of each choice that is neither refusal nor tool call."""
        ...

    def usage(self, data: Mapping[str, Any]) -> Usage | None:
        """Return what the provider says it used, and on what basis; None where it does not say."""
        ...

    def error_of(self, data: Mapping[str, Any]) -> str | None:
        """Return the message of an error object that stands in place of an answer, or of a chunk; else None."""
        ...


class Spoken(Protocol):
    """How streams and errors look on the wire."""

    end: bytes  # what follows the last chunk: ``data: [DONE]``, or nothing

    def frame(self, chunks: Sequence[Chunk]) -> bytes:
        """Return *chunks* as server-sent events."""
        ...

    def usage_only(self, data: Mapping[str, Any]) -> bool:
        """True for a chunk that is there only for the usage, which callers who did not ask for it must not see."""
        ...

    def closing(self, data: Mapping[str, Any]) -> bool:
        """True for the chunk that brings the final usage."""
        ...

    def last(self, data: Mapping[str, Any]) -> bool:
        """True for a chunk after which nothing comes, by the protocol's own word."""
        ...

    def annotated(self, data: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
        """Return the closing chunk *data* with *note* under ``negawatt``, and its cost beside the usage."""
        ...

    def error_body(self, error: BaseException) -> dict[str, Any]:
        """Return *error* as this protocol's API would say it; in a stream this is the data of its last event."""
        ...

    def error_event(self, error: BaseException) -> bytes:
        """Return *error* as the event that ends a stream."""
        ...


class Wire(Folded, Identified, Asked, Answered, Spoken, Protocol):
    """A protocol."""
