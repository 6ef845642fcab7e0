"""structure: an answer keeps its schema, or it is mended, asked for again, or said to be broken; in every protocol."""

from __future__ import annotations

from typing import Any

import orjson
import pydantic
import pytest
from cascades import LARGE, SMALL, Models
from contracted import ADA, GOOD, KINDS, PROTOCOLS, SCHEMA, WIRES, Speaker, asking, said, saying, text_of
from worlds import answer, chat, decisions, ended, start, status, virtual, world

from negawatt.errors import ConfigError, InvalidRequest, NotRecorded, UpstreamBroken
from negawatt.providers.recorded import Recorded
from negawatt.providers.recording import RecordedAnswer, Recording, Timing

BROKEN = '{"name": "Ada"}'
ON = {"structure": {"mode": "on"}, "retry": {"attempts": 1}}
FAULTS = {
    "fence": f"```json\n{GOOD}\n```",
    "prose": f"Here it is: {GOOD} Anything else?",
    "trailing comma": '{"name": "Ada", "born": 1815,}',
    "quotes": "{'name': 'Ada', 'born': 1815}",
    "bare keys": '{name: "Ada", born: 1815}',
    "comment": '{"name": "Ada", // the countess\n "born": 1815}',
    "unclosed": '{"name": "Ada", "born": 1815',
    "python": "{'name': 'Ada', 'born': 1815,}",
    "wrapped": orjson.dumps(GOOD).decode(),
}


def on(**fields: Any) -> dict[str, Any]:
    return {"structure": {"mode": "on", **fields}, "retry": {"attempts": 1}}


def the(w: Any, action: str) -> dict[str, Any]:
    """Return the one decision with this *action* on the last row."""
    (found,) = [one for one in decisions(w.rows()[-1], "structure") if one["action"] == action]
    return found


@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_what_keeps_its_contract_passes_byte_for_byte(protocol: str, stream: bool):
    """A valid answer is what the model said, asked once, whole or streamed."""
    spaced = '{ "name":"Ada",\n "born" : 1815 }'
    async with world(Speaker(protocol, spaced), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, stream=stream))
        assert text_of(protocol, got) == spaced
        assert bool(got.chunks) is stream
        assert w.calls == 1
        assert the(w, "kept")["detail"] == {"contract": "request"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_every_fault_that_can_be_mended_is(protocol: str, stream: bool, fault: str):
    """The caller gets the JSON, nobody is asked again, and the decision names what was mended."""
    async with world(Speaker(protocol, FAULTS[fault]), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, stream=stream))
        assert orjson.loads(text_of(protocol, got)) == ADA
        assert w.calls == 1
        assert the(w, "repaired")["detail"]["changes"]
        assert w.rows()[0].attempts == 1


@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_what_cannot_be_mended_is_asked_for_once_more_with_the_error(protocol: str, stream: bool):
    """The same target gets its answer back with what is wrong with it; both are on the row; the good one is given."""
    async with world(Speaker(protocol, BROKEN, GOOD), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, stream=stream))
        assert orjson.loads(text_of(protocol, got)) == ADA
        first, second = w.provider.asked
        turns = second["input" if protocol == "responses" else "messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert turns[1]["content"] == BROKEN
        assert '"born" is a required property' in turns[2]["content"]
        assert first["model"] == second["model"]
        row = w.rows()[0]
        assert (row.attempts, row.input_tokens, row.output_tokens) == (2, 200, 40)
        assert the(w, "asked again")["reason"] == "it keeps the contract"


@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_what_stays_broken_is_passed_on_as_it_came(protocol: str, stream: bool):
    """The request still gets its first answer, byte for byte; the decision says that it is broken; all is charged."""
    fenced = f"```json\n{BROKEN}\n```"
    async with world(Speaker(protocol, fenced, "I cannot."), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, stream=stream))
        assert text_of(protocol, got) == fenced
        assert '"born" is a required property' in the(w, "broken")["reason"]
        assert (w.calls, w.rows()[0].attempts) == (2, 2)
        assert w.rows()[0].ending == "answered"


@virtual
async def test_how_often_it_is_asked_again_is_said_by_the_configuration():
    """Not at all, or up to so many times, each with the newest answer."""
    async with world(Speaker("chat", BROKEN), levers=on(ask_again=0)) as w:
        await w.ask(asking("chat"))
        assert w.calls == 1
    async with world(Speaker("chat", BROKEN, "no", GOOD), levers=on(ask_again=3)) as w:
        got = await w.ask(asking("chat"))
        assert orjson.loads(got.text) == ADA
        assert w.calls == 3
        assert w.provider.asked[2]["messages"][1]["content"] == "no"


@virtual
async def test_without_repair_a_fence_is_a_reason_to_ask_again():
    """``repair = false`` changes no answer."""
    async with world(Speaker("chat", FAULTS["fence"], GOOD), levers=on(repair=False)) as w:
        assert orjson.loads((await w.ask(asking("chat"))).text) == ADA
        assert w.calls == 2


@virtual
async def test_if_asking_again_fails_there_is_still_the_first_answer():
    """An error on the way to a better answer costs nobody the one that is there."""
    for wrong in (status(500), status(400), UpstreamBroken("it broke off")):
        async with world(Speaker("chat", BROKEN, wrong), levers=ON) as w:
            assert (await w.ask(asking("chat"))).text == BROKEN
            assert the(w, "asked again")["reason"].startswith("it failed: ")
            assert the(w, "broken")
            assert w.rows()[0].attempts == 2


@virtual
async def test_an_answer_that_its_callers_limit_cut_off_is_not_asked_for_again():
    """More room is not ours to give: what was cut is passed on, and the decision says why."""
    cut = saying("chat", '{"name": "Ada Lov', cut=True)
    async with world(Speaker("chat", cut), levers=ON) as w:
        got = await w.ask(asking("chat", max_tokens=5))
        assert got.data["choices"][0]["finish_reason"] == "length"
        assert w.calls == 1
        assert the(w, "not asked again")["reason"] == "it was cut off at the limit that its caller set"
        assert the(w, "broken")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_tool_calls_pass(protocol: str):
    """Who calls a tool has not answered yet."""
    async with world(Speaker(protocol, saying(protocol, "", tool=True)), levers=ON) as w:
        await said(w, protocol, asking(protocol))
        assert w.calls == 1
        assert the(w, "passed")["reason"] == "it refuses, or calls a tool"


@virtual
async def test_refusals_pass():
    """Nobody is pressed: a refusal is the answer."""
    refusal = saying("chat", "")
    refusal["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "No."}
    async with world(Speaker("chat", refusal), levers=ON) as w:
        got = await w.ask(asking("chat"))
        assert got.data["choices"][0]["message"]["refusal"] == "No."
        assert w.calls == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_a_schema_that_is_none_is_refused_by_its_field(protocol: str):
    """A 400 names the field and what is wrong; nobody is asked."""
    fields = {
        "chat": "response_format.json_schema.schema", "responses": "text.format.schema",
        "messages": "output_config.format.schema",
    }  # fmt: skip
    async with world(Speaker(protocol, GOOD), levers=on(compact=True)) as w:
        for bad in ({"type": "objekt"}, {"$ref": "https://example.org/schema"}, [1]):
            with pytest.raises(InvalidRequest) as caught:
                await said(w, protocol, asking(protocol, schema=bad))
            assert caught.value.param == fields[protocol]
            assert caught.value.status == 400
        deep = '{"properties":{"in":' * 300 + "{}" + "}}" * 300
        text = orjson.dumps(asking(protocol, schema="deep")).replace(b'"deep"', deep.encode())
        with pytest.raises(InvalidRequest, match=r"nested too deeply|cannot be written"):
            await w.send(w.call(text, wire=WIRES[protocol]))
        assert w.calls == 0


@virtual
async def test_a_class_with_a_schema_that_is_none_is_refused_at_the_start():
    """The configuration is wrong, and says where."""
    with pytest.raises(ConfigError) as caught:
        async with world(classes={"person": {"schema": {"type": "objekt"}}}):
            pass
    assert caught.value.param == "classes.person.schema"


PERSON = {"person": {"schema": SCHEMA}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_prose_in_contract_out(protocol: str):
    """A class's schema is asked for and held, though the request says nothing of it; its prompt begins as it did."""
    async with world(Speaker(protocol, FAULTS["prose"]), levers=ON, classes=PERSON) as w:
        got = await said(w, protocol, asking(protocol, schema=None, stream=True), request_class="person")
        assert orjson.loads(text_of(protocol, got)) == ADA
        (asked,) = w.provider.asked
        if protocol == "messages":  # the table knows gpt-4o-mini by OpenAI's protocols, and there it is strict
            assert asked["output_config"]["format"]["schema"] == SCHEMA
        elif protocol == "chat":
            wanted = asked["response_format"]["json_schema"]
            assert (wanted["schema"], wanted["strict"]) == (SCHEMA, True)
        else:
            assert asked["text"]["format"]["schema"] == SCHEMA
        assert the(w, "repaired")["detail"]["contract"] == "class"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_who_takes_no_schema_is_told_in_words(protocol: str):
    """At a provider that the table does not know to take schemas, the instruction stands behind those of the caller."""
    providers = [{"name": "deepseek", "key_env": "K"}]
    system = {"chat": {}, "responses": {"instructions": "Be brief."}, "messages": {"system": "Be brief."}}[protocol]
    async with world(Speaker(protocol, GOOD), levers=ON, classes=PERSON, providers=providers) as w:
        got = await said(w, protocol, asking(protocol, schema=None, **system), request_class="person")
        assert orjson.loads(text_of(protocol, got)) == ADA
        (asked,) = w.provider.asked
        if protocol == "chat":
            assert asked["messages"][0]["role"] == "system"
            told = asked["messages"][0]["content"]
        else:
            told = asked["instructions" if protocol == "responses" else "system"]
            assert told.startswith("Be brief.\n\n")
        assert '"born"' in told
        assert not {"response_format", "text", "output_config"} & set(asked)


@virtual
async def test_a_provider_that_refuses_the_form_is_told_in_words_from_then_on():
    """One refusal is enough: the second call does not try again, and neither is lost."""
    refusal = status(400)
    refusal.body = b'{"error": {"message": "response_format json_schema is not supported by this model"}}'
    async with world(Speaker("chat", refusal, GOOD), levers=ON) as w:
        assert (await w.ask(asking("chat"))).text == GOOD
        assert (await w.ask(asking("chat", "And he?"))).text == GOOD
        assert ["response_format" in one for one in w.provider.asked] == [True, False, False]
        assert w.rows()[0].attempts == 2


@virtual
async def test_any_other_refusal_is_the_callers():
    """A 400 that says nothing of the form is passed on, and nobody is asked twice."""
    async with world(Speaker("chat", status(400)), levers=ON) as w:
        error = await w.failing(asking("chat"))
        assert error.status == 400
        assert w.calls == 1


@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_short_keys_are_the_models_alone(protocol: str, stream: bool):
    """The model is shown, and says, short keys; its caller gets the long ones; numbers of any size survive."""
    schema = {**SCHEMA, "properties": {"name": {"enum": ["Ada", "name"]}, "born": {"type": "integer"}}}
    big = 123456789012345678901234567890
    async with world(Speaker(protocol, f'{{"a": "name", "b": {big}}}'), levers=on(compact=True)) as w:
        got = await said(w, protocol, asking(protocol, schema=schema, stream=stream))
        assert text_of(protocol, got) == f'{{"name":"name","born":{big}}}'
        shown = orjson.dumps(w.provider.asked[0]).decode()
        assert '"required":["a","b"]' in shown
        assert the(w, "kept")["detail"]["short_keys"] is True


@virtual
async def test_keys_stay_long_where_short_ones_could_be_mistaken():
    """An open schema has no short keys, and the decision says so."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    async with world(Speaker("chat", GOOD), levers=on(compact=True)) as w:
        assert (await w.ask(asking("chat", schema=schema))).text == GOOD
        assert the(w, "kept")["detail"]["long_keys"] == "the schema allows other keys"


MAIL = {
    "type": "object", "required": ["email", "mood"], "additionalProperties": False,
    "properties": {
        "email": {"type": "string", "x-negawatt-extract": "email"}, "mood": {"enum": ["calm", "angry"]},
    },
}  # fmt: skip
LETTER = "Where is it?! Write to ada@example.org at once."


@pytest.mark.parametrize(("protocol", "stream"), KINDS)
@virtual
async def test_what_code_can_fill_the_model_never_sees(protocol: str, stream: bool):
    """The field is filled from the text, left out of the schema, and put in its place; the whole is validated."""
    async with world(Speaker(protocol, '{"mood": "angry"}'), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, LETTER, schema=MAIL, stream=stream))
        assert text_of(protocol, got) == '{"email":"ada@example.org","mood":"angry"}'
        assert "email" not in orjson.dumps({n: v for n, v in w.provider.asked[0].items() if n not in
                                            ("messages", "input")}).decode()  # fmt: skip
        assert the(w, "kept")["detail"]["filled"] == ["email"]


@pytest.mark.parametrize("text", ["Where is it?", "ada@example.org or bob@example.org?"], ids=["none", "two"])
@virtual
async def test_what_code_is_not_certain_of_the_model_fills(text: str):
    """With no value, or with two, the model is asked for all of it, without the mark, which its provider may refuse."""
    whole = '{"email": "ada@example.org", "mood": "calm"}'
    async with world(Speaker("chat", whole), levers=ON) as w:
        assert (await w.ask(asking("chat", text, schema=MAIL))).text == whole
        asked = orjson.dumps(w.provider.asked[0])
        assert b'"email":{"type":"string"}' in asked
        assert b"x-negawatt-extract" not in asked
        assert "email" in the(w, "kept")["detail"]["left"]


@virtual
async def test_instructions_are_not_the_text_that_code_reads():
    """An address in the system prompt is the house's own, and hides none of the customer's."""
    request = asking("chat", LETTER, schema=MAIL)
    request["messages"].insert(0, {"role": "system", "content": "We are help@example.com."})
    async with world(Speaker("chat", '{"mood": "calm"}'), levers=ON) as w:
        assert orjson.loads((await w.ask(request)).text)["email"] == "ada@example.org"


@virtual
async def test_the_control_group_gets_json_but_nothing_shorter():
    """In the holdout the contract is held, with long keys and by the model alone."""
    whole = '{"email": "ada@example.org", "mood": "calm"}'
    async with world(Speaker("chat", f"```\n{whole}\n```"), levers=on(compact=True), holdout={"share": 1}) as w:
        assert (await w.ask(asking("chat", LETTER, schema=MAIL))).text == whole
        assert "filled" not in the(w, "repaired")["detail"]


@virtual
async def test_streams_can_be_trusted_instead_of_held():
    """With ``stream = "trust"`` chunks pass as they come, nothing is altered, and the decision says what came."""
    async with world(Speaker("chat", FAULTS["fence"]), levers=on(stream="trust", compact=True)) as w:
        got = await w.ask(asking("chat", stream=True))
        assert got.streamed_text == FAULTS["fence"]
        assert the(w, "broken")["reason"] == "it could have been repaired, had it been held"
        assert orjson.loads((await w.ask(asking("chat", "Who?"))).text) == {"name": "Ada", "born": 1815}


@virtual
async def test_in_shadow_nothing_changes():
    """The caller gets what the model said; the decision says what would have been."""
    levers = {"structure": {"mode": "shadow"}, "retry": {"attempts": 1}}
    async with world(Speaker("chat", FAULTS["fence"]), levers=levers) as w:
        assert (await w.ask(asking("chat"))).text == FAULTS["fence"]
        await w.gateway.background.drain()
        assert the(w, "broken")["mode"] == "shadow"


@virtual
async def test_an_answer_that_its_caller_began_is_left_alone():
    """What goes on from the caller's own words is no JSON by itself."""
    request = asking("messages")
    request["messages"].append({"role": "assistant", "content": "{"})
    async with world(Speaker("messages", '"name": "Ada"}'), levers=ON) as w:
        await said(w, "messages", request)
        assert the(w, "bypass")
        assert w.calls == 1


@virtual
async def test_the_caches_keep_what_was_mended_and_not_what_is_broken():
    """The exact cache gives the mended answer again, and asks anew where the answer broke its class's schema."""
    async with world(Speaker("chat", FAULTS["fence"]), levers=ON) as w:
        first, second = await w.ask(asking("chat")), await w.ask(asking("chat"))
        assert (second.by, second.text) == ("exact_cache", first.text)
        assert orjson.loads(first.text) == ADA
    async with world(Speaker("chat", BROKEN), levers=on(ask_again=0), classes=PERSON) as w:
        request = asking("chat", schema=None)
        await w.ask(request, request_class="person")
        assert (await w.ask(request, request_class="person")).by == "provider"
        assert w.calls == 2


@virtual
async def test_nor_is_it_kept_by_who_joined_the_call():
    """Two equal calls share one broken answer; neither leaves it in the cache."""
    async with world(Speaker("chat", BROKEN), levers=on(ask_again=0), classes=PERSON) as w:
        request = asking("chat", schema=None)
        both = await ended(start(w, request, request_class="person"), start(w, request, request_class="person"))
        assert [one.by for one in both] == ["provider", "coalesce"]
        assert (await w.ask(request, request_class="person")).by == "provider"
        assert w.calls == 2


@virtual
async def test_classes_with_different_schemas_share_no_answers():
    """The same words in two classes: prose is no answer where a schema is to be kept, whichever came first."""
    async with world(Speaker("chat", "She was a countess.", GOOD), levers=ON, classes=PERSON) as w:
        request = asking("chat", schema=None)
        assert (await w.ask(request)).text == "She was a countess."
        assert (await w.ask(request, request_class="person")).text == GOOD
        assert (await w.ask(request)).by == (await w.ask(request, request_class="person")).by == "exact_cache"
        assert (await w.ask(request, request_class="person")).text == GOOD
        arrived = await w.gateway.arrived(w.call(request, request_class="person"))
        assert "schema" in arrived.scope.model_policy
    off = {"structure": {"mode": "off"}, "retry": {"attempts": 1}}
    async with world(Speaker("chat", "She was a countess."), levers=off, classes=PERSON) as w:
        await w.ask(request)
        assert (await w.ask(request, request_class="person")).by == "exact_cache"


@virtual
async def test_there_is_no_asking_again_without_time_for_it():
    """With half a second left, and an answer that took one, the broken one is given before its deadline passes."""
    async with world(Speaker("chat", BROKEN, GOOD), levers=ON) as w:
        assert (await w.ask(asking("chat"), deadline_ms="1500")).text == BROKEN
        assert w.calls == 1
        assert the(w, "asked again")["reason"] == "not asked again: there is no time left for it"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@virtual
async def test_a_form_that_the_providers_protocol_lacks_is_said_in_words(stream: bool):
    """``json_object`` has no word in Messages: its caller, in Chat, gets an object all the same, and no error."""
    form = {"response_format": {"type": "json_object"}}
    async with world(Speaker("messages", f"Sure: {GOOD}"), levers=ON) as w:
        got = await w.ask(asking("chat", schema=None, stream=stream, stream_options=None, **form))
        assert orjson.loads(got.streamed_text if stream else got.text) == ADA
        assert "Answer with one JSON object" in w.provider.asked[0]["system"]


@pytest.mark.parametrize("spoken", PROTOCOLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_contracts_are_held_across_protocols(protocol: str, spoken: str):
    """Whatever the provider speaks, the caller's words are mended, asked for again and given in its own protocol."""
    async with world(Speaker(spoken, BROKEN, FAULTS["fence"]), levers=ON) as w:
        got = await said(w, protocol, asking(protocol, stream=True))
        assert orjson.loads(text_of(protocol, got)) == ADA
        assert w.rows()[0].attempts == 2


@virtual
async def test_a_recording_is_held_to_the_contract_as_it_is():
    """A recording has the answer to what its caller asked: that is read, and mended, in place of an error."""
    request = asking("chat", schema=None)
    recording = Recording([RecordedAnswer(request=request, response=saying("chat", FAULTS["fence"]),
                                          timing=Timing(duration_s=0.5, basis="measured"))])  # fmt: skip
    async with world(Recorded("openai", recording), levers=ON, classes=PERSON) as w:
        got = await w.ask(request, request_class="person")
        assert orjson.loads(got.text) == ADA
        assert [one["action"] for one in decisions(w.rows()[0], "structure")] == ["as asked", "repaired"]
        unknown = await w.failing(asking("chat", "Who else?", schema=None), request_class="person")
        assert isinstance(unknown, NotRecorded)


def policy(how: str, **more: Any) -> dict[str, Any]:
    candidates = [{"model": SMALL, "tier": 1}, {"model": LARGE, "tier": 2}]
    return {"policies": {"cheap": {"how": how, "candidates": candidates, **more}}}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@virtual
async def test_under_a_policy_the_reference_is_asked_last(stream: bool):
    """The small model twice, then the reference, whose answer it is; the row has all three, and it was a loss."""
    models = Models({SMALL: [BROKEN, "still no"], LARGE: GOOD}, every_s=0.01)
    async with world(models, levers=ON, **policy("fixed", model=SMALL)) as w:
        got = await w.ask(asking("chat", model="cheap", stream=stream))
        assert (got.streamed_text if stream else got.text) == GOOD
        assert w.provider.models == [SMALL, SMALL, LARGE]
        row = w.rows()[0]
        assert (row.attempts, row.response_model) == (3, LARGE)
        assert row.baseline_cost_pusd < row.cost_pusd
        assert the(w, "escalated")["detail"] == {"model": LARGE}
        assert (await w.ask(asking("chat", model="cheap", stream=stream))).by == "exact_cache"


@virtual
async def test_without_escalation_the_reference_is_not_asked():
    """``escalate = false`` spares it; the broken answer is passed on."""
    async with world(Models({SMALL: BROKEN, LARGE: GOOD}), levers=on(escalate=False),
                     **policy("fixed", model=SMALL)) as w:  # fmt: skip
        assert (await w.ask(asking("chat", model="cheap"))).text == BROKEN
        assert w.provider.models == [SMALL, SMALL]


@virtual
async def test_a_cascade_goes_first_and_keys_stay_as_its_verifiers_know_them():
    """Its schema verifier sees the caller's own contract; what it accepts is only looked at here."""
    cascade = {"verify": [{"kind": "schema"}], "explore": 0.0}
    async with world(Models({SMALL: BROKEN, LARGE: FAULTS["fence"]}), levers=on(compact=True),
                     **policy("cascade", cascade=cascade)) as w:  # fmt: skip
        assert orjson.loads((await w.ask(asking("chat", model="cheap"))).text) == ADA
        assert w.provider.models == [SMALL, LARGE]
        assert w.rows()[0].response_model == LARGE
        assert "short_keys" not in the(w, "repaired")["detail"]


@virtual
async def test_json_without_a_schema_is_an_object():
    """``json_object`` is held as well: a list is none."""
    form = {"response_format": {"type": "json_object"}}
    async with world(Speaker("chat", "[1]", '{"a": 1'), levers=ON) as w:
        got = await w.ask(asking("chat", schema=None, **form))
        assert got.text == '{"a": 1}'
        assert w.calls == 2


@virtual
async def test_requests_without_a_contract_are_not_touched():
    """Prose stays prose; no decision, nothing held."""
    async with world(levers=ON) as w:
        await w.ask(chat())
        assert decisions(w.rows()[0], "structure") == []


@virtual
async def test_of_several_answers_each_is_mended_and_none_asked_for_again():
    """With ``n`` above 1 one broken answer does not cost the others."""
    whole = answer(FAULTS["fence"])
    whole["choices"].append({"index": 1, "message": {"role": "assistant", "content": BROKEN}, "finish_reason": "stop"})
    async with world(Speaker("chat", whole), levers=ON) as w:
        got = await w.ask(asking("chat", n=2, temperature=1))
        assert [orjson.loads(c["message"]["content"]) for c in got.data["choices"]] == [ADA, {"name": "Ada"}]
        assert w.calls == 1
        assert the(w, "broken")


@virtual
async def test_the_row_keeps_what_the_caller_asked():
    """What is kept of a request is the caller's own, with none of our instructions."""
    async with world(Speaker("chat", BROKEN, GOOD), levers=ON, ledger={"keep_content": True}, classes=PERSON) as w:
        request = asking("chat", schema=None)
        await w.ask(request, request_class="person")
        content = w.ledger.content(w.rows()[0].id)
        assert orjson.loads(content.request) == request
        assert w.rows()[0].fingerprint is not None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@virtual
async def test_the_library_takes_a_model_of_pydantics(protocol: str):
    """Its schema is asked for under its name, the answer keeps it, and the model reads it."""

    class Person(pydantic.BaseModel):
        name: str
        born: int

    async with world(Speaker(protocol, FAULTS["python"], GOOD), levers=ON) as w:
        got = await w.gateway.ask(protocol, asking(protocol, schema=None), schema=Person)
        assert Person.model_validate_json(WIRES[protocol].answers(got)[0]) == Person(**ADA)
        assert b'"born":{"title":"Born","type":"integer"}' in orjson.dumps(w.provider.asked[0])
        if protocol == "chat":
            assert w.provider.asked[0]["response_format"]["json_schema"]["name"] == "Person"
            again = await w.gateway.chat(asking("chat", "And he?", schema=None), schema=SCHEMA)
            assert orjson.loads(again["choices"][0]["message"]["content"]) == ADA
            assert w.provider.asked[1]["response_format"]["json_schema"]["strict"] is True


@virtual
async def test_what_the_library_cannot_ask_for_is_refused():
    """No schema, or a protocol whose answers are no text: a 400 that names it."""
    async with world() as w:
        for protocol, schema in (("chat", 7), ("embeddings", SCHEMA)):
            with pytest.raises(InvalidRequest) as caught:
                await w.gateway.ask(protocol, asking("chat", schema=None), schema=schema)
            assert caught.value.param == "schema"
