"""What telling monitors costs: microseconds for each call, and a scrape with all labels in use.

    python benchmarks/metrics.py [--rounds N] [--json]

Rows are those of real calls through a gateway in this process, whose provider is modelled. `observe`: on the path, the
metrics take note of a row. `fold`: beside the path, they add it up. `trace` and `onward`: on the path, where traces are
on, a call is taken note of, and a provider is told of its trace. `call`: CPU of this process for a whole call through
the server's application, without sockets, metrics on and off in turns. `scrape`: 200 models, 5 classes and 4 endings,
as text; `longest_pause_ms` is how long the event loop was kept from anything else. `add` and `histogram`: one addition
to a counter and to a histogram; where prometheus_client is installed, the same with its, whose series are held
likewise, and `peer_text_ms`, its text of 5,000 series. `spans`: making and encoding the spans of one call, in the
thread that sends them, where `negawatt[otel]` is installed. Each figure is the median of the rounds, with the
least and the most. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from _machine import machine

from negawatt.clock import SystemClock
from negawatt.config import Config, parse_config
from negawatt.config_telemetry import Otel
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.server import Server
from negawatt.telemetry.names import SECONDS
from negawatt.telemetry.observed import Observed
from negawatt.telemetry.series import Histogram, Number
from negawatt.telemetry.spans import Spans
from negawatt.telemetry.tracing import Seen, Tracer

Json = dict[str, Any]
MODEL = "gpt-4o-mini"
CALLS, ROWS = 64 * 64, 20_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def configured() -> Config:
    return parse_config({
        "holdout": {"share": 0.0}, "ledger": {"url": "memory:"},
        "classes": {f"class-{n}": {} for n in range(5)},
        "providers": [{"name": "openai", "url": "modelled:?a=0.0&b=0.0"}],
    })  # fmt: skip


def body(text: str, **fields: Any) -> bytes:
    request = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
    return json.dumps(request).encode()


class Caller:
    """Calls a server's application as uvicorn would, without sockets."""

    def __init__(self, gateway: Gateway) -> None:
        self._server = Server(gateway)

    async def __call__(self, asked: bytes, *headers: tuple[bytes, bytes]) -> None:
        sent = False

        async def receive() -> Json:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()
            sent = True
            return {"type": "http.request", "body": asked}

        async def send(message: Json) -> None:
            if message["type"] == "http.response.start" and message["status"] != 200:
                raise SystemExit(f"a call was answered with {message['status']}")

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": list(headers)}
        await self._server(scope, receive, send)


async def rows_of(gateway: Gateway, ledger: MemoryLedger) -> dict[str, Outcome]:
    """Return the row of a miss, a hit and a stream."""
    call = Caller(gateway)
    for asked in (body("one"), body("one"), body("two", stream=True)):
        await call(asked)
    return dict(zip(("miss", "hit", "stream"), ledger.outcomes, strict=True))


def timed(work: Callable[[], None], count: int) -> float:
    """Return the microseconds that each of *count* takes, in CPU of this process."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / count * 1e6


def folding(row: Outcome) -> tuple[float, float]:
    """Return the microseconds to take note of *row*, and to add it up."""
    observed = Observed(SystemClock(), configured=[MODEL], zone="WORLD")
    observe = timed(lambda: [observed.observe(row) for _ in range(ROWS)] and None, ROWS)
    return observe, timed(lambda: observed.metrics() and None, ROWS)


async def tracing(gateway: Gateway, row: Outcome) -> tuple[float, float]:
    """Return the microseconds to take note of a traced call, and to tell a provider of it."""
    tracer = Tracer(Otel(endpoint="http://127.0.0.1:1"))
    call = gateway.new_call(body("one"))
    call.trail.hold()

    def observe() -> None:
        for n in range(ROWS):
            tracer.observe(call, call.trail, row)
            if n % 1_000 == 0:
                tracer.waiting.clear()

    return timed(observe, ROWS), timed(lambda: [tracer.onward(call, 0) for _ in range(ROWS)] and None, ROWS)


async def calls(gateway: Gateway, round_: int) -> tuple[float, float]:
    """Return the microseconds of CPU for each call that goes to the provider, with metrics and without.

    Of the same gateway, in turns of 64 calls, so that whatever else the machine does falls on both alike; the garbage
    collector, whose turns are longer than these, waits.
    """
    gc.collect()
    gc.disable()
    observers = list(gateway.meter.observers)
    spent = [0.0, 0.0]
    call = Caller(gateway)
    for turn in range(0, CALLS, 64):
        for which in (0, 1) if turn % 128 else (1, 0):
            gateway.meter.observers[:] = observers if which == 0 else ()
            asked = [body(f"question {round_} {turn} {which} {n}") for n in range(64)]
            began = time.process_time()
            await asyncio.gather(*(call(one) for one in asked))
            await asyncio.sleep(0)  # what was gathered is folded
            spent[which] += time.process_time() - began
    gateway.meter.observers[:] = observers
    gc.enable()
    return spent[0] / CALLS * 1e6, spent[1] / CALLS * 1e6


async def scraping(row: Outcome) -> Json:
    """Return what a scrape takes with all labels in use."""
    ledger = MemoryLedger()
    async with Gateway.open(configured(), ledger=ledger, environ={}) as gateway:
        observed = gateway.monitor.observed
        assert observed is not None
        for model in range(200):
            log = row.attempt_log.replace(MODEL, f"model-{model}")
            for class_ in range(5):
                for ending in ("answered", "upstream_error", "deadline", "failed"):
                    observed._waiting.append(msgspec.structs.replace(
                        row, request_model=f"model-{model}", attempt_log=log, request_class=f"class-{class_}",
                        ending=ending,
                    ))  # fmt: skip
        await gateway.metrics()
        gc.collect()
        gc.freeze()
        found: Json = {}
        for openmetrics in (False, True):
            pauses = Pauses()
            watching = asyncio.ensure_future(pauses.watch())
            await asyncio.sleep(0)
            began = time.perf_counter()
            text = await gateway.metrics(openmetrics=openmetrics)
            taken_s = time.perf_counter() - began
            watching.cancel()
            name = "openmetrics" if openmetrics else "prometheus"
            found[name] = {"ms": taken_s * 1e3, "longest_pause_ms": pauses.longest_s * 1e3, "bytes": len(text),
                           "lines": text.count(b"\n")}  # fmt: skip
        return found


class Pauses:
    """Sees how long the event loop is kept busy by one piece of work."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.perf_counter() - before)


def additions() -> Json:
    """Return the microseconds that one addition takes: ours, and prometheus_client's where it is installed."""
    number, histogram = Number(), Histogram(SECONDS)

    def add() -> None:
        for _ in range(ROWS):
            number.value += 1

    found: Json = {
        "add_us": timed(add, ROWS),
        "histogram_us": timed(lambda: [histogram.add(1.0) for _ in range(ROWS)] and None, ROWS),
    }
    try:
        import prometheus_client as peer
    except ImportError:
        return found
    registry = peer.CollectorRegistry()
    counter = peer.Counter("c", "c", ["model", "kind"], registry=registry)
    histograms = peer.Histogram("h", "h", ["model", "kind"], buckets=SECONDS, registry=registry)
    one, other = counter.labels("m", "k"), histograms.labels("m", "k")
    found["peer_add_us"] = timed(lambda: [one.inc() for _ in range(ROWS)] and None, ROWS)
    found["peer_histogram_us"] = timed(lambda: [other.observe(1.0) for _ in range(ROWS)] and None, ROWS)
    for model in range(200):
        for kind in range(20):
            counter.labels(str(model), str(kind)).inc()
        for kind in range(5):
            histograms.labels(str(model), str(kind)).observe(1.0)
    began = time.perf_counter()
    lines = peer.generate_latest(registry).count(b"\n")
    return {**found, "peer_text_ms": (time.perf_counter() - began) * 1e3, "peer_text_lines": lines}


def spans_of(row: Outcome) -> Json:
    """Return the microseconds to make and encode the spans of one call; nothing where OpenTelemetry is missing."""
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource

        from negawatt.telemetry.otel import Maker
    except ImportError:
        return {}
    spans, maker = Spans(naming="new", addresses={"openai": ("api.example", 443)}), Maker(Resource.create({}))
    seen = Seen(row, 7, None, {"gen_ai.request.temperature": 0}, ("stop",), None)

    def send() -> None:
        for _ in range(10):
            made = [span for _ in range(100) for span in spans.of(seen)]
            encode_spans(maker.readable(made)).SerializeToString()

    return {"spans_us": timed(send, 1_000)}


def spread(values: list[float]) -> Json:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3),
            "n": len(values)}  # fmt: skip


async def measured(rounds: int) -> Json:
    found: dict[str, list[float]] = {}
    scrapes: dict[str, dict[str, list[float]]] = {}
    ledger = MemoryLedger()
    async with Gateway.open(configured(), ledger=ledger, environ={}) as gateway:
        rows = await rows_of(gateway, ledger)
        for round_ in range(rounds):
            with_, without = await calls(gateway, round_)
            for name, value in (("on", with_), ("off", without), ("added", with_ - without)):
                found.setdefault(f"call_{name}_us", []).append(value)
            for kind, row in rows.items():
                observe, fold = folding(row)
                found.setdefault("observe_us", []).append(observe)
                found.setdefault(f"fold_{kind}_us", []).append(fold)
            for name, value in {**additions(), **spans_of(rows["miss"])}.items():
                found.setdefault(name, []).append(value)
            trace, onward = await tracing(gateway, rows["miss"])
            found.setdefault("trace_us", []).append(trace)
            found.setdefault("onward_us", []).append(onward)
            for name, figures in (await scraping(rows["stream"])).items():
                for figure, value in figures.items():
                    scrapes.setdefault(name, {}).setdefault(figure, []).append(value)
    return {
        **{name: spread(values) for name, values in found.items()},
        "scrape": {name: {k: spread(v) for k, v in figures.items()} for name, figures in scrapes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    chosen = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as `negawatt serve` does
    report = asyncio.run(measured(chosen.rounds))
    if not chosen.json:
        for name, value in report.items():
            if name != "scrape":
                print(
                    f"{name:20} {value['median']:10.2f}  ({value['min']:.2f} to {value['max']:.2f}, n = {value['n']})"
                )
        for name, figures in report["scrape"].items():
            print(f"scrape, {name}: " + ", ".join(f"{key} {value['median']:.0f}" for key, value in figures.items()))
    print(json.dumps({"date": datetime.now(UTC).date().isoformat(), **report, "machine": machine()}))


if __name__ == "__main__":
    main()
