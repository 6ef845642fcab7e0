"""Stable prefixes, and when their cache is worth its fee."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.shape.prefix import StablePrefix
from negawatt.shape.prefix_policy import Block, Lifetime, PrefixPolicy
from negawatt.shape.reuse import Tables
from negawatt.shape.volatile import Volatile

RULES = "You are the agent of an airline.\n\nNever book without a yes."
SHORT, LONG = Lifetime(300.0, 1.25), Lifetime(3600.0, 2.0)


def chat(system, *turns):
    return {"model": "m", "messages": [{"role": "system", "content": system}, *turns]}


def user(text="Where is my order?"):
    return {"role": "user", "content": text}


def blocks(*names, tokens=500):
    return [Block(name, tokens) for name in names]


def live(policy, requests):
    """Send *requests*, (seconds, blocks) in order; return how many blocks of each were written."""
    written = []
    for at, sent in requests:
        marking = policy.decide(sent, at)
        policy.observe(sent, at, marking)
        written.append(marking.upto - marking.cached)
    return written


# What moves


def test_a_time_that_says_so_moves_behind_the_conversation():
    """The instructions stay the same from call to call; the time is still said, by the same role."""
    composer = StablePrefix()
    seen = []
    for second in range(3):
        stamp = f"Current time: 2026-11-23T10:00:0{second}Z"
        found = composer.compose(chat(f"{stamp}\n\n{RULES}", user()))
        assert found.moved == (stamp,)
        assert found.data["messages"][-1] == {"role": "system", "content": f"<context>\n{stamp}\n</context>"}
        seen.append(found.data["messages"][:-1])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0]["content"] == f"\n{RULES}"


@pytest.mark.parametrize(
    "line",
    [
        "Today is Monday, November 23, 2026.",
        "The current time is 2024-05-15 15:00:00 EST.",
        "Request id: 123e4567-e89b-12d3-a456-426614174000",
        "Session: sess_4f9a8b7c6d5e4f3a",
        "Generated at 10:31 PM.",
        "Nonce: a81bc81bdead4e5dabff90865d1e13b1",
    ],
)
def test_what_names_itself_moves_at_first_sight(line):
    """Dates, times and ids with a word before them that says they are this call's own."""
    found = StablePrefix().compose(chat(f"{RULES}\n{line}\nBe brief.", user()))
    assert found.moved == (line,)
    assert found.data["messages"][0]["content"] == f"{RULES}\nBe brief."


def test_a_number_moves_once_it_was_seen_to_change():
    """Nobody can tell a counter from a constant by its form; by its change, one can."""
    composer = StablePrefix()
    first, second, third = (composer.compose(chat(f"{RULES}\nTicket {n} is open.", user())) for n in (7, 7, 8))
    assert (first.moved, second.moved, third.moved) == ((), (), ("Ticket 8 is open.",))


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        ("Facts:\n- Current time: 10:31\n- Home: Rome", "a list"),
        ("Facts:\nCurrent time: 10:31", "introduces"),
        ("Run this:\n```\nnow = 10:31\n```\nas it is.", "code"),
        ("If it is now 10:31 or later, say good night.", "a rule"),
        ("| now | 10:31 |\n| then | 11:00 |", "a table"),
        ('{"now": "2026-11-23T10:00:00Z"}', "structure"),
        ("Current time: 10:31", "nothing else"),
    ],
)
def test_what_has_its_meaning_from_around_it_stays_and_is_named(system, reason):
    """It breaks the prefix, and the reason stands beside it."""
    data = chat(system, user())
    found = StablePrefix().compose(data)
    assert found.data is data
    assert not found.moved
    assert reason in found.unmoved[0].reason


def test_constants_stay():
    """A date in a rule, and the numbers of a policy, do not change and so do not move."""
    data = chat("Fares of 2024-05-15 apply. A bag costs 50 dollars.\nOpen from 9:00 to 17:00.", user())
    composer = StablePrefix()
    for _ in range(3):
        found = composer.compose(data)
        assert found.data is data
        assert not found.unmoved


def test_a_users_words_are_never_touched():
    """Whatever they say of the time, they stay where and as they are."""
    turn = user("Current time: 2026-11-23T10:00:00Z. Request id: 123e4567-e89b-12d3-a456-426614174000")
    data = chat(RULES, turn)
    assert StablePrefix().compose(data).data is data


def test_nothing_moves_behind_an_answer_that_is_to_be_continued():
    """An assistant's turn at the end is the beginning of the answer: nothing may come after it."""
    data = chat(f"Current time: 10:31\n{RULES}", user(), {"role": "assistant", "content": "It is"})
    found = StablePrefix().compose(data)
    assert found.data is data
    assert found.unmoved[0].reason == "there is no turn to put it behind"


def test_messages_get_a_part_of_their_own():
    """Where instructions have a field of their own, the block is a part beside the user's, whose text is kept."""
    stamp = "Current time: 2026-11-23T10:00:00Z"
    marked = {"type": "text", "text": f"{RULES}\n{stamp}\n", "cache_control": {"type": "ephemeral"}}
    for system in (f"{RULES}\n{stamp}\n", [marked]):
        found = StablePrefix().compose({"system": system, "messages": [user("Hi")]}, "messages")
        assert found.data["system"] == (f"{RULES}\n" if system != [marked] else [{**marked, "text": f"{RULES}\n"}])
        parts = found.data["messages"][-1]["content"]
        assert parts == [{"type": "text", "text": "Hi"}, {"type": "text", "text": f"<context>\n{stamp}\n</context>"}]


def test_a_model_that_takes_no_late_instructions_gets_them_in_a_users_turn():
    """A part beside the user's own, or a turn of its own behind the results of tools."""
    stamp, result = "Current time: 10:31", {"role": "tool", "tool_call_id": "1", "content": "{}"}
    data = chat(f"{stamp}\n{RULES}", user("Hi"))
    parts = StablePrefix().compose(data, late=False).data["messages"][-1]["content"]
    assert [part["text"] for part in parts] == ["Hi", f"<context>\n{stamp}\n</context>"]
    data = chat(f"{stamp}\n{RULES}", user("Hi"), {"role": "assistant", "tool_calls": []}, result)
    messages = StablePrefix().compose(data, late=False).data["messages"]
    assert messages[-2:] == [result, {"role": "user", "content": f"<context>\n{stamp}\n</context>"}]


def test_a_developers_instructions_stay_a_developers():
    """Providers refuse to have system and developer in one request."""
    message = {"role": "developer", "content": f"Current time: 10:31\n{RULES}"}
    found = StablePrefix().compose({"messages": [message, user()]})
    assert [one["role"] for one in found.data["messages"]] == ["developer", "user", "developer"]


def test_responses_get_a_developers_item():
    """Its input may be a list of items; where it is a text alone, nothing moves."""
    instructions = f"Current time: 10:31\n{RULES}"
    found = StablePrefix().compose({"instructions": instructions, "input": [user()]}, "responses")
    assert found.data["instructions"] == RULES
    assert found.data["input"][-1]["role"] == "developer"
    alone = {"instructions": instructions, "input": "Hi"}
    assert StablePrefix().compose(alone, "responses").data is alone


def test_the_same_tools_are_sent_as_they_first_were():
    """Another order of tools or of keys would be another prefix; other tools are other tools."""
    one = {"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}
    two = {"type": "function", "function": {"name": "b"}}
    composer = StablePrefix()
    first = {**chat(RULES, user()), "tools": [two, one]}
    assert composer.compose(first).data is first
    turned = {**first, "tools": [{"function": dict(reversed(one["function"].items())), "type": "function"}, two]}
    found = composer.compose(turned)
    assert found.tools_restored
    assert json.dumps(found.data["tools"]) == json.dumps([two, one])
    assert composer.compose({**first, "tools": [one]}).data["tools"] == [one]


@given(st.lists(st.sampled_from([
    "Current time: 2026-11-23T10:00:00Z", "Today is 23 November 2026. Be brief.", "- now 10:31", "```", "Be kind.", "",
    "Facts:", "Session id: abcdef0123456789ab", "Call 7.", "Call 8.", "Be kind. Request nonce: abcdef0123456789ab",
]), max_size=12).map("\n".join), st.integers(1, 3))  # fmt: skip
def test_nothing_is_lost_or_made_up(text, times):
    """What moved and what stayed are the text, white space apart."""
    memory = Volatile()
    for _ in range(times):
        found = memory.settle(text, "here")
    assert sorted(" ".join([found.text, *found.moved]).split()) == sorted(text.split())


def test_a_memory_of_texts_is_bounded():
    """The oldest are forgotten."""
    memory = Volatile(most=3)
    for word in "abcdef":
        memory.settle(f"{word}: Ticket 1.", "here")
    assert len(memory._seen) == 3


# What is written


def test_what_always_comes_again_is_written_and_what_never_does_is_not():
    """Learned per kind of prompt: here long ones are loops, short ones stand alone."""
    policy = PrefixPolicy([SHORT])
    requests = []
    for n in range(200):
        loop = [f"{n // 4}.{part}" for part in range(16)]
        requests.append((30.0 * n, blocks(*loop)))
        requests.append((30.0 * n + 10, blocks(f"alone {n}", f"end {n}")))
    written = live(policy, requests)
    assert sum(written[-40:][1::2]) == 0
    assert all(written[-40:][0::8])


def test_an_hour_is_not_bought_on_a_guess():
    """Knowing nothing, five minutes for 1.25 are worth a try, an hour for 2.0 is not."""
    sent = blocks("a", "b", "c")
    assert PrefixPolicy([SHORT]).decide(sent, 0.0).upto == 3
    assert PrefixPolicy([LONG]).decide(sent, 0.0).upto == 0


def test_the_longer_lifetime_is_chosen_where_prompts_return_late():
    """Every ten minutes, again and again: five minutes would always be too short, an hour pays."""
    policy = PrefixPolicy([SHORT, LONG])
    requests = [(600.0 * n, blocks(*(f"{part}" for part in range(8)))) for n in range(40)]
    live(policy, requests)
    markings = []
    for n in range(40, 60):
        sent = requests[0][1]
        marking = policy.decide(sent, 600.0 * n)
        policy.observe(sent, 600.0 * n, marking)
        markings.append(marking)
    assert all(marking.cached == 8 for marking in markings[2:])
    assert policy._kept["0"][1] == LONG


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 200), st.lists(st.integers(0, 2), min_size=1, max_size=5)), max_size=60))
def test_the_policy_knows_what_the_provider_holds(steps):
    """A simulated provider, that charges for writes and refreshes on use, holds exactly the blocks that it says."""
    policy, held, now = PrefixPolicy([SHORT]), {}, 0.0
    for pause, path in steps:
        now += pause
        sent = [Block(tuple(path[: n + 1]), 100) for n in range(len(path))]
        marking = policy.decide(sent, now)
        expected = 0
        while expected < len(sent) and held.get(sent[expected].id, -1.0) >= now:
            expected += 1
        assert marking.cached == expected <= marking.upto <= len(sent)
        for block in sent[: marking.upto]:
            held[block.id] = now + 300.0
        policy.observe(sent, now, marking)


def test_the_future_changes_nothing():
    """What is decided on a request is the same, whatever comes after it."""
    requests = [(7.0 * n, blocks(*(f"{n % (2 + part)}.{part}" for part in range(6)))) for n in range(120)]
    assert live(PrefixPolicy([SHORT]), requests)[:60] == live(PrefixPolicy([SHORT]), requests[:60])


def test_a_policys_memory_is_bounded():
    """However many prompts come, so many blocks are remembered."""
    policy = PrefixPolicy([SHORT], max_blocks=50)
    live(policy, [(float(n), blocks(*(f"{n}.{part}" for part in range(4)))) for n in range(200)])
    assert len(policy._sightings._last) == 50
    assert len(policy._kept) <= 50


def test_a_life_table_needs_nobody_to_have_lived_to_the_end():
    """Half are sent again in the first age, none later: the chance is about a half, and never above."""
    tables = Tables([10.0, 20.0], guessed=2)
    for n in range(2000):
        tables.came(("x",), 100)
        tables.lived(("x",), 0, 100, again=n % 2 == 0)
    first = tables.within(("x",), 1)
    assert 0.48 < first < 0.52
    assert first <= tables.within(("x",), 2) < 0.66  # of the second age it knows nothing yet
    assert tables.within(("y",), 2) == pytest.approx(0.5)


def test_an_agents_loop_with_a_clock_costs_as_if_it_had_none():
    """Composed, every call's prompt begins with all of the call before it but the clock."""
    composer, before = StablePrefix(), None
    turns, now = [user()], datetime(2026, 11, 23, tzinfo=UTC)
    for n in range(6):
        stamp = (now + timedelta(seconds=7 * n)).isoformat()
        messages = list(composer.compose(chat(f"It is now {stamp}.\n{RULES}", *turns)).data["messages"])
        if before is not None:
            assert messages[: len(before) - 1] == before[:-1]
        before = messages
        turns = [*turns, {"role": "assistant", "content": f"Step {n}"}, user("Go on")]
