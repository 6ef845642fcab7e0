"""What a provider remembers of one caller never reaches another: earlier answers are gone on from by their owners."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from worlds import Fake, virtual, world

from negawatt.call import Call, Target
from negawatt.errors import InvalidRequest
from negawatt.levers.classify import Classify
from negawatt.levers.conversations import Conversations
from negawatt.reply import Reply
from negawatt.wire.responses import RESPONSES

KEYS = [
    {"id": "a1", "key_env": "A1", "tenant": "acme"},
    {"id": "a2", "key_env": "A2", "tenant": "acme"},
    {"id": "ap", "key_env": "AP", "tenant": "acme", "permissions": ["finance"]},
    {"id": "b", "key_env": "B", "tenant": "bolt"},
]
ENVIRON = {name: name.lower() for name in ("A1", "A2", "AP", "B")}


class Remembering(Fake):
    """A provider whose answers are named resp_0, resp_1, ..."""

    speaks = frozenset({"responses"})

    async def ask(self, call: Call, target: Target) -> Reply:
        part = {"type": "output_text", "text": "hi", "annotations": []}
        item = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        whole = {
            "id": f"resp_{len(self.asked)}", "object": "response", "status": "completed", "model": target.model,
            "output": [item], "usage": {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11},
        }  # fmt: skip
        self.asked.append(dict(call.request.data))
        return Reply(RESPONSES, body=orjson.dumps(whole))


async def ask(w: Any, previous: str | None = None, **hints: str | None) -> Any:
    fields = {} if previous is None else {"previous_response_id": previous}
    return await w.send(w.call({"model": "gpt-5", "input": "hello", **fields}, wire=RESPONSES, **hints))


async def refused(w: Any, previous: str, **hints: str | None) -> bool:
    try:
        await ask(w, previous, **hints)
    except InvalidRequest as error:
        assert error.param == "previous_response_id"
        return True
    return False


@virtual
async def test_an_answer_is_gone_on_from_by_its_owners_only():
    """The same tenant and permissions, whichever key; nobody else, though they know the id."""
    async with world(Remembering(), keys=KEYS, environ=ENVIRON) as w:
        await ask(w, key="a1")
        assert not await refused(w, "resp_0", key="a2")
        assert w.provider.asked[-1]["previous_response_id"] == "resp_0", "it passes through"
        for stranger in ("b", "ap"):
            assert await refused(w, "resp_0", key=stranger)
        assert await refused(w, "resp_0", key="a1", permissions="hr")
        assert not await refused(w, "resp_1", key="a1"), "the answer that went on can be gone on from"
        assert w.calls == 3


@virtual
async def test_who_asked_is_looked_up_in_the_ledger():
    """After a restart the ids are not in memory, and hold all the same."""
    async with world(Remembering(), keys=KEYS, environ=ENVIRON) as w:
        await ask(w, key="a1")
        w.gateway.admit._conversations = Conversations(w.ledger, divided=lambda: True, classes={})
        assert await refused(w, "resp_0", key="b")
        assert not await refused(w, "resp_0", key="a1")


@virtual
async def test_an_id_of_nobodys_is_refused_where_callers_are_divided():
    """And passes where there is nobody to protect: it may be from before there was a gateway."""
    async with world(Remembering(), keys=KEYS, environ=ENVIRON) as w:
        assert await refused(w, "resp_of_long_ago", key="a1")
    async with world(Remembering()) as w:
        assert not await refused(w, "resp_of_long_ago")
        assert await refused(w, "resp_of_long_ago", permissions="hr")


@virtual
async def test_a_personal_answer_is_its_users_own():
    """In a class whose answers are personal another user of the same tenant is a stranger."""
    async with world(Remembering(), classes={"personal": {"personal": True}}) as w:
        await ask(w, user="alice", request_class="personal")
        assert await refused(w, "resp_0", user="bob", request_class="personal")
        assert not await refused(w, "resp_0", user="alice", request_class="personal")
        assert await refused(w, "resp_0", user="bob"), "naming another class does not make it his"
        assert await refused(w, "resp_0", request_class="personal"), "nor does naming nobody"
        assert not await refused(w, "resp_0", user="alice")
        w.gateway.admit._conversations._owners.clear()
        assert await refused(w, "resp_0", user="bob"), "the ledger knows the class too"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("conversation", "conv_1", "conversation"),
        ("conversation", {"id": "conv_1"}, "conversation"),
        ("input", [{"type": "item_reference", "id": "msg_1"}], "input[0].id"),
    ],
)
@virtual
async def test_what_has_no_known_owner_is_refused_where_callers_are_divided(field: str, value: Any, named: str):
    """Conversations and items: nobody here knows whose they are."""
    request = {"model": "gpt-5", "input": "hello", field: value}
    async with world(Remembering(), keys=KEYS, environ=ENVIRON) as w:
        with pytest.raises(InvalidRequest) as caught:
            await w.send(w.call(request, wire=RESPONSES, key="a1"))
        assert caught.value.param == named
        assert w.calls == 0
    async with world(Remembering()) as w:
        await w.send(w.call(request, wire=RESPONSES))
        assert w.calls == 1


@virtual
async def test_a_refused_call_takes_no_place():
    """It has its row, and the next one is let in."""
    async with world(Remembering(), keys=KEYS, environ=ENVIRON, server={"max_in_flight": 1}) as w:
        for _ in range(3):
            assert await refused(w, "resp_9", key="a1")
        await ask(w, key="a1")
        assert [row.ending for row in w.rows()] == ["refused"] * 3 + ["answered"]
        assert w.gateway.admit.in_flight == 0


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """The oldest go first; they are in the ledger."""
    from worlds import bare_call

    from negawatt.ledger.memory import MemoryLedger
    from negawatt.levers import conversations

    monkeypatch.setattr(conversations, "_MOST_KEPT", 2)
    known = Conversations(MemoryLedger(), divided=lambda: True, classes={})
    for name in ("a", "b", "c"):
        known.remember(bare_call(), Reply(RESPONSES, body=orjson.dumps({"id": name})))
    assert list(known._owners) == ["b", "c"]


@virtual
async def test_a_container_is_state_too():
    """Refused where callers are divided; elsewhere it passes, and its answers are neither kept nor shared."""
    from negawatt.call import Request
    from negawatt.wire.messages import MESSAGES

    for container in ("container_1", {"id": "container_1", "skills": []}):
        request = {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "hi"}],
            "container": container,
        }
        asked = Request(data={**request, "temperature": 0})
        assert MESSAGES.continues(asked) == [("container", "container_1")]
        assert not MESSAGES.deterministic(asked) and MESSAGES.sampled(asked)
        async with world(Remembering(), keys=KEYS, environ=ENVIRON) as w:
            with pytest.raises(InvalidRequest) as caught:
                await w.send(w.call(request, wire=MESSAGES, key="a1"))
            assert caught.value.param == "container"
    assert MESSAGES.continues(Request(data={"container": {"skills": []}})) == []


@virtual
async def test_an_answer_that_was_found_to_be_personal_is_its_users_own():
    """Nobody declared the class: a rule named it after the call was admitted. The ledger knows it as well."""
    classes = {"personal": {"personal": True, "match": [{"says": "(?i)my "}]}}
    async with world(Remembering(), classes=classes) as w:
        classify = Classify(w.gateway.config.classes, w.gateway.config.levers.classify)

        async def send(text: str, user: str | None, previous: str | None = None) -> bool:
            fields = {} if previous is None else {"previous_response_id": previous}
            call = w.call({"model": "gpt-5", "input": text, **fields}, wire=RESPONSES, user=user)

            async def admitted(call: Call) -> Reply:
                return await w.gateway.admit(call, lambda call: classify(call, w.gateway.pipeline))

            try:
                reply = await w.gateway.meter(call, admitted)
            except InvalidRequest as error:
                assert error.param == "previous_response_id"
                return False
            await reply.whole()
            await reply.close()
            return True

        assert await send("What is my balance?", "alice")
        assert await send("When are you open?", "alice")
        assert [row.request_class for row in w.rows()] == ["personal", "default"]
        for _ in range(2):
            assert not await send("And then?", "bob", "resp_0")
            assert not await send("And then?", None, "resp_0")
            assert await send("And then?", "alice", "resp_0")
            assert await send("And then?", "bob", "resp_1"), "what is not personal is the tenant's"
            w.gateway.admit._conversations._owners.clear()


class Named(Remembering):
    """Providers whose answers are named after them."""

    async def ask(self, call: Call, target: Target) -> Reply:
        reply = await super().ask(call, target)
        return Reply(RESPONSES, body=orjson.dumps({**reply.data, "id": f"resp_{target.provider}"}))


@virtual
async def test_it_is_known_which_provider_keeps_an_answer():
    """From memory, and after a restart from the ledger; what nobody here gave is kept by nobody that is known."""
    providers = [{"name": name, "kind": "openai"} for name in ("east", "west")]
    models = [{"name": "e", "provider": "east"}, {"name": "w", "provider": "west"}]
    async with world(Named(delay_s=0), providers=providers, models=models) as w:
        known = w.gateway.admit._conversations

        async def held(**fields: Any) -> str | None:
            request = {"model": "e", "input": "go on", **fields}
            found: str | None = await known.held_by(w.call(request, wire=RESPONSES))
            return found

        for model in ("e", "w"):
            await w.send(w.call({"model": model, "input": "hello"}, wire=RESPONSES))
        for _ in range(2):
            assert await held(previous_response_id="resp_east") == "east"
            assert await held(previous_response_id="resp_west") == "west"
            known._owners.clear()
        assert await held() is None
        assert await held(previous_response_id="resp_of_long_ago") is None
        assert await held(conversation="conv_1") is None
