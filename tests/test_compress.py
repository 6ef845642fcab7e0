"""The compress lever: shorter requests in every protocol, instructions and asks as they were, originals by id."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import msgspec
import orjson
import pytest
from threefold import PROTOCOLS, asking, send, text_of
from worlds import Fake, ManualClock, World, bare_call, decisions, virtual, world
from worlds import answer as whole

from negawatt.call import Call
from negawatt.config_shape import Compress as Settings
from negawatt.errors import UpstreamStatus
from negawatt.ledger.memory import MemoryLedger
from negawatt.levers.compress import Compress, Parts
from negawatt.recall.originals import Originals, Restored, whose
from negawatt.reply import Reply
from negawatt.server import Server
from negawatt.shape.passages import about_form, passages
from negawatt.shape.places import at, put_back, read
from negawatt.shape.shorten import Shortener
from negawatt.stores.memory import MemoryStore

SYSTEM = "You are a clerk.   \n\n\n\nAnswer in one sentence, and never guess.  "
ASK = "When was the mill of Lund built?"
TOWNS = ("Lund", "Ystad", "Visby", "Kalmar", "Gävle", "Umeå", "Falun", "Borås")
PASSAGE = " ".join(
    f"The mill of {town} was built in {1600 + 7 * i} by a guild of bakers. It burned down twice before {1700 + i}. "
    f"The market of {town} opens at nine on every day but Sunday, and sells cheese, wool and fish."
    for i, town in enumerate(TOWNS)
)
ROWS = [{"id": f"R-{i:03}", "town": town, "mills": i} for i, town in enumerate(TOWNS)]
RECORDS = json.dumps(ROWS, indent=4, ensure_ascii=False)
QUIET = " ".join(
    f"The market of {town} opens early on every day but Sunday. It sells cheese, wool and fish to whoever comes by "
    "ferry, and a bell is rung when it closes."
    for town in TOWNS[1:]
)


def on(**fields: Any) -> dict[str, Any]:
    """Return a configuration with the lever on, with *fields*."""
    settings = {"mode": "on", "least_tokens": 50, **fields}
    return {"levers": {"compress": settings, "retry": {"attempts": 1}, "exact_cache": {"mode": "off"}}}


def loop(protocol: str, *, ask: str = ASK, result: str = RECORDS, turns: int = 1, **fields: Any) -> dict[str, Any]:
    """Return an agent's conversation in *protocol*: *turns* asks, each with a call and its *result*."""
    messages: list[dict[str, Any]] = []
    for i in range(turns):
        said, name = (ask if i == turns - 1 else f"And what of number {i}?"), f"call_{i}"
        if protocol == "chat":
            call = {"id": name, "type": "function", "function": {"name": "find", "arguments": '{"in": "mills"}'}}
            messages += [{"role": "user", "content": said}, {"role": "assistant", "tool_calls": [call]},
                         {"role": "tool", "tool_call_id": name, "content": result}]  # fmt: skip
        elif protocol == "messages":
            call = {"type": "tool_use", "id": name, "name": "find", "input": {"in": "mills"}}
            answer = {"type": "tool_result", "tool_use_id": name, "content": result}
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": [call]},
                         {"role": "user", "content": [answer]}]  # fmt: skip
        else:
            call = {"type": "function_call", "call_id": name, "name": "find", "arguments": '{"in": "mills"}'}
            messages += [{"role": "user", "content": said}, call,
                         {"type": "function_call_output", "call_id": name, "output": result}]  # fmt: skip
    request = asking(protocol, "", system=SYSTEM, **fields)
    field = "input" if protocol == "responses" else "messages"
    if protocol == "chat":
        messages.insert(0, {"role": "system", "content": SYSTEM})
    return {**request, field: messages}


def sent(w: World) -> dict[str, Any]:
    """Return what the provider, which speaks Chat, was sent last."""
    return w.provider.asked[-1]


def results(request: dict[str, Any]) -> list[str]:
    return [one["content"] for one in request["messages"] if one["role"] == "tool"]


def noted(w: World, place: int = -1) -> dict[str, Any]:
    return decisions(w.rows()[place], "compress")[-1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_json_that_a_tool_returned_is_sent_without_its_layout(protocol: str, stream: bool):
    """In every protocol, whole and streamed: the same values, the rest as it was, and less is billed."""

    @virtual
    async def story():
        fake = Fake("1600")
        async with world(fake, **on()) as w, world(fake) as plain:
            request = loop(protocol, stream=stream)
            answer = await send(w, protocol, request)
            assert text_of(protocol, answer) == "1600"
            await send(plain, protocol, request)
            shorter, whole = fake.asked
            assert results(shorter) == [orjson.dumps(orjson.loads(RECORDS)).decode()]
            assert results(whole) == [RECORDS]
            assert [one for one in shorter["messages"] if one["role"] != "tool"] == [
                one for one in whole["messages"] if one["role"] != "tool"
            ]
            decision = noted(w)
            assert decision["action"] == "shortened"
            assert decision["detail"]["parts"] == {"json": len(RECORDS) - len(results(shorter)[0])}
            assert decision["saved"]["basis"] == "estimated"
            (row,) = w.rows()
            assert row.baseline_input_tokens == row.input_tokens + decision["saved"]["input_tokens"]
            assert row.baseline_cost_pusd > row.cost_pusd

    story()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_changed_comes_back_by_the_calls_id(protocol: str):
    """The texts as they were, put where they were, make the request that the caller sent; others do not get them."""

    @virtual
    async def story():
        async with world(**on()) as w:
            request = loop(protocol)
            await send(w, protocol, request, user="ann")
            name = w.rows()[0].id
            found = await w.gateway.originals.of_call(name, whose("default", "", "ann"))
            assert isinstance(found, Restored)
            assert list(found.texts.values()) == [RECORDS]
            assert put_back(request, found.texts) == {path[0]: request[path[0]] for path in found.texts}
            for other in (whose("default", "", "bob"), whose("acme", "", "ann"), whose("default", "p", "ann")):
                assert await w.gateway.originals.of_call(name, other) is None

    story()


@virtual
async def test_the_ledger_keeps_the_request_as_it_was_asked():
    """A replay of what was kept goes through the lever again; and the fingerprint is that of the request as asked."""
    kept = MemoryLedger()
    settings = {"compress": {"mode": "on", "least_tokens": 50}}
    async with world(kept=kept, ledger={"keep_content": True}, levers=settings) as w:
        await send(w, "chat", loop("chat"))
        content = kept.content(w.rows()[0].id)
        assert content is not None
        assert orjson.loads(content.request) == loop("chat")
        assert w.rows()[0].fingerprint is not None


@virtual
async def test_the_cache_answers_the_request_as_asked():
    """An equal request is a hit, though the model was sent another."""
    async with world(levers={"compress": {"mode": "on", "least_tokens": 50}}) as w:
        await send(w, "chat", loop("chat"))
        assert noted(w)["action"] == "shortened"
        assert (await send(w, "chat", loop("chat"))).by == "exact_cache"


@virtual
async def test_in_shadow_nothing_changes_and_the_saving_is_noted():
    """The provider gets the request as it is; the decision says what would have been left out; nothing is kept."""
    async with world(**on(mode="shadow")) as w:
        await send(w, "chat", loop("chat"))
        assert results(sent(w)) == [RECORDS]
        decision = noted(w)
        assert (decision["mode"], decision["action"]) == ("shadow", "shortened")
        assert decision["saved"]["input_tokens"] > 0
        (row,) = w.rows()
        assert row.baseline_input_tokens == row.input_tokens
        assert await w.gateway.originals.of_call(row.id, whose("default", "", None)) is None


@virtual
async def test_a_call_that_nobody_answered_spared_nothing():
    """The decision stands, without a saving."""
    async with world(**on()) as w:
        w.provider.script = [UpstreamStatus(500, b"{}", {})]
        with pytest.raises(UpstreamStatus):
            await send(w, "chat", loop("chat"))
        assert noted(w)["action"] == "shortened"
        assert "saved" not in noted(w)


@virtual
async def test_a_short_prompt_is_left_alone_with_the_reason():
    """Below ``least_tokens`` nothing is tried; where nothing can go, the decision says so."""
    async with world(**on(least_tokens=5000)) as w:
        await send(w, "chat", loop("chat"))
        assert noted(w)["reason"] == "a prompt of fewer than 5000 tokens"
    async with world(**on(least_tokens=1)) as w:
        await send(w, "chat", asking("chat", "Hello there, how are you?"))
        assert (noted(w)["action"], noted(w)["reason"]) == ("pass", "there is nothing to take out")


@virtual
async def test_nothing_is_kept_where_the_caller_or_the_class_forbids_it():
    """``no-store`` and a class of which nothing is kept: shortened all the same, and the decision says so."""
    async with world(**on(), classes={"secret": {"cache": "never"}}) as w:
        for hints in ({"cache_control": "no-store"}, {"request_class": "secret"}):
            await send(w, "chat", loop("chat"), **hints)
            assert noted(w)["detail"]["originals"] is False
            assert await w.gateway.originals.of_call(w.rows()[-1].id, whose("default", "", None)) is None


@virtual
async def test_where_it_does_not_pay_it_rests_and_tries_again():
    """After thirty calls of a class that saved nothing, nineteen of twenty are passed by."""
    async with world(**on(least_tokens=1)) as w:
        for i in range(70):
            await send(w, "chat", asking("chat", f"Hello there, how are you, number {i}?"))
        reasons = [decisions(row, "compress")[0]["reason"] for row in w.rows()]
        assert reasons[:30] == ["there is nothing to take out"] * 30
        assert sum("not worth it" in reason for reason in reasons[30:]) == 38


# -- by what is asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_context_is_chosen_by_the_ask(protocol: str):
    """What answers it stays, most of the rest goes, and what the user said is there word for word."""

    @virtual
    async def story():
        async with world(**on(context=True)) as w:
            mill = "The mill of Lund was built in 1600 by a guild of bakers."
            text = f"Use only this.\n<context>\n{QUIET} {mill} {QUIET}\n</context>\n{ASK}"
            await send(w, protocol, asking(protocol, text, system=SYSTEM))
            got = sent(w)["messages"][-1]["content"]
            got = got if isinstance(got, str) else got[0]["text"]
            assert mill in got
            assert len(got) < len(text) / 2
            assert got.startswith("Use only this.\n<context>\n")
            assert got.endswith(f"\n</context>\n{ASK}")
            assert sent(w)["messages"][0]["content"] in (SYSTEM, [{"type": "text", "text": SYSTEM}])

    story()


@pytest.mark.parametrize(
    "ask", ["Translate this into Swedish.", "Proofread it.", "What colour is the moon of Jupiter?"]
)
@virtual
async def test_where_the_ask_does_not_tell_all_of_it_stays(ask: str):
    """Requests about all of the text, about its wording, or about something else: nothing goes, and it is said why."""
    async with world(**on(context=True)) as w:
        text = f"<document>\n{PASSAGE}\n</document>\n{ask}"
        await send(w, "chat", asking("chat", text))
        assert sent(w)["messages"][-1]["content"] == text
        assert noted(w)["action"] == "pass"
        assert noted(w)["reason"]


@virtual
async def test_old_turns_are_folded_where_no_cache_is_lost():
    """A conversation that is met for the first time: old results become a note; the last turns and the ask stay."""
    async with world(**on(history_turns=2)) as w:
        request = loop("chat", turns=6, result=QUIET)
        await send(w, "chat", request)
        told = results(sent(w))
        assert sum(one.startswith("[tool result left out") for one in told) == 4
        assert noted(w)["detail"]["parts"]["turn"] > 0
        assert [one for one in sent(w)["messages"] if one["role"] == "user"] == [
            one for one in request["messages"] if one["role"] == "user"
        ]


@virtual
async def test_a_beginning_that_the_provider_holds_is_not_given_up_for_little():
    """A long conversation goes on with the beginning that was sent before; after five minutes it may change."""

    def turn(n: int) -> dict[str, Any]:
        return loop("chat", turns=n, result=QUIET * 4, ask=f"And what of number {n - 1}?")

    async with world(**on(history_turns=2, lossless=False)) as w:
        await send(w, "chat", turn(2))
        before = sent(w)["messages"]
        await send(w, "chat", turn(3))
        assert sent(w)["messages"][: len(before)] == before
        assert "prefix cache" in noted(w)["reason"]
        await asyncio.sleep(301)
        await send(w, "chat", turn(4))
        assert any(one.startswith("[tool result left out") for one in results(sent(w)))


@virtual
async def test_what_a_caller_marks_for_the_cache_stays():
    """Before the last mark nothing depends on what is asked."""
    marked = {"type": "text", "text": f"<context>\n{PASSAGE}\n</context>", "cache_control": {"type": "ephemeral"}}
    request = asking("messages", "") | {
        "messages": [{"role": "user", "content": [marked, {"type": "text", "text": ASK}]}]
    }
    async with world(**on(context=True)) as w:
        await send(w, "messages", request)
        assert PASSAGE in str(sent(w)["messages"])
        assert noted(w)["action"] == "pass"
        del marked["cache_control"]
        await send(w, "messages", request)
        assert PASSAGE not in str(sent(w)["messages"])


def uncounted(model: str, text: str) -> int:
    raise ValueError("no tokenizer")


@virtual
async def test_a_request_that_cannot_be_shortened_is_sent_as_it_is():
    """Whatever goes wrong costs the saving, and not the answer; the decision says what it was."""
    parts = Parts(lambda call: 900, uncounted, lambda *target: None, Originals(MemoryStore(ManualClock())), list)
    lever = Compress(Settings(mode="on"), {}, parts, ManualClock())
    call, forwarded = bare_call(loop("chat")), []

    async def model(call: Call) -> Reply:
        forwarded.append(call)
        return Reply(call.wire, body=b"{}")

    await lever(call, model)
    assert forwarded == [call]
    (noted_,) = call.trail.decisions
    assert (noted_.action, noted_.reason) == ("failed", "ValueError: no tokenizer")


@virtual
async def test_equal_tools_are_sent_once():
    """Duplicates go, in their order; the list as it was comes back."""
    tool = {"type": "function", "function": {"name": "find", "description": "Finds a mill. " * 20, "parameters": {}}}
    async with world(**on()) as w:
        await send(w, "chat", asking("chat", ASK, tools=[tool, tool]))
        assert sent(w)["tools"] == [tool]
        found = await w.gateway.originals.of_call(w.rows()[0].id, whose("default", "", None))
        assert found is not None
        assert found.tools == [tool, tool]


def tool(name: str, about: str) -> dict[str, Any]:
    function = {"name": name, "description": about, "parameters": {"type": "object", "properties": {}}}
    return {"type": "function", "function": function}


TOOLS = [tool(f"find_{word}", f"Finds the {word} of a town by its name. " * 12) for word in
         ("mills", "markets", "ferries", "schools", "harbours", "bakers", "churches", "bridges")]  # fmt: skip


def calling(name: str) -> dict[str, Any]:
    """Return an answer that calls the tool *name*."""
    called = {"id": "call_9", "type": "function", "function": {"name": name, "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    return {**whole("..."), "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}


@virtual
async def test_tools_go_once_it_is_known_which_are_called():
    """Until then, and in one call of twenty, all are sent; those that the ask is about stay; the list comes back."""
    async with world(**on(tools_recall=0.9, lossless=False)) as w:
        words = ["mills", "markets", "ferries", "schools"]
        for i in range(60):
            word = words[i % 4]
            w.provider.script.append(calling(f"find_{word}"))
            await send(w, "chat", asking("chat", f"Please find the {word} of town {i}", tools=TOOLS))
        sizes = [len(one["tools"]) for one in w.provider.asked]
        assert sizes[:40] == [8] * 40
        assert all(size < 8 for size in sizes[40:59])
        assert sizes[59] == 8
        for i, one in enumerate(w.provider.asked):
            assert f"find_{words[i % 4]}" in [each["function"]["name"] for each in one["tools"]]
        found = await w.gateway.originals.of_call(w.rows()[45].id, whose("default", "", None))
        assert found is not None
        assert found.tools == TOOLS


@virtual
async def test_tools_stay_where_the_providers_cache_has_more_to_lose():
    """A long prompt behind a short list of tools: another list would have all of it read anew."""
    async with world(**on(tools_recall=0.9, lossless=False)) as w:
        for i in range(45):
            w.provider.script.append(calling("find_mills"))
            text = f"Please find the mills of town {i}"
            await send(w, "chat", asking("chat", text, tools=TOOLS, system=QUIET * (1 if i < 44 else 20)))
        assert [len(one["tools"]) for one in w.provider.asked[43:]] != [8, 8]
        assert len(sent(w)["tools"]) == 8
        assert "prefix cache" in noted(w)["reason"]


@virtual
async def test_what_the_providers_cache_had_is_saved_at_its_price():
    """Where nine tenths of the prompt were read from the cache, so would nine tenths of what was left out have been."""
    async with world(**on()) as w:
        usage = {"prompt_tokens": 1000, "completion_tokens": 5, "total_tokens": 1005}
        w.provider.script = [{**whole("ok"), "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 900}}}]
        await send(w, "chat", loop("chat"))
        saved = noted(w)["saved"]
        assert saved["usage"]["cache_read_tokens"] == round(saved["input_tokens"] * 0.9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Context:\n{QUIET}\n\nQuestion: {ASK}", [QUIET]),
        (f"Question: {ASK}\n\n## Documents:\n{QUIET}", [QUIET]),
        (f"Context:\n{QUIET}\n\nBased on this, {ASK}", []),
        (f"{ASK}\n```json\n{QUIET}\n```", [QUIET]),
        (f'<document id="1">{QUIET}</document><document id="2">{QUIET}</document>{ASK}', [QUIET, QUIET]),
        (f"<instructions>{QUIET}</instructions>{ASK}", []),
        (f"<document>{QUIET}{ASK}", []),
        (f"<document>{QUIET}</document>", []),
        (QUIET, []),
        (f"<document>Short.</document>{ASK}", []),
    ],
)
def test_only_what_is_marked_is_context(text: str, expected: list[str]):
    """Tags, fences and labels; in doubt, and where nothing else would be left, it is the user's own word."""
    assert [text[one.start : one.end] for one in passages(text)] == expected


def test_marks_that_never_end_cost_no_time():
    """A text of many openings is read in proportion to its length, not to its square."""
    long = "<document>" * 50_000 + "```\n" * 20_000 + "Context:\n" * 20_000 + "\n" * 100_000
    assert isinstance(passages(long), list)
    assert not about_form(long)


# -- what is never touched -------------------------------------------------------------------------------------

ALL = Settings(mode="on", blobs=True, context=True, history_turns=1, retention=0.9)


def told(protocol: str, rng: random.Random) -> dict[str, Any]:
    """Return a conversation in *protocol* with everything that may be shortened, and much that may not."""
    pieces = [PASSAGE, RECORDS, "A line.   \n\n\n\nAnother.  \n" * 9, "QUJD" * 80 + "x1Zz9", PASSAGE[:400]]
    request = loop(protocol, turns=rng.randint(1, 5), result=rng.choice(pieces), ask=f"  {ASK}   \n\n\n\n(now)  ")
    field = "input" if protocol == "responses" else "messages"
    kind = "input_text" if protocol == "responses" else "text"
    brought = f"Rules:   keep   these  \n\n\n\nalways.\n<document>\n{rng.choice(pieces)}\n</document>\n{ASK}  "
    parts = [{"type": kind, "text": brought}, {"type": kind, "text": f"\n\n\n\n{ASK}   "}]
    last = {"role": "user", "content": rng.choice([brought, parts])}
    spoken = {"role": "assistant", "content": rng.choice(["Yes.   ", PASSAGE])}
    order = [*request[field], spoken, *([last] if rng.random() < 0.7 else [])]
    return {**request, field: order}


def untouchable(protocol: str, request: dict[str, Any]) -> list[Any]:
    """Return what must be the same: system prompts, calls, and each user's words outside of a document."""
    field = "input" if protocol == "responses" else "messages"
    found: list[Any] = [request.get("system"), request.get("instructions")]
    for one in request[field]:
        if one.get("role") in ("system", "developer") or one.get("type") == "function_call" or one.get("tool_calls"):
            found.append(one)
        if one.get("role") == "user":
            content = one["content"]
            texts = [content] if isinstance(content, str) else [p["text"] for p in content if "text" in p]
            for text in texts:
                before, mark, rest = text.partition("<document>")
                found.append((before, mark, rest.partition("</document>")[2]))
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_instructions_and_asks_are_never_changed_and_all_comes_back(protocol: str):
    """200 drawn conversations, everything on: what people say stays, and the originals make the request again."""
    rng = random.Random(20261127)
    shorten = Shortener(ALL)
    shorter = 0
    for _ in range(200):
        request = told(protocol, rng)
        frozen = orjson.dumps(request)
        short = shorten(request, read(protocol, request, ASK), chosen=True)
        assert orjson.dumps(request) == frozen, "the caller's own request is left as it is"
        sent_ = {**request, **short.fields}
        assert untouchable(protocol, sent_) == untouchable(protocol, request)
        assert all(at(sent_, path) == text for path, _, text in short.texts)
        originals = {path: before for path, before, _ in short.texts}
        assert orjson.dumps({**sent_, **put_back(sent_, originals)}) == frozen
        shorter += bool(short.texts)
    assert shorter > 100


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_lossless_is_the_same_at_each_turn(protocol: str):
    """A conversation that goes on begins as it was sent before, so that the provider's cache holds."""
    shorten = Shortener(msgspec.structs.replace(ALL, context=False, history_turns=None))
    field = "input" if protocol == "responses" else "messages"
    rng = random.Random(3)
    for _ in range(30):
        whole = told(protocol, rng)
        before: list[Any] = []
        for n in range(1, len(whole[field]) + 1):
            request = {**whole, field: whole[field][:n]}
            short = shorten(request, read(protocol, request, ASK), chosen=False)
            messages = short.fields.get(field, request[field])
            assert messages[: len(before)] == before
            before = messages


@virtual
async def test_originals_come_back_over_http_and_by_their_ids():
    """``GET /v1/shaped/{id}``: of a call all of them, of a text itself; strangers and unknown ids get 404."""
    async with world(**on()) as w:
        await send(w, "chat", loop("chat"), user="ann")
        name = w.rows()[0].id
        status, said = await got(w, f"/v1/shaped/{name}", user="ann")
        assert status == 200
        (text,) = said["texts"]
        assert (said["protocol"], said["tools"], text["text"]) == ("chat", None, RECORDS)
        assert text["path"] == ["messages", 3, "content"]
        assert await got(w, f"/shaped/{text['id']}", user="ann") == (200, {"id": text["id"], "text": RECORDS})
        for path, user in (
            (f"/v1/shaped/{name}", "bob"),
            ("/v1/shaped/nw-1", "ann"),
            (f"/v1/shaped/{text['id']}", None),
        ):
            status, said = await got(w, path, user=user)
            assert (status, said["error"]["code"]) == (404, "not_kept")


async def got(w: World, path: str, *, user: str | None) -> tuple[int, Any]:
    """Return status and body of a GET, through the application as a server would run it."""
    told: list[dict[str, Any]] = []
    headers = [(b"x-negawatt-user", user.encode())] if user is not None else []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def take(message: dict[str, Any]) -> None:
        told.append(message)

    await Server(w.gateway)(scope, receive, take)
    return told[0]["status"], orjson.loads(b"".join(one.get("body", b"") for one in told[1:]))


def test_documents_whose_places_are_cited_do_not_move():
    """Where an answer names characters of a document, it stays as it is; without citations it is shortened."""

    def request(enabled: bool) -> dict[str, Any]:
        source = {"type": "text", "media_type": "text/plain", "data": PASSAGE + "\n\n\n\n\n" + PASSAGE}
        document = {"type": "document", "source": source, "citations": {"enabled": enabled}}
        content = [document, {"type": "text", "text": ASK}]
        return asking("messages", "") | {"messages": [{"role": "user", "content": content}]}

    shorten = Shortener(ALL)
    cited, free = request(True), request(False)
    assert shorten(cited, read("messages", cited, ASK), chosen=True).texts == ()
    assert len(shorten(free, read("messages", free, ASK), chosen=True).texts) == 1
