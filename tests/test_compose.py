"""Templates in requests: rendered into the protocol's own fields before anything else looks at them."""

import orjson
import pytest
from worlds import MODEL, Fake, chat, decisions, virtual, world

from negawatt.errors import InvalidRequest
from negawatt.ledger.outcome import Outcome
from negawatt.ledger.sqlite import SqliteLedger
from negawatt.wire.messages import MESSAGES
from negawatt.wire.responses import RESPONSES

DESK = """+++
[variables]
question = { type = "str" }
tier = { one_of = ["basic", "gold"], default = "basic" }
+++
::: base role
You answer questions about orders.

::: base refunds when tier == "gold"
Refunds are given at once.

::: task answer
{{ question }}
"""
ROLE = "You answer questions about orders."
ASKED = "<question>\nWhere?\n</question>"


@pytest.fixture
def prompts(tmp_path):
    """A folder with the templates *desk* (with variables) and *role* (without any)."""
    (tmp_path / "desk.md").write_text(DESK)
    (tmp_path / "role.md").write_text(ROLE)
    return {"levers": {"compose": {"prompts": str(tmp_path)}, "retry": {"attempts": 1}}}


def templated(template="desk", variables=None, **fields):
    """Return a chat request that names a template."""
    named = {"template": template, "variables": {"question": "Where?"} if variables is None else variables}
    return {"model": MODEL, "messages": [], "temperature": 0, "negawatt": named, **fields}


def test_a_template_becomes_the_messages_of_the_request(prompts):
    """Its instructions lead, its task follows, then what the caller says; the provider never sees our field."""

    @virtual
    async def run():
        async with world(**prompts) as w:
            said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Thanks"}]
            await w.ask(templated(messages=said))
            [sent] = w.provider.asked
            assert "negawatt" not in sent
            assert [(one["role"], one["content"]) for one in sent["messages"]] == [
                ("system", ROLE), ("system", "Be kind."), ("user", ASKED), ("user", "Thanks")
            ]  # fmt: skip
            [row] = w.rows()
            assert [one["action"] for one in decisions(row, "compose")] == ["rendered"]

    run()


def test_the_ledger_knows_the_tokens_of_each_block(prompts):
    """Template, version and blocks are in the row; the version stands in for the caller's prompt version."""

    @virtual
    async def run():
        async with world(**prompts) as w:
            await w.ask(templated(variables={"question": "Where?", "tier": "gold"}))
            await w.ask(templated(), prompt_version="mine")
            await w.ask(chat())
            first, second, third = w.rows()
            assert (first.template, first.template_version) == ("desk", w.gateway.prompts.template("desk").version)
            assert first.prompt_version == first.template_version and second.prompt_version == "mine"
            assert list(orjson.loads(first.prompt_blocks)) == ["role", "refunds", "answer"]
            assert all(3 <= tokens <= 12 for tokens in orjson.loads(first.prompt_blocks).values())
            assert (third.template, third.template_version, third.prompt_blocks) == (None, None, None)

    run()


def test_caches_key_on_what_the_template_says(prompts, tmp_path):
    """Equal values are answered from the cache; another value, and a changed template, are asked."""

    @virtual
    async def run():
        async with world(**prompts) as w:
            assert [(await w.ask(templated())).by for _ in range(2)] == ["provider", "exact_cache"]
            await w.ask(templated(variables={"question": "When?"}))
            assert w.calls == 2

    run()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"template": "desks"}, "negawatt.template: there is no template 'desks'; known: desk, role"),
        ({"template": "desk"}, "negawatt.variables.question: template 'desk' needs this variable, a string"),
        (
            {"template": "desk", "variables": {"question": 1}},
            "negawatt.variables.question: expected a string, got an integer",
        ),
        ({"template": "role", "version": "0123456789"}, "negawatt.version: template 'role' has version"),
        ({"template": "role", "variables": []}, "negawatt.variables: Expected object, got array"),
        ({"template": "role", "vars": {}}, "negawatt: Object contains unknown field vars"),
        ({"variables": {"a": 1}}, "negawatt.template: this field is required"),
        ("role", "negawatt: expected an object, got a string"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused_by_name(prompts, field, said):
    """A 400 that names the field; nobody is asked, and the refusal is in the books."""

    @virtual
    async def run():
        async with world(**prompts) as w:
            error = await w.failing(templated(negawatt=field))
            assert isinstance(error, InvalidRequest) and error.message.startswith(said)
            assert error.param == said.partition(":")[0]
            [row] = w.rows()
            assert (row.ending, row.status, w.calls) == ("refused", 400, 0)

    run()


def test_without_a_folder_the_error_says_what_to_set():
    """A template that nobody configured is a 400, not a request without its prompt."""

    @virtual
    async def run():
        async with world() as w:
            error = await w.failing(templated())
            assert "no folder of templates is configured (levers.compose.prompts)" in error.message

    run()


@pytest.mark.parametrize("field", [None, {}])
def test_our_field_never_reaches_a_provider(field):
    """Strict providers refuse fields that they do not know."""

    @virtual
    async def run():
        async with world() as w:
            await w.ask({**chat(), "negawatt": field})
            assert w.provider.asked == [chat()]

    run()


def test_a_holdout_gets_the_same_prompt(prompts):
    """What a request means is not tried on some and kept from others."""

    @virtual
    async def run():
        async with world(**prompts, holdout={"share": 1.0}) as w:
            await w.ask(templated(), mode="off")
            assert w.provider.asked[0]["messages"][0]["content"] == ROLE

    run()


def test_classes_are_found_by_the_template(prompts):
    """A match by template sees it although the field is gone."""

    @virtual
    async def run():
        async with world(**prompts, classes={"support": {"match": [{"template": "desk"}]}}) as w:
            await w.ask(templated())
            await w.ask(templated("role", {}, messages=[{"role": "user", "content": "Hi"}]))
            assert [row.request_class for row in w.rows()] == ["support", "default"]

    run()


class Speaker(Fake):
    """A provider of all protocols, which answers in the caller's own."""

    speaks = frozenset({"chat", "messages", "responses"})


def sent(prompts, wire, request):
    """Return the request that reaches the provider."""
    found = []

    @virtual
    async def run():
        async with world(Speaker(), **prompts) as w:
            call = await w.gateway.arrived(w.call(request, wire=wire))
            found.append(call.request.data)

    run()
    return found[0]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, ROLE),
        ("Be kind.", f"{ROLE}\n\nBe kind."),
        ([{"type": "text", "text": "x"}], [{"type": "text", "text": ROLE}, {"type": "text", "text": "x"}]),
    ],
)
def test_messages_have_their_system_field(prompts, system, expected):
    """Anthropic's protocol: instructions in `system`, before the caller's own."""
    named = templated(max_tokens=10) if system is None else templated(max_tokens=10, system=system)
    found = sent(prompts, MESSAGES, named)
    assert found["system"] == expected and found["messages"] == [{"role": "user", "content": ASKED}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [ASKED]),
        ({"input": "Thanks", "instructions": "Be kind."}, [ASKED, "Thanks"]),
        ({"input": [{"role": "user", "content": "Thanks"}]}, [ASKED, "Thanks"]),
    ],
)
def test_responses_have_instructions_and_input(prompts, given, expected):
    """The Responses protocol: `instructions` and `input`, text or items."""
    request = {name: value for name, value in templated(**given).items() if name != "messages"}
    found = sent(prompts, RESPONSES, request)
    assert [one["content"] for one in found["input"]] == expected
    assert found["instructions"].startswith(ROLE)


def test_an_older_ledger_gets_the_columns(tmp_path):
    """Rows of before are kept, and say that there was no template."""
    import sqlite3

    from report_world import a_row

    path = tmp_path / "old.sqlite"
    ledger = SqliteLedger(path)
    ledger.append(a_row())
    ledger.close()
    connection = sqlite3.connect(path)
    for name in ("template", "template_version", "prompt_blocks"):
        connection.execute(f"ALTER TABLE outcome DROP COLUMN {name}")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    ledger = SqliteLedger(path)
    [found] = ledger.rows()
    ledger.close()
    assert isinstance(found, Outcome) and found.template is None and found.prompt_blocks is None
