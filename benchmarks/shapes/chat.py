"""Chat Completions: the dialects of its usage block, and the ways in which a stream can carry it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shapes import BUGS, ESTIMATED, PROXIES, SSE, Counts, Json, Shape, data_lines, text, whole

OPENAI = "OpenAI API reference, Chat Completions"
PLAIN = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
HEAD = {"id": "chatcmpl-1", "created": 1764000000, "model": "m-2026-01-01"}
Rows = list[tuple[str, str, Any, Counts]]

# name, source, the usage block, what it means
DIALECTS: Rows = [
    ("plain", OPENAI, PLAIN, Counts(100, 20)),
    ("cached input", OPENAI, {**PLAIN, "prompt_tokens_details": {"cached_tokens": 64}}, Counts(100, 20, read=64)),
    ("all of it cached", OPENAI, {**PLAIN, "prompt_tokens_details": {"cached_tokens": 100}}, Counts(100, 20, read=100)),
    ("reasoning", OPENAI, {**PLAIN, "completion_tokens_details": {"reasoning_tokens": 15}},
     Counts(100, 20, reasoning=15)),
    ("every detail", OPENAI, {
        **PLAIN, "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 15, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                      "rejected_prediction_tokens": 0},
    }, Counts(100, 20, read=64, reasoning=15)),
    ("predicted output", OPENAI, {
        **PLAIN, "completion_tokens_details": {"accepted_prediction_tokens": 8, "rejected_prediction_tokens": 5},
    }, Counts(100, 20)),
    ("audio", OPENAI, {
        **PLAIN, "prompt_tokens_details": {"audio_tokens": 30}, "completion_tokens_details": {"audio_tokens": 9},
    }, Counts(100, 20)),
    ("cached audio and images that overlap", "litellm #37407", {
        **PLAIN, "prompt_tokens_details": {"cached_tokens": 90, "image_tokens": 60, "audio_tokens": 20},
    }, Counts(100, 20, read=90)),
    ("cache writes among the details", "OpenRouter, usage accounting", {
        **PLAIN, "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    }, Counts(100, 20, read=60, write=10)),
    ("null details", BUGS, {
        **PLAIN, "prompt_tokens_details": None, "completion_tokens_details": None,
    }, Counts(100, 20)),
    ("null counts inside the details", "vLLM", {**PLAIN, "prompt_tokens_details": {"cached_tokens": None}},
     Counts(100, 20)),
    ("details that are a number", PROXIES, {**PLAIN, "prompt_tokens_details": 0}, Counts(100, 20)),
    ("hit and miss", "DeepSeek API reference", {
        **PLAIN, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36,
    }, Counts(100, 20, read=64)),
    ("hit and miss beside the details", "DeepSeek API reference", {
        **PLAIN, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36,
        "prompt_tokens_details": {"cached_tokens": 64}, "completion_tokens_details": {"reasoning_tokens": 12},
    }, Counts(100, 20, read=64, reasoning=12)),
    ("reasoning beside the output", "xAI API reference", {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 150,
        "completion_tokens_details": {"reasoning_tokens": 30},
    }, Counts(100, 50, reasoning=30)),
    ("reasoning in the total only", "Gemini, OpenAI compatibility", {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 170,
    }, Counts(100, 70, reasoning=50)),
    ("more reasoning than output, no total", "xAI API reference", {
        "prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 30},
    }, Counts(100, 50, reasoning=30)),
    ("cost in ticks", "xAI API reference", {**PLAIN, "cost_in_usd_ticks": 123456},
     Counts(100, 20, cost="0.0000123456")),
    ("cost", "OpenRouter, usage accounting", {**PLAIN, "cost": 0.0123}, Counts(100, 20, cost="0.0123")),
    ("cost of nothing", "OpenRouter, free models", {**PLAIN, "cost": 0}, Counts(100, 20, cost="0")),
    ("cost of a key of one's own", "OpenRouter, BYOK", {
        **PLAIN, "cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02},
    }, Counts(100, 20, cost="0.021")),
    ("cost as an object", "Perplexity API reference", {
        **PLAIN, "cost": {"input_tokens_cost": 0.001, "output_tokens_cost": 0.002, "total_cost": 0.008},
        "num_search_queries": 2,
    }, Counts(100, 20, cost="0.008", searches=2)),
    ("cached at the top", "Moonshot API reference", {**PLAIN, "cached_tokens": 64}, Counts(100, 20, read=64)),
    ("reasoning at the top", "Perplexity API reference", {**PLAIN, "reasoning_tokens": 15},
     Counts(100, 20, reasoning=15)),
    ("cache in Anthropic's names", BUGS, {
        **PLAIN, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10,
    }, Counts(100, 20, read=60, write=10)),
    ("cache beside the prompt", BUGS, {
        "prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 120, "cache_read_input_tokens": 60,
    }, Counts(100, 20, read=60)),
    ("counts as texts", BUGS, {name: str(count) for name, count in PLAIN.items()}, Counts(100, 20)),
    ("cached as a text", BUGS, {**PLAIN, "prompt_tokens_details": {"cached_tokens": "64"}},
     Counts(100, 20, read=64)),
    ("counts as floats", "TGI", {name: float(count) for name, count in PLAIN.items()}, Counts(100, 20)),
    ("no total", "llama.cpp", {"prompt_tokens": 100, "completion_tokens": 20}, Counts(100, 20)),
    ("total of nothing", PROXIES, {**PLAIN, "total_tokens": 0}, Counts(100, 20)),
    ("total that is too small", PROXIES, {**PLAIN, "total_tokens": 110}, Counts(100, 20)),
    ("output from the total", BUGS, {"prompt_tokens": 100, "completion_tokens": None, "total_tokens": 120},
     Counts(100, 20)),
    ("input from the total", BUGS, {"completion_tokens": 20, "total_tokens": 120}, Counts(100, 20)),
    ("names of the Responses API", PROXIES, {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
     Counts(100, 20)),
    ("input only", PROXIES, {"prompt_tokens": 100}, Counts(100, 0, basis="partial")),
    ("more cached than read", BUGS, {**PLAIN, "prompt_tokens_details": {"cached_tokens": 150}},
     Counts(100, 20, read=100)),
    ("more reasoning than total allows", PROXIES, {
        **PLAIN, "completion_tokens_details": {"reasoning_tokens": 20},
    }, Counts(100, 20, reasoning=20)),
    ("times beside the counts", "Groq API reference", {
        **PLAIN, "queue_time": 0.03, "prompt_time": 0.005, "completion_time": 0.1, "total_time": 0.105,
    }, Counts(100, 20)),
    ("seconds of sound", "Mistral API reference", {**PLAIN, "prompt_audio_seconds": None}, Counts(100, 20)),
    ("zeros", BUGS, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, ESTIMATED),
    ("empty", BUGS, {}, ESTIMATED),
    ("null", BUGS, None, ESTIMATED),
    ("nulls", BUGS, {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, ESTIMATED),
    ("a text", BUGS, "120", ESTIMATED),
]  # fmt: skip


def body(usage: Any, **fields: Any) -> Json:
    message = {"role": "assistant", "content": "Two or three days."}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage, **fields}


def chunk(*choices: Json, **fields: Any) -> Json:
    return {**HEAD, "object": "chat.completion.chunk", "choices": list(choices), **fields}


def says(content: str | None = None, index: int = 0, finish: str | None = None, **delta: Any) -> Json:
    said = delta if content is None else {"content": content, **delta}
    return {"index": index, "delta": said, "finish_reason": finish}


SPOKEN = [chunk(says("", role="assistant")), chunk(says("Two or ")), chunk(says("three days."))]
ENDED = chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
USED = chunk(usage=PLAIN)


def _calls(*entries: Json) -> Json:
    return chunk({"index": 0, "delta": {"tool_calls": list(entries)}, "finish_reason": None})


def _call(index: int, arguments: str, name: str | None = None) -> Json:
    head = {} if name is None else {"id": f"call_{index}", "type": "function"}
    return {"index": index, **head, "function": {"arguments": arguments, **({"name": name} if name else {})}}


REASONED = {**PLAIN, "completion_tokens_details": {"reasoning_tokens": 15}}
CRLF = data_lines([*SPOKEN, ENDED, USED], end="\r\n")
SPLIT = data_lines([chunk(says("Grüße, 世界 🙂")), ENDED, USED])
# name, source, the bytes of the stream
STREAMS: list[tuple[str, str, bytes]] = [
    ("usage on a chunk with a bare choice", "litellm #36168",
     data_lines([*SPOKEN, ENDED, chunk({}, usage=PLAIN)])),
    ("usage on a chunk with an empty delta", "litellm #36168",
     data_lines([*SPOKEN, ENDED, chunk({"index": 0, "delta": {}}, usage=PLAIN)])),
    ("usage on the chunk that ends", "vLLM, Mistral",
     data_lines([*SPOKEN, {**ENDED, "usage": PLAIN}])),
    ("usage on the last words", "Ollama",
     data_lines([*SPOKEN[:2], chunk(says("three days.", finish="stop"), usage=PLAIN)])),
    ("usage null until the last", OPENAI,
     data_lines([*[{**one, "usage": None} for one in (*SPOKEN, ENDED)], USED])),
    ("usage on every chunk, growing", "vLLM, continuous_usage_stats", data_lines([
        *[{**one, "usage": {"prompt_tokens": 100, "completion_tokens": n, "total_tokens": 100 + n}}
          for n, one in enumerate(SPOKEN)],
        {**ENDED, "usage": PLAIN},
    ])),
    ("usage twice", BUGS, data_lines([*SPOKEN, {**ENDED, "usage": PLAIN}, USED])),
    ("usage before the end", "Fireworks", data_lines([*SPOKEN, chunk(says(""), usage=PLAIN), ENDED])),
    ("usage without choices at all", PROXIES,
     data_lines([*SPOKEN, ENDED, {**HEAD, "object": "chat.completion.chunk", "usage": PLAIN}])),
    ("usage with choices null", PROXIES,
     data_lines([*SPOKEN, ENDED, {**HEAD, "object": "chat.completion.chunk", "choices": None, "usage": PLAIN}])),
    ("no [DONE]", BUGS, data_lines([*SPOKEN, ENDED, USED], done=False)),
    ("bytes after [DONE]", BUGS, data_lines([*SPOKEN, ENDED, USED]) + b"data: {}\n\n: bye\n\n"),
    ("[DONE] without a space", PROXIES, data_lines([*SPOKEN, ENDED, USED], done=False) + b"data:[DONE]\n\n"),
    ("the last event without its blank line", BUGS, data_lines([*SPOKEN, ENDED, USED], done=False)[:-1]),
    ("CRLF", SSE, CRLF),
    ("CR", SSE, data_lines([*SPOKEN, ENDED, USED], end="\r")),
    ("comments and keep-alives", "OpenRouter", b": OPENROUTER PROCESSING\n\n" + data_lines([*SPOKEN, ENDED]).replace(
        b"data: [DONE]", b": keep-alive\n\ndata: " + text(USED) + b"\n\n: ping\n\ndata: [DONE]")),
    ("named events with ids", PROXIES, b"".join(
        b"id: %d\nevent: message\nretry: 1000\ndata: %s\n\n" % (n, text(one))
        for n, one in enumerate([*SPOKEN, ENDED, USED])) + b"data: [DONE]\n\n"),
    ("data in several lines", SSE, data_lines([*SPOKEN, ENDED], done=False)
     + b"data: {\ndata: " + text(USED)[1:] + b"\n\ndata: [DONE]\n\n"),
    ("a byte order mark first", SSE,
     b"\xef\xbb\xbf" + data_lines([*SPOKEN, ENDED, USED])),
    ("a filter's verdict first", "Azure OpenAI", data_lines([
        {"id": "", "created": 0, "model": "", "object": "", "choices": [], "prompt_filter_results": [{"x": 0}]},
        *SPOKEN, ENDED, USED])),
    ("padding against eavesdroppers", OPENAI,
     data_lines([{**one, "obfuscation": "x" * n} for n, one in enumerate([*SPOKEN, ENDED, USED])])),
    ("words split inside characters", SSE, SPLIT),
    ("surrogates escaped", BUGS, data_lines([chunk(says("X")), ENDED, USED]).replace(
        b'"X"', b'"\\ud83d\\ude42"')),
    ("arguments in fragments", BUGS, data_lines([
        _calls(_call(0, "", "f")), _calls(_call(0, '{"a"')), _calls(_call(0, ": 1}")),
        chunk({"index": 0, "delta": {}, "finish_reason": "tool_calls"}), USED])),
    ("parallel calls, mixed", OPENAI, data_lines([
        _calls(_call(0, "", "f"), _call(1, "", "g")), _calls(_call(1, "{}")), _calls(_call(0, "{}")),
        chunk({"index": 0, "delta": {}, "finish_reason": "tool_calls"}), USED])),
    ("a refusal", OPENAI, data_lines([
        chunk(says(refusal="I cannot ", role="assistant")), chunk(says(refusal="do that.")), ENDED, USED])),
    ("a legacy function call", OPENAI, data_lines([
        chunk(says(function_call={"name": "f", "arguments": "{}"})), chunk(says("", finish="function_call")), USED])),
    ("cut off by its limit", OPENAI, data_lines([*SPOKEN, chunk(says("", finish="length")), USED])),
    ("filtered", OPENAI, data_lines([*SPOKEN, chunk(says("", finish="content_filter")), USED])),
    ("usage where Groq once had it", "Groq API reference",
     data_lines([*SPOKEN, {**ENDED, "x_groq": {"id": "req_1", "usage": {**PLAIN, "queue_time": 0.03}}}])),
]  # fmt: skip
THOUGHTS: list[tuple[str, str, bytes]] = [
    ("reasoning_content", "DeepSeek API reference", data_lines([
        chunk(says(role="assistant", reasoning_content="Well, ")), chunk(says(reasoning_content="now.")),
        *SPOKEN[1:], ENDED, chunk(usage=REASONED)])),
    ("reasoning", "OpenRouter", data_lines([
        chunk(says(reasoning="Well, ")), *SPOKEN[1:], ENDED, chunk(usage=REASONED)])),
]  # fmt: skip
UNSAID: list[tuple[str, str, bytes, str]] = [
    ("no usage", BUGS, data_lines([*SPOKEN, ENDED]), "answered"),
    ("breaks off", BUGS, data_lines(SPOKEN, done=False), "upstream_broken"),
    (
        "an error in the middle",
        BUGS,
        data_lines([*SPOKEN, {"error": {"message": "overloaded", "code": 529}}], done=False),
        "upstream_broken",
    ),
    ("an error as a text", "vLLM", data_lines([*SPOKEN, {"error": "overloaded"}], done=False), "upstream_broken"),
    ("garbage in the middle", BUGS, data_lines(SPOKEN, done=False) + b"data: {no\n\n", "upstream_broken"),
]


def shapes() -> Iterator[Shape]:
    for name, source, usage, counts in DIALECTS:
        yield Shape(f"{name}, whole", "chat", source, whole(body(usage)), counts)
        stream = data_lines([*SPOKEN, ENDED, chunk(usage=usage)])
        yield Shape(f"{name}, streamed", "chat", source, (stream,), counts, streamed=True)
    for name, source, stream in STREAMS:
        yield Shape(name, "chat", source, (stream,), Counts(100, 20), streamed=True)
    for name, source, stream in THOUGHTS:
        yield Shape(name, "chat", source, (stream,), Counts(100, 20, reasoning=15), streamed=True)
    for name, source, stream, ends in UNSAID:
        yield Shape(name, "chat", source, (stream,), ESTIMATED, streamed=True, ends=ends)
    single = tuple(bytes([byte]) for byte in SPLIT)
    yield Shape("one byte at a time", "chat", BUGS, single, Counts(100, 20), streamed=True)
    single = tuple(bytes([byte]) for byte in CRLF)
    yield Shape("one byte at a time, CRLF", "chat", BUGS, single, Counts(100, 20), streamed=True)
    pretty = text(body(PLAIN)).replace(b", ", b",\n\t ")
    yield Shape("white space", "chat", OPENAI, (pretty,), Counts(100, 20))
    yield Shape("a stream asked, a whole given", "chat", "Azure, Bedrock proxies", whole(body(PLAIN)), Counts(100, 20),
                streamed=True, headers={"content-type": "application/json; charset=utf-8"})  # fmt: skip
    two = body(PLAIN)
    two["choices"] = [*two["choices"], {**two["choices"][0], "index": 1}]
    mixed = data_lines([
        chunk(says("a")), chunk(says("b", 1)), chunk(says("c"), says("d", 1)), chunk(says("", finish="stop")),
        chunk(says("", 1, "stop")), USED,
    ])  # fmt: skip
    yield Shape("two choices, mixed", "chat", OPENAI, (mixed,), Counts(100, 20), streamed=True, request={"n": 2})
    yield Shape("two choices, whole", "chat", OPENAI, whole(two), Counts(100, 20), request={"n": 2})
    yield Shape("no choices", "chat", "Azure OpenAI", whole({**body(PLAIN), "choices": []}), Counts(100, 20),
                request={"n": 1})  # fmt: skip
