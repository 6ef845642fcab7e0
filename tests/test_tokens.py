"""Token estimates: close to a real tokenizer on ordinary text, linear in time, never an exception."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negawatt.economics.tokens import (
    estimate_request_tokens,
    estimate_tokens,
    estimate_usage,
    taken_apart,
    tokens_in,
)

LAWS = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Counted once with o200k_base.
COUNTED = [
    (
        "The support desk answers within two days; if it does not, write to "
        "the manager and keep a copy of your letter. ",
        101,
    ),
    (
        'def area(self) -> float:\n    """Return the area in square metres."""\n'
        "    return self.width * self.height\n\n",
        96,
    ),
    ('{"order_id": "A-10423", "items": [{"sku": "KX-19", "quantity": 3}], "express": false}\n', 132),
    ("In 2024 the plant made 1,284,500 units, 12.7 % more than in 2023, at a cost of $3.42 each. ", 149),
    ("Die Rechnung wurde am vergangenen Donnerstag bezahlt, aber die Lieferung ist noch nicht eingetroffen. ", 73),
    ("Заказ был оплачен вчера вечером, но посылка до сих пор не пришла. ", 81),
    ("昨日の夕方に支払いましたが、荷物はまだ届いていません。", 76),
    ("मैंने कल शाम भुगतान किया था, लेकिन पार्सल अभी तक नहीं आया है। ", 70),
]


@pytest.mark.parametrize(("text", "tokens"), COUNTED, ids=[text[:24] for text, _ in COUNTED])
def test_an_estimate_is_near_the_real_count(text: str, tokens: int):
    """Prose, code, JSON, numbers and other scripts, each within a quarter of the tokenizer's count."""
    assert estimate_tokens(text * 4) == pytest.approx(tokens, rel=0.25)


def test_nothing_has_no_tokens_and_anything_has_one():
    """Zero is for the empty text only."""
    assert estimate_tokens("") == 0
    assert estimate_tokens("a") == estimate_tokens(" ") == 1


@given(a=st.text(max_size=200), b=st.text(max_size=200))
@LAWS
def test_texts_add_up_nearly(a, b):
    """Joining two texts changes the estimate by no more than what meets at the seam; no text raises."""
    assert abs(estimate_tokens(a + b) - estimate_tokens(a) - estimate_tokens(b)) <= 6


def test_the_time_is_linear_in_the_length():
    """A hundred times the text takes no more than a few hundred times as long."""
    text = 'The quick brown fox, 42 times; {"a": 1}\n' * 250

    def seconds(sample: str) -> float:
        best = 1.0
        for _ in range(5):
            started = time.perf_counter()
            estimate_tokens(sample)
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(text * 100) < 400 * seconds(text)


def test_a_request_is_the_sum_of_its_parts():
    """Each message, its name, its tool calls and each tool add to the estimate."""
    short = [{"role": "user", "content": "What is the weather in Paris?"}]
    longer = [{"role": "system", "content": "You are brief."}, *short]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    base = estimate_request_tokens(short)
    assert 10 <= base <= 18
    assert estimate_request_tokens(longer) > base
    assert estimate_request_tokens([*short, {"role": "assistant", "content": None, "tool_calls": [call]}]) > base + 8
    assert estimate_request_tokens(short, tools) > base + 10


def test_parts_of_a_message_count_as_text_or_as_a_picture():
    """A text part counts like a plain string; a picture's data are not read as text."""
    parts = [{"type": "text", "text": "Look at this."}]
    assert estimate_request_tokens([{"role": "user", "content": parts}]) == estimate_request_tokens(
        [{"role": "user", "content": "Look at this."}]
    )
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    with_picture = estimate_request_tokens([{"role": "user", "content": [*parts, picture]}])
    picture["image_url"]["detail"] = "low"
    with_small_one = estimate_request_tokens([{"role": "user", "content": [*parts, picture]}])
    assert with_small_one < with_picture < 1000


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "text",
        3,
        {},
        [],
        [None, 3, "x"],
        [{}],
        [{"role": 5, "content": 7, "tool_calls": {"a": 1}}],
        [{"role": "user", "content": [None, 1, {"type": "text", "text": None}], "tool_calls": [{"function": 3}, None]}],
    ],
)
def test_what_is_no_message_counts_as_nothing(messages: Any):
    """A malformed request is refused elsewhere; here it must not raise."""
    assert estimate_request_tokens(messages, tools=[None, "x", {"function": None}, {}]) < 50


def test_an_estimated_usage_is_marked():
    """What was counted here is never called measured."""
    usage = estimate_usage([{"role": "user", "content": "Hello there"}], "General Kenobi!")
    assert usage.basis == "estimated"
    assert usage.input_tokens > 0 and usage.output_tokens > 0


def test_a_request_is_taken_apart_into_its_texts():
    """Each thing that is said, once, and the rest as a number: 3 a message, 1 a name, 3 before the answer."""
    said = taken_apart([{"role": "user", "name": "ada", "content": [{"type": "text", "text": "Hi"}]}, {"role": "x"}])
    assert sorted(said.texts) == ["Hi", "ada", "user", "x"]
    assert said.frame == 3 + 3 + 1 + 3
    assert said.tokenized and said.framed


def test_what_is_taken_apart_adds_up_to_the_estimate():
    """One reading of requests for both: the estimate is the frame and the texts."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "4 degrees"}]
    said = taken_apart(messages, [{"function": {"name": "weather"}}])
    assert estimate_request_tokens(messages, [{"function": {"name": "weather"}}]) == said.frame + sum(
        map(estimate_tokens, said.texts)
    )
    assert said.tokenized and not said.framed


def test_parts_of_a_text_are_not_rounded_up():
    """For adding up: a text's parts together are what the text is."""
    text = "The support desk answers within two days. " * 20
    assert sum(tokens_in(part) for part in text.split(" ")) == pytest.approx(tokens_in(text), rel=0.1)
