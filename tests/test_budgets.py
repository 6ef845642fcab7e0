"""Budgets: reserved before each attempt and settled after it, on every way to a provider."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from worlds import (
    EPOCH,
    Chunks,
    Fake,
    World,
    answer,
    chat,
    chunks_of,
    ended,
    levers,
    settled,
    start,
    status,
    virtual,
    world,
)

from negawatt.budgets import Lines, Reservation
from negawatt.budgets.rules import Rules
from negawatt.budgets.sqlite import SqliteBooks
from negawatt.budgets.states import BudgetState
from negawatt.cli import cli
from negawatt.clock import SystemClock
from negawatt.config import parse_config
from negawatt.errors import BudgetExceeded, ConfigError, UpstreamBroken

LIMITED: dict[str, Any] = {"max_tokens": 100}
# Of `worlds.answer`: what it says it used, and what that costs (gpt-4o-mini).
TOKENS, PUSD = 120, 27_000_000


def budget(name: str = "all", **fields: Any) -> dict[str, Any]:
    limit = {} if {"tokens", "usd", "joules"} & set(fields) else {"tokens": 1_000}
    return {"name": name, "per": "day", **limit, **fields}


async def state(w: World, name: str = "all") -> BudgetState:
    (found,) = [one for one in await w.gateway.purse.states() if one.budget == name]
    return found


async def refused(w: World, request: dict[str, Any] | None = None, **hints: str) -> BudgetExceeded:
    error = await w.failing(request or chat("again", **LIMITED), **hints)
    assert isinstance(error, BudgetExceeded), error
    return error


# -- reserved, then settled ------------------------------------------------------------------------------------


@virtual
async def test_a_call_reserves_before_it_is_made_and_settles_after():
    """While the provider is at work its most is reserved; then what it used is spent, and nothing is reserved."""
    async with world(budgets=[budget()]) as w:
        call = start(w, chat(**LIMITED))
        await settled()
        before = await state(w)
        assert before.spent == 0 and 100 < before.reserved <= 100 + 2 * len(str(chat(**LIMITED)))
        await ended(call)
        after = await state(w)
        assert (after.spent, after.reserved) == (TOKENS, 0)


@virtual
async def test_money_is_counted_to_the_pico_dollar_that_the_ledger_has():
    """A budget in dollars has spent exactly what the rows say."""
    async with world(budgets=[budget(usd=1)]) as w:
        for i in range(3):
            await w.ask(chat(str(i), **LIMITED))
        spent = (await state(w)).spent
        assert spent * 10**12 == sum(row.cost_pusd for row in w.rows()) == 3 * PUSD


@virtual
async def test_energy_is_counted_by_the_central_figure():
    """A budget in joules has spent what the rows say, to the millijoule."""
    async with world(budgets=[budget(joules=1e6)]) as w:
        await w.ask(chat(**LIMITED))
        assert float((await state(w)).spent) == pytest.approx(w.rows()[0].energy_j, abs=0.001)


@virtual
async def test_a_call_beyond_the_limit_is_refused_by_name():
    """The error names the budget and when it begins anew; nobody was asked; the row says refused."""
    async with world(budgets=[budget(tokens=300)]) as w:
        await w.ask(chat("one", max_tokens=50))
        error = await refused(w, chat("two", max_tokens=180))
        assert (error.status, error.code, error.budget) == (429, "budget_exceeded", "all")
        assert error.resets_at > EPOCH and error.resets_at % 86_400 == 0
        assert error.retry_after_s == pytest.approx(error.resets_at - EPOCH, abs=10)
        assert w.calls == 1 and w.rows()[-1].ending == "refused"


@virtual
async def test_a_budget_that_has_refused_a_call_and_is_nearly_spent_says_so_until_it_begins_anew():
    """Not for one call that is too long for what is left of a budget that still has much."""
    async with world(budgets=[budget(tokens=1_300)]) as w:
        for number in range(5):
            await w.ask(chat(str(number), max_tokens=50))
        await refused(w, chat("too long", max_tokens=1_200))
        assert not (await state(w)).refuses
        for number in range(5):
            await w.ask(chat(f"more {number}", max_tokens=20))
        await refused(w)
        assert (await state(w)).refuses and (await state(w)).spent == 10 * TOKENS
        await asyncio.sleep(86_400)
        assert not (await state(w)).refuses


@virtual
async def test_what_a_cache_answers_is_never_refused():
    """A used-up budget still gives what was answered before: it costs nothing."""
    async with world(budgets=[budget(tokens=400)]) as w:
        await w.ask(chat("known", max_tokens=50))
        await w.ask(chat("other", max_tokens=50))
        await refused(w, chat("new", max_tokens=300))
        assert (await w.ask(chat("known", max_tokens=50))).by == "exact_cache"


@virtual
async def test_a_thousand_at_once_stay_within_the_limit():
    """Of a thousand calls at once so many go as fit by what is reserved; no more than the limit is spent."""
    async with world(budgets=[budget(tokens=20_000)], levers=levers()) as w:
        found = await ended(*(start(w, chat(str(i), max_tokens=20)) for i in range(1000)))
        gone = sum(not isinstance(one, BaseException) for one in found)
        assert 0 < gone == w.calls < 1000
        assert all(isinstance(one, BudgetExceeded) for one in found if isinstance(one, BaseException))
        assert (await state(w)).spent == gone * TOKENS <= 20_000


@virtual
async def test_a_call_that_may_cost_more_than_all_of_it_says_so():
    """Where no period could ever hold it, waiting is not what helps."""
    async with world(budgets=[budget(tokens=300)]) as w:
        assert "alone may cost more than all of it" in (await refused(w, chat(max_tokens=1000))).message


# -- however an attempt ends -----------------------------------------------------------------------------------


@virtual
async def test_a_stream_settles_when_it_has_been_read():
    """What its last chunk says it used is spent."""
    async with world(budgets=[budget()]) as w:
        await w.ask(chat(stream=True, **LIMITED))
        after = await state(w)
        assert (after.spent, after.reserved) == (TOKENS, 0)


@virtual
async def test_a_stream_that_is_left_counts_what_had_come():
    """Who hangs up in the middle has spent the prompt and what was said until then."""
    async with world(Fake("a long answer " * 20), budgets=[budget()], levers=levers()) as w:
        call = start(w, chat(stream=True, **LIMITED))
        await asyncio.sleep(1.45)
        call.cancel()
        await ended(call)
        after = await state(w)
        assert after.reserved == 0 and 0 < after.spent == w.rows()[0].input_tokens + w.rows()[0].output_tokens
        assert w.rows()[0].output_tokens > 0


@virtual
async def test_a_call_that_is_left_before_its_answer_counts_as_reserved():
    """Nobody knows what the provider had computed, so all that was reserved is spent, and said to be assumed."""
    async with world(budgets=[budget()], levers=levers()) as w:
        call = start(w, chat(**LIMITED))
        await settled()
        reserved = (await state(w)).reserved
        call.cancel()
        await ended(call)
        after = await state(w)
        assert (after.spent, after.reserved, after.assumed) == (reserved, 0, 1)


@virtual
async def test_what_providers_do_not_charge_is_given_back():
    """An error status costs nothing, and leaves nothing on the books."""
    async with world(budgets=[budget(each="user")], levers=levers(attempts=1)) as w:
        w.provider.script = [status(500)]
        await w.failing(chat(**LIMITED), user="ann")
        assert await w.gateway.purse.states() == []


@virtual
async def test_an_answer_that_breaks_off_is_paid_for():
    """A stream that dies has cost what had come of it."""
    async with world(budgets=[budget()], levers=levers()) as w:
        w.provider.script = [Chunks(chunks_of(answer("half of it"))[:3], then=UpstreamBroken("gone"))]
        await w.failing(chat(stream=True, **LIMITED))
        after = await state(w)
        assert after.reserved == 0 and after.spent > 0


@virtual
async def test_each_attempt_is_reserved_by_itself():
    """A retry reserves anew: two attempts, of which one was charged."""
    async with world(budgets=[budget()], levers=levers(attempts=2)) as w:
        w.provider.script = [status(500), answer()]
        await w.ask(chat(**LIMITED))
        assert w.calls == 2 and (await state(w)).spent == TOKENS


@virtual
async def test_counting_tokens_costs_nothing():
    """A protocol that nobody charges for needs no budget."""
    from negawatt.wire.count_tokens import COUNT_TOKENS

    async with world(budgets=[budget(tokens=1)]) as w:
        reply = await w.gateway.handle(w.call({"model": "m", "messages": [{"role": "user", "content": "x"}]},
                                              wire=COUNT_TOKENS))  # fmt: skip
        assert reply.data["input_tokens"] > 0
        await reply.close()


# -- who pays --------------------------------------------------------------------------------------------------


@virtual
async def test_every_user_has_a_ceiling_of_their_own():
    """One user's spending takes nothing from another's; those who say no name are one user."""
    async with world(budgets=[budget("each", tokens=300, each="user")], levers=levers()) as w:
        for user in ("ann", "bob", None):
            await w.ask(chat(str(user), max_tokens=50), user=user)
            await refused(w, chat(max_tokens=180), user=user)
        found = {one.whose["user"]: one.spent for one in await w.gateway.purse.states()}
        assert found == {"ann": TOKENS, "bob": TOKENS, None: TOKENS}


@virtual
async def test_of_many_users_those_with_the_least_left_can_be_asked_for():
    """And with them every budget that is for all."""
    budgets = [budget("all", tokens=3000), budget("each", tokens=1000, each="user")]
    async with world(budgets=budgets, levers=levers()) as w:
        for user, times in (("ann", 1), ("bob", 3), ("cid", 2)):
            for number in range(times):
                await w.ask(chat(f"{user} {number}", max_tokens=50), user=user)
        found = await w.gateway.purse.states(most=2)
        assert [(one.budget, one.whose and one.whose["user"]) for one in found] == [
            ("all", None), ("each", "bob"), ("each", "cid")]  # fmt: skip


@virtual
async def test_users_of_two_tenants_may_have_the_same_name():
    """A user is a tenant's own: what Ann of one tenant spends is not Ann's of the other."""
    keys = [{"id": name, "key_env": name, "tenant": name} for name in ("acme", "globex")]
    environ = {"acme": "one", "globex": "two"}
    async with world(budgets=[budget("each", tokens=300, each="user")], keys=keys, environ=environ) as w:
        for key in ("one", "two"):
            await w.ask(chat(max_tokens=50), user="ann", key=key)
        assert sorted(one.whose["tenant"] for one in await w.gateway.purse.states()) == ["acme", "globex"]


@virtual
async def test_a_budget_pays_for_what_it_is_of():
    """Calls that it does not describe neither spend of it nor are refused by it."""
    budgets = [budget("support", tokens=300, of={"class": "support*"}), budget("big", of={"model": ["gpt-4o", "o*"]})]
    async with world(budgets=budgets, classes={"support": {}, "other": {}}, levers=levers()) as w:
        await w.ask(chat("one", max_tokens=50), request_class="support")
        await refused(w, chat("two", max_tokens=180), request_class="support")
        await w.ask(chat("two", max_tokens=180), request_class="other")
        await w.ask(chat("three", model="gpt-4o", max_tokens=50))
        assert ((await state(w, "support")).spent, (await state(w, "big")).spent) == (TOKENS, TOKENS)


@virtual
async def test_a_key_may_name_budgets_that_pay_for_it():
    """A budget that is only assigned pays for the keys that name it, and for no others."""
    keys = [
        {"id": "intern", "key_env": "INTERN", "budgets": ["small"]}, {"id": "staff", "key_env": "STAFF"},
    ]  # fmt: skip
    budgets = [budget("small", tokens=300, assigned=True, each="key")]
    async with world(budgets=budgets, keys=keys, environ={"INTERN": "i", "STAFF": "s"}, levers=levers()) as w:
        await w.ask(chat(max_tokens=50), key="i")
        await refused(w, chat(max_tokens=180), key="i")
        await w.ask(chat(max_tokens=180), key="s")
        assert [one.whose for one in await w.gateway.purse.states()] == [{"key": "intern"}]


@virtual
async def test_all_budgets_of_a_call_must_have_enough():
    """Where one of two is used up nothing is reserved of the other."""
    async with world(budgets=[budget("wide"), budget("narrow", tokens=300)], levers=levers()) as w:
        await w.ask(chat("one", max_tokens=50))
        assert (await refused(w, chat("two", max_tokens=180))).budget == "narrow"
        assert ((await state(w, "wide")).spent, (await state(w, "wide")).reserved) == (TOKENS, 0)


@virtual
async def test_a_period_that_ends_begins_anew():
    """After midnight of the budget's own zone there is all of it again."""
    async with world(budgets=[budget(tokens=300)], levers=levers()) as w:
        await w.ask(chat("one", max_tokens=50))
        error = await refused(w, chat("two", max_tokens=180))
        await asyncio.sleep(error.resets_at - w.gateway.clock.time() + 1)
        await w.ask(chat("two", max_tokens=180))
        assert (await state(w)).spent == TOKENS


# -- what nobody knows -----------------------------------------------------------------------------------------


@virtual
async def test_a_model_without_a_price_is_refused_by_a_budget_in_money():
    """Unknown is not nothing: what has no price cannot be kept within a limit; the error says what to do."""
    async with world(budgets=[budget(usd=1)]) as w:
        error = await refused(w, chat(model="nobody-knows-this"))
        assert "economics.prices" in error.message and w.calls == 0


@virtual
async def test_a_model_without_a_price_may_pass_and_is_counted():
    """Where it was so configured, the attempt is counted as unknown, and nothing as spent."""
    async with world(budgets=[budget(usd=1, unknown="pass")]) as w:
        await w.ask(chat(model="nobody-knows-this"))
        after = await state(w)
        assert (after.spent, after.reserved, after.unknown) == (0, 0, 1)


# -- estimates -------------------------------------------------------------------------------------------------


@virtual
async def test_what_a_kind_of_call_uses_is_learned():
    """At first an unlimited answer reserves what is configured; then twice the most that its kind has used."""
    async with world(budgets=[budget(tokens=100_000)], levers=levers(), budgeting={"output_tokens": 5_000}) as w:
        call = start(w, chat("first"))
        await settled()
        assert (await state(w)).reserved > 5_000
        await ended(call)
        for i in range(20):
            await w.ask(chat(str(i)))
        spent = (await state(w)).spent
        call = start(w, chat("later"))
        await settled()
        assert TOKENS <= (await state(w)).reserved <= 100 * 1.25 * 1.2 + 2 * 20
        await ended(call)
        assert (await state(w)).spent == spent + TOKENS


@virtual
async def test_an_attempt_that_costs_more_than_was_foreseen_is_counted_in_full():
    """The limit is then exceeded by what was not foreseen of it, and the next call is refused."""
    async with world(budgets=[budget(tokens=100)], levers=levers(), budgeting={"output_tokens": 1}) as w:
        await w.ask({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]})
        assert (await state(w)).spent == TOKENS and (await state(w)).left == -20
        await refused(w, chat("x", max_tokens=1))


# -- at the limit ----------------------------------------------------------------------------------------------


@virtual
async def test_a_call_that_queues_goes_when_something_comes_back():
    """Three calls of which one fits at a time: they go one after the other, in the order in which they came."""
    async with world(budgets=[budget(tokens=600, at_limit="queue")], levers=levers()) as w:
        calls = [start(w, chat(f"call {i}", max_tokens=250)) for i in range(3)]
        await settled()
        assert w.calls == 1
        found = await ended(*calls)
        assert not any(isinstance(one, BaseException) for one in found)
        assert [one["messages"][0]["content"] for one in w.provider.asked] == ["call 0", "call 1", "call 2"]
        assert w.provider.times == pytest.approx([0, 1, 2], abs=0.1)
        assert [row.queue_s for row in w.rows()] == pytest.approx([0, 1, 2], abs=0.1)


@virtual
async def test_a_call_does_not_wait_for_what_will_not_come_back():
    """What is spent does not come back before the period ends: who cannot wait so long is refused at once."""
    async with world(budgets=[budget(tokens=300, at_limit="queue")], levers=levers()) as w:
        await w.ask(chat("one", max_tokens=50))
        before = w.gateway.clock.monotonic()
        error = await refused(w, chat("two", max_tokens=180))
        assert not error.passing and w.gateway.clock.monotonic() - before < 0.01


@virtual
async def test_a_call_waits_for_a_period_that_begins_within_its_deadline():
    """Shortly before midnight a call waits for the new day."""
    async with world(budgets=[budget(tokens=300, at_limit="queue")], levers=levers()) as w:
        await asyncio.sleep(86_400 - w.gateway.clock.time() % 86_400 - 60)
        await w.ask(chat("one", max_tokens=50))
        await w.ask(chat("two", max_tokens=180))
        assert w.gateway.clock.time() % 86_400 < 10 and (await state(w)).spent == TOKENS


@virtual
async def test_who_waits_to_the_deadline_is_told_which_budget_it_was():
    """Shortly before its deadline a call that waits is refused: by name, and as something that may pass."""
    async with world(Fake(delay_s=30), budgets=[budget(tokens=600, at_limit="queue")], levers=levers()) as w:
        first = start(w, chat("one", max_tokens=250))
        await settled()
        error = await refused(w, chat("two", max_tokens=250), deadline_ms="2000")
        assert error.passing and error.retry_after_s == 1
        await ended(first)


@virtual
async def test_only_so_many_wait():
    """Beyond max_waiting a call is refused at once; one that leaves makes room."""
    budgets = [budget(tokens=600, at_limit="queue", max_waiting=2)]
    async with world(budgets=budgets, levers=levers()) as w:
        calls = [start(w, chat(str(i), max_tokens=250)) for i in range(3)]
        await settled()
        await refused(w, chat("one too many", max_tokens=250))
        calls[1].cancel()
        await settled()
        late = start(w, chat("late", max_tokens=250))
        found = await ended(*calls, late)
        assert isinstance(found[1], asyncio.CancelledError) and not isinstance(found[3], BaseException)


@virtual
async def test_near_the_limit_a_cheaper_policy_chooses():
    """From its share on, calls go to the policy's model; at the limit itself they are refused."""
    policies = {"thrifty": {"candidates": [{"model": "gpt-4.1-nano"}]}}
    budgets = [budget(tokens=1000, at_limit="downgrade", policy="thrifty", from_share=0.2)]
    async with world(budgets=budgets, policies=policies, levers=levers()) as w:
        await w.ask(chat("one", max_tokens=50))
        await w.ask(chat("two", max_tokens=50))
        await w.ask(chat("three", max_tokens=50))
        assert w.provider.models == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4.1-nano"]
        assert '"lever":"budgets","action":"downgraded"' in w.rows()[2].decisions
        assert (await refused(w, chat("four", max_tokens=900))).budget == "all"


@virtual
async def test_a_fallback_that_fits_is_asked_instead():
    """A model whose budget is used up gives way to its fallback; the breaker does not count it as a failure."""
    models = [
        {"name": "dear", "provider": "openai", "upstream": "gpt-4o", "fallbacks": ["cheap"]},
        {"name": "cheap", "provider": "openai", "upstream": "gpt-4o-mini"},
    ]
    retry = levers(attempts=3, breaker_failures=1)
    async with world(budgets=[budget(tokens=300, of={"model": "dear"})], models=models, levers=retry) as w:
        await w.ask(chat("one", model="dear", max_tokens=50))
        await w.ask(chat("two", model="dear", max_tokens=180))
        await w.ask(chat("three", model="dear", max_tokens=20))
        assert w.provider.models == ["gpt-4o", "gpt-4o-mini", "gpt-4o"]


# -- others that ask -------------------------------------------------------------------------------------------


@virtual
async def test_who_joins_a_flight_does_not_pay_for_it():
    """Equal calls at once cost once: whoever asked first pays."""
    async with world(budgets=[budget("each", each="user")]) as w:
        await ended(*(start(w, chat(**LIMITED), user=user) for user in ("ann", "bob")))
        assert [(one.whose["user"], one.spent) for one in await w.gateway.purse.states()] == [("ann", TOKENS)]


@virtual
async def test_another_users_empty_budget_refuses_nobody_else():
    """Who joined the flight of somebody whose budget is used up asks at their own expense."""
    budgets = [budget("each", tokens=300, each="user", at_limit="queue")]
    async with world(Fake(delay_s=20), budgets=budgets) as w:
        first = start(w, chat("one", max_tokens=100), user="ann")
        await settled()
        ann = start(w, chat("two", max_tokens=100), user="ann", deadline_ms="2000")
        await settled()
        bob = start(w, chat("two", max_tokens=100), user="bob")
        found = await ended(ann, bob, first)
        assert isinstance(found[0], BudgetExceeded) and not isinstance(found[1], BaseException)
        assert w.calls == 2


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, False), ({"each": "key"}, True), ({"each": "user"}, True), ({"each": "tenant"}, True),
        ({"each": "class"}, False), ({"each": "model"}, False), ({"assigned": True}, False),
        ({"of": {"key": "ci"}}, True), ({"of": {"tenant": "acme"}}, True), ({"of": {"key": ["a", "b"]}}, False),
        ({"of": {"key": "*"}}, False), ({"of": {"tenant": "t-?"}}, False), ({"of": {"user": "ann"}}, False),
        ({"of": {"user": "ann", "tenant": "acme"}}, True), ({"of": {"class": "faq"}}, False),
    ],
)  # fmt: skip
def test_only_of_ones_own_budget_one_hears_what_is_left(fields: dict[str, Any], own: bool):
    """What is left of one that several keys or tenants pay from would say what the others spend."""
    (rule,) = Rules(parse_config({"budgets": [budget(**fields)]}).budgets).rules
    assert rule.own is own


def test_users_are_shown_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``negawatt budgets`` takes no name for markup, and lets none steer the terminal."""
    monkeypatch.chdir(tmp_path)
    config = 'budgets = [{ name = "each", per = "day", tokens = 1000, each = "user" }]\n'
    (tmp_path / "negawatt.toml").write_text(config + 'budgeting = { store = "sqlite:///b.sqlite" }\n')
    names = ["[/]", "[red]x", "a\x1b[2Jb"]

    async def spend() -> None:
        books = SqliteBooks(tmp_path / "b.sqlite", SystemClock())
        (rule,) = Rules(parse_config({"budgets": [budget("each", each="user")]}).budgets).rules
        start, until = rule.period(time.time())
        for name in names:
            one = Reservation(Lines(((rule.key, orjson.dumps(["t", name]).decode(), start),), (until,), (1000,)), [5])
            assert await books.reserve(one) is None
        await books.close()

    asyncio.run(spend())
    shown = CliRunner().invoke(cli, ["budgets"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "[/]" in shown.output and "[red]x" in shown.output and "\x1b" not in shown.output


# -- the configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ([{"name": "a"}], "budgets[0]"),
        ([{"name": "a", "usd": 1, "tokens": 1}], "budgets[0]"),
        ([{"name": "a", "usd": 1e7}], "budgets[0].usd"),
        ([{"name": "a", "usd": 0}], "budgets[0].usd"),
        ([{"name": "a", "tokens": 1}, {"name": "a", "tokens": 1}], "budgets[1]"),
        ([{"name": "a\n", "tokens": 1}], "budgets[0].name"),
        ([{"name": "a", "tokens": 1, "zone": "Mars/Olympus"}], "budgets[0].zone"),
        ([{"name": "a", "tokens": 1, "at_limit": "downgrade"}], "budgets[0].policy"),
        ([{"name": "a", "tokens": 1, "at_limit": "downgrade", "policy": "none"}], "budgets[0].policy"),
        ([{"name": "a", "tokens": 1, "of": {"team": "x"}}], "budgets[0].of.team"),
    ],
)
def test_a_bad_budget_is_refused_with_its_place(wrong: list[dict[str, Any]], where: str):
    """The error names the field."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"budgets": wrong})
    assert caught.value.param == where
