"""OpenAI Responses: what a valid request is, what can change its answer, and what an answer says and used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import orjson

from negawatt.call import Request
from negawatt.economics.usage import Usage, usage_from_responses, with_tier
from negawatt.errors import InvalidRequest, body_of
from negawatt.protocol import Contract, Prompt, Question, Wire
from negawatt.wire import chat, common
from negawatt.wire.common import as_object, as_objects, check_shape, identity_without, named_events
from negawatt.wire.effort import responses_with_effort
from negawatt.wire.question import question_in
from negawatt.wire.responses_folder import FINAL, ResponsesFolder, unfold

# Fields of a request that say how to send the answer, or whose it is, but cannot change what it says. `store` can: it
# says whether the answer may be gone on from.
NOT_IN_KEY = frozenset({
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "stream",
    "stream_options", "user",
})  # fmt: skip
_WITHOUT_INPUT = ("input", "previous_response_id", "conversation", "prompt")
_FINAL = frozenset(FINAL.values())
_TEXTS = ("text", "refusal", "transcript")  # of a part of an item
_CALLED = frozenset({"function_call", "custom_tool_call", "mcp_approval_request", "computer_call", "shell_call"})


class _ResponsesRequest(msgspec.Struct):
    """The types of the fields that we act on; everything else passes unseen."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    input: str | list[dict[str, Any]] | None = None
    instructions: str | list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    stream: bool | None = None
    background: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: float | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


# -- requests --------------------------------------------------------------------------------------------------


def check(request: Request) -> None:
    """Raise `InvalidRequest`, naming the field, unless *request* can be acted on."""
    check_shape(request, _ResponsesRequest)
    if request.get("background"):
        message = "background: not offered here: the answer would come where nobody measures it; leave it out"
        raise InvalidRequest(message, param="background")
    if all(request.get(name) is None for name in _WITHOUT_INPUT):
        raise InvalidRequest("input: this field is required", param="input")


def deterministic(request: Request) -> bool:
    """True when the caller asked for the likeliest answer, and of nothing that grows meanwhile."""
    return chat.deterministic(request) and not _changes(request)


def sampled(request: Request) -> bool:
    """True when the caller plainly asked for draws, or goes on with a conversation that grows with each answer."""
    return bool(request.get("temperature")) or _changes(request)


def _changes(request: Request) -> bool:
    """True when the provider keeps something that the answer changes."""
    return request.get("conversation") is not None or bool(_containers(request))


def identity(request: Request) -> dict[str, Any]:
    """Return what can change the answer: every field but those of `NOT_IN_KEY`; null is absent, 1.0 is 1."""
    return identity_without(request, NOT_IN_KEY)


def continues(request: Request) -> Sequence[tuple[str, str]]:
    """Return the earlier answer, the conversation and the items that *request* names by their ids."""
    found: list[tuple[str, str]] = []
    previous, conversation, given = (request.get(n) for n in ("previous_response_id", "conversation", "input"))
    if isinstance(previous, str):
        found.append(("previous_response_id", previous))
    if conversation is not None:
        found.append(("conversation", str(as_object(conversation).get("id") or conversation)))
    for place, item in enumerate(given) if isinstance(given, list) else ():
        if isinstance(item, dict) and _is_reference(item):
            found.append((f"input[{place}].id", str(item.get("id"))))
    return found + _containers(request)


def _containers(request: Request) -> list[tuple[str, str]]:
    """Return the containers that tools of *request* work on in."""
    found: list[tuple[str, str]] = []
    for place, tool in enumerate(as_objects(request.get("tools"))):
        inner = as_object(tool.get("environment")).get("container_id")
        if isinstance(tool.get("container"), str):
            found.append((f"tools[{place}].container", tool["container"]))
        if inner is not None:
            found.append((f"tools[{place}].environment.container_id", str(inner)))
    return found


def _is_reference(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and "content" not in item)


def wants_usage(request: Request) -> bool:
    """True: every stream of this protocol shows its usage."""
    return True


def with_usage(request: Request) -> Request:
    """Return *request* itself: its stream will carry its usage."""
    return request


def contract(request: Request) -> Contract | None:
    """Return what ``text.format`` asks for."""
    asked = as_object(as_object(request.get("text")).get("format"))
    if asked.get("type") == "json_object":
        return Contract(None)
    if asked.get("type") != "json_schema":
        return None
    schema = asked.get("schema")
    return Contract({} if schema is None else schema)


def question(request: Request) -> Question | None:
    """Return the last user turn, if it is text only; around it is everything else."""
    return question_in(identity(request), "input")


def prompt(request: Request) -> Prompt:
    """Return the instructions, the input and the tools in the form that tokens are counted in.

    What earlier calls left with the provider is not there, though it counts: an estimate is then too low.
    """
    messages: list[dict[str, Any]] = []
    for name, role in (("instructions", "developer"), ("input", "user")):
        given = request.get(name)
        if isinstance(given, str):
            messages.append({"role": role, "content": given})
        else:
            messages += [_as_chat(item) for item in as_objects(given)]
    return Prompt(messages=messages, tools=[_tool(tool) for tool in as_objects(request.get("tools"))])


def _as_chat(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments", item.get("input"))
        return {"role": "assistant", "tool_calls": [{"function": {"name": item.get("name"), "arguments": arguments}}]}
    if kind in ("function_call_output", "custom_tool_call_output"):
        return {"role": "tool", "content": _content(item.get("output"))}
    if kind == "reasoning":
        return {"role": "assistant", "content": _content([*as_objects(item.get("summary")),
                                                          *as_objects(item.get("content"))])}  # fmt: skip
    if "role" in item:
        return {"role": item["role"], "content": _content(item.get("content"))}
    role = "user" if kind is None else "tool" if str(kind).endswith("_output") else "assistant"
    return {"role": role, "content": _written(item)}  # of the kinds that we do not read; no person says them


def _content(content: Any) -> Any:
    """Return a text, or the parts of a message as parts of type ``text`` and ``image_url``."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts: list[dict[str, Any]] = []
    for part in as_objects(content):
        if part.get("type") == "input_image":
            url = str(part.get("image_url") or part.get("file_id") or "")
            parts.append({"type": "image_url", "image_url": {"url": url, "detail": part.get("detail")}})
        else:
            parts += [{"type": "text", "text": part[name]} for name in _TEXTS if isinstance(part.get(name), str)]
    return parts


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _written(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


# -- answers ---------------------------------------------------------------------------------------------------


def complete(data: Mapping[str, Any]) -> bool:
    """True when a whole answer came to its own end, neither cut off nor filtered nor failed."""
    return data.get("status") == "completed" and not data.get("error")


def text_of(data: Mapping[str, Any]) -> str:
    """Return everything a whole answer says, reasoning, refusals and tool calls included, as one text."""
    said: list[str] = []
    for item in as_objects(data.get("output")):
        for part in (*as_objects(item.get("summary")), *as_objects(item.get("content"))):
            said += [part[name] for name in _TEXTS if isinstance(part.get(name), str)]
        for name in ("arguments", "input", "code"):
            if isinstance(item.get(name), str):
                said.append(f"{item.get('name') or ''}{item[name]}")
    return "\n".join(said)


def answers(data: Mapping[str, Any]) -> list[str]:
    """Return the text of an answer that neither refuses nor calls a tool."""
    items = as_objects(data.get("output"))
    parts = [part for item in items if item.get("type") == "message" for part in as_objects(item.get("content"))]
    if any(item.get("type") in _CALLED for item in items) or any(part.get("type") == "refusal" for part in parts):
        return []
    return ["".join(str(part.get("text") or "") for part in parts if part.get("type") == "output_text")]


def usage(data: Mapping[str, Any]) -> Usage | None:
    """Return the ``usage`` block, with the tier, and with the searches, which it leaves out."""
    used = usage_from_responses(data.get("usage"))
    if used is None:
        return None
    if not used.web_searches and isinstance(data.get("output"), list):
        searches = sum(map(_searched, as_objects(data["output"])))
        if searches:
            used = msgspec.structs.replace(used, web_searches=searches)
    return with_tier(used, data.get("service_tier"))


def _searched(item: Mapping[str, Any]) -> bool:
    """True for a search that is charged; opening and reading a page is not.

    https://platform.openai.com/docs/pricing, 2026-11.
    """
    if item.get("type") != "web_search_call" or item.get("status") == "failed":
        return False
    return bool(as_object(item.get("action")).get("type", "search") == "search")


def error_of(data: Mapping[str, Any]) -> str | None:
    """Return the message of an ``error`` event, or of an error in place of an answer.

    A response that failed is an answer, which callers can read and which may have its usage.
    """
    if data.get("object") == "response" or str(data.get("type", "")).startswith("response."):
        return None
    if data.get("type") == "error" and isinstance(data.get("message"), str):
        return str(data["message"])[:500]
    return common.error_of(data)


# -- the wire --------------------------------------------------------------------------------------------------


def closing(data: Mapping[str, Any]) -> bool:
    """True for the last event, if its response has its usage."""
    return last(data) and bool(as_object(data.get("response")).get("usage"))


def usage_only(data: Mapping[str, Any]) -> bool:
    """False: the event with the usage is the one with the whole answer."""
    return False


def last(data: Mapping[str, Any]) -> bool:
    """True for the event that brings the whole answer."""
    kind = data.get("type")
    return isinstance(kind, str) and kind in _FINAL


def annotated(data: Mapping[str, Any], note: Mapping[str, Any]) -> dict[str, Any]:
    """Return *data* with *note* as ``response.negawatt``, and the cost as ``response.usage.cost``."""
    return {**data, "response": chat.annotated(as_object(data.get("response")), note)}


def error_event(error: BaseException) -> bytes:
    """Return *error* as the event that ends a stream: as the API has it, and as SDKs raise it (``error``)."""
    detail = body_of(error)["error"]
    said = {"type": "error", "code": detail["code"], "message": detail["message"], "param": detail["param"]}
    return b"event: error\ndata: " + orjson.dumps({**said, "sequence_number": 0, "error": detail}) + b"\n\n"


class Responses:
    """The Responses protocol, as a `negawatt.protocol.Wire`."""

    name = "responses"
    operation = "chat"
    path = "/responses"
    streams = True
    billed = True
    stateful = True
    end = b""
    annotated = staticmethod(annotated)
    answers = staticmethod(answers)
    check = staticmethod(check)
    closing = staticmethod(closing)
    complete = staticmethod(complete)
    continues = staticmethod(continues)
    contract = staticmethod(contract)
    deterministic = staticmethod(deterministic)
    error_body = staticmethod(body_of)
    error_event = staticmethod(error_event)
    error_of = staticmethod(error_of)
    frame = staticmethod(named_events)
    identity = staticmethod(identity)
    last = staticmethod(last)
    prompt = staticmethod(prompt)
    question = staticmethod(question)
    sampled = staticmethod(sampled)
    text_of = staticmethod(text_of)
    unfold = staticmethod(unfold)
    usage = staticmethod(usage)
    usage_only = staticmethod(usage_only)
    wants_usage = staticmethod(wants_usage)
    with_effort = staticmethod(responses_with_effort)
    with_usage = staticmethod(with_usage)

    def folder(self) -> ResponsesFolder:
        return ResponsesFolder()


RESPONSES: Wire = Responses()
