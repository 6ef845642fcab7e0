"""Success in a gateway that runs: feedback from the library, what judges cost, digests for retries, the metrics."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cascades import Models
from test_route import Embedder
from worlds import ONLY, World, chat, configured, decisions, settled, virtual, world

from negawatt.caller import Hints
from negawatt.errors import AuthenticationError, InvalidRequest, StoreError
from negawatt.gateway import Gateway
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.success.figures import Figures, figures_in
from negawatt.success.keeping import catch_up, in_memory
from negawatt.success.listing import tasks
from negawatt.success.rules import rules_of

NOW = 4e9


def figures_of(w: World) -> Figures:
    """Return the figures of what a memory ledger holds."""
    rules = rules_of(w.gateway.config)
    with closing(in_memory(w.ledger.outcomes, w.ledger.words, rules, now=NOW)) as connection:
        (found,) = figures_in(connection, 0.0, NOW, "all")
        return found


@virtual
async def test_the_library_tells_as_callers_do():
    """By task or call; the same twice is one; a wrong field is named; figures come from a memory ledger too."""
    async with world() as w:
        await w.ask(task="t")
        await w.ask(chat("other"))
        assert await w.gateway.feedback({"task_id": "t", "success": True}) == {
            "recorded": True, "repeated": False, "task_id": "t"}  # fmt: skip
        call = w.rows()[1].id
        assert (await w.gateway.feedback({"call_id": call, "success": False}))["call_id"] == call
        assert (await w.gateway.feedback({"call_id": call, "success": False}))["repeated"]
        with pytest.raises(InvalidRequest) as refused:
            await w.gateway.feedback({"task_id": "t", "success": "yes"})
        assert refused.value.param == "success"
        found = figures_of(w)
        assert (found.tasks, found.judged, found.successes) == (2, 2, 1)
        cost = sum(row.cost_pusd or 0 for row in w.rows()) / 1e12
        assert found.cost_per_success_usd.mean == pytest.approx(cost)


@virtual
async def test_only_callers_with_a_key_are_heard_where_there_are_keys():
    """And in the name of their own tenant and user."""
    keys = [{"id": "a", "key_env": "A", "tenant": "acme", "user": "ann"}]
    async with world(keys=keys, environ={"A": "secret"}) as w:
        with pytest.raises(AuthenticationError):
            await w.gateway.feedback({"task_id": "t", "success": True})
        await w.gateway.feedback({"task_id": "t", "success": True}, Hints(key="secret"))
        (word,) = w.ledger.words
        assert (word.tenant, word.user_id, word.key_id, word.permissions) == ("acme", "ann", "a", "")


@virtual
async def test_what_is_asked_beside_a_call_names_it_and_costs_its_task():
    """A cascade that explores asks the reference on a row of its own: of the call's task, and no answer of it."""
    cascade = {"verify": [{"kind": "regex", "pattern": "^yes"}], "explore": 0.99}
    candidates = [{"model": "gpt-4o-mini"}, {"model": "gpt-4o"}]
    policies = {"checked": {"how": "cascade", "candidates": candidates, "cascade": cascade}}
    async with world(
        Models({"gpt-4o-mini": "yes", "gpt-4o": "yes"}), policies=policies, levers=ONLY, embedder=Embedder()
    ) as w:
        await w.ask(chat(model="checked"), task="t")
        await w.ask(chat("alone", model="checked"))
        await w.gateway.background.drain()
        await settled()
        calls = [row for row in w.rows() if row.aside_for is None]
        beside = [row for row in w.rows() if row.aside_for is not None]
        assert len(calls) == 2 and beside
        for row in beside:
            (decision,) = [one for one in decisions(row, "route") if one["action"] == "explore"]
            assert row.aside_for == decision["detail"]["for"]
        found = figures_of(w)
        assert (found.tasks, found.calls, found.by_verifier) == (2, 2, 2)
        cost = sum(row.cost_pusd or 0 for row in w.rows()) / 1e12
        assert found.cost_per_success_usd.mean == pytest.approx(cost / 2)


@virtual
async def test_classes_in_which_asking_again_counts_have_the_digest_of_every_request():
    """Also where no lever needs it; in others no work is done for it."""
    classes = {"watched": {"success": {"answered": True, "no_retry_within_s": 60}}, "plain": {}}
    sampled = chat(temperature=1.0)
    off = {**ONLY, "coalesce": {"mode": "off"}}
    async with world(classes=classes, levers=off) as w:
        for name in ("watched", "watched", "plain"):
            await w.ask(sampled, request_class=name, user="ann")
            await asyncio.sleep(1.0)
        first, second, plain = w.rows()
        assert first.fingerprint is not None and first.fingerprint == second.fingerprint
        assert plain.fingerprint is None
        found = figures_of(w)
        assert (found.judged, found.successes, found.by_heuristic) == (2, 1, 2)


@virtual
async def test_the_gauge_is_the_cost_of_the_last_day_and_the_counter_what_changed(tmp_path: Path):
    """By class, absent without a success; on a ledger in a file, where a thread keeps the roll-up."""
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    classes = {"faq": {"success": {"answered": True}}, "mail": {}}
    async with world(kept=ledger, classes=classes) as w:
        for name in ("faq", "mail"):
            await w.ask(chat(name), request_class=name)
        ledger.flush()
        # By the gateway's rules: its own thread may not have said them yet.
        catch_up(path, rules_of(w.gateway.config), now=w.gateway.clock.time)
        metrics = (await w.gateway.metrics()).decode()
        (cost,) = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("negawatt_cost_per")]
        rows = list(ledger.rows())
        assert cost == pytest.approx(next(row.cost_pusd for row in rows if row.request_class == "faq") / 1e12)
        assert 'negawatt_cost_per_success_usd{request_class="faq"}' in metrics
        assert any(thread.name == "negawatt-tasks" for thread in threading.enumerate())
    assert not any(thread.name == "negawatt-tasks" for thread in threading.enumerate())
    ledger.close()
    assert {one.request_class: one.success for one in tasks(path)} == {"faq": True, "mail": None}


async def test_feedback_that_the_disk_does_not_take_may_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While another process holds the file: a 503 that says so; afterwards the same counts once."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    said = {"task_id": "t", "success": True}
    async with Gateway.open(configured(), ledger=ledger, environ={"OPENAI_API_KEY": "any"}) as gateway:
        with closing(sqlite3.connect(ledger.path, isolation_level=None, timeout=20.0)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr("negawatt.succeeding._DISK_S", 0.2)
            with pytest.raises(StoreError, match="send it again") as refused:
                await gateway.feedback(said)
            assert (refused.value.status, refused.value.code) == (503, "store_failed")
            other.execute("COMMIT")
        monkeypatch.setattr("negawatt.succeeding._DISK_S", 20.0)
        again = await gateway.feedback(said)
        assert again["recorded"] != again["repeated"]
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)
