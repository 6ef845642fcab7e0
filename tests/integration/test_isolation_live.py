"""Two tenants, several keys: equal requests of those who may not share never do, in the cache and in flight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from sdk import Sdk
from world import Answer, Gateway, Json, Upstream, ask, chat, in_thread, many_connections, until

KEYS = {"ANN": "key-of-ann", "BOB": "key-of-bob", "CHIEF": "key-of-chief", "EVE": "key-of-eve", "FEW": "key-of-few"}


@pytest.fixture(scope="module")
def guarded(
    upstream: Upstream, configured: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with keys: Ann, Bob and the chief are of one tenant, Eve of another; one key may use one model."""
    keys = [
        {"id": "ann", "key_env": "ANN", "tenant": "acme", "user": "ann"},
        {"id": "bob", "key_env": "BOB", "tenant": "acme", "user": "bob"},
        {"id": "chief", "key_env": "CHIEF", "tenant": "acme", "user": "chief", "permissions": ["salaries"]},
        {"id": "eve", "key_env": "EVE", "tenant": "other"},
        {"id": "few", "key_env": "FEW", "models": ["plain"]},
    ]
    classes = {"mine": {"personal": True, "cache": "always"}, "dated": {"needs": ["corpus_version"]}}
    config = configured(keys=keys, classes=classes)
    config["providers"][0]["models"] = ["plain", "second"]
    gateway = Gateway(tmp_path_factory.mktemp("guarded"), config, STUB_KEY="the-provider-key", **KEYS)
    yield gateway
    gateway.stop()


def bearer(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[who]}"}


def asked(gateway: Gateway, tag: str, who: str, **headers: str) -> str:
    """Ask what everybody asks here, as *who*; return the answer's id."""
    answer = gateway.post(chat({"tag": tag}, temperature=0), None, **bearer(who), **headers)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def test_one_tenant_shares(guarded: Gateway, upstream: Upstream, task: str) -> None:
    """Ann's answer serves Bob: the same tenant, the same permissions."""
    assert asked(guarded, task, "ANN") == asked(guarded, task, "BOB")
    assert upstream.tag(task)["calls"] == 1


@pytest.mark.parametrize("other", ["EVE", "CHIEF", "FEW"])
def test_others_do_not_share_in_the_cache(guarded: Gateway, upstream: Upstream, task: str, other: str) -> None:
    """Another tenant, or other permissions: an answer of their own, and each finds their own again."""
    ids = [asked(guarded, task, who) for who in ("ANN", other, "ANN", other)]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert upstream.tag(task)["calls"] == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_others_do_not_share_in_flight(guarded: Gateway, upstream: Upstream, task: str, stream: bool) -> None:
    """Equal calls in flight at the same moment: one call upstream for each who may share, not fewer."""
    body = chat({"tag": task, "gate": task}, stream=stream)
    who = ["ANN", "BOB", "CHIEF", "EVE"] * 10
    async with many_connections() as session:
        calls = [asyncio.ensure_future(ask(session, guarded.url, body, **bearer(one))) for one in who]
        await in_thread(lambda: until(lambda: upstream.tag(task)["open"] == 3))
        await asyncio.sleep(0.2)
        await in_thread(lambda: upstream.open_gate(task))
        answers = await asyncio.gather(*calls)
    assert [answer.body for answer in answers if answer.status != 200] == []
    assert upstream.tag(task)["calls"] == 3

    def words(answer: Answer) -> str:
        return str(json.loads(answer.events[0])["id"] if stream else answer.json["id"])

    got = {one: {words(a) for a, by in zip(answers, who, strict=True) if by == one} for one in set(who)}
    assert all(len(ids) == 1 for ids in got.values())
    assert got["ANN"] == got["BOB"]
    assert len(got["ANN"] | got["CHIEF"] | got["EVE"]) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"x_negawatt_permissions": "reports"},
        {"x_negawatt_corpus_version": "2026-07"},
        {"x_negawatt_prompt_version": "7"},
    ],
)
def test_headers_divide_further(guarded: Gateway, upstream: Upstream, task: str, headers: dict[str, str]) -> None:
    """What a header says about permissions, corpus or prompt keeps answers apart."""
    plain, divided = asked(guarded, task, "ANN"), asked(guarded, task, "ANN", **headers)
    assert plain != divided
    assert asked(guarded, task, "ANN", **headers) == divided
    assert upstream.tag(task)["calls"] == 2


def test_permissions_in_a_header_do_not_make_a_chief(guarded: Gateway, upstream: Upstream, task: str) -> None:
    """Claiming the chief's permissions by header does not open the chief's answers."""
    assert asked(guarded, task, "CHIEF") != asked(guarded, task, "ANN", x_negawatt_permissions="salaries")


def test_a_user_header_does_not_leave_the_tenant(guarded: Gateway, upstream: Upstream, task: str) -> None:
    """Naming another's user stays inside the tenant of the key."""
    assert asked(guarded, task, "ANN") != asked(guarded, task, "EVE", x_negawatt_user="ann")


def test_a_personal_class_divides_users(guarded: Gateway, upstream: Upstream, task: str) -> None:
    """Of a personal class Ann finds her own answer again, and Bob never does; without a user nothing is kept."""
    mine = {"x_negawatt_class": "mine"}
    ids = [asked(guarded, task, who, **mine) for who in ("ANN", "BOB", "ANN", "BOB")]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert asked(guarded, task, "FEW", **mine) != asked(guarded, task, "FEW", **mine)


def test_a_key_of_one_user_speaks_for_nobody_else(guarded: Gateway, upstream: Upstream, task: str) -> None:
    """Ann may say that she is Ann; Bob may not, wherever he says it. A key without a user speaks for its users."""
    own = asked(guarded, task, "ANN", x_negawatt_class="mine")
    assert asked(guarded, task, "ANN", x_negawatt_class="mine", x_negawatt_user="ann") == own
    body, as_ann = chat({"tag": task}, temperature=0), {**bearer("BOB"), "x-negawatt-user": "ann"}
    refused = [
        guarded.post(body, None, x_negawatt_class="mine", **as_ann),
        guarded.request("GET", "/v1/cache/retrieval?key=k", None, as_ann),
        guarded.request("GET", "/v1/shaped/nw-1", None, as_ann),
        guarded.request("POST", "/v1/feedback", b'{"task_id": "t", "success": true}', as_ann),
    ]
    assert [(one.status, one.error["param"]) for one in refused] == [(403, "x-negawatt-user")] * len(refused)
    assert upstream.tag(task)["calls"] == 1
    zoe = {**bearer("EVE"), "x_negawatt_user": "zoe"}
    assert guarded.post(chat({"tag": task}), task, x_negawatt_class="mine", **zoe).status == 200
    assert guarded.one_row(task)["user_id"] == "zoe"


def test_a_class_that_needs_a_corpus_version_keeps_nothing_without(
    guarded: Gateway, upstream: Upstream, task: str
) -> None:
    """Answers about documents are kept only where the version of the documents is known."""
    dated = {"x_negawatt_class": "dated"}
    assert asked(guarded, task, "ANN", **dated) != asked(guarded, task, "ANN", **dated)
    version = {**dated, "x_negawatt_corpus_version": "1"}
    assert asked(guarded, task, "ANN", **version) == asked(guarded, task, "ANN", **version)


def test_the_rows_name_tenant_user_and_key(guarded: Gateway, task: str) -> None:
    """The ledger knows who called, and never the key itself."""
    assert guarded.post(chat({"tag": task}), task, **bearer("BOB")).status == 200
    row = guarded.one_row(task)
    assert (row["tenant"], row["user_id"], row["key_id"]) == ("acme", "bob", "bob")
    assert not any(key in str(tuple(row)) for key in (*KEYS.values(), "the-provider-key"))
    assert not any(key in guarded.output for key in (*KEYS.values(), "the-provider-key"))


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_the_key_may_come_in_any_usual_header(guarded: Gateway, task: str, header: str) -> None:
    """OpenAI's, Anthropic's and Azure's header are all read."""
    value = KEYS["ANN"] if header != "authorization" else f"Bearer {KEYS['ANN']}"
    assert guarded.get("/v1/models", {header: value}).status == 200


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_strangers_are_refused_and_leave_no_row(guarded: Gateway, upstream: Upstream, kind: str) -> None:
    """A wrong key is an AuthenticationError before anything is looked at; strangers cannot fill the ledger."""
    before, calls = len(guarded.rows()), upstream.stats()["calls"]
    client = Sdk(kind, guarded.base_url, api_key="key-of-nobody")
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.ask(**chat())
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        await client.models()
    await client.close()
    await asyncio.sleep(0.15)
    assert (len(guarded.rows()), upstream.stats()["calls"]) == (before, calls)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic a"}, {"authorization": "Bearer "}, {"api-key": ""}])
def test_no_key_is_refused_with_how_to_send_it(guarded: Gateway, headers: dict[str, str]) -> None:
    """The message says which header is expected."""
    answer = guarded.get("/v1/models", headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert "Authorization: Bearer" in answer.error["message"]


async def test_a_key_may_be_for_some_models_only(guarded: Gateway, task: str) -> None:
    """Another model is a PermissionDeniedError with a row; the list shows what the key may use."""
    client: Any = Sdk("sync", guarded.base_url, api_key=KEYS["FEW"])
    assert [model.id for model in await client.models()] == ["plain"]
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await client.ask(**{**chat(), "model": "second"}, extra_headers={"x-negawatt-task": task})
    assert caught.value.param == "model"
    await client.close()
    row = await in_thread(lambda: guarded.one_row(task))
    assert (row["ending"], row["status"], row["key_id"]) == ("refused", 403, "few")


async def test_an_unknown_model_is_not_found(guarded: Gateway, task: str) -> None:
    """Where no provider takes any model, an unknown name is a NotFoundError that lists what is there."""
    client = Sdk("sync", guarded.base_url, api_key=KEYS["ANN"])
    with pytest.raises(openai.NotFoundError) as caught:
        await client.ask(**{**chat(), "model": "no-such"}, extra_headers={"x-negawatt-task": task})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "plain" in caught.value.message
    await client.close()
    assert (await in_thread(lambda: guarded.one_row(task)))["ending"] == "refused"


def test_health_needs_no_key(guarded: Gateway) -> None:
    """Probes have no key."""
    assert guarded.get("/healthz").status == guarded.get("/readyz").status == 200
