"""How JSON is asked for in each protocol, and how the text of an answer is put into other words.

One row of `FORMS` per protocol whose requests can ask for it. Sources, 2026-11: the APIs' references, as their SDKs
have them; https://platform.claude.com/docs/en/build-with-claude/structured-outputs for ``output_config.format``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from negawatt.call import Request
from negawatt.wire.common import as_object, as_objects


class Asking(NamedTuple):
    """A schema as it is sent. *strict*: the provider may hold the model to it word for word; Messages always does.

    *name*: of letters, digits, _ and -, 64 at most, where the request has none; Messages has no place for it.
    """

    schema: Any
    strict: bool
    name: str = "answer"


class Form(NamedTuple):
    """What one protocol does with contracts. Each of the functions returns a changed copy."""

    asked: Callable[[Request, Asking], dict[str, Any]]  # the fields that ask for a schema
    plain: Callable[[Request], dict[str, Any]]  # the same fields where nothing is asked for; None: left out
    told: Callable[[Request, str], dict[str, Any]]  # the fields with an instruction at their end
    turned: Callable[[Request, str, str], dict[str, Any]]  # the fields with what the model said, and what is said to it
    rewritten: Callable[[Mapping[str, Any], Sequence[str]], dict[str, Any]]  # an answer with other texts
    field: Callable[[Request], str]  # where the schema is
    turns: str  # where the turns are


def with_schema(protocol: str, request: Request, asking: Asking) -> Request:
    """Return *request* asking for a schema in its protocol's own way, in place of what it asked for before."""
    return _changed(request, FORMS[protocol].asked(request, asking))


def without_schema(protocol: str, request: Request) -> Request:
    """Return *request* asking for any text."""
    return _changed(request, FORMS[protocol].plain(request))


def with_instruction(protocol: str, request: Request, text: str) -> Request:
    """Return *request* with *text* behind its instructions, so that the prompt begins as it did."""
    return _changed(request, FORMS[protocol].told(request, text))


def with_turn(protocol: str, request: Request, said: str, text: str) -> Request:
    """Return *request* going on: its model has *said* something (may be ""), and is told *text*."""
    return _changed(request, FORMS[protocol].turned(request, said, text))


def with_answers(protocol: str, data: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the answer *data* with *texts* in place of those that `negawatt.protocol.Answered.answers` returns.

    What was said of single tokens or characters of a changed text (probabilities, citations) goes.
    """
    return FORMS[protocol].rewritten(data, texts)


def schema_field(protocol: str, request: Request) -> str:
    """Return the path of the schema in *request*."""
    return FORMS[protocol].field(request)


def continued(protocol: str, request: Request) -> bool:
    """True when the model is to go on from words that its caller put into its mouth."""
    turns = request.get(FORMS[protocol].turns)
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _changed(request: Request, fields: Mapping[str, Any]) -> Request:
    """Return a request with *fields* changed; those that are None are left out."""
    data = {**request.data, **fields}
    return Request(data={name: value for name, value in data.items() if value is not None or name not in fields})


# -- Chat Completions ------------------------------------------------------------------------------------------


def _chat_asked(request: Request, asking: Asking) -> dict[str, Any]:
    form = as_object(request.get("response_format"))
    own = as_object(form.get("json_schema"))
    wanted = {"name": asking.name, **own, "schema": asking.schema, "strict": asking.strict}
    return {"response_format": {**form, "type": "json_schema", "json_schema": wanted}}


def _chat_told(request: Request, text: str) -> dict[str, Any]:
    messages = list(request.get("messages") or ())
    first = as_object(messages[0]) if messages else {}
    if first.get("role") not in ("system", "developer"):
        return {"messages": [{"role": "system", "content": text}, *messages]}
    return {"messages": [{**first, "content": _appended(first.get("content"), text)}, *messages[1:]]}


def _chat_turned(request: Request, said: str, text: str) -> dict[str, Any]:
    return {"messages": [*(request.get("messages") or ()), *_turns(said, text)]}


def _chat_rewritten(data: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    waiting = iter(texts)
    choices: list[Any] = []
    for choice in as_objects(data.get("choices")):
        message = as_object(choice.get("message"))
        if message.get("tool_calls") or message.get("refusal"):
            choices.append(choice)
            continue
        text = next(waiting)
        changed = {**choice, "message": {**message, "content": text}}
        if text != message.get("content"):
            changed |= {"logprobs": None} if "logprobs" in choice else {}
            changed["message"] = {n: v for n, v in changed["message"].items() if n != "annotations"}
        choices.append(changed)
    return {**data, "choices": choices}


# -- Responses -------------------------------------------------------------------------------------------------


def _responses_asked(request: Request, asking: Asking) -> dict[str, Any]:
    text = as_object(request.get("text"))
    wanted = {"name": asking.name, **as_object(text.get("format")), "type": "json_schema"}
    return {"text": {**text, "format": {**wanted, "schema": asking.schema, "strict": asking.strict}}}


def _responses_plain(request: Request) -> dict[str, Any]:
    text = {name: value for name, value in as_object(request.get("text")).items() if name != "format"}
    return {"text": text or None}


def _responses_told(request: Request, text: str) -> dict[str, Any]:
    given = request.get("instructions")
    if isinstance(given, list):
        return {"instructions": [*given, {"role": "developer", "content": text}]}
    return {"instructions": f"{given}\n\n{text}" if given else text}


def _responses_turned(request: Request, said: str, text: str) -> dict[str, Any]:
    given = request.get("input")
    before = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    return {"input": [*before, *_turns(said, text)]}


def _responses_rewritten(data: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Put the one text into the first part that says something; the other parts that do are left out."""
    waiting = list(texts)
    output: list[Any] = []
    for item in as_objects(data.get("output")):
        if item.get("type") != "message":
            output.append(item)
            continue
        parts: list[Any] = []
        for part in as_objects(item.get("content")):
            if part.get("type") != "output_text":
                parts.append(part)
            elif waiting:
                about: dict[str, Any] = {name: [] for name in ("annotations", "logprobs") if name in part}
                parts.append({**part, **about, "text": waiting.pop(0)})
        if parts:
            output.append({**item, "content": parts})
    return {**data, "output": output}


# -- Messages --------------------------------------------------------------------------------------------------


def _messages_asked(request: Request, asking: Asking) -> dict[str, Any]:
    output = {**as_object(request.get("output_config")), "format": {"type": "json_schema", "schema": asking.schema}}
    return {"output_config": output, **({"output_format": None} if "output_format" in request.data else {})}


def _messages_plain(request: Request) -> dict[str, Any]:
    output = {name: value for name, value in as_object(request.get("output_config")).items() if name != "format"}
    return {"output_config": output or None, "output_format": None}


def _messages_told(request: Request, text: str) -> dict[str, Any]:
    given = request.get("system")
    return {"system": _appended(given, text) if given else text}


def _messages_turned(request: Request, said: str, text: str) -> dict[str, Any]:
    return {"messages": [*(request.get("messages") or ()), *_turns(said, text)]}


def _messages_rewritten(data: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    waiting = list(texts)
    content: list[Any] = []
    for block in as_objects(data.get("content")):
        if block.get("type") != "text":
            content.append(block)
        elif waiting:
            content.append({"type": "text", "text": waiting.pop(0)})
    content += [{"type": "text", "text": text} for text in waiting]  # it said nothing, and code knew all of it
    return {**data, "content": content}


def _messages_field(request: Request) -> str:
    new = as_object(as_object(request.get("output_config")).get("format"))
    return "output_config.format.schema" if new else "output_format.schema"


def _appended(content: Any, text: str) -> Any:
    """Return the content of an instruction, a text or parts, with *text* at its end."""
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text


def _turns(said: str, text: str) -> list[dict[str, Any]]:
    told = {"role": "user", "content": text}
    return [{"role": "assistant", "content": said}, told] if said.strip() else [told]


FORMS: Mapping[str, Form] = {
    "chat": Form(
        _chat_asked, lambda _: {"response_format": None}, _chat_told, _chat_turned, _chat_rewritten,
        lambda _: "response_format.json_schema.schema", "messages",
    ),
    "responses": Form(
        _responses_asked, _responses_plain, _responses_told, _responses_turned, _responses_rewritten,
        lambda _: "text.format.schema", "input",
    ),
    "messages": Form(
        _messages_asked, _messages_plain, _messages_told, _messages_turned, _messages_rewritten, _messages_field,
        "messages",
    ),
}  # fmt: skip
