"""The pages behind the first screen: classes, prompts, caches, routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from negawatt.ledger.rollup_reader import Snapshot
from negawatt.ledger.rollup_tables import ACTIONS, BLOCKS, CALLS, LEVERS, TEMPLATES, TENANTS
from negawatt.web.intervals import UNKNOWN, rate
from negawatt.web.overview import head
from negawatt.web.period import Period
from negawatt.web.savings import Grouped, Levers
from negawatt.web.sums import PUSD, Sums, calls_by, dollars, latency, nothing

CACHES = ("exact_cache", "item_cache", "coalesce", "semantic_cache")  # in pipeline order
_UNCOUNTED = frozenset({"coalesce"})  # it says nothing of a call that it forwards
_MOST_DECISIONS = 200
_CLASS_FACTS = ("owner", "quality_target", "risk", "latency_class", "policy")


class About(NamedTuple):
    """What else is known of classes. *configured*: by the configuration; *order*: of the levers."""

    configured: Mapping[str, Mapping[str, Any]]
    order: Sequence[str]
    slos: Mapping[str, Sequence[Any]]
    success: Mapping[str, Any]


def classes(snapshot: Snapshot, period: Period, about: About) -> dict[str, Any]:
    """Return a row for each class, of those of the configuration that had no call too, and one for each tenant."""
    whole = period.whole
    sums = {key[1]: found for key, found in calls_by(snapshot, whole, "classes", ("request_class",)).items()}
    ways: dict[str, dict[str, dict[str, int]]] = {}
    for (_, name, cache, ending), found in calls_by(
        snapshot, whole, "endings", ("request_class", "cache", "ending"), ("calls",)
    ).items():
        for kind, value in (("cache", cache), ("ending", ending)):
            tally = ways.setdefault(name, {"cache": {}, "ending": {}})[kind]
            tally[value] = tally.get(value, 0) + found["calls"]
    times = {what: snapshot.times(what, whole, classes=True) for what in ("duration", "ttft")}
    configured, levers = about.configured, _by_class(snapshot, period, about.order)
    names = sorted(sums.keys() | configured.keys(), key=lambda name: (-sums.get(name, {"calls": 0})["calls"], name))
    rows = []
    for name in names:
        told, facts = sums.get(name, nothing(CALLS.sums)), configured.get(name, {})
        way = ways.get(name, {"cache": {}, "ending": {}})
        looked = told["calls"] - way["cache"].get("bypass", 0)
        rows.append({
            "name": name, "configured": name in configured, **{fact: facts.get(fact) for fact in _CLASS_FACTS},
            "slos": about.slos.get(name, ()), **_money(told),
            "errors": told["at_fault"], "error_rate": rate([told["at_fault"]], [told["calls"]]),
            "endings": way["ending"], "hits": told["hits"], "hit_rate": told["hits"] / looked if looked else None,
            "latency": latency(times["duration"].get((0, name))), "ttft": latency(times["ttft"].get((0, name))),
            "success": about.success.get(name), "levers": levers.get(name, []),
        })  # fmt: skip
    return {**head("negawatt.classes/1", snapshot, period), "classes": rows, "tenants": _tenants(snapshot, period)}


def _money(sums: Sums) -> dict[str, Any]:
    cost, baseline = sums.usd(), sums.usd("baseline_cost_pusd")
    saved = None if cost is None or baseline is None else baseline - cost
    return {
        "calls": sums["calls"], "cost_usd": cost, "baseline_usd": baseline, "saved_usd": saved,
        "saved_pct": None if saved is None or not baseline else 100 * saved / baseline, "unpriced": sums["unpriced"],
        "input_tokens": sums.known("input_tokens"), "output_tokens": sums.known("output_tokens"),
        "energy_wh": sums.energy(),
    }  # fmt: skip


def _by_class(snapshot: Snapshot, period: Period, order: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what each lever saved in each class, in pipeline order."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = ("hits", "cost_pusd", "unpriced")
    places = {lever: place for place, lever in enumerate(order)}
    told = snapshot.sums(LEVERS, names, period.whole, by=("request_class", "lever", "shadow"))
    ordered = sorted(told.items(), key=lambda row: places.get(row[0][2], 99))
    for (_, name, lever, shadow), (hits, cost, unpriced) in ordered:
        if hits and not shadow:
            usd = None if unpriced == hits else dollars(cost)
            found.setdefault(name, []).append({"lever": lever, "hits": hits, "cost_usd": usd})
    return found


def _tenants(snapshot: Snapshot, period: Period) -> list[dict[str, Any]]:
    rows = []
    for (_, name), values in snapshot.sums(TENANTS, TENANTS.sums, period.whole, by=("tenant",)).items():
        sums = Sums(zip(TENANTS.sums, values, strict=True))
        cost, baseline = sums.usd(), sums.usd("baseline_cost_pusd")
        saved = None if cost is None or baseline is None else baseline - cost
        rows.append({"name": name, "calls": sums["calls"], "cost_usd": cost, "baseline_usd": baseline,
                     "saved_usd": saved, "unpriced": sums["unpriced"]})  # fmt: skip
    return sorted(rows, key=lambda row: (-(row["cost_usd"] or 0.0), row["name"]))


def prompts(snapshot: Snapshot, period: Period) -> dict[str, Any]:
    """Return, of each template, its versions in the order in which they were first seen, with their blocks."""
    keys = ("template", "template_version")
    seen = snapshot.seen(TEMPLATES, keys, period.whole[0])
    blocks: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    for (_, name, version, block), (calls, tokens) in snapshot.sums(
        BLOCKS, ("calls", "tokens"), period.whole, by=(*keys, "block")
    ).items():
        blocks.setdefault((name, version), []).append((block, calls, tokens))
    found: dict[str, list[dict[str, Any]]] = {}
    rows = snapshot.sums(TEMPLATES, TEMPLATES.sums, period.whole, by=keys)
    for (_, name, version), values in sorted(rows.items(), key=lambda row: (seen[row[0][1:]], row[0][1:])):
        sums = Sums(zip(TEMPLATES.sums, values, strict=True))
        first, last = seen[name, version]
        counted = max((calls for _, calls, _ in blocks.get((name, version), ())), default=0)
        tokens = sum(tokens for _, _, tokens in blocks.get((name, version), ()))
        each, versions = tokens / counted if counted else None, found.setdefault(name, [])
        before = versions[-1]["tokens_per_call"] if versions else None
        given, read = sums.known("input_tokens"), sums.known("cache_read_tokens")
        versions.append({
            "version": version or None, "first_s": first, "last_s": last, "calls": sums["calls"],
            "cost_usd": sums.usd(), "input_tokens": given, "tokens_per_call": each,
            "growth_pct": None if not before or each is None else 100 * (each - before) / before,
            "counted": counted, "unpriced": sums["unpriced"], "cache_read_share": read / given if given else None,
            "blocks": _blocks(blocks.get((name, version), []), tokens),
        })  # fmt: skip
    templates = [{"name": name, "versions": versions} for name, versions in sorted(found.items())]
    return {**head("negawatt.prompts/1", snapshot, period), "templates": templates}


def _blocks(blocks: list[tuple[str, int, int]], total: int) -> list[dict[str, Any]]:
    """Return the blocks of one version, the largest first."""
    rows = [
        {"name": name, "tokens_per_call": tokens / calls, "calls": calls, "share": tokens / total if total else None}
        for name, calls, tokens in blocks if calls
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row["calls"] * row["tokens_per_call"], row["name"]))


def caches(snapshot: Snapshot, period: Period, *, modes: Mapping[str, str]) -> dict[str, Any]:
    """Return a row for each cache, and what providers' own caches did. *modes*: of each cache, as far as known."""
    levers = Levers(snapshot, period.whole, Grouped(snapshot, period.whole))
    actions: dict[str, dict[str, int]] = {}
    for (_, lever, mode, action), (count,) in snapshot.sums(
        ACTIONS, ("decisions",), period.whole, by=("lever", "mode", "action")
    ).items():
        if mode != "shadow":
            actions.setdefault(lever, {})[action] = actions.get(lever, {}).get(action, 0) + count
    by_class: dict[str, list[dict[str, Any]]] = {}
    for name, rows in _by_class(snapshot, period, CACHES).items():
        for row in rows:
            by_class.setdefault(row["lever"], []).append(
                {"name": name, "hits": row["hits"], "cost_usd": row["cost_usd"]}
            )
    made = []
    for cache in CACHES:
        step, counted = levers.step(cache), cache not in _UNCOUNTED
        made.append({
            "name": cache, "mode": modes.get(cache), "calls": levers.count(cache, "looked") if counted else None,
            "hits": step["hits"], "hit_rate": levers.hit_rate(cache) if counted else UNKNOWN,
            "stale": levers.count(cache, "stale"), "cost_usd": step["cost_usd"],
            **{name: step[name] for name in ("input_tokens", "output_tokens", "energy_wh", "unpriced_hits")},
            "actions": dict(sorted(actions.get(cache, {}).items(), key=lambda pair: -pair[1])),
            "classes": sorted(by_class.get(cache, []), key=lambda row: -row["hits"]),
        })  # fmt: skip
    totals = calls_by(snapshot, period.whole, "total").get((0,), nothing(CALLS.sums))
    given, read = totals.known("input_tokens"), totals.known("cache_read_tokens")
    prefix = {
        "input_tokens": given, "cache_read_tokens": read, "read_share": read / given if given else None,
        "cache_write_tokens": totals.known("cache_write_tokens"),
    }  # fmt: skip
    return {**head("negawatt.caches/1", snapshot, period), "caches": made, "provider_prefix": prefix}


def routing(snapshot: Snapshot, period: Period, *, policies: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return who was asked for and who answered, what decided, and what a call to each model comes to.

    *policies*: None: not known.
    """
    keys = ("request_class", "asked", "model", "provider")
    models = [
        {
            "class": key[1],
            "asked": key[2] or None,
            "answered": key[3] or None,
            "provider": key[4] or None,
            **_money(sums),
        }
        for key, sums in calls_by(snapshot, period.whole, "models", keys).items()
    ]
    decisions = [
        {"class": key[1], "lever": key[2], "mode": key[3], "action": key[4], "calls": count}
        for key, (count,) in snapshot.sums(ACTIONS, ("decisions",), period.whole, by=ACTIONS.keys).items()
    ]
    answered = calls_by(snapshot, period.whole, "answerers", ("model",), ("calls", "cost_pusd", "unpriced"))
    total = sum(sums["calls"] for sums in answered.values())
    curve = []
    for (_, name), sums in answered.items():
        priced = sums["calls"] - sums["unpriced"]
        each = sums["cost_pusd"] / priced if priced else None
        curve.append({"model": name or None, "calls": sums["calls"], "share": sums["calls"] / total,
                      "cost_per_call_usd": None if each is None else each / PUSD, "p50_ms": None})  # fmt: skip
    return {
        **head("negawatt.routing/1", snapshot, period),
        "models": sorted(models, key=lambda row: (-row["calls"], str(row["asked"]), str(row["answered"]))),
        "decisions": sorted(decisions, key=lambda row: (-row["calls"], row["lever"], row["action"]))[:_MOST_DECISIONS],
        "policies": None if policies is None else list(policies),
        "curve": sorted(curve, key=lambda row: (row["cost_per_call_usd"] is None, row["cost_per_call_usd"] or 0.0)),
    }
