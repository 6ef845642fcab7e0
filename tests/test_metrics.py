"""The metrics: sums that agree with the ledger, labels that stay few, text that can be read."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from typing import Any

import orjson
import pytest
from worlds import MODEL, ManualClock, World, answer, chat, settled, virtual, world

from negawatt.config import parse_config
from negawatt.errors import ConfigError, UpstreamStatus, UpstreamTimeout
from negawatt.ledger.outcome import Outcome
from negawatt.telemetry import Sample, Telemetry, exposition
from negawatt.telemetry.bounds import Models
from negawatt.telemetry.exposition import wants_openmetrics, written
from negawatt.telemetry.instruments import FOLDED, INSTRUMENTS, REQUESTS
from negawatt.telemetry.names import OWN_SECONDS, SECONDS, TOKENS
from negawatt.telemetry.observed import Observed
from negawatt.telemetry.series import OTHER, Metric

LINE = re.compile(r"([a-z_:][a-z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\.)*)"')
PROMETHEUS_ASKS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: bytes) -> Series:
    """Return each series of *text* once, with its value. Fails where a line is none, or a series is there twice."""
    found: Series = {}
    for line in text.decode().splitlines():
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        labels = tuple(sorted(LABEL.findall(match[2] or "")))
        assert (match[1], labels) not in found, line
        found[match[1], labels] = float(match[3])
    return found


def total(found: Series, name: str, **labels: str) -> float:
    """Return the sum over the series of *name* that have these *labels*."""
    wanted = set(labels.items())
    return sum(value for (one, has), value in found.items() if one == name and wanted <= set(has))


async def scraped(w: World) -> Series:
    return read(await w.gateway.metrics())


async def busy(w: World) -> None:
    """Ask all kinds of things: whole, streamed, again, in vain, with a retry."""
    for n in range(4):
        await w.ask(chat(f"question {n}"))
        await w.ask(chat(f"question {n}"))
    await w.ask(chat("streamed", stream=True))
    await w.ask(chat("streamed", stream=True))
    w.provider.script = [UpstreamStatus(500, b"{}", {}), answer("at last")]
    await w.ask(chat("tried twice"))
    w.provider.script = [UpstreamTimeout("too late"), UpstreamTimeout("too late")]
    await w.failing(chat("in vain"))
    await w.failing(chat("no such class"), request_class="made-up")
    await settled()


RETRY: dict[str, Any] = {"levers": {"retry": {"attempts": 2}}}


@virtual
async def test_sums_agree_with_the_ledger():
    """Calls, attempts, tokens, money, energy, savings: what the counters say is what the rows add up to."""
    async with world(**RETRY) as w:
        await busy(w)
        found, rows = await scraped(w), w.rows()
        assert total(found, "negawatt_requests_total") == len(rows) == 13
        assert total(found, "negawatt_requests_total", outcome="cached") == sum(row.ending == "cached" for row in rows)
        assert total(found, "negawatt_request_duration_seconds_count") == len(rows)
        assert total(found, "gen_ai_client_inference_duration_seconds_count") == sum(row.attempts for row in rows) == 9
        for name, column in (("input", "input_tokens"), ("output", "output_tokens")):
            spent = sum(getattr(row, column) or 0 for row in rows)
            assert total(found, f"gen_ai_client_inference_usage_{name}_tokens_total") == spent > 0
        cost = sum(row.cost_pusd or 0 for row in rows)
        assert total(found, "negawatt_cost_usd_total", model=MODEL, source="local") == cost / 10**12 > 0
        for bound, column in (("low", "energy_low_j"), ("central", "energy_j"), ("high", "energy_high_j")):
            joules = sum(getattr(row, column) or 0.0 for row in rows)
            assert total(found, "negawatt_energy_joules_total", bound=bound) == pytest.approx(joules)
        assert total(found, "negawatt_co2e_grams_total") == pytest.approx(sum(row.co2e_g or 0.0 for row in rows))
        known = [row for row in rows if row.cost_pusd is not None and row.baseline_cost_pusd is not None]
        saved = sum((row.baseline_cost_pusd or 0) - (row.cost_pusd or 0) for row in known) / 10**12
        net = total(found, "negawatt_saved_cost_usd_total") - total(found, "negawatt_lost_cost_usd_total")
        assert net == pytest.approx(saved) and saved > 0


@virtual
async def test_streams_have_a_first_chunk_and_a_pace():
    """Only streams do, and only those that a provider answered have the provider's."""
    async with world(**RETRY) as w:
        await busy(w)
        found = await scraped(w)
        assert total(found, "gen_ai_client_inference_time_to_first_chunk_seconds_count") == 1
        assert total(found, "gen_ai_client_inference_time_to_first_chunk_seconds_sum") == pytest.approx(1.1)
        assert total(found, "negawatt_request_time_to_first_chunk_seconds_count", cache="exact") == 1
        assert total(found, "negawatt_time_per_output_token_seconds_count") == 1


@virtual
async def test_errors_are_named_from_our_own_tree():
    """Attempts that failed have the type of the error; nothing that a provider wrote becomes a label."""
    async with world(**RETRY) as w:
        await busy(w)
        w.provider.script = [ValueError("text of a stranger's making")]
        with pytest.raises(ValueError):
            await w.ask(chat("a bug"))
        text = await w.gateway.metrics()
        assert b"stranger" not in text
        kinds = {
            dict(labels)["error_type"]
            for (name, labels) in read(text)
            if name.endswith("inference_duration_seconds_sum")
        }
        assert kinds == {"", "UpstreamStatus", "UpstreamTimeout", "_OTHER"}


@virtual
async def test_choices_of_models_are_counted():
    """From what was asked for, to what was chosen, and why."""
    policy = {"how": "fixed", "model": MODEL, "candidates": [{"model": MODEL}, {"model": "gpt-4o"}]}
    async with world(policies={"thrifty": policy}) as w:
        await w.ask(chat(model="thrifty"))
        found = await scraped(w)
        assert (
            total(found, "negawatt_routing_decisions_total", **{"from": "thrifty", "to": MODEL, "reason": "fixed"}) == 1
        )


@virtual
async def test_every_metric_is_described_with_its_labels():
    """Each series that comes out has a type, a meaning and the labels of the table; every name has its HELP once."""
    async with world(**RETRY) as w:
        await busy(w)
        text = await w.gateway.metrics()
        helps = re.findall(rb"^# HELP (\S+)", text, re.M)
        assert len(helps) == len(set(helps))
        for name, labels in read(text):
            instrument = INSTRUMENTS.get(name) or INSTRUMENTS[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert {label for label, _ in labels} - {"le"} == set(instrument.labels), name


@virtual
async def test_a_gateway_can_do_without():
    """With metrics off no row is looked at; what is counted elsewhere is still there."""
    async with world(telemetry={"metrics": False}) as w:
        await w.ask()
        found = await scraped(w)
        assert w.gateway.meter.observers == []
        assert total(found, "negawatt_requests_total") == 0
        assert total(found, "negawatt_cache_decisions_total") == 1


@virtual
async def test_old_names_are_there_for_those_who_ask():
    """The same numbers under the names before the last change, and not the new ones beside them unless asked."""
    new, old = "gen_ai_client_inference_duration_seconds_count", "gen_ai_client_operation_duration_seconds_count"
    seen = {}
    for naming in ("new", "old", "both"):
        async with world(telemetry={"names": naming}, **RETRY) as w:
            await busy(w)
            seen[naming] = await scraped(w)
    assert (total(seen["new"], new), total(seen["new"], old)) == (9, 0)
    assert (total(seen["old"], new), total(seen["old"], old, gen_ai_system="openai")) == (0, 9)
    assert total(seen["both"], new) == total(seen["both"], old) == 9
    spent = total(seen["new"], "gen_ai_client_inference_usage_input_tokens_total")
    for naming in ("old", "both"):
        assert total(seen[naming], "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == spent
    assert not any(name.startswith("gen_ai_client_inference") for name, _ in seen["old"])


def outcome(**fields: Any) -> Outcome:
    """Return a row of a call that a provider answered."""
    plain: dict[str, Any] = dict.fromkeys(Outcome.__struct_fields__)
    plain |= {
        "id": "nw-1", "received_at": 0.0, "request_class": "default", "operation": "chat", "protocol": "chat",
        "request_model": MODEL, "ending": "answered", "cache": "miss", "holdout": False, "attempts": 0,
        "duration_s": 1.0, "queue_s": 0.0, "upstream_s": 0.9, "overhead_s": 0.0001, "decisions": "[]",
        "attempt_log": "[]", "versions": "{}",
    }  # fmt: skip
    return Outcome(**{**plain, **fields})


def attempt(model: str = MODEL, **fields: Any) -> str:
    one = {"provider": "openai", "model": model, "started_s": 0.0, "duration_s": 0.9, "billed": True, "error": None}
    return orjson.dumps([{**one, **fields}]).decode()


def observed(clock: Any = None, **fields: Any) -> Observed:
    return Observed(clock or ManualClock(), **{"configured": [MODEL], "zone": "WORLD", **fields})


def sums(found: Observed) -> Series:
    return read(written(metric.family() for metric in found.metrics()))


def told(found: Observed, *rows: Outcome) -> Series:
    """Return what *found* says of *rows*; fewer than are folded on their own."""
    for row in rows:
        found.observe(row)
    return sums(found)


def test_made_up_names_fill_nothing():
    """Ten thousand names of models that nobody serves are one label; those that are served, two hundred."""
    metrics = observed(most_models=200)
    names = [f"model-{n}" for n in range(10_000)]
    for name in names:
        metrics._waiting.append(
            outcome(request_model=name, ending="upstream_error", attempt_log=attempt(name, error="UpstreamStatus"))
        )
    found = sums(metrics)
    assert total(found, "negawatt_requests_total", model=OTHER) == 10_000
    assert len({labels for name, labels in found if name == "negawatt_requests_total"}) == 1
    for name in names:
        metrics._waiting.append(outcome(request_model=name, attempt_log=attempt(name)))
    found = sums(metrics)
    assert total(found, "negawatt_requests_total") == 20_000, "none is lost"
    assert len({dict(labels).get("model") for name, labels in found if name == "negawatt_requests_total"}) == 201


def test_the_configured_names_have_their_place_first():
    """A name that the configuration knows is a label before anybody has answered."""
    models = Models([MODEL], 200)
    assert models.label(MODEL, answered=False) == MODEL
    assert models.label("made up", answered=False) == OTHER
    assert models.label("made up", answered=True) == models.label("made up", answered=False) == "made up"
    assert models.label("long " * 50, answered=True) == OTHER
    assert models.label(None, answered=False) == "none"


def test_series_that_are_idle_are_dropped():
    """After the idle time a series is gone, its name gives its place up, and what was used meanwhile stays."""
    clock = ManualClock()
    metrics = observed(clock, idle_s=100.0, most_models=1, configured=[])
    first = told(metrics, outcome(request_model="old", attempt_log=attempt("old"), energy_j=1.0))
    assert total(first, "negawatt_requests_total", model="old") == 1
    clock.now += 60
    assert total(told(metrics, outcome(request_model="new")), "negawatt_requests_total", model=OTHER) == 1
    clock.now += 60
    assert total(told(metrics), "negawatt_requests_total", model="old") == 0
    found = told(metrics, outcome(request_model="new"))
    assert total(found, "negawatt_requests_total", model="new") == 1
    assert total(found, "negawatt_requests_total", model=OTHER) == 1
    assert total(found, "gen_ai_client_inference_duration_seconds_count") == 0
    assert total(found, "negawatt_energy_joules_total") == 0


def test_a_metric_has_only_so_many_series():
    """Beyond that all labels are other, and the sum stays right."""
    metric = Metric(REQUESTS)
    for n in range(6_000):
        metric.number(f"class-{n}", "m", "answered", "miss").value += 1
    assert len(metric) == 5_001
    assert sum(value for _, value in metric.family().points if isinstance(value, int)) == 6_000


def test_what_a_lever_costs_is_lost_and_not_a_negative_saving():
    """Counters only grow: a dearer choice adds to lost, in each bound of the energy by its own sign."""
    saved = {
        "input_tokens": -7,
        "output_tokens": 5,
        "cost_pusd": -3_000_000,
        "energy_j": [-2.0, 1.0, 4.0],
        "basis": "estimated",
    }
    decisions = [
        {"lever": "route", "action": "instead", "saved": saved},
        {"lever": "cap", "action": "shortened", "mode": "shadow", "saved": saved},
    ]
    found = told(observed(), outcome(decisions=orjson.dumps(decisions).decode()))
    assert total(found, "negawatt_lost_tokens_total", lever="route", direction="input") == 7
    assert total(found, "negawatt_saved_tokens_total", lever="route", direction="output") == 5
    assert total(found, "negawatt_lost_cost_usd_total", lever="route", basis="estimated") == 3e-06
    assert total(found, "negawatt_saved_cost_usd_total") == 0
    assert total(found, "negawatt_lost_energy_joules_total", bound="low") == 2.0
    assert total(found, "negawatt_saved_energy_joules_total", bound="high") == 4.0
    assert total(found, "negawatt_saved_tokens_total", lever="cap") == 0, "shadow is part of no sum"


def test_calls_without_a_price_are_counted_and_cost_nothing():
    """Unknown is not zero: it has a counter of its own; what the provider says it cost is marked as its word."""
    usage = {"input_tokens": 10, "output_tokens": 2}
    rows = [
        outcome(attempt_log=attempt(usage=usage, cost_pusd=None)),
        outcome(attempt_log=attempt(usage={**usage, "cost_usd": "0.5"}, cost_pusd=500_000_000_000)),
        outcome(attempt_log=attempt(billed=False, cost_pusd=0, error="UpstreamStatus")),
    ]
    found = told(observed(), *rows)
    assert total(found, "negawatt_unpriced_requests_total", model=MODEL) == 1
    assert total(found, "negawatt_cost_usd_total", source="provider") == 0.5
    assert total(found, "negawatt_cost_usd_total", source="local") == 0


def test_embeddings_and_others_have_their_own_durations():
    """As the convention has it: inference, embeddings, and the rest."""
    rows = [outcome(operation=one, attempt_log=attempt()) for one in ("chat", "embeddings", "rerank")]
    found = told(observed(), *rows)
    for name in ("inference", "embeddings", "operation"):
        assert total(found, f"gen_ai_client_{name}_duration_seconds_count") == 1


def test_a_row_that_cannot_be_read_stops_no_other(caplog: pytest.LogCaptureFixture):
    """It is in the log by its id, and the next one is counted."""
    found = told(observed(), outcome(id="nw-bad", attempt_log="{"), outcome())
    assert total(found, "negawatt_requests_total") == 2
    assert "nw-bad" in caplog.text


def test_rows_of_several_kinds_add_to_their_own_series():
    """Mixed within a slice and beyond it: what nobody has served, what failed, and who answered after a failure."""
    usage = {"input_tokens": 3, "output_tokens": 2}
    second = orjson.dumps([
        {"provider": "a", "model": "m", "started_s": 0.0, "error": "Strange", "billed": False, "cost_pusd": 0},
        {"provider": "b", "model": "n", "started_s": 0.1, "usage": usage, "cost_pusd": 10**12, "duration_s": 0.5},
    ]).decode()  # fmt: skip
    kinds = [
        {"request_model": "made up", "ending": "failed", "attempt_log": "[]"},
        {"request_model": None, "ending": "refused", "attempt_log": "[]"},
        {"request_model": "m", "ending": "answered", "attempt_log": second, "energy_j": 2.0},
    ]
    metrics = observed(configured=["m"])
    metrics._waiting += [outcome(**kinds[n % 3]) for n in range(300)]
    found = sums(metrics)
    for model, ending in ((OTHER, "failed"), ("none", "refused"), ("m", "answered")):
        assert total(found, "negawatt_requests_total", model=model, outcome=ending) == 100
    assert total(found, "negawatt_request_duration_seconds_count") == 300
    assert total(found, "negawatt_cost_usd_total", model="n") == 100
    assert total(found, "gen_ai_client_inference_duration_seconds_count", gen_ai_provider_name="b") == 100
    assert total(found, "negawatt_energy_joules_total", bound="central") == 200


@virtual
async def test_rows_are_folded_though_nobody_asks():
    """What waits is bounded: after every sixty-four rows the event loop folds them."""
    metrics = observed()
    for _ in range(10):
        for _ in range(64):
            metrics.observe(outcome())
        await settled()
        assert len(metrics._waiting) < 64
    assert total(sums(metrics), "negawatt_requests_total") == 640


def test_buckets_are_those_of_the_convention():
    """One list for each unit; a value on a bound belongs to it, and buckets add up."""
    assert (SECONDS[0], SECONDS[-1], len(SECONDS)) == (0.01, 81.92, 14)
    assert (TOKENS[0], TOKENS[-1], len(TOKENS)) == (1.0, 67_108_864.0, 14)
    assert tuple(sorted(set(OWN_SECONDS))) == OWN_SECONDS
    rows = [outcome(duration_s=seconds) for seconds in (0.001, 0.01, 0.02, 5.0, 1000.0)]
    found = told(observed(), *rows)
    counted = [
        total(found, "negawatt_request_duration_seconds_bucket", le=le)
        for le in ("0.01", "0.02", "5.12", "81.92", "+Inf")
    ]
    assert counted == [2, 3, 4, 4, 5]
    assert total(found, "negawatt_request_duration_seconds_sum") == pytest.approx(1005.031)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        (PROMETHEUS_ASKS, True),
        ("text/plain;version=0.0.4, application/openmetrics-text; q=0.1", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)  # fmt: skip
def test_openmetrics_is_for_those_who_ask(accept: str, openmetrics: bool):
    """By the header Accept, with its weights; whoever says nothing gets plain text."""
    assert wants_openmetrics(accept) is openmetrics


def test_openmetrics_names_counters_without_total_and_ends():
    """TYPE and HELP name the metric, samples have the suffix, nothing follows # EOF."""
    found = [Sample("negawatt_alerts_total", (("alert", "x"), ("about", 'a "b"\n\\')), 2), Sample("own", (), 1)]
    text = exposition(found, openmetrics=True).decode()
    assert "# TYPE negawatt_alerts counter\n" in text
    assert 'negawatt_alerts_total{alert="x",about="a \\"b\\"\\n\\\\"} 2\n' in text
    assert text.endswith("# EOF\n") and "# TYPE own unknown\n" in text
    assert "# TYPE own gauge\n" in exposition(found, {"own": ("gauge", "What others describe.")}).decode()
    assert "# TYPE negawatt_alerts_total counter\n" in exposition(found).decode()


def test_samples_of_others_come_beside_what_is_counted():
    """A source is asked when somebody reads, and its samples are described like all others."""
    telemetry = Telemetry()
    telemetry.count("negawatt_alerts_total", alert="x", about="y")
    telemetry.sources.append(lambda: [Sample("negawatt_budget_remaining_ratio", (("budget", "team"),), 0.25)])
    text = exposition(telemetry.sampled()).decode()
    assert "# TYPE negawatt_budget_remaining_ratio gauge" in text
    assert 'negawatt_budget_remaining_ratio{budget="team"} 0.25' in text


def test_no_two_metrics_have_one_name():
    """Neither in Prometheus nor in OpenTelemetry; every counter ends in _total, every histogram has buckets."""
    by_name = defaultdict(list)
    for name, one in INSTRUMENTS.items():
        by_name[one.name].append(name)
        assert name.endswith("_total") == (one.kind == "counter")
        assert bool(one.buckets) == (one.kind == "histogram")
    assert [names for names in by_name.values() if len(names) > 1] == []
    assert len({one.prometheus for one in FOLDED}) == len(FOLDED)


def test_random_rows_add_up():
    """Whatever the labels, every row is in exactly one series of the calls."""
    rng = random.Random(7)
    rows = [
        outcome(
            request_model=rng.choice([MODEL, "other-model", None, f"m{rng.randrange(500)}"]),
            ending=rng.choice(["answered", "refused", "deadline"]), cache=rng.choice(["miss", "bypass"]),
            stream=rng.choice([None, True, False]), time_to_first_chunk_s=rng.choice([None, 0.1]),
        )
        for _ in range(3_000)
    ]  # fmt: skip
    metrics = observed(most_models=20)
    metrics._waiting += rows
    found = sums(metrics)
    assert total(found, "negawatt_requests_total") == total(found, "negawatt_overhead_seconds_count") == 3_000


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"otel": {"endpoint": "collector:4318"}}, "telemetry.otel.endpoint"),
        ({"otel": {"headers_env": {"a b": "TEAM"}}}, "telemetry.otel.headers_env.a b"),
        ({"otel": {"share": 2.0}}, "telemetry.otel.share"),
        ({"names": "newest"}, "telemetry.names"),
        ({"metrics_port": 70_000}, "telemetry.metrics_port"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], named: str):
    """Before anything is opened."""
    with pytest.raises(ConfigError) as refused:
        parse_config({"telemetry": settings})
    assert refused.value.param == named
