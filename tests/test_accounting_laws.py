"""The laws of the books, over every protocol and every shape of the corpus in ``benchmarks/shapes``."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from worlds import ONLY, Chunks, Fake, levers, settled, status, virtual, world

from negawatt.call import Call, Request, Target
from negawatt.economics.usage import Usage
from negawatt.errors import UpstreamConnectError
from negawatt.ledger.outcome import Outcome
from negawatt.protocol import Wire
from negawatt.reply import Reply
from negawatt.wire.sse import DONE, EventParser
from negawatt.wire.wires import WIRES

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from shapes import Shape, chat, messages, others, responses

CORPUS = [shape for module in (chat, messages, responses, others) for shape in module.shapes()]
ANSWERED = [shape for shape in CORPUS if shape.ends == "answered"]
STREAMED = ("chat", "responses", "messages", "completions")
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "How long?"}], "stream_options": {"include_usage": True}},
    "responses": {"input": "How long?"},
    "messages": {"messages": [{"role": "user", "content": "How long?"}], "max_tokens": 100},
    "count_tokens": {"messages": [{"role": "user", "content": "How long?"}]},
    "completions": {"prompt": "How long?", "stream_options": {"include_usage": True}},
    "embeddings": {"input": "How long?"},
    "rerank": {"query": "delivery", "documents": ["Two days.", "Lamps."]},
}
PLAIN = {shape.protocol: shape for shape in CORPUS if shape.name in ("plain, whole", "plain", "tokens", "a count")}


def name_of(shape: Shape) -> str:
    return f"{shape.protocol}: {shape.name}"


every_answer = pytest.mark.parametrize("shape", ANSWERED, ids=name_of)
every_protocol = pytest.mark.parametrize("protocol", PLAIN)


def events_of(shape: Shape) -> list[dict[str, Any]]:
    """Return what the provider sends for *shape*, event by event; a whole answer is one."""
    raw = b"".join(shape.pieces)
    if not shape.streamed or shape.headers:
        return [orjson.loads(raw)]
    parser = EventParser()
    events = [event for piece in shape.pieces for event in parser.feed(piece)] + parser.end()
    if DONE in events:
        events = events[: events.index(DONE)]
    return [orjson.loads(event) for event in events]


def whole_of(shape: Shape) -> dict[str, Any]:
    """Return the whole answer that *shape* stands for."""
    events = events_of(shape)
    return events[0] if len(events) == 1 and not (shape.streamed and not shape.headers) else folded(shape, events)


def folded(shape: Shape, events: list[dict[str, Any]]) -> dict[str, Any]:
    folder = WIRES[shape.protocol].folder()
    for event in events:
        folder.add(event)
    return folder.result()


def request_of(protocol: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    request = {"model": "gpt-4o-mini", **ASKED[protocol], **fields}
    if not stream:
        request.pop("stream_options", None)
    return {**request, "stream": True} if stream else request


class Speaking(Fake):
    """A provider that speaks every protocol, and answers with the plain shape of it unless its script says else."""

    speaks = frozenset(WIRES)

    async def ask(self, call: Call, target: Target) -> Reply:
        self.asked.append(dict(call.request.data))
        self.models.append(target.model)
        step = self.script.pop(0) if self.script else orjson.loads(PLAIN[call.wire.name].pieces[0])
        await asyncio.sleep(self.delay_s)
        if isinstance(step, BaseException):
            raise step
        if not isinstance(step, Chunks) and call.streams:
            step = Chunks(call.wire.unfold(step), every_s=self.every_s)
        if isinstance(step, Chunks):
            self.sources.append(step)
            return Reply(call.wire, source=step)
        return Reply(call.wire, body=orjson.dumps(step))


# -- one answer ------------------------------------------------------------------------------------------------


@every_answer
def test_details_are_subsets_and_the_parts_make_the_sum(shape: Shape):
    """Cached and reasoning tokens are parts of input and output, never addends; no count is negative."""
    used = WIRES[shape.protocol].usage(whole_of(shape))
    if used is None:
        assert shape.counts.basis == "estimated"
        return
    assert used.total_tokens == used.input_tokens + used.output_tokens
    assert used.fresh_input_tokens + used.cache_read_tokens + used.cache_write_tokens == used.input_tokens
    assert 0 <= used.cache_write_1h_tokens <= used.cache_write_tokens
    assert 0 <= used.reasoning_tokens <= used.output_tokens
    assert used.fresh_input_tokens >= 0


@every_answer
def test_a_stream_and_the_whole_answer_have_the_same_total(shape: Shape):
    """Folded, unfolded and folded again: the usage is always the one that the corpus says."""
    wire = WIRES[shape.protocol]
    whole = whole_of(shape)
    again = folded(shape, wire.unfold(whole))
    first, second = wire.usage(whole), wire.usage(again)
    assert first == second
    if first is not None and first.basis == "measured" and shape.protocol != "count_tokens":
        assert (first.input_tokens, first.output_tokens) == shape.counts[:2]


@pytest.mark.parametrize("shape", [s for s in ANSWERED if s.streamed and not s.headers], ids=name_of)
def test_a_stream_that_is_cut_anywhere_is_still_accounted(shape: Shape):
    """After every event: what was received has a usage, or can be counted; nothing raises."""
    wire = WIRES[shape.protocol]
    folder = wire.folder()
    full = wire.usage(whole_of(shape))
    for event in events_of(shape):
        folder.add(event)
        used, said = wire.usage(folder.result()), wire.text_of(folder.result())
        assert isinstance(said, str)
        if used is not None and full is not None:
            assert used.input_tokens <= full.input_tokens


# -- calls -----------------------------------------------------------------------------------------------------


def tokens(row: Outcome) -> tuple[int | None, int | None]:
    return row.input_tokens, row.output_tokens


def shown(wire: Wire, data: dict[str, Any]) -> Usage | None:
    return wire.usage(data)


@every_protocol
@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_a_cached_answer_bills_zero_and_shows_the_original_usage(protocol: str, stream: bool):
    """The second call is answered here: nothing is billed, and its caller sees what the answer took."""
    wire = WIRES[protocol]
    async with world(Speaking()) as w:
        first = await w.send(w.call(request_of(protocol, temperature=0), wire=wire))
        again = request_of(protocol, stream=stream and protocol in STREAMED, temperature=0)
        second = await w.send(w.call(again, wire=wire))
        assert second.by == ("item_cache" if protocol == "embeddings" else "exact_cache")
        assert (
            shown(wire, second.data) == shown(wire, first.data) == shown(wire, orjson.loads(PLAIN[protocol].pieces[0]))
        )
        paid, spared = w.rows()
        assert (tokens(spared), spared.cost_pusd, spared.attempts) == ((0, 0), 0, 0)
        assert (spared.baseline_input_tokens, spared.baseline_output_tokens) == tokens(paid)
        assert spared.protocol == paid.protocol == protocol


@every_protocol
@pytest.mark.parametrize("stream", [False, True])
@virtual
async def test_a_coalesced_answer_bills_zero(protocol: str, stream: bool):
    """Two equal calls at once: one is paid for, and both show the same usage."""
    wire, streamed = WIRES[protocol], stream and protocol in STREAMED
    async with world(Speaking(), levers=ONLY) as w:
        request = request_of(protocol, stream=streamed, temperature=0)
        one, other = await asyncio.gather(*(w.send(w.call(request, wire=wire)) for _ in range(2)))
        await settled()
        assert w.calls == 1
        assert shown(wire, one.data) == shown(wire, other.data)
        assert sorted((row.ending, row.cost_pusd == 0, tokens(row) == (0, 0)) for row in w.rows()) == [
            ("answered", protocol == "count_tokens", protocol == "count_tokens"), ("coalesced", True, True),
        ]  # fmt: skip


@every_protocol
@virtual
async def test_retries_bill_every_attempt_that_may_have_been_computed(protocol: str):
    """A status is not charged; what broke off may have been, so its input is: both attempts are on the row."""
    wire = WIRES[protocol]
    provider = Speaking()
    provider.script = [status(503), UpstreamConnectError("no")]
    async with world(provider, levers=levers(attempts=3, backoff_s=0.01)) as w:
        await w.send(w.call(request_of(protocol), wire=wire))
        (row,) = w.rows()
        assert row.attempts == 3
        log = orjson.loads(row.attempt_log)
        assert [one["billed"] for one in log] == [False, False, protocol != "count_tokens"]
        counts = PLAIN[protocol].counts
        assert tokens(row) == ((0, 0) if protocol == "count_tokens" else (counts.input, counts.output))


@pytest.mark.parametrize("protocol", STREAMED)
@virtual
async def test_a_call_that_is_given_up_in_the_middle_is_billed_for_what_came(protocol: str):
    """Cancelled: the row has input and output, with their basis; what the provider said already is not guessed."""
    wire = WIRES[protocol]
    whole = orjson.loads(PLAIN[protocol].pieces[0])
    provider = Speaking(every_s=1.0)
    async with world(provider, levers=ONLY) as w:
        task = asyncio.ensure_future(w.send(w.call(request_of(protocol, stream=True), wire=wire)))
        count = len(wire.unfold(whole))
        await asyncio.sleep(1.5 + count * 2 // 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settled()
        (row,) = w.rows()
        assert (row.ending, row.usage_basis, row.attempts) == ("cancelled", "estimated", 1)
        assert row.input_tokens and row.output_tokens and row.cost_pusd
        if protocol == "messages":
            assert row.input_tokens == 100, "its first event had said so"
        assert provider.sources[0].closed == 1


# -- prices ----------------------------------------------------------------------------------------------------

MTOK = Decimal(1_000_000)
DAY = 1_795_478_400.0  # 2026-11-24
# Anthropic's list: writes for 5 minutes cost 1.25 times the input, for an hour twice, reads a tenth.
# https://platform.claude.com/docs/en/about-claude/pricing, 2026-11.
CACHED = {
    "input_tokens": 10, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 40, "output_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10},
}  # fmt: skip


def priced(protocol: str, usage: dict[str, Any], provider: str, model: str, **fields: Any) -> Decimal | None:
    """Return the list price of an answer with *usage*."""
    from negawatt.economics.accounts import Accounts
    from negawatt.economics.carbon import Carbon
    from negawatt.economics.energy import Energy
    from negawatt.economics.prices import Prices

    used = WIRES[protocol].usage({"type": "message", "stop_reason": "end_turn", "usage": usage, **fields})
    accounts = Accounts(Prices(), Energy(), Carbon("WORLD"), {})
    return accounts.amount(provider, model, used, DAY).cost_usd


def test_the_providers_own_cache_is_priced_by_lifetime():
    """Reads, five-minute writes and hour writes each at their own price; fresh input and output at theirs."""
    per_token = Decimal(3)
    expected = (10 * per_token + 50 * per_token / 10 + 30 * per_token * 5 / 4 + 10 * per_token * 2 + 20 * 15) / MTOK
    assert priced("messages", CACHED, "anthropic", "claude-sonnet-4-5") == expected


@pytest.mark.parametrize(("tier", "factor"), [("batch", "0.5"), ("flex", "0.5"), ("priority", "2"), ("default", "1")])
@pytest.mark.parametrize("protocol", ["chat", "responses"])
def test_tiers_have_their_own_prices(protocol: str, tier: str, factor: str):
    """Batch and flex cost half, priority twice as much of GPT-5, as OpenAI lists it; whatever the protocol."""
    usage = {"chat": chat.PLAIN, "responses": responses.PLAIN}[protocol]
    standard = (100 * Decimal("1.25") + 20 * 10) / MTOK
    assert priced(protocol, usage, "openai", "gpt-5", service_tier=tier) == standard * Decimal(factor)


def test_a_tier_without_a_price_of_its_own_is_unpriced():
    """Neither the standard price nor zero: nobody knows."""
    assert priced("chat", chat.PLAIN, "openai", "gpt-5", service_tier="tomorrow") is None
    batch = priced("messages", {**CACHED, "service_tier": "batch"}, "anthropic", "claude-sonnet-4-5")
    standard = priced("messages", CACHED, "anthropic", "claude-sonnet-4-5")
    assert batch is not None and standard is not None and batch == standard / 2


def test_a_search_is_paid_for():
    """Anthropic's searches cost 10 dollars a thousand; where no price is known the call has none."""
    searched = priced("messages", {**CACHED, "server_tool_use": {"web_search_requests": 3}}, "anthropic",
                      "claude-sonnet-4-5")  # fmt: skip
    plain = priced("messages", CACHED, "anthropic", "claude-sonnet-4-5")
    assert searched is not None and plain is not None and searched - plain == Decimal("0.03")
    assert priced("chat", {**chat.PLAIN, "num_search_queries": 2}, "groq", "llama-3.1-8b-instant") is None


def test_the_requests_of_these_tests_are_valid():
    """Each protocol takes the request that stands for it here."""
    for protocol in PLAIN:
        WIRES[protocol].check(Request(data=request_of(protocol)))
    assert set(PLAIN) == set(WIRES)
