"""cap: limits learned from what answers needed, an answer that one cut off asked for again, answers that grow."""

from __future__ import annotations

from typing import Any

import pytest
from cascades import LARGE, SMALL
from contracted import GOOD, PROTOCOLS, SCHEMA, Speaker, asking, said, saying, text_of
from worlds import World, decisions, status, virtual, world

from negawatt.errors import UpstreamBroken
from negawatt.shape.lengths import Growth, Lengths, quantile
from negawatt.shape.useful import of_json

LIMITS = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}
OFF = {name: {"mode": "off"} for name in ("exact_cache", "coalesce")}


def on(**fields: Any) -> dict[str, Any]:
    cap = {"mode": "on", "least_seen": 10, "least_tokens": 1, **fields}
    return {**OFF, "retry": {"attempts": 1}, "cap": cap}


async def taught(w: World, protocol: str, tokens: int = 80, times: int = 10, **fields: Any) -> None:
    """Have *times* answers of *tokens* pass."""
    w.provider.texts = [saying(protocol, "It is so.", tokens=tokens)]
    for _ in range(times):
        await said(w, protocol, asking(protocol, schema=None, **fields))


def last(w: World) -> list[dict[str, Any]]:
    return decisions(w.rows()[-1], "cap")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_a_limit_is_set_once_enough_has_been_seen(protocol: str):
    """Ten answers of 80 tokens: from then on 100 is the limit, in the protocol's own word; before, none is ours."""
    async with world(Speaker(protocol, ""), levers=on()) as w:
        await taught(w, protocol)
        assert last(w)[0]["reason"] == "9 answers of its kind were seen, of 10 that it takes"
        await taught(w, protocol, times=1)
        assert w.provider.asked[9].get(LIMITS[protocol]) == (4_000 if protocol == "messages" else None)
        assert w.provider.asked[10][LIMITS[protocol]] == 100
        (decision,) = last(w)
        assert decision["action"] == "capped"
        assert decision["detail"] == {"limit": 100, "generated": 80, "useful": 80}
        assert decision.get("saved") is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_what_our_limit_cut_off_is_asked_for_once_more_without_it(protocol: str):
    """The caller gets the whole answer; both are charged, and the one that was lost counts as a loss."""
    async with world(Speaker(protocol, ""), levers=on()) as w:
        await taught(w, protocol)
        w.provider.texts = [
            saying(protocol, "It is", tokens=100, cut=True),
            saying(protocol, "It is long.", tokens=300),
        ]
        got = await said(w, protocol, asking(protocol, schema=None))
        assert text_of(protocol, got) == "It is long."
        first, second = w.provider.asked[-2:]
        assert first[LIMITS[protocol]] == 100
        assert second == asking(protocol, schema=None)
        row = w.rows()[-1]
        assert (row.attempts, row.output_tokens) == (2, 400)
        again, uncapped = last(w)
        assert (again["action"], uncapped["action"]) == ("asked again", "uncapped")
        if row.cost_pusd is not None:
            assert row.baseline_cost_pusd < row.cost_pusd


@virtual
async def test_the_callers_own_limit_stays_where_it_is_lower():
    """A caller's word is never loosened, and what it cuts off is not asked for again."""
    async with world(Speaker("chat", ""), levers=on()) as w:
        await taught(w, "chat")
        w.provider.texts = [saying("chat", "It is", tokens=30, cut=True)]
        got = await said(w, "chat", asking("chat", schema=None, max_tokens=30))
        assert got.data["choices"][0]["finish_reason"] == "length"
        assert w.calls == 11
        assert w.provider.asked[-1] == asking("chat", schema=None, max_tokens=30)
        assert last(w)[0]["reason"] == "its caller's limit is as low"


@virtual
async def test_a_callers_larger_limit_is_lowered_in_its_own_word():
    """``max_tokens`` stays ``max_tokens``, and comes back when the answer was cut off."""
    async with world(Speaker("chat", ""), levers=on()) as w:
        await taught(w, "chat")
        w.provider.texts = [saying("chat", "It", cut=True), saying("chat", "It is.")]
        await said(w, "chat", asking("chat", schema=None, max_tokens=900))
        first, second = w.provider.asked[-2:]
        assert (first["max_tokens"], second["max_tokens"]) == (100, 900)
        assert "max_completion_tokens" not in first


@virtual
async def test_servers_that_may_not_know_the_newer_word_get_the_older_one():
    """Only where the table of providers says so it is ``max_completion_tokens``."""
    providers = [{"name": "vllm"}]
    async with world(Speaker("chat", ""), levers=on(), providers=providers) as w:
        await taught(w, "chat", times=11)
        assert w.provider.asked[-1]["max_tokens"] == 100


@virtual
async def test_streams_are_not_capped_but_learned_from():
    """What has been sent cannot be asked for again: a stream has no limit of ours."""
    async with world(Speaker("chat", ""), levers=on()) as w:
        await taught(w, "chat", stream=True)
        await taught(w, "chat", times=1, stream=True)
        assert "max_completion_tokens" not in w.provider.asked[-1]
        assert last(w)[0]["reason"].startswith("a stream")
        await taught(w, "chat", times=1)
        assert w.provider.asked[-1]["max_completion_tokens"] == 100


@virtual
async def test_without_asking_again_the_cut_answer_is_given_and_the_limit_rises():
    """``again = false``: the caller sees that it was cut off; what would have gone on counts as longer than that."""
    async with world(Speaker("chat", ""), levers=on(again=False)) as w:
        await taught(w, "chat")
        w.provider.texts = [saying("chat", "It is", tokens=100, cut=True)]
        got = await said(w, "chat", asking("chat", schema=None))
        assert got.data["choices"][0]["finish_reason"] == "length"
        assert last(w)[0]["action"] == "cut off"
        await said(w, "chat", asking("chat", schema=None))
        assert w.provider.asked[-1]["max_completion_tokens"] > 100


@virtual
async def test_if_asking_again_fails_there_is_the_answer_that_was_cut_off():
    """An error on the way costs nobody what is there."""
    async with world(Speaker("chat", ""), levers=on()) as w:
        await taught(w, "chat")
        w.provider.texts = [saying("chat", "It is", cut=True), UpstreamBroken("it broke off")]
        got = await said(w, "chat", asking("chat", schema=None))
        assert got.text == "It is"
        assert last(w)[0]["reason"].startswith("asking again failed")
        assert w.rows()[-1].response_model == "gpt-4o-mini"


@virtual
async def test_kinds_are_kept_apart():
    """What one class or model needs says nothing of another; several answers at once are neither capped nor learned."""
    async with world(Speaker("chat", ""), levers=on(), classes={"short": {}, "long": {}}) as w:
        w.provider.texts = [saying("chat", "It is so.", tokens=8)]
        for _ in range(11):
            await said(w, "chat", asking("chat", schema=None), request_class="short")
        assert w.provider.asked[-1]["max_completion_tokens"] == 10
        await said(w, "chat", asking("chat", schema=None), request_class="long")
        assert "max_completion_tokens" not in w.provider.asked[-1]
        await said(w, "chat", {**asking("chat", schema=None), "model": "gpt-4o"}, request_class="short")
        assert "max_completion_tokens" not in w.provider.asked[-1]
        await said(w, "chat", asking("chat", schema=None, n=2), request_class="short")
        assert "max_completion_tokens" not in w.provider.asked[-1]
        assert last(w) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_of_json_only_the_json_is_of_use(protocol: str):
    """Generated and useful tokens are told apart; one that was cut off behind its JSON is not asked for again."""
    wordy = GOOD + " " + "And so on. " * 20
    async with world(Speaker(protocol, ""), levers=on()) as w:
        w.provider.texts = [saying(protocol, wordy, tokens=100)]
        for _ in range(10):
            await said(w, protocol, asking(protocol))
        used = round(100 * len(GOOD) / len(wordy))
        assert last(w)[0]["detail"] == {"generated": 100, "useful": used}
        w.provider.texts = [saying(protocol, wordy[:60], tokens=25, cut=True)]
        before = w.calls
        await said(w, protocol, asking(protocol))
        assert w.calls == before + 1
        assert 10 < w.provider.asked[-1][LIMITS[protocol]] < 25
        assert last(w)[0]["action"] == "capped"


@virtual
async def test_thinking_is_never_counted_as_waste():
    """Reasoning comes before the JSON, so that the limit has room for it."""
    thought = saying("chat", GOOD + " Well then!", tokens=500)
    thought["usage"]["completion_tokens_details"] = {"reasoning_tokens": 460}
    async with world(Speaker("chat", thought), levers=on(margin=1)) as w:
        for _ in range(11):
            await said(w, "chat", asking("chat"))
        assert 460 < w.provider.asked[-1]["max_completion_tokens"] < 500
        assert last(w)[0]["detail"]["useful"] > 460


@virtual
async def test_stop_sequences_and_verbosity_go_where_they_have_a_word():
    """Where the request has none, its protocol has a word, and (of verbosity) the model is known to take it."""
    levers = on(stop=["END"], verbosity="low")
    async with world(Speaker("chat", "so"), levers=levers) as w:
        await said(w, "chat", asking("chat", schema=None))
        assert w.provider.asked[-1]["stop"] == ["END"]
        assert "verbosity" not in w.provider.asked[-1]
        await said(w, "chat", {**asking("chat", schema=None, stop=["X"]), "model": "gpt-5-mini"})
        assert (w.provider.asked[-1]["stop"], w.provider.asked[-1]["verbosity"]) == (["X"], "low")
        await said(w, "chat", {**asking("chat", schema=None, verbosity="high"), "model": "gpt-5-mini"})
        assert w.provider.asked[-1]["verbosity"] == "high"
    async with world(Speaker("responses", "so"), levers=levers) as w:
        await said(w, "responses", {**asking("responses", schema=SCHEMA), "model": "gpt-5"})
        assert w.provider.asked[-1]["text"]["verbosity"] == "low"
        assert w.provider.asked[-1]["text"]["format"]["name"] == "person"
        assert "stop" not in w.provider.asked[-1]
    async with world(Speaker("messages", "so"), levers=levers) as w:
        await said(w, "messages", {**asking("messages", schema=None), "model": "gpt-5"})
        assert w.provider.asked[-1]["stop_sequences"] == ["END"]
        assert "verbosity" not in w.provider.asked[-1]


@virtual
async def test_what_a_model_refuses_is_not_set_again():
    """A refusal that names what we set costs one request, and nobody their answer; any other is the caller's."""
    refusal = status(400)
    refusal.body = b'{"error": {"message": "Unsupported parameter: stop is not supported with this model."}}'
    async with world(Speaker("chat", refusal, "so"), levers=on(stop=["END"])) as w:
        for _ in range(2):
            assert (await said(w, "chat", asking("chat", schema=None))).text == "so"
        assert ["stop" in one for one in w.provider.asked] == [True, False, False]
        assert last(w)[0]["reason"] == "its provider refuses what would be set"
    async with world(Speaker("chat", status(400)), levers=on(stop=["END"])) as w:
        assert (await w.failing(asking("chat", schema=None))).status == 400
        assert w.calls == 1


@virtual
async def test_what_the_providers_protocol_has_no_word_for_is_not_set():
    """Responses has no stop sequences: a caller in Chat gets an answer, and no error about what it never asked for."""
    async with world(Speaker("responses", "so"), levers=on(stop=["END"])) as w:
        assert (await said(w, "chat", asking("chat", schema=None))).text == "so"
        assert "stop" not in w.provider.asked[0]


@virtual
async def test_the_control_group_has_no_limits():
    """In the holdout nothing is capped: it shows what the limits spare."""
    async with world(Speaker("chat", ""), levers=on(), holdout={"share": 1}) as w:
        await taught(w, "chat", times=12)
        assert "max_completion_tokens" not in w.provider.asked[-1]
        assert last(w) == []


@virtual
async def test_in_shadow_it_learns_and_limits_nothing():
    """The decision says what the limit would have been."""
    levers = {**on(), "cap": {"mode": "shadow", "least_seen": 10, "least_tokens": 1}}
    async with world(Speaker("chat", ""), levers=levers) as w:
        await taught(w, "chat", times=11)
        await w.gateway.background.drain()
        assert "max_completion_tokens" not in w.provider.asked[-1]
        (decision,) = last(w)
        assert (decision["mode"], decision["action"], decision["detail"]["limit"]) == ("shadow", "capped", 100)


@virtual
async def test_under_a_policy_the_model_that_was_cut_off_is_asked_again():
    """The policy is not asked anew: the same model answers, without the limit."""
    candidates = [{"model": SMALL, "tier": 1}, {"model": LARGE, "tier": 2}]
    policies = {"cheap": {"how": "fixed", "model": SMALL, "candidates": candidates}}
    async with world(Speaker("chat", ""), levers=on(), policies=policies) as w:
        await taught(w, "chat", model="cheap")
        w.provider.texts = [saying("chat", "It", cut=True), saying("chat", "It is.")]
        got = await said(w, "chat", asking("chat", schema=None, model="cheap"))
        assert got.text == "It is."
        assert w.provider.models[-2:] == [SMALL, SMALL]


@virtual
async def test_answers_that_grow_raise_an_alert_and_one_giant_does_not():
    """Twice the length for fifty answers is told once; a single answer of a thousand times the length is not."""
    async with world(Speaker("chat", ""), levers=on(mode="on", least_seen=50)) as w:
        await taught(w, "chat", tokens=80, times=50)
        await taught(w, "chat", tokens=80_000, times=1)
        await taught(w, "chat", tokens=80, times=49)
        assert [one.name for one in w.gateway.telemetry.alerts] == []
        await taught(w, "chat", tokens=2_000, times=100)
        (alert,) = w.gateway.telemetry.alerts
        assert (alert.name, alert.about) == ("output_inflation", "default")
        assert alert.message.endswith("the last ones 2000")


def test_the_quantile_is_never_below_the_share_that_was_asked_for():
    """At least that share of what was seen fits, at any number of lengths."""
    for n in (1, 2, 9, 10, 99, 100, 101, 250):
        lengths = list(range(1, n + 1))
        for share in (0.5, 0.9, 0.99):
            assert sum(one <= quantile(lengths, share) for one in lengths) >= share * n


def test_a_limit_follows_what_is_longer_at_once():
    """A length above it counts at once, shorter ones when there have been twenty; before two, nothing is said."""
    lengths = Lengths(0.5, 2)
    said = []
    for tokens in (10, 10, 10, 50, 50, 50, *(5 for _ in range(20))):
        lengths.add(tokens)
        said.append(lengths.high)
    assert said[:6] == [None, 10, 10, 10, 10, 50]
    assert said[-1] == 5


def test_growth_within_the_usual_spread_is_none():
    """Lengths that vary by a factor of three, at random or in turn, raise nothing at 1.5 times."""
    import random

    rng = random.Random(7)
    growth = Growth(1.5, 100)
    assert all(growth.add(rng.randint(50, 150)) is None for _ in range(5_000))
    assert sum(growth.add(rng.randint(150, 450)) is not None for _ in range(500)) == 1


def test_json_is_found_in_what_stands_around_it():
    """Its share of the text, where it ends, and whether all of it is there."""
    assert of_json('{"a": 1}') == (1.0, 1.0, True)
    assert of_json('ab{"a":1}c') == (0.7, 0.9, True)
    assert of_json('{"a": ') == (1.0, 1.0, False)
    assert of_json("none") == (1.0, 1.0, False)
