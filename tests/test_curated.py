"""Curated answers: the file, the scope of each entry, and when one is in doubt."""

from __future__ import annotations

import datetime
import itertools
import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from recalls import Angles, Down, recalling, semantic
from worlds import EPOCH, Fake, bare_call, chat, decisions, settled, virtual, world

from negawatt.caller import Scope
from negawatt.config import parse_config
from negawatt.errors import ConfigError
from negawatt.keys import permissions_digest
from negawatt.recall.curated import Answer, Curated, load_curated
from negawatt.wire.wires import WIRES

TODAY = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).date()


def entry(id: str = "a", *questions: str, **fields: Any) -> Answer:
    return Answer(id=id, questions=questions or ("open hours",), answer=f"the answer {id}", **fields)


async def found(
    entries: list[Answer], text: str = "open hours", *, similarity: float = 0.7, now: float = EPOCH,
    degrees: dict[str, float] | None = None, scope: Scope | None = None, **call: Any,
) -> tuple[str | None, str | None]:  # fmt: skip
    """Return the id of the answer to *text*, or why there is none."""
    embedder = Angles(**(degrees or {"open": 0}))
    curated = Curated(entries, similarity)
    await curated.prepare(embedder)
    vector = (await embedder.embed([text]))[0]
    match, doubt = curated.find(bare_call(scope=scope, **call), text, vector, now)
    return (None if match is None else match.entry.id), doubt


# -- the file --------------------------------------------------------------------------------------------------

GOOD = """
[[answer]]
id = "hours"
questions = ["When are you open?", "opening hours"]
answer = "Monday to Friday, 9 to 17."
tenants = ["acme"]
classes = ["faq"]
permissions = ["staff"]
corpus_version = "2026-11"
until = 2027-01-01
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "curated.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_all_that_an_entry_can_say(tmp_path: Path):
    """Every field of the example of the module, and an empty file is one without entries."""
    (only,) = load_curated(written(tmp_path, GOOD))
    assert (only.id, only.questions, only.until) == (
        "hours", ("When are you open?", "opening hours"), datetime.date(2027, 1, 1)
    )  # fmt: skip
    assert (only.tenants, only.classes, only.permissions, only.corpus_version) == (
        ("acme",), ("faq",), ("staff",), "2026-11"
    )  # fmt: skip
    assert load_curated(written(tmp_path, "")) == ()


@pytest.mark.parametrize(
    ("text", "say"),
    [
        (GOOD.replace('"hours"', "5"), ["answer[0].id", "str"]),
        (GOOD.replace('answer = "', 'reply = "'), ["answer[0].reply", "no such field"]),
        (GOOD.replace('answer = "Monday to Friday, 9 to 17."', ""), ["answer[0].answer", "required"]),
        (GOOD + GOOD, ["answer[1].id", "'hours' is there twice"]),
        (GOOD.replace('["When are you open?", "opening hours"]', "[]"), ["answer[0].questions", "length >= 1"]),
        (GOOD.replace('"When are you open?"', '""'), ["answer[0].questions[0]", "length >= 1"]),
        (GOOD.replace("2027-01-01", '"next year"'), ["answer[0].until", "date"]),
        (GOOD.replace('["staff"]', '"staff"'), ["answer[0].permissions", "array"]),
        ('[[answers]]\nid = "a"', ["answers", "no such field"]),
        ("[[answer", ["not valid TOML"]),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, say: list[str]):
    """The file, the entry, the field, and what was expected; before anything is opened."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_curated(path)
    assert all(word in error.value.message for word in [str(path), *say]), error.value.message


def test_the_example_of_the_documentation_is_a_file(tmp_path: Path):
    """The block in docs/levers/semantic_cache.md is read as it stands, and shows every field."""
    page = (Path(__file__).parent.parent / "docs" / "levers" / "semantic_cache.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(\[\[answer\]\].*?)```", page, re.DOTALL)
    entries = load_curated(written(tmp_path, block))
    shown = {name for one in entries for name in one.__struct_fields__ if getattr(one, name) is not None}
    assert shown == set(Answer.__struct_fields__)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path):
    """With the reason."""
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load_curated(tmp_path / "nothing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.toml: not valid TOML"):
        load_curated(tmp_path / "bytes.toml")


@virtual
async def test_a_gateway_does_not_start_with_a_bad_file():
    """`recall.curated` is the field that is at fault."""
    with pytest.raises(ConfigError, match=r"nothing\.toml") as error:
        async with recalling(recall={"curated": "nothing.toml"}):
            pass
    assert error.value.param == "recall.curated"


# -- scope -----------------------------------------------------------------------------------------------------

LIMITS = {
    "tenants": (None, ("acme",), ("acme", "other"), ()),
    "classes": (None, ("faq",), ("faq", "default"), ()),
    "permissions": (None, (), ("staff",), ("staff", "hr")),
    "corpus_version": (None, "1"),
    "until": (None, TODAY, TODAY + datetime.timedelta(days=1)),
}
CALLS = {
    "tenant": ("acme", "third"), "request_class": ("faq", "default"), "corpus_version": (None, "1", "2"),
    "permissions": (None, "staff", "hr,staff", "other"), "named_by": ("key", "header"),
}  # fmt: skip


def allowed(limits: dict[str, Any], call: dict[str, Any]) -> bool:
    """Say again, from the documentation, who gets an entry."""
    names = frozenset() if call["permissions"] is None else frozenset(call["permissions"].split(","))
    return (
        (limits["tenants"] is None or call["tenant"] in limits["tenants"])
        and (limits["classes"] is None or call["request_class"] in limits["classes"])
        and (limits["permissions"] is None or frozenset(limits["permissions"]) == names)
        and limits["corpus_version"] in (None, call["corpus_version"])
        and limits["until"] != TODAY
    )


def scope_of(call: dict[str, Any]) -> Scope:
    digest = permissions_digest([] if call["permissions"] is None else call["permissions"].split(","))
    permissions = f"+{digest}" if call["named_by"] == "header" and digest else digest
    return Scope(tenant=call["tenant"], permissions=permissions, corpus_version=call["corpus_version"])


def test_every_limit_of_an_entry_holds_for_every_call():
    """All combinations of limits with all kinds of calls: those within them get it, and nobody else."""
    given = 0
    calls = [dict(zip(CALLS, values, strict=True)) for values in itertools.product(*CALLS.values())]
    asked = [(call, bare_call(scope=scope_of(call), request_class=call["request_class"])) for call in calls]
    for values in itertools.product(*LIMITS.values()):
        limits = dict(zip(LIMITS, values, strict=True))
        one = entry(**limits)
        for call, real in asked:
            assert one.is_for(real, TODAY) == allowed(limits, call), f"{limits} for {call}"
            given += one.is_for(real, TODAY)
    assert 0 < given < 4 * 4 * 4 * 2 * 3 * len(calls)


async def test_permissions_of_key_and_header_together_are_no_ones_alone():
    """A key's permissions and a caller's own, written side by side, are not those of either."""
    both = permissions_digest(["staff"]) + "+" + permissions_digest(["staff"])
    assert await found([entry(permissions=("staff",))], scope=Scope(permissions=both)) == (None, None)


async def test_an_entry_out_of_scope_hides_no_other():
    """The nearest question belongs to another tenant: the next one answers."""
    entries = [entry("theirs", "open late", tenants=("b",)), entry("ours", "hours of work")]
    degrees = {"open": 0, "hours": 20}
    assert await found(entries, "open late", degrees=degrees, scope=Scope(tenant="a")) == ("ours", None)
    assert await found(entries, "open late", degrees=degrees, scope=Scope(tenant="b")) == ("theirs", None)


async def test_an_entry_ends_with_the_day_before():
    """*until* is the first day on which it is not given any more, in UTC."""
    one = entry(until=TODAY)
    midnight = datetime.datetime.combine(TODAY, datetime.time(), datetime.UTC).timestamp()
    assert await found([one], now=midnight - 1) == ("a", None)
    assert await found([one], now=midnight) == (None, None)


# -- doubt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("apart", "id"), [(0, "a"), (45, "a"), (46, None), (180, None)])
async def test_a_question_must_be_similar_enough(apart: float, id: str | None):
    """From the configured similarity on; 0.7 is 45.6 degrees."""
    assert await found([entry()], "near by", degrees={"open": 0, "near": apart}) == (id, None)


async def test_any_of_an_entrys_questions_will_do():
    """The nearest of them counts, and they do not compete with each other."""
    one = entry("a", "open hours", "open hours again", "hours of work")
    assert await found([one], "hours of work", degrees={"open": 80, "hours": 0}) == ("a", None)
    assert await found([one], "open hours", degrees={"open": 0, "hours": 0}) == ("a", None)


async def test_a_tie_of_two_answers_gives_none():
    """Where the embedding cannot tell which was meant nobody is answered by chance, and both are named."""
    entries = [entry("a", "open hours"), entry("b", "hours of work")]
    assert await found(entries, "near by", degrees={"near": 0, "open": 10, "hours": 10}) == (None, "a and b tie")
    assert await found(entries, "near by", degrees={"near": 0, "open": 10, "hours": 11}) == ("a", None)


async def test_facts_must_agree():
    """A guard that objects is named; so is the entry."""
    entries = [entry("fee", "fee of 5 euros")]
    assert await found(entries, "fee of 6 euros", degrees={"fee": 0}) == (None, "fee: units differ")
    assert await found(entries, "fee of five euros", degrees={"fee": 0}) == ("fee", None)


async def test_the_second_best_answers_where_the_first_is_vetoed():
    """It is near enough too, and its facts agree; so does the third, but not the fourth."""
    degrees = {f"fee{c}": 10.0 * i for i, c in enumerate("abcd")}
    entries = [entry(c, f"fee{c} of {n} euros") for c, n in zip("abcd", (1, 2, 3, 4), strict=True)]
    assert await found(entries, "feea of 2 euros", degrees=degrees) == ("b", None)
    assert await found(entries, "feea of 3 euros", degrees=degrees) == ("c", None)
    assert await found(entries, "feea of 4 euros", degrees=degrees) == (None, "a: units differ")


async def test_a_vetoed_question_does_not_tie():
    """Two questions equally near, of which one states other facts: the other is meant."""
    entries = [entry("a", "fee of 5 euros"), entry("b", "fee of 6 euros")]
    assert await found(entries, "fee of 6 euros", degrees={"fee": 0}) == ("b", None)
    assert await found(list(reversed(entries)), "fee of 6 euros", degrees={"fee": 0}) == ("b", None)


async def test_an_embedder_is_not_asked_about_what_it_cannot_read():
    """Another script, for a model that reads English: its vectors mean nothing there."""

    class English(Angles):
        id = "all-MiniLM-L6-v2@x"

    curated = Curated([entry()], 0.7)
    await curated.prepare(English(open=0))
    vector = np.array([1, 0], np.float32)
    assert curated.find(bare_call(), "open hours", vector, EPOCH)[0] is not None
    assert curated.find(bare_call(), "когда вы открыты", vector, EPOCH) == (None, None)


async def test_without_entries_or_vectors_there_is_no_answer():
    """An empty file, and one whose questions could not be embedded."""
    assert await found([]) == (None, None)
    vector = np.array([1, 0], np.float32)
    assert Curated([entry()], 0.7).find(bare_call(), "open hours", vector, EPOCH) == (None, None)


# -- in the gateway --------------------------------------------------------------------------------------------

ASKED = "when are you open on holidays"
FILE = f"""
[[answer]]
id = "hours"
questions = ["{ASKED}"]
answer = "Monday to Friday, 9 to 17."
"""


def asking(protocol: str, text: str = ASKED, **more: Any) -> dict[str, Any]:
    field = "input" if protocol == "responses" else "messages"
    extra = {"max_tokens": 50} if protocol == "messages" else {}
    said = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "temperature": 0, field: said, **extra, **more}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
@virtual
async def test_it_answers_in_each_protocol_whole_and_streamed(protocol: str, stream: bool, tmp_path: Path):
    """In the words of the protocol, from the first call on, at no cost; nobody upstream is asked."""
    async with recalling(recall={"curated": str(written(tmp_path, FILE))}) as w:
        wire = WIRES[protocol]
        call = w.gateway.new_call(msgspec.json.encode(asking(protocol, stream=stream)), wire=wire)
        reply = await w.gateway.handle(call)
        chunks = [chunk async for burst in reply for chunk in burst] if stream else [await reply.whole()]
        assert reply.finished and chunks
        assert wire.text_of(reply.data) == "Monday to Friday, 9 to 17."
        assert wire.complete(reply.data)
        await reply.close()
        await settled()
        assert w.calls == 0
        (row,) = w.rows()
        assert (row.cache, row.cost_pusd, row.input_tokens) == ("semantic", 0, 0)
        detail = decisions(row, "semantic_cache")[0]["detail"]
        assert (detail["tier"], detail["id"]) == ("curated", "hours")


@virtual
async def test_an_answer_that_breaks_the_response_format_is_declined(tmp_path: Path):
    """A call that asks for JSON gets JSON: from the entry if it is some, else from the model."""
    text = FILE + '[[answer]]\nid = "json"\nquestions = ["the fee in json please"]\nanswer = \'{"fee": 5}\'\n'
    schema = {"type": "object", "properties": {"fee": {"type": "integer"}}, "required": ["fee"]}
    strict = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with recalling(Fake('{"fee": 7}'), recall={"curated": str(written(tmp_path, text))}) as w:
        assert (await w.ask(chat(ASKED, response_format={"type": "json_object"}))).text == '{"fee": 7}'
        doubt = decisions(w.rows()[-1], "semantic_cache")[0]
        assert (doubt["action"], doubt["reason"]) == ("doubt", "curated hours: breaks the response format")
        for response_format in ({"type": "json_object"}, strict):
            said = await w.ask(chat("the fee in json please", response_format=response_format))
            assert (said.by, said.text) == ("semantic_cache", '{"fee": 5}')
        wanted = {**strict, "json_schema": {"name": "x", "schema": {**schema, "required": ["fee", "currency"]}}}
        assert (await w.ask(chat("the fee in json please", response_format=wanted))).by == "provider"


@virtual
async def test_a_class_that_asks_for_json_gets_no_curated_prose(tmp_path: Path):
    """The schema of a class counts as the request's own would, where lever structure holds answers to it."""
    levers = {"structure": {"mode": "on"}, "semantic_cache": {"mode": "on"}, "retry": {"attempts": 1}}
    classes = {"fees": {"schema": {"type": "object", "required": ["fee"]}}}
    recall = {"curated": str(written(tmp_path, FILE))}
    async with recalling(Fake('{"fee": 7}'), recall=recall, levers=levers, classes=classes) as w:
        said = await w.ask(chat(ASKED), request_class="fees")
        assert (said.by, said.text) == ("provider", '{"fee": 7}')
        assert (await w.ask(chat(ASKED))).by == "semantic_cache"


@virtual
async def test_in_a_conversation_no_curated_answer_is_given(tmp_path: Path):
    """A curated question stands for itself; what was said before may have changed what is meant."""
    said = [("user", "Tell me about Berlin."), ("assistant", "Yes?"), ("user", ASKED)]
    messages = [{"role": role, "content": text} for role, text in said]
    async with recalling(recall={"curated": str(written(tmp_path, FILE))}) as w:
        assert (await w.ask(chat(messages=messages))).by == "provider"
        assert (await w.ask(chat(ASKED))).by == "semantic_cache"


@virtual
async def test_the_callers_no_cache_holds_for_curated_answers_too(tmp_path: Path):
    """Who asks for a fresh answer gets the model's."""
    async with recalling(recall={"curated": str(written(tmp_path, FILE))}) as w:
        for control in ("no-cache", "no-store", "max-age=0"):
            assert (await w.ask(chat(ASKED), cache_control=control)).by == "provider"


@virtual
async def test_personal_classes_get_curated_answers_where_the_call_names_its_user(tmp_path: Path):
    """The scope that the class needs must be there, as for every cache; an entry may also keep to other classes."""
    text = FILE + 'classes = ["mine", "sensitive"]\n'
    classes = {"mine": {"personal": True}, "sensitive": {"sensitive": True}}
    async with recalling(recall={"curated": str(written(tmp_path, text))}, classes=classes) as w:
        assert (await w.ask(chat(ASKED), request_class="mine")).by == "provider"
        assert decisions(w.rows()[-1], "semantic_cache")[0]["reason"] == (
            "the class is personal and the call names no user"
        )
        assert (await w.ask(chat(ASKED), request_class="mine", user="u")).by == "semantic_cache"
        assert (await w.ask(chat(ASKED), request_class="sensitive")).by == "semantic_cache"
        assert (await w.ask(chat(ASKED))).by == "provider"


@virtual
async def test_given_answers_wait_for_review(tmp_path: Path):
    """The share that is drawn: the question as it was asked, the entry's first question, and the answer."""
    async with recalling(recall={"curated": str(written(tmp_path, FILE))}, levers=semantic(review=1)) as w:
        await w.ask(chat(ASKED))
        (case,) = await w.gateway.learner._cases.waiting(limit=9)
        assert (case.tier, case.key, case.action) == ("curated", "hours", "served")
        assert (case.question, case.matched, case.answer) == (ASKED, ASKED, "Monday to Friday, 9 to 17.")


@virtual
async def test_an_embedder_that_is_down_at_the_start_gives_none(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The gateway starts, says so in the log, and asks the model."""
    tables = {"levers": semantic(), "recall": {"curated": str(written(tmp_path, FILE))}}
    with caplog.at_level(logging.WARNING):
        async with world(embedder=Down(), **tables) as w:
            assert (await w.ask(chat(ASKED))).by == "provider"
    assert "curated answers are not given until the embedder works: no route" in caplog.text


def test_the_configuration_names_the_file():
    """`recall.curated`, and the similarity from which an answer is given."""
    config = parse_config({"recall": {"curated": "x.toml"}, "levers": {"semantic_cache": {"curated_similarity": 0.8}}})
    assert (config.recall.curated, config.levers.semantic_cache.curated_similarity) == ("x.toml", 0.8)
