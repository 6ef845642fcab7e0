"""compose's saving part: what changes behind what does not, and the provider's marks where they pay."""

from __future__ import annotations

import asyncio
import copy

import orjson
import pytest
from worlds import USAGE, Fake, answer, chat, decisions, virtual, world

from negawatt.call import Call, Target
from negawatt.reply import Reply
from negawatt.wire.messages import MESSAGES

MODEL = "claude-sonnet-4-5"
RULES = "Never book without a yes. " * 400  # about 2,600 tokens
STAMP = "Current time: 2026-11-23T10:00:0{}Z"


def blocks_of(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Anthropic(Fake):
    """Answers in the Messages protocol, and keeps prompts as the provider does: by what is marked."""

    speaks = frozenset({"messages"})

    def __init__(self) -> None:
        super().__init__(delay_s=0.0)
        self.kept: set[bytes] = set()

    async def ask(self, call: Call, target: Target) -> Reply:
        data = copy.deepcopy(dict(call.request.data))
        self.asked.append(data)
        await asyncio.sleep(0)
        read, write, total = self._cached(data)
        usage = {
            "input_tokens": total - read - write, "output_tokens": 5, "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write,
        }  # fmt: skip
        said = {
            "id": f"msg_{len(self.asked)}", "type": "message", "role": "assistant", "model": MODEL,
            "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn", "usage": usage,
        }  # fmt: skip
        return Reply(MESSAGES, body=orjson.dumps(said))

    def _cached(self, data):
        """Return tokens read, written, and in all; the longest kept prefix that is marked is read."""
        parts = [("tools", tool) for tool in data.get("tools", ())]
        system = data.get("system", [])
        parts += [
            ("system", one) for one in ([{"type": "text", "text": system}] if isinstance(system, str) else system)
        ]
        for turn in data["messages"]:
            parts += [(turn["role"], one) for one in blocks_of(turn["content"])]
        told, total, read, marked = b"", 0, 0, []
        for role, part in parts:
            plain = {name: value for name, value in part.items() if name != "cache_control"}
            told += orjson.dumps([role, plain])
            total += len(orjson.dumps(plain)) // 4
            if "cache_control" in part:
                marked.append((told, total))
        assert len(marked) <= 4
        for key, tokens in marked:
            read = tokens if key in self.kept else read
        written = marked[-1][1] - read if marked and marked[-1][0] not in self.kept else 0
        self.kept |= {key for key, _ in marked}
        return read, written, total


def asked(*turns, system=RULES, **fields):
    """Return a Messages request whose turns alternate, a user's first."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"model": MODEL, "max_tokens": 50, "system": system, "messages": messages, **fields}


def only(compose):
    """Return the levers' configuration with nothing on that would hide a call."""
    off = {"mode": "off"}
    return {"compose": compose, "exact_cache": off, "coalesce": off, "retry": {"attempts": 1}}


def tables(**compose):
    return {"levers": only(compose), "providers": [{"name": "anthropic"}]}


def marks(request):
    """Return where *request* is marked: names of fields, and the texts' beginnings."""
    system = request["system"] if isinstance(request.get("system"), list) else []
    turns = [part for turn in request["messages"] if isinstance(turn["content"], list) for part in turn["content"]]
    return [one["text"][:5] for one in [*system, *turns] if "cache_control" in one]


async def send(w, request):
    await w.send(w.call(request, wire=MESSAGES))
    return w.provider.asked[-1]


@virtual
async def test_a_conversation_is_written_once_and_then_read():
    """Each turn reads what the turn before wrote; the saving is in the row, measured against no marks."""
    async with world(Anthropic(), **tables(marks="auto")) as w:
        turns = ["Hello there"]
        for _ in range(4):
            await send(w, asked(*turns))
            turns += ["ok", "And then? " * 50]
        read = [row.cache_read_tokens for row in w.rows()]
        assert read[0] == 0 and all(later > 2_000 for later in read[1:]) and read == sorted(read)
        assert marks(w.provider.asked[0])
        last = w.rows()[-1]
        assert last.cost_pusd < last.baseline_cost_pusd and last.baseline_input_tokens == last.input_tokens
        assert [one["action"] for one in decisions(last, "compose")] == ["marked", "kept"]


@virtual
async def test_prompts_that_never_come_again_are_not_written_for_long():
    """After enough single questions the policy stops paying for writes that nobody reads."""
    async with world(Anthropic(), **tables(marks="auto")) as w:
        for i in range(80):
            await send(w, asked(f"Question {i}", system=f"{i} {RULES}"))
            await asyncio.sleep(400)
        assert marks(w.provider.asked[0]) and not any(marks(one) for one in w.provider.asked[-20:])
        [found] = decisions(w.rows()[-1], "compose")
        assert (found["action"], found["reason"]) == ("unmarked", "reuse is not expected")


@virtual
async def test_the_callers_own_marks_are_left_alone():
    """A request that marks something itself is sent as it came, whatever the policy thinks."""
    own = [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
    async with world(Anthropic(), **tables(marks="auto")) as w:
        request = asked("Hello", system=own)
        assert await send(w, request) == request
        assert decisions(w.rows()[0], "compose")[0]["reason"] == "the request has marks of its own"


@virtual
async def test_a_short_prompt_is_not_marked():
    """Providers keep nothing below a least length."""
    async with world(Anthropic(), **tables(marks="auto")) as w:
        for _ in range(3):
            assert not marks(await send(w, asked("Hello", system="Be brief.")))
        assert decisions(w.rows()[-1], "compose")[0]["reason"] == "the prompt is too short to be kept"


@virtual
async def test_marks_do_not_change_what_caches_know_of_a_request():
    """The same request is answered from the cache whether or not it was marked when it was asked."""
    config = {**tables(marks="auto"), "levers": {"compose": {"marks": "auto"}, "retry": {"attempts": 1}}}
    async with world(Anthropic(), **config) as w:
        await send(w, asked("Hello", temperature=0))
        await send(w, asked("Hello", temperature=0))
        assert len(w.provider.asked) == 1 and w.rows()[0].fingerprint == w.rows()[1].fingerprint


@virtual
async def test_tenants_and_permissions_share_no_prefix():
    """What one caller had written is no reason to expect that another reads it."""
    async with world(Anthropic(), **tables(marks="auto")) as w:
        await send(w, asked("Hello"))
        call = w.call(asked("Hello"), wire=MESSAGES, permissions="other")
        await w.send(call)
        found = [decisions(row, "compose")[0]["detail"]["cached_tokens"] for row in w.rows()]
        assert found == [0, 0]


@virtual
async def test_other_protocols_and_providers_get_no_marks():
    """OpenAI keeps prompts by itself: nothing is marked, and nothing is said."""
    async with world(levers=only({"marks": "auto"})) as w:
        await w.ask(chat())
        assert w.provider.asked == [chat()] and not decisions(w.rows()[0], "compose")


def stamped(second):
    return chat(messages=[
        {"role": "system", "content": f"{STAMP.format(second)}\n\n{RULES}"}, {"role": "user", "content": "Where?"}
    ])  # fmt: skip


def read(tokens):
    """Return an answer of a provider that read *tokens* from its own cache."""
    return answer(usage={**USAGE, "prompt_tokens": 2_700, "prompt_tokens_details": {"cached_tokens": tokens}})


@virtual
async def test_what_changes_moves_behind_what_stays():
    """The system prompt is the same from call to call; what that saved is in the row, as an estimate."""
    async with world(levers=only({"stable": True})) as w:
        w.provider.script = [read(0), read(2_560)]
        for second in range(2):
            await w.ask(stamped(second))
        first, second = w.provider.asked
        assert first["messages"][:2] == second["messages"][:2] and STAMP.format(1) in second["messages"][-1]["content"]
        row = w.rows()[-1]
        noted, kept = decisions(row, "compose")
        assert (noted["action"], noted["detail"]) == ("stable", {"moved": 1})
        assert (kept["saved"]["basis"], kept["saved"]["usage"]["input_tokens"]) == ("estimated", 2_700)
        assert "cache_read_tokens" not in kept["saved"]["usage"] and row.cost_pusd < row.baseline_cost_pusd


@virtual
async def test_in_shadow_nothing_is_moved():
    """The provider gets the request as it came; the decision says what would have been done."""
    async with world(levers=only({"stable": True, "mode": "shadow"})) as w:
        await w.ask(stamped(1))
        assert w.provider.asked == [stamped(1)]
        [found] = decisions(w.rows()[0], "compose")
        assert (found["action"], found["mode"]) == ("stable", "shadow")


@virtual
async def test_the_holdout_is_left_as_it_came():
    """Savings are measured against calls that nothing was done to."""
    async with world(levers=only({"stable": True}), holdout={"share": 1.0}) as w:
        await w.ask(stamped(1))
        assert w.provider.asked == [stamped(1)] and not decisions(w.rows()[0], "compose")


@virtual
async def test_equal_questions_at_different_times_are_told_apart():
    """Caches key on the request as asked: another time is another request."""
    async with world(levers={"compose": {"stable": True}, "retry": {"attempts": 1}}) as w:
        for second in (1, 2, 1):
            await w.ask(stamped(second))
        assert len(w.provider.asked) == 2


@pytest.mark.parametrize(
    "changes",
    [{"system": 3}, {"messages": [{"role": "user", "content": []}]}, {"tools": [{"name": "a"}]}, {"system": []}],
)
def test_odd_requests_pass_by(changes):
    """Whatever the lever cannot read it leaves alone; marking never makes a call fail."""
    from negawatt.shape.marks import marked, places_of
    from negawatt.shape.prefix_policy import Lifetime, Marking

    data = {**asked("Hello"), **changes}
    places = places_of(data, b"x")
    if places is not None:
        found, _ = marked(data, places, Marking(0, len(places.blocks), Lifetime(300.0, 1.25), 1.0), None)
        assert set(found) <= {"tools", "system", "messages"}
