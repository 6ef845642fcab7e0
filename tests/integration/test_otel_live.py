"""Traces and metrics of a real gateway, as a real collector gets them over OTLP, or does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import Caller, Gateway, Json, Upstream, chat, until

pytest.importorskip("opentelemetry.proto", reason="negawatt[otel] is not installed")

from collector import Collector, attributes

from negawatt.telemetry.traceparent import span_of, trace_of

MODEL = "gpt-4o-mini"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT.removesuffix("01") + "00"
CLIENT, INTERNAL, ERROR = 3, 1, 2
WITHIN_S = 20.0


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.stop()


@pytest.fixture
def traced(
    collector: Collector, start: Callable[..., Gateway], configured: Callable[..., Json]
) -> Callable[..., Gateway]:
    """Starts gateways that send to the collector: ``traced(share=0.5)``."""

    def begin(**otel: Any) -> Gateway:
        settings = {"endpoint": collector.endpoint, "interval_s": 0.2, "headers_env": {"x-team": "TEAM"}, **otel}
        config = configured(telemetry={"otel": settings}, levers={"retry": {"attempts": 2, "backoff_s": 0.01}})
        return start(config, TEAM="blue")

    return begin


def spans(collector: Collector, count: int) -> list[Any]:
    """Wait until *count* spans have come; return them, the oldest first."""
    until(lambda: len(collector.spans) >= count, WITHIN_S)
    assert len(collector.spans) == count, [span.name for span in collector.spans]
    return sorted(collector.spans, key=lambda span: (span.start_time_unix_nano, span.kind))


def test_a_call_is_a_span_and_so_is_each_attempt(traced: Callable[..., Gateway], collector: Collector, task: str):
    """One for the call, within its caller's trace; one for each time that the provider was asked, as its children."""
    gateway = traced()
    script = {"do": "status", "status": 500, "times": 1, "tag": task}
    request = chat(script, model=MODEL, temperature=0, max_tokens=50)
    answer = gateway.post(request, task, traceparent=PARENT)
    assert answer.status == 200
    call, first, second = spans(collector, 3)
    id_ = answer.headers["x-negawatt-call-id"]
    assert {span.trace_id.hex() for span in collector.spans} == {PARENT[3:35]}
    assert call.parent_span_id.hex() == PARENT[36:52]
    assert (call.kind, call.name, call.span_id) == (INTERNAL, f"chat {MODEL}", span_of(id_).to_bytes(8, "big"))
    assert first.parent_span_id == second.parent_span_id == call.span_id
    assert (first.kind, second.kind) == (CLIENT, CLIENT)
    assert (first.status.code, second.status.code, call.status.code) == (ERROR, 0, 0)
    assert attributes(first.attributes)["error.type"] == "UpstreamStatus"
    assert call.start_time_unix_nano <= first.start_time_unix_nano < second.start_time_unix_nano
    assert second.end_time_unix_nano <= call.end_time_unix_nano
    row = gateway.one_row(task)
    said = attributes(call.attributes)
    assert said["negawatt.call.id"] == row["id"] == id_
    assert said["gen_ai.usage.cost.amount"] == row["cost_pusd"] / 10**12
    assert (said["negawatt.task.id"], said["negawatt.outcome"], said["negawatt.attempts"]) == (task, "answered", 2)
    made = attributes(second.attributes)
    assert (made["gen_ai.provider.name"], made["gen_ai.request.model"]) == ("priced", MODEL)
    assert (made["gen_ai.request.max_tokens"], made["gen_ai.request.temperature"]) == (50, 0)
    assert made["gen_ai.usage.input_tokens"] == row["input_tokens"] == 10
    assert made["gen_ai.response.finish_reasons"] == ["stop"]
    assert (made["server.address"], made["http.response.status_code"]) == ("127.0.0.1", 200)
    assert collector.resource["service.name"] == "negawatt" and collector.headers["x-team"] == "blue"


def test_decisions_are_events_and_content_stays_here(traced: Callable[..., Gateway], collector: Collector, task: str):
    """A call from the cache has no child; its span says what each lever did; nothing that was asked or said leaves."""
    gateway = traced()
    secret = "the launch is on Tuesday"
    for _ in range(2):
        assert gateway.post(chat({"say": secret, "tag": task}, model=MODEL, temperature=0), task).status == 200
    _, _, cached = spans(collector, 3)
    events = [attributes(event.attributes) for event in cached.events]
    [hit] = [one for one in events if one["negawatt.lever"] == "exact_cache"]
    assert (hit["negawatt.action"], hit["negawatt.saved.basis"]) == ("hit", "measured")
    assert hit["negawatt.saved.cost_usd"] > 0
    assert attributes(cached.attributes)["negawatt.cache"] == "exact"
    first = gateway.settled_rows(task, 2)[0]
    assert collector.spans[0].trace_id == trace_of(first["id"]).to_bytes(16, "big"), "it follows from the call's id"
    assert b"launch" not in b"".join(span.SerializeToString() for span in collector.spans)


def test_content_is_sent_where_it_is_asked_for(traced: Callable[..., Gateway], collector: Collector):
    """In the convention's form: messages with their parts."""
    gateway = traced(capture_content=True)
    gateway.post(chat("where is my lamp", model=MODEL))
    said = attributes(spans(collector, 2)[0].attributes)
    asked = [{"role": "user", "parts": [{"type": "text", "content": "where is my lamp"}]}]
    assert json.loads(said["gen_ai.input.messages"]) == asked
    [answer] = json.loads(said["gen_ai.output.messages"])
    assert answer["role"] == "assistant" and "where is my lamp" in answer["parts"][0]["content"]


def test_providers_get_the_ids_and_nothing_else(traced: Callable[..., Gateway], upstream: Upstream, task: str):
    """traceparent names our span as the parent; tracestate and baggage, which may hold anything, end here."""
    gateway = traced()
    beside = {"tracestate": "vendor=secret", "baggage": "user=ann"}
    answer = gateway.post(chat({"tag": task}), traceparent=PARENT, **beside)
    told = upstream.last(task)["headers"]
    span = span_of(answer.headers["x-negawatt-call-id"], 0)
    assert told["traceparent"] == f"00-{PARENT[3:35]}-{span:016x}-01"
    assert not {"tracestate", "baggage"} & set(told)
    gateway.post(chat({"tag": task, "say": 2}), traceparent=UNSAMPLED)
    assert upstream.last(task)["headers"]["traceparent"] == UNSAMPLED, "no span of ours stands between"
    gateway.post(chat({"tag": task, "say": 3}), traceparent="00-nonsense; drop table-01")
    own = upstream.last(task)["headers"]["traceparent"]
    assert own.endswith("-01") and "nonsense" not in own


def test_what_providers_are_told_can_be_withheld(
    gateway: Gateway, start: Callable[..., Gateway], configured: Callable[..., Json], upstream: Upstream, task: str
):
    """Without traces the caller's own header goes on as it came, or nothing does."""
    gateway.post(chat({"tag": task}), traceparent=PARENT)
    assert upstream.last(task)["headers"]["traceparent"] == PARENT
    silent = start(configured(telemetry={"otel": {"propagate": False}}))
    silent.post(chat({"tag": task, "say": 2}), traceparent=PARENT)
    assert "traceparent" not in upstream.last(task)["headers"]


def test_the_caller_decides_what_is_traced_and_else_the_share(traced: Callable[..., Gateway], collector: Collector):
    """With a share of none, only what callers trace is traced; with a share of all, not what they do not."""
    none = traced(share=0.0)
    none.post(chat("one"))
    none.post(chat("two"), traceparent=PARENT)
    assert {span.trace_id.hex() for span in spans(collector, 2)} == {PARENT[3:35]}
    all_ = traced(share=1.0)
    all_.post(chat("three"), traceparent=UNSAMPLED)
    all_.post(chat("four"))
    assert len({span.trace_id for span in spans(collector, 4)}) == 2


def test_a_stream_that_its_caller_left_is_a_span_too(traced: Callable[..., Gateway], collector: Collector, task: str):
    """Hanging up is no error of the call; its attempt says that it was cancelled."""
    gateway = traced()
    script = {"tag": task, "text": "a b c d e f g h", "gap_s": 0.5}
    caller = Caller(gateway, chat(script, model=MODEL, stream=True), task)
    caller.read_until(b"data: ")
    caller.hang_up()
    call, attempt = spans(collector, 2)
    assert attributes(call.attributes)["negawatt.outcome"] == "cancelled"
    assert (call.status.code, attributes(attempt.attributes)["error.type"]) == (0, "cancelled")
    assert attributes(call.attributes)["gen_ai.request.stream"] is True


def test_metrics_are_sent_as_well(traced: Callable[..., Gateway], collector: Collector):
    """Under the names of the convention, with its attributes, units and buckets."""
    gateway = traced()
    for number in range(3):
        gateway.post(chat(f"question {number}", model=MODEL))
    counted = until(lambda: collector.metrics.get("negawatt.requests"), WITHIN_S)
    until(lambda: sum(p.as_int for p in collector.metrics["negawatt.requests"].sum.data_points) == 3, WITHIN_S)
    assert counted.sum.is_monotonic
    duration = collector.metrics["gen_ai.client.inference.duration"]
    [point] = duration.histogram.data_points
    assert attributes(point.attributes) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "priced", "gen_ai.request.model": MODEL
    }  # fmt: skip
    assert (duration.unit, point.count, sum(point.bucket_counts)) == ("s", 3, 3)
    assert (len(point.bucket_counts), point.explicit_bounds[0]) == (15, 0.01)
    assert not point.HasField("min")
    assert collector.metrics["negawatt.inflight_requests"].WhichOneof("data") == "gauge"
    cost = sum(p.as_double for p in collector.metrics["negawatt.cost"].sum.data_points)
    assert cost == pytest.approx(sum(row["cost_pusd"] for row in gateway.rows()) / 10**12)


def test_a_collector_that_fails_touches_no_call(traced: Callable[..., Gateway], collector: Collector):
    """It refuses, then it is gone: calls are answered all the same, what was dropped is counted, and the end comes."""
    collector.status = 500
    gateway = traced(timeout_s=0.5)
    assert gateway.post(chat("hello")).status == 200
    until(lambda: collector.asked, WITHIN_S)
    collector.stop()
    for number in range(20):
        assert gateway.post(chat(f"hello {number}")).status == 200

    def dropped() -> bool:
        text = gateway.get("/metrics").body.decode()
        return any(
            line.startswith('negawatt_telemetry_dropped_total{what="spans"}') and not line.endswith(" 0")
            for line in text.splitlines()
        )

    until(dropped, WITHIN_S, 0.1)
    gateway.stop()
    assert "Traceback" not in gateway.output


def test_a_header_whose_variable_is_missing_is_named(start: Callable[..., Gateway], configured: Callable[..., Json]):
    """Before anything is served."""
    otel = {"endpoint": "http://127.0.0.1:1", "headers_env": {"x": "NO_SUCH_VARIABLE"}}
    with pytest.raises(
        AssertionError, match=r"telemetry\.otel\.headers_env\.x: the variable NO_SUCH_VARIABLE is not set"
    ):
        start(configured(telemetry={"otel": otel}))
