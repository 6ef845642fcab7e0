"""Traces: what is taken from a caller's header, what goes on, and what a span says of a row."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_metrics import attempt, outcome
from worlds import MODEL, bare_call, chat

from negawatt.call import Trail
from negawatt.caller import Hints
from negawatt.config_telemetry import Otel
from negawatt.http_head import Head
from negawatt.ledger.outcome import ENDINGS, Outcome
from negawatt.telemetry.names import ATTRIBUTES, OLD_ATTRIBUTES, attributes_of, renamed
from negawatt.telemetry.spans import Spans
from negawatt.telemetry.traceparent import header_of, parent_of, span_of, trace_of
from negawatt.telemetry.tracing import Seen, Tracer, withheld

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_header_is_read_as_the_standard_has_it():
    """Ids in hexadecimal, neither of them nothing; later versions may have more to say."""
    found = parent_of(PARENT)
    assert found is not None and (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.sampled) == (
        TRACE,
        SPAN,
        True,
    )
    assert parent_of(f"00-{TRACE}-{SPAN}-00") == found._replace(sampled=False)
    assert parent_of(f"cc-{TRACE}-{SPAN}-01-more") == found


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_is_no_such_header_is_none(header: str | None):
    """The call then has a trace of its own."""
    assert parent_of(header) is None


@given(st.text(max_size=80))
def test_no_text_is_too_odd(text: str):
    """Whatever a header says, it is read or it is not."""
    found = parent_of(text)
    assert found is None or parent_of(header_of(found.trace_id, found.span_id)) is not None


def test_ids_follow_from_the_call():
    """The same call has the same ids, every call and every attempt others."""
    ids = {span_of("nw-1"), span_of("nw-1", 0), span_of("nw-1", 1), span_of("nw-2"), trace_of("nw-1"), trace_of("nw-2")}
    assert len(ids) == 6 and trace_of("nw-1") == trace_of("nw-1")
    assert parent_of(header_of(trace_of("nw-1"), span_of("nw-1", 0))) is not None


def test_only_ids_are_taken_from_the_headers():
    """A valid traceparent is noted and passed on; a bad one is neither; tracestate and baggage go nowhere."""
    head = Head.of(
        [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=b"), (b"baggage", b"user=ann"), (b"x-own", b"1")]
    )
    assert head.hints.traceparent == PARENT
    assert head.passed == (("traceparent", PARENT), ("x-own", "1"))
    assert Head.of([(b"traceparent", b"00-anything you like-01")]).passed == ()


def told(settings: Otel, header: str | None, attempt: int = 0) -> str | None:
    """Return what a provider is told by a tracer with *settings* of a call whose caller said *header*."""
    headers = (("traceparent", "as the caller said it"), ("x-own", "1"))
    call = bare_call(hints=Hints(traceparent=header), headers=headers)
    found = dict(Tracer(settings).onward(call, attempt).headers)
    assert found.pop("x-own") == "1"
    return found.get("traceparent")


def test_a_provider_is_told_of_the_attempt():
    """In the caller's trace, with the span of the attempt; a trace that nobody samples goes on as it came."""
    one, two = told(Otel(), PARENT, 0), told(Otel(), PARENT, 1)
    assert one is not None and two is not None and one != two
    assert one.startswith(f"00-{TRACE}-") and two.startswith(f"00-{TRACE}-") and SPAN not in one + two
    unsampled = f"00-{TRACE}-{SPAN}-00"
    assert told(Otel(), unsampled) == unsampled
    assert told(Otel(share=0.0), None) is None
    assert told(Otel(propagate=False), PARENT) is None
    assert withheld(bare_call(headers=(("traceparent", PARENT), ("x-own", "1"))), 0).headers == (("x-own", "1"),)


def test_the_share_is_kept():
    """Of calls without a trace, as many as the share says, and the same ones whoever decides."""
    calls = [bare_call() for _ in range(2_000)]
    one, other = Tracer(Otel(share=0.25)), Tracer(Otel(share=0.25))
    sampled = [one._context(call)[2] for call in calls]
    assert 400 < sum(sampled) < 600
    assert [other._context(call)[2] for call in calls] == sampled


def test_more_calls_than_can_be_sent_are_left_out_and_counted():
    """A collector that does not keep up costs memory for so many calls, and no more."""
    tracer = Tracer(Otel())
    call = bare_call(chat())
    for _ in range(8_200):
        tracer.observe(call, call.trail, outcome())
    assert (len(tracer.waiting), tracer.dropped) == (8_192, 8)
    assert tracer.waiting[0].said is None, "content is kept only where it is asked for"


def seen(row: Outcome, **fields: Any) -> Seen:
    plain: dict[str, Any] = {"trace_id": 7, "parent": None, "parameters": {}, "finish_reasons": (), "said": None}
    return Seen(**{"outcome": row, **plain, **fields})


def spans(row: Outcome, **fields: Any) -> list[Any]:
    return Spans(naming="new", addresses={"openai": ("api.example", 443)}).of(seen(row, **fields))


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_a_span(ending: str):
    """Failures, ours and the provider's, are errors; answers are not, nor is a caller who leaves."""
    [span] = spans(outcome(ending=ending))
    failed = span.failed is not None
    assert failed == (ending not in ("answered", "cached", "coalesced", "cancelled", "abandoned"))
    assert span.attributes["negawatt.outcome"] == ending
    assert span.ended_ns - span.began_ns == 1_000_000_000


def test_spans_say_nothing_in_anybody_elses_words():
    """Neither messages of errors nor users are in a span; types of errors are ours."""
    row = outcome(
        ending="failed", error_type="SomebodysError", error_message="the secret text", user_id="ann@example.org",
        attempt_log=attempt(error="AnotherError"),
    )  # fmt: skip
    call, asked = spans(row)
    assert (call.failed, asked.failed) == ("_OTHER", "_OTHER")
    assert "secret" not in repr((call, asked)) and "ann" not in repr((call, asked))


def test_the_attributes_are_those_of_the_row():
    """Each attribute is a column; what is not known is left out; the address is the provider's."""
    fields = set(Outcome.__struct_fields__)
    assert set(ATTRIBUTES) <= fields and not {"user_id", "error_message", "fingerprint"} & set(ATTRIBUTES)
    found = attributes_of(outcome(input_tokens=3, cost_pusd=5 * 10**11, price_source="provider"))
    assert found["gen_ai.usage.input_tokens"] == 3 and "gen_ai.usage.output_tokens" not in found
    assert (found["gen_ai.usage.cost.amount"], found["gen_ai.usage.cost.source"]) == (0.5, "provider")
    _, asked = spans(outcome(attempt_log=attempt(usage={"input_tokens": 3, "output_tokens": 0})))
    assert (asked.attributes["server.address"], asked.attributes["server.port"]) == ("api.example", 443)
    assert asked.parent == span_of("nw-1") and asked.span_id == span_of("nw-1", 0)


def test_old_attributes_are_there_for_those_who_ask():
    """Renamed, or both; each once."""
    found = {"gen_ai.provider.name": "openai", "negawatt.cache": "miss"}
    assert renamed(found, "old") == {"gen_ai.system": "openai", "negawatt.cache": "miss"}
    assert renamed(found, "both") == {**found, "gen_ai.system": "openai"}
    assert len(set(OLD_ATTRIBUTES.values())) == len(OLD_ATTRIBUTES)


def test_decisions_are_events_with_what_they_saved():
    """Shadow ones say that they are."""
    saved = {"input_tokens": 5, "cost_pusd": 10**6, "energy_j": [1.0, 2.0, 3.0], "basis": "measured"}
    decisions = [
        {"lever": "cap", "action": "x", "mode": "shadow", "reason": "r" * 500},
        {"lever": "route", "action": "y", "saved": saved},
    ]
    [span] = spans(outcome(decisions=orjson.dumps(decisions).decode()))
    (_, first), (_, second) = span.events
    assert first["negawatt.mode"] == "shadow" and len(first["negawatt.reason"]) == 200
    assert second["negawatt.saved.input_tokens"] == 5 and second["negawatt.saved.energy.high_joules"] == 3.0


def test_parameters_are_numbers_and_short_words():
    """Of a request only what the convention names; words in place of a number are left out."""
    tracer = Tracer(Otel())
    call = bare_call(chat(temperature=0.5, max_tokens=9, seed=True, reasoning_effort="low", top_p="words", user="ann"))
    trail: Trail = call.trail
    tracer.observe(call, trail, outcome())
    assert tracer.waiting[0].parameters == {
        "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 9, "gen_ai.request.reasoning.level": "low"
    }  # fmt: skip
    assert call.request.model == MODEL
