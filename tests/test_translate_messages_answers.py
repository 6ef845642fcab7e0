"""Whole answers between Chat and Messages: what they say, why they ended and what they used is told both ways."""

from __future__ import annotations

import anthropic.types
import pytest
from openai.types.chat import ChatCompletion
from translations import ASKED, COMPLETION, MESSAGE, TO_MESSAGES, in_chat, in_messages

from negawatt.economics.usage import usage_from_anthropic, usage_from_chat
from negawatt.wire.chat import CHAT
from negawatt.wire.messages import MESSAGES


def test_a_message_becomes_a_completion():
    """Texts are joined; thinking is shown, and kept with its signature for the next request."""
    whole = in_chat(MESSAGE)
    ChatCompletion.model_validate(whole, strict=True)
    usage = whole.pop("usage")
    assert usage_from_chat(usage) == usage_from_anthropic(MESSAGE["usage"])
    shown = {"format": "anthropic-claude-v1"}
    assert whole == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude-x",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "It is blue.",
                    "reasoning_content": "Hm.",
                    "reasoning_details": [
                        {"type": "reasoning.text", "text": "Hm.", "signature": "sig", **shown, "index": 0},
                        {"type": "reasoning.encrypted", "data": "xyz", **shown, "index": 1},
                    ],
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "function": {"name": "look", "arguments": '{"at":"sky"}'},
                        },
                        {"id": "toolu_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ],
    }


def test_what_was_thought_can_be_handed_back():
    """The assistant's message, sent again, is the thinking that Anthropic signed, and the rest of what it said."""
    said = in_chat(MESSAGE)["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in said["tool_calls"]]
    asked = TO_MESSAGES.request({**ASKED, "messages": [*ASKED["messages"], said, *results]})
    text = {"type": "text", "text": "It is blue."}
    thought, secret, _, _, *calls = MESSAGE["content"]
    assert asked["messages"][1]["content"] == [thought, secret, text, *calls]


def test_a_completion_becomes_a_message():
    """Reasoning first, then what is said, then the calls; arguments that are empty are an empty object."""
    whole = in_messages(COMPLETION)
    anthropic.types.Message.model_validate(whole, strict=True)
    usage = whole.pop("usage")
    assert usage["service_tier"] == "standard"
    assert usage_from_anthropic(usage) == usage_from_chat(COMPLETION["usage"])
    assert whole == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-x",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "It is blue."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "sky"}},
            {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
    }


def test_usage_that_nobody_told_is_not_made_up():
    """Messages has no way to leave the counts out; zeros are read as a block that says nothing."""
    whole = in_messages({name: value for name, value in COMPLETION.items() if name != "usage"})
    assert usage_from_anthropic(whole["usage"]) is None
    silent = in_chat({**MESSAGE, "usage": {"input_tokens": 0, "output_tokens": 0}})
    assert "usage" not in silent


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("model_context_window_exceeded", "length"),
        ("a_new_one", "a_new_one"),
    ],
)
def test_why_a_message_ended_is_told_in_chat(stop_reason: str, finish_reason: str):
    """What is not all there is never called so, and what is not known is not explained away."""
    whole = in_chat({**MESSAGE, "stop_reason": stop_reason})
    assert whole["choices"][0]["finish_reason"] == finish_reason
    assert CHAT.complete(whole) is MESSAGES.complete({**MESSAGE, "stop_reason": stop_reason})


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("a_new_one", "a_new_one")],
)
def test_why_a_completion_ended_is_told_in_messages(finish_reason: str, stop_reason: str):
    """The same, the other way."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": finish_reason}
    assert in_messages({**COMPLETION, "choices": [choice]})["stop_reason"] == stop_reason


def test_a_call_that_the_caller_forced_still_ends_in_tool_use():
    """OpenAI says `stop` there, and callers of Messages look for `tool_use`."""
    choice = {**COMPLETION["choices"][0], "finish_reason": "stop"}
    assert in_messages({**COMPLETION, "choices": [choice]})["stop_reason"] == "tool_use"


def test_the_stop_sequence_is_named_both_ways():
    """As vLLM names it in Chat; one that the caller did not ask for is none."""
    whole = in_chat({**MESSAGE, "stop_reason": "stop_sequence", "stop_sequence": "END"})
    assert whole["choices"][0]["stop_reason"] == "END"
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "stop_reason": "END"}
    told = in_messages({**COMPLETION, "choices": [choice]}, {**ASKED, "stop_sequences": ["END"]})
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", "END")
    untold = in_messages({**COMPLETION, "choices": [choice]})
    assert (untold["stop_reason"], untold["stop_sequence"]) == ("end_turn", None)


def test_refusals_are_told_both_ways():
    """Anthropic explains beside the answer, OpenAI in place of it."""
    details = {"type": "refusal", "category": None, "explanation": "Not that."}
    whole = in_chat({**MESSAGE, "content": [], "stop_reason": "refusal", "stop_details": details})
    choice = whole["choices"][0]
    assert (choice["finish_reason"], choice["message"]["refusal"]) == ("content_filter", "Not that.")
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    told = in_messages({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert (told["stop_reason"], told["content"]) == ("refusal", [{"type": "text", "text": "I cannot."}])


WEB = {
    "type": "web_search_result_location",
    "cited_text": "sky",
    "encrypted_index": "e",
    "title": "T",
    "url": "https://example.com",
}
PAGE = {"type": "page_location", "cited_text": "sky", "document_index": 0, "start_page_number": 1, "end_page_number": 2}


def test_citations_become_annotations():
    """Those with a URL, for the text that they stand by; the others are kept beside."""
    content = [
        {"type": "text", "text": "So: "},
        {"type": "text", "text": "blue", "citations": [WEB, PAGE]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "sky"}},
    ]
    message = in_chat({**MESSAGE, "content": content, "stop_reason": "end_turn"})["choices"][0]["message"]
    cited = {"start_index": 4, "end_index": 8, "title": "T", "url": "https://example.com"}
    assert message["annotations"] == [{"type": "url_citation", "url_citation": cited}]
    assert message["provider_specific_fields"] == {"citations": [PAGE], "content_blocks": [content[2]]}


def test_annotations_become_citations():
    """With the text that they stand by."""
    cited = {"start_index": 6, "end_index": 10, "title": "T", "url": "https://example.com"}
    message = {"content": "It is blue.", "annotations": [{"type": "url_citation", "url_citation": cited}]}
    whole = in_messages({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    (text,) = whole["content"]
    assert text["text"] == "It is blue."
    assert text["citations"] == [{**WEB, "cited_text": "blue", "encrypted_index": ""}]
