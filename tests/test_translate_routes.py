"""Which translation is taken, two in a row, and how answers come back: whole, streamed, broken off."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from worlds import Chunks

from negawatt.errors import UpstreamBroken
from negawatt.reply import Reply
from negawatt.translate.answer import translated
from negawatt.translate.routes import PAIRS, PREFERRED, route
from negawatt.translate.table import Untranslatable
from negawatt.wire.wires import WIRES

ASKED: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "responses": {"model": "m", "input": "hi"},
    "messages": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
}
USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
CHAT_ANSWER = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}],
}  # fmt: skip
WAYS = list(itertools.permutations(ASKED, 2))


def spoken(protocol: str) -> dict[str, Any]:
    """Return the same answer, as a provider of *protocol* gives it."""
    if protocol == "chat":
        return CHAT_ANSWER
    way = route(protocol, {"chat"})
    assert way is not None
    reply = Reply(WIRES["chat"], body=orjson.dumps(CHAT_ANSWER))
    return translated(reply, ASKED[protocol], way, WIRES[protocol], WIRES["chat"]).data


def test_a_protocol_that_is_spoken_is_not_translated():
    """Nothing stands in between."""
    for name in WIRES:
        assert route(name, {name, "chat"}) is None


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_there_is_a_way_between_any_two(source: str, target: str):
    """Directly, or by way of Chat; the request it makes is one that the target takes."""
    from negawatt.call import Request

    way = route(source, {target})
    assert way is not None and (way.source, way.target) == (source, target)
    WIRES[target].check(Request(data=way.request(ASKED[source])))


def test_the_nearest_way_is_taken():
    """Of several that the provider speaks, the one that keeps most."""
    ways = {source: route(source, set(ASKED) - {source}) for source in PREFERRED}
    found = {source: way.target for source, way in ways.items() if way is not None}
    assert found == {"chat": "responses", "responses": "chat", "messages": "chat"}
    assert set(itertools.chain(*PAIRS)) == set(ASKED)


@pytest.mark.parametrize("source", ["embeddings", "rerank", "completions", "count_tokens"])
def test_where_there_is_no_way_the_error_says_what_is_spoken(source: str):
    """It names the model, which can be another one."""
    with pytest.raises(Untranslatable, match=f"speaks chat, messages, and {source} cannot") as caught:
        route(source, {"messages", "chat"})
    assert caught.value.param == "model"


@pytest.mark.parametrize(("source", "target"), WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_comes_back_in_the_callers_words(source: str, target: str, stream: bool):
    """Whole and streamed say the same, and the same usage."""
    way, near, far = route(source, {target}), WIRES[source], WIRES[target]
    assert way is not None
    whole = spoken(target)
    reply = Reply(far, source=Chunks(far.unfold(whole))) if stream else Reply(far, body=orjson.dumps(whole))
    mine = translated(reply, ASKED[source], way, near, far)
    assert mine.streamed == stream
    await mine.whole()
    assert "hello there" in near.text_of(mine.data) and near.complete(mine.data)
    used = near.usage(mine.data)
    assert used is not None and (used.input_tokens, used.output_tokens) == (10, 2)
    await mine.close()


@pytest.mark.parametrize(("source", "target"), WAYS)
async def test_an_answer_that_breaks_off_has_no_end(source: str, target: str):
    """The caller is not told that it was all, and the provider's stream is closed with theirs."""
    way, near, far = route(source, {target}), WIRES[source], WIRES[target]
    assert way is not None
    events = far.unfold(spoken(target))
    origin = Chunks(events[: len(events) // 2])
    mine = translated(Reply(far, source=origin), ASKED[source], way, near, far)
    async for _ in mine:
        pass
    assert not mine.finished
    failing = Chunks(events[: len(events) // 2], then=UpstreamBroken("no"))
    mine = translated(Reply(far, source=failing), ASKED[source], way, near, far)
    with pytest.raises(UpstreamBroken):
        await mine.whole()
    await mine.close()
    assert failing.closed == 1
