"""The books of a routed call: it would have cost what the reference costs, in place of what was asked."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ManualClock, answer, bare_call, decisions, settled

from negawatt.books import open_accounts
from negawatt.call import Attempt, Call, Saved, Target, Trail
from negawatt.caller import Caller
from negawatt.config import parse_config
from negawatt.economics.accounts import Accounts, to_pusd
from negawatt.economics.carbon import Carbon
from negawatt.economics.energy import Energy
from negawatt.economics.prices import Prices
from negawatt.economics.reference import in_place_of, reference_usage
from negawatt.economics.usage import Usage
from negawatt.http_head import Head, answer_headers
from negawatt.ledger.memory import MemoryLedger
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.reprice import reprice_ledger
from negawatt.ledger.sqlite import SqliteLedger, read_rows
from negawatt.levers.meter import Meter
from negawatt.proof.summary import LedgerView, summarise_ledger
from negawatt.reply import Reply
from negawatt.wire.chat import CHAT

SMALL = Target("openai", "gpt-4o-mini", "small")  # 0.15 and 0.60 USD for a million tokens
LARGE = Target("openai", "gpt-4o", "large")  # 2.50 and 10
NOBODYS = Target("openai", "nobody-sells-this", "nobodys")
USED = Usage(input_tokens=1_000, output_tokens=200)
SMALL_PUSD = 1_000 * 150_000 + 200 * 600_000
LARGE_PUSD = 1_000 * 2_500_000 + 200 * 10_000_000


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    return Accounts(Prices(), Energy(), Carbon("WORLD"), {})


def attempt(trail: Trail, target: Target, usage: Usage | None = USED, *, billed: bool = True) -> Attempt:
    """Put an attempt that has ended on *trail*."""
    made = trail.open_attempt(target)
    made.usage, made.billed = usage, billed
    trail.close_attempt(made)
    return made


def saved(target: Target = LARGE, usage: Usage = USED, *, instead: bool = True, **fields: Any) -> Saved:
    return Saved(usage=usage, model=target.model, provider=target.provider, instead=instead, **fields)


async def metered(accounts: Accounts, ledger: Any, *targets: Target, reference: Target | None = LARGE) -> Call:
    """Send a call through the meter that asks *targets* in order and gives the answer of the last; return it."""
    call = bare_call(caller=Caller())

    async def forward(call: Call) -> Reply:
        for target in targets:
            attempt(call.trail, target)
        spared = None if reference is None else in_place_of(call.trail, reference)
        call.note("route", "chose", saved=spared)
        return Reply(CHAT, body=orjson.dumps(answer()))

    reply = await Meter(accounts, ledger)(call, forward)
    await reply.whole()
    await reply.close()
    await settled()
    return call


async def row_of(accounts: Accounts, *targets: Target, reference: Target | None = LARGE) -> Outcome:
    ledger = MemoryLedger()
    await metered(accounts, ledger, *targets, reference=reference)
    (row,) = ledger.outcomes
    return row


# -- one call --------------------------------------------------------------------------------------------------


async def test_a_small_model_in_place_of_a_large_one_saves_the_difference(accounts: Accounts):
    """The row's baseline is the large one's price, and the lever's saving is what lies between."""
    row = await row_of(accounts, SMALL)
    assert (row.cost_pusd, row.baseline_cost_pusd) == (SMALL_PUSD, LARGE_PUSD)
    (chose,) = decisions(row, "route")
    assert chose["saved"]["cost_pusd"] == LARGE_PUSD - SMALL_PUSD
    assert (chose["saved"]["instead"], chose["saved"]["model"], chose["saved"]["basis"]) == (
        True,
        "gpt-4o",
        "estimated",
    )
    assert (row.input_tokens, row.baseline_input_tokens, chose["saved"]["input_tokens"]) == (1_000, 1_000, 0)
    assert row.baseline_duration_s is None, "nobody knows how long the large one would have taken"


async def test_a_cascade_that_asked_both_lost_what_the_small_one_cost(accounts: Accounts):
    """The large one's own usage is the baseline, measured; the saving is negative, in money, tokens and energy."""
    row = await row_of(accounts, SMALL, LARGE)
    assert (row.cost_pusd, row.baseline_cost_pusd) == (SMALL_PUSD + LARGE_PUSD, LARGE_PUSD)
    (chose,) = decisions(row, "route")
    assert chose["saved"]["cost_pusd"] == -SMALL_PUSD
    assert (chose["saved"]["input_tokens"], chose["saved"]["output_tokens"]) == (-1_000, -200)
    assert chose["saved"]["basis"] == "measured"
    assert (row.input_tokens, row.baseline_input_tokens) == (2_000, 1_000)
    low, central, high = chose["saved"]["energy_j"]
    assert low < central < 0 and low < high
    assert row.baseline_duration_s == 0


async def test_the_reference_alone_has_spared_nothing(accounts: Accounts):
    """No saving is noted, not even one of zero."""
    row = await row_of(accounts, LARGE)
    assert row.cost_pusd == row.baseline_cost_pusd == LARGE_PUSD
    assert decisions(row, "route")[0].get("saved") is None


@pytest.mark.parametrize(("asked", "reference"), [(SMALL, NOBODYS), (NOBODYS, LARGE)])
async def test_what_has_no_price_saved_nobody_knows_what(accounts: Accounts, asked: Target, reference: Target):
    """Neither zero nor the whole: of the reference, or of what was asked."""
    row = await row_of(accounts, asked, reference=reference)
    assert decisions(row, "route")[0]["saved"]["cost_pusd"] is None
    assert (row.cost_pusd is None) == (asked is NOBODYS)
    assert (row.baseline_cost_pusd is None) == (reference is NOBODYS)


async def test_headers_and_rows_say_a_loss_with_its_sign(accounts: Accounts):
    """A caller reads it in dollars."""
    call = await metered(accounts, MemoryLedger(), SMALL, LARGE)
    reply = Reply(CHAT, body=orjson.dumps(answer()))
    head = Head.of([])
    headers = dict(answer_headers(call, reply, head, len(reply.body)))
    assert headers[b"x-negawatt-cost-usd"] == b"0.00477"
    assert headers[b"x-negawatt-saved-usd"] == b"-0.00027"
    assert headers[b"x-negawatt-model"] == b"gpt-4o"


def bill_of(accounts: Accounts, *notes: Saved, attempts: tuple[Target, ...] = (SMALL,), shadow: int = -1) -> Any:
    call = bare_call()
    for target in attempts:
        attempt(call.trail, target)
    for place, one in enumerate(notes):
        msgspec.structs.replace(call, shadow=place == shadow).note("route", "chose", saved=one)
    return accounts.bill(call.trail, call.received_at), call


def test_only_the_newest_word_counts(accounts: Accounts):
    """Two decisions cannot both come in place of the same attempts; the older one's saving is not on the row."""
    bill, call = bill_of(accounts, saved(NOBODYS), saved(LARGE))
    assert to_pusd(bill.baseline_cost_usd) == LARGE_PUSD
    assert list(bill.saved) == [1]
    call.trail.bill = bill
    row = Meter(accounts, MemoryLedger()).outcome(call, call.trail)
    assert [one.get("saved") is None for one in decisions(row)] == [True, False]


def test_where_nothing_was_asked_nothing_was_replaced(accounts: Accounts):
    """A call that was refused, or failed at no cost, did not save the reference's price."""
    call = bare_call()
    attempt(call.trail, SMALL, None, billed=False)
    call.note("route", "chose", saved=saved(LARGE))
    bill = accounts.bill(call.trail, call.received_at)
    assert (bill.baseline_cost_usd, bill.saved_usd, bill.saved) == (0, 0, {})


def test_a_shadow_decision_says_what_would_have_been_saved(accounts: Accounts):
    """There the attempts are what would have been replaced; it is part of no sum."""
    bill, call = bill_of(accounts, saved(SMALL), attempts=(LARGE,), shadow=0)
    assert bill.saved_usd == 0
    call.trail.bill = bill
    (one,) = decisions(Meter(accounts, MemoryLedger()).outcome(call, call.trail))
    assert (one["mode"], one["saved"]["cost_pusd"]) == ("shadow", LARGE_PUSD - SMALL_PUSD)


def test_an_attempt_of_unknown_usage_makes_the_difference_unknown(accounts: Accounts):
    """In tokens, money and energy; the baseline is known all the same."""
    call = bare_call()
    attempt(call.trail, SMALL, None)
    call.note("route", "chose", saved=saved(LARGE))
    bill = accounts.bill(call.trail, call.received_at)
    priced = accounts.priced_saving(saved(LARGE), 0, bill, call.received_at)
    assert (priced["input_tokens"], priced["cost_pusd"], priced["energy_j"]) == (None, None, None)
    assert to_pusd(bill.baseline_cost_usd) == LARGE_PUSD


# -- sums ------------------------------------------------------------------------------------------------------

COUNT = st.integers(0, 50_000)
USAGE = st.builds(
    Usage, input_tokens=COUNT, output_tokens=COUNT,
    cost_usd=st.one_of(st.none(), st.decimals("0", "1", places=9)),
)  # fmt: skip
ATTEMPT = st.tuples(st.sampled_from([SMALL, LARGE]), USAGE, st.booleans())
SAVED = st.tuples(st.sampled_from([SMALL, LARGE]), USAGE, st.booleans(), st.booleans())


@settings(max_examples=200, deadline=None)
@given(st.lists(ATTEMPT, max_size=4), st.lists(SAVED, max_size=4))
def test_the_savings_of_all_decisions_are_the_saving_of_the_call(attempts: Any, notes: Any):
    """Whatever was asked and decided: baseline less cost is their sum, exactly; so it is for tokens."""
    accounts, call = ACCOUNTS, bare_call()
    for target, usage, billed in attempts:
        attempt(call.trail, target, usage if billed else None, billed=billed)
    for place, (target, usage, instead, shadow) in enumerate(notes):
        note = saved(target, usage, instead=instead)
        msgspec.structs.replace(call, shadow=shadow).note(f"lever {place}", "saved", saved=note)
    bill = accounts.bill(call.trail, call.received_at)
    assert bill.saved_usd == sum((one.cost_usd or Decimal(0) for one in bill.saved.values()), Decimal(0))
    row = Meter(accounts, MemoryLedger()).outcome(call, call.trail)
    real = [one["saved"] for one in decisions(row) if one.get("saved") and one.get("mode", "on") == "on"]
    assert len([one for one in real if one.get("instead")]) <= 1
    for side in ("input_tokens", "output_tokens"):
        assert getattr(row, f"baseline_{side}") == getattr(row, side) + sum(one[side] for one in real)
    for one in orjson.loads(row.decisions):
        if one.get("saved"):
            low, central, high = one["saved"]["energy_j"]
            assert low <= central <= high
    if row.energy_j is not None and row.baseline_energy_j is not None and bill.actual.joules is not None:
        central = sum(one["energy_j"][1] for one in real)
        assert row.baseline_energy_j - bill.actual.joules.central == pytest.approx(central, abs=1e-6)


ACCOUNTS = Accounts(Prices(), Energy(), Carbon("WORLD"), {})


async def test_a_report_s_levers_add_up_to_its_saving(accounts: Accounts):
    """Over calls that gained and calls that lost, the lever's figure is what lies between the two totals."""
    ledger = MemoryLedger()
    for targets in ((SMALL,), (SMALL, LARGE), (LARGE,), (SMALL,), (SMALL, LARGE)):
        await metered(accounts, ledger, *targets)
    summary = summarise_ledger(ledger.outcomes, LedgerView(title="t", date="2026-11-27"))
    base, went = summary["arms"]["baseline"]["cost_usd"], summary["arms"]["actual"]["cost_usd"]
    route = summary["levers"]["route"]
    assert route["cost_usd"]["mean"] == pytest.approx(base - went, rel=1e-9)
    assert route["hits"] == 4
    assert route["input_tokens"]["mean"] == -2_000
    lost = [row for row in ledger.outcomes if (row.baseline_cost_pusd or 0) < (row.cost_pusd or 0)]
    summary = summarise_ledger(lost, LedgerView(title="t", date="2026-11-27"))
    assert summary["savings"]["cost_pct"]["mean"] < 0
    assert summary["levers"]["route"]["cost_usd"]["mean"] < 0


async def test_pricing_a_routed_call_again_changes_nothing(accounts: Accounts, tmp_path: Path):
    """The row holds what is needed: usage, model, provider, and that it stands in place of the attempts."""
    path = tmp_path / "negawatt.sqlite"
    own = open_accounts(parse_config({}))
    ledger = SqliteLedger(path)
    try:
        for targets in ((SMALL,), (SMALL, LARGE), (NOBODYS,)):
            await metered(own, ledger, *targets)
        call = bare_call(caller=Caller())
        attempt(call.trail, LARGE)
        msgspec.structs.replace(call, shadow=True).note("route", "chose", saved=saved(SMALL))
        call.note("route", "chose", saved=saved(SMALL, instead=False))
        call.note("route", "chose", saved=saved(SMALL))
        ledger.append(Meter(own, ledger).outcome(call, call.trail), None)
    finally:
        await asyncio.to_thread(ledger.close)
    before = list(read_rows(path))
    change = reprice_ledger(path, own, 0.0, float("inf"))
    assert (change["rows"], change["changed"]) == (4, 0)
    assert list(read_rows(path)) == before


# -- what the reference would have used ------------------------------------------------------------------------


def test_the_reference_s_usage_is_an_estimate_from_the_answer():
    """As long an answer; its own count of the input where there is one; nothing warm unless it is said."""
    answered = Usage(
        input_tokens=1_000, output_tokens=300, cache_read_tokens=900, cache_write_tokens=50, reasoning_tokens=100,
        cost_usd=Decimal("0.5"), web_searches=2, tier="flex",
    )  # fmt: skip
    plain = reference_usage(answered)
    assert (plain.input_tokens, plain.output_tokens, plain.cache_read_tokens) == (1_000, 300, 0)
    assert (plain.cache_write_tokens, plain.cost_usd, plain.basis) == (0, None, "estimated")
    assert (plain.web_searches, plain.tier, plain.reasoning_tokens) == (2, "flex", 100)
    assert reference_usage(answered, 1_100, warm=2_000).cache_read_tokens == 1_100
    silent = reference_usage(answered, thinks=False)
    assert (silent.output_tokens, silent.reasoning_tokens) == (200, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 200), st.integers(-5, 200))
def test_the_reference_s_usage_keeps_the_laws_of_usage(sound: int, picture: int, spoken: int, counted: int, warm: int):
    """Details are subsets of their sums, whatever the other tokenizer says."""
    answered = Usage(
        input_tokens=200, output_tokens=200, audio_input_tokens=sound, image_input_tokens=picture,
        audio_output_tokens=spoken, reasoning_tokens=200 - spoken,
    )  # fmt: skip
    for thinks in (True, False):
        found = reference_usage(answered, counted, warm=warm, thinks=thinks)
        assert 0 <= found.cache_read_tokens <= found.input_tokens == counted
        assert found.audio_input_tokens + found.image_input_tokens <= found.input_tokens
        assert found.audio_output_tokens + found.reasoning_tokens <= found.output_tokens


def test_nothing_is_in_place_of_what_failed():
    """No answer, or none whose usage is known: no saving."""
    trail = Trail(ManualClock())
    assert in_place_of(trail, LARGE) is None
    made = trail.open_attempt(SMALL)
    trail.close_attempt(made, error="UpstreamTimeout")
    assert in_place_of(trail, LARGE) is None
    attempt(trail, SMALL, None)
    assert in_place_of(trail, LARGE) is None


def test_a_reference_that_was_asked_twice_has_not_been_routed():
    """A retry is not the router's doing."""
    trail = Trail(ManualClock())
    attempt(trail, LARGE)
    attempt(trail, LARGE)
    assert in_place_of(trail, LARGE) is None


def test_the_answer_may_be_another_than_the_last():
    """A judge is asked after the answer that it judges: the answer is still the small one's."""
    trail = Trail(ManualClock())
    small = attempt(trail, SMALL)
    attempt(trail, LARGE, Usage(input_tokens=5_000, output_tokens=1))
    assert trail.answerer is not small
    trail.answered = small
    found = in_place_of(trail, Target("openai", "gpt-5", "largest"))
    assert found is not None and found.usage.input_tokens == 1_000
    at_low = Target("openai", "gpt-4o-mini", "small", "low")
    again = in_place_of(trail, at_low)
    assert again is not None and again.basis == "estimated", "another effort is another choice"
