"""The layers through real sockets: kept in scope, made by one, over a restart and a kill; and what they refuse."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from speaking import Speaker
from world import Answer, Gateway, Json, chat, in_thread, many_connections

KEYS = {"ANN": "key-of-ann", "BOB": "key-of-bob", "CHIEF": "key-of-chief", "EVE": "key-of-eve"}
LAYERS = {
    "retrieval": {"wait_s": 15.0},
    "mine": {"needs": ["user"]},
    "small": {"max_entry_bytes": 100},
    "brief": {"ttl_s": 0.3, "stale_s": 60.0},
}
Start = Callable[..., Gateway]
Configured = Callable[..., Json]
_VERSION = {"x-negawatt-corpus-version": "1"}


@pytest.fixture(scope="module")
def guarded(configured: Configured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with keys: Ann, Bob and the chief are of one tenant, Eve of another."""
    keys = [
        {"id": "ann", "key_env": "ANN", "tenant": "acme", "user": "ann"},
        {"id": "bob", "key_env": "BOB", "tenant": "acme", "user": "bob"},
        {"id": "chief", "key_env": "CHIEF", "tenant": "acme", "user": "chief", "permissions": ["salaries"]},
        {"id": "eve", "key_env": "EVE", "tenant": "other", "user": "ann"},
    ]
    speaker = Speaker(tmp_path_factory.mktemp("speaker"))
    config = configured(keys=keys, cache={"layers": LAYERS})
    config["providers"].append({
        "name": "all", "kind": "openai-compatible", "base_url": speaker.base_url, "models": ["all-*"],
        "protocols": ["embeddings"],
    })  # fmt: skip
    gateway = Gateway(tmp_path_factory.mktemp("layers"), config, STUB_KEY="the-provider-key", **KEYS)
    yield gateway
    gateway.stop()
    speaker.stop()


def path_of(layer: str, **query: Any) -> str:
    return f"/v1/cache/{layer}?{urlencode(query, doseq=True)}".rstrip("?")


def call(
    gateway: Gateway, method: str, path: str, who: str = "ANN", body: bytes | None = None, **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, path, body, {"authorization": f"Bearer {KEYS[who]}", **named})


def put(gateway: Gateway, layer: str, key: str, body: bytes, who: str = "ANN", **headers: str) -> Answer:
    return call(gateway, "PUT", path_of(layer, key=key), who, body, **headers)


def get(gateway: Gateway, layer: str, key: str, who: str = "ANN", **headers: str) -> Answer:
    return call(gateway, "GET", path_of(layer, key=key), who, **headers)


# -- one entry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_what_was_put_comes_back_as_it_was(guarded: Gateway, task: str, prefix: str) -> None:
    """Bytes, content type, age and state; at both addresses; a browser takes it for no page of ours."""
    path = f"{prefix}/cache/tools?key={task}"
    body = bytes(range(256))
    missed = call(guarded, "GET", path)
    assert (missed.status, missed.headers["x-negawatt-cache"]) == (404, "miss")
    assert (missed.error["code"], missed.error["param"]) == ("not_kept", "key")
    stored = call(guarded, "PUT", path, body=body, content_type="image/x-odd; a=b")
    assert (stored.status, stored.json) == (200, {"stored": True, "reason": None})
    found = get(guarded, "tools", task)
    assert (found.status, found.body) == (200, body)
    assert found.headers["content-type"] == "image/x-odd; a=b"
    assert (found.headers["x-negawatt-cache"], found.headers["age"]) == ("hit", "0")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert call(guarded, "DELETE", path).json == {"deleted": 1, "dry_run": False}
    assert call(guarded, "DELETE", path).json == {"deleted": 0, "dry_run": False}
    assert get(guarded, "tools", task).status == 404


def test_an_empty_entry_is_an_entry(guarded: Gateway, task: str) -> None:
    """Nothing found is worth knowing too."""
    assert put(guarded, "tools", task, b"").json["stored"]
    found = get(guarded, "tools", task)
    assert (found.status, found.body, found.headers["content-type"]) == (200, b"", "application/octet-stream")


def test_arguments_are_the_same_in_any_order(guarded: Gateway, task: str) -> None:
    """As JSON, at any depth, with any white space; a key of the same text is another one."""
    one = path_of("tools", arguments=json.dumps({"q": task, "f": {"a": 1, "b": [1, 2]}}))
    two = path_of("tools", arguments=json.dumps({"f": {"b": [1, 2], "a": 1}, "q": task}, indent=2))
    other = path_of("tools", arguments=json.dumps({"q": task, "f": {"a": 1, "b": [2, 1]}}))
    assert call(guarded, "PUT", one, body=b"v").status == 200
    assert call(guarded, "GET", two).body == b"v"
    assert call(guarded, "GET", other).status == 404
    assert get(guarded, "tools", json.dumps({"q": task, "f": {"a": 1, "b": [1, 2]}})).status == 404


def test_a_key_is_any_text_byte_for_byte(guarded: Gateway, task: str) -> None:
    """Spaces, slashes, ampersands, other scripts, long ones; what looks alike is not the same."""
    keys = [f"{task} {end}" for end in ("a b", "a+b", "a%20b", "a/b?c&d=e", "ä", "a\u0308", "鍵\n", "x" * 4000)]
    for number, key in enumerate(keys):
        assert put(guarded, "tools", key, b"%d" % number).json["stored"]
    assert [get(guarded, "tools", key).body for key in keys] == [b"%d" % n for n in range(len(keys))]


def test_what_is_past_its_time_is_stale_and_then_gone(guarded: Gateway, task: str) -> None:
    """A layer with stale_s gives it on and says so; one who asks with a claim may renew it, the others may not."""
    put(guarded, "brief", task, b"old")
    path = path_of("brief", key=task, claim=1)
    found = [call(guarded, "GET", path)]
    while found[-1].headers["x-negawatt-cache"] == "hit":
        found.append(call(guarded, "GET", path))
    assert found[-1].headers["x-negawatt-cache"] == "stale"
    token = found[-1].headers["x-negawatt-claim"]
    again = call(guarded, "GET", path)
    assert (again.body, again.headers["x-negawatt-cache"]) == (b"old", "stale")
    assert "x-negawatt-claim" not in again.headers
    put(guarded, "brief", task, b"new", x_negawatt_claim=token)
    assert call(guarded, "GET", path).body == b"new"
    put(guarded, "tools", task, b"short", cache_control="max-age=60")
    assert get(guarded, "tools", task).status == 200
    assert get(guarded, "tools", task, cache_control="no-cache").status == 404


def test_a_layer_without_its_scope_keeps_nothing_and_says_why(guarded: Gateway, task: str) -> None:
    """Retrieval without a corpus version: put says so, get says so, nobody is told to make it for others."""
    refused = put(guarded, "retrieval", task, b"v")
    assert (refused.status, refused.json["stored"]) == (200, False)
    assert "needs a corpus version" in refused.json["reason"]
    missed = call(guarded, "GET", path_of("retrieval", key=task, claim=1))
    assert (missed.status, missed.headers["x-negawatt-cache"]) == (404, "bypass")
    assert "needs a corpus version" in missed.error["message"]
    assert "x-negawatt-claim" not in missed.headers
    assert put(guarded, "retrieval", task, b"v", **_VERSION).json["stored"]


# -- isolation -------------------------------------------------------------------------------------------------


def test_nothing_crosses_between_scopes(guarded: Gateway, task: str) -> None:
    """Every combination of key, layer, named user, permissions and versions: only those who may share do.

    A key that is one user's own names nobody else.
    """
    spaces: dict[tuple[str, ...], tuple[str, str, dict[str, str]]] = {}
    for who, layer, user, names, corpus, prompt, tools in itertools.product(
        KEYS, ("mine", "retrieval"), ("", "ann"), ("", "salaries"), ("1", "2"), ("", "1"), ("", "t")
    ):
        headers = {"x_negawatt_user": user, "x_negawatt_permissions": names, "x_negawatt_corpus_version": corpus,
                   "x_negawatt_prompt_version": prompt, "x_negawatt_tool_digests": tools}  # fmt: skip
        tenant, own = ("other", "ann") if who == "EVE" else ("acme", who.lower())
        counts = user or (own if layer == "mine" else "")
        space = (tenant, str(who == "CHIEF"), layer, counts, names, corpus, prompt, tools)
        given = {name: value for name, value in headers.items() if value}
        if user not in ("", own):
            refused = get(guarded, layer, task, who, **given)
            assert (refused.status, refused.error["param"]) == (403, "x-negawatt-user")
            continue
        first = get(guarded, layer, task, who, **given)
        if space in spaces:
            assert first.body == repr(space).encode()
        else:
            assert first.status == 404, (space, first.body)
            assert put(guarded, layer, task, repr(space).encode(), who, **given).json["stored"]
        spaces[space] = (who, layer, given)
    assert len(spaces) == 9 * 16
    for space, (who, layer, given) in spaces.items():
        assert get(guarded, layer, task, who, **given).body == repr(space).encode()


def test_a_key_of_one_tenant_deletes_nothing_of_another(guarded: Gateway, task: str) -> None:
    """Not by key, not by tag, not by naming the other tenant; nor does a dry run count it."""
    tag = f"document={task}"
    put(guarded, "tools", task, b"ann", x_negawatt_cache_tags=tag)
    assert call(guarded, "DELETE", path_of("tools", key=task), "EVE").json["deleted"] == 0
    for query in ({"tag": tag}, {"tag": [tag, "tenant=other"]}, {"tag": tag, "dry_run": 1}):
        assert call(guarded, "DELETE", path_of("tools", **query), "EVE").json["deleted"] == 0
        assert call(guarded, "DELETE", f"/v1/cache?{urlencode(query, doseq=True)}", "EVE").json["deleted"] == 0
    refused = call(guarded, "DELETE", path_of("tools", tag=[tag, "tenant=acme"]), "EVE")
    assert (refused.status, refused.error["param"]) == (403, "tag")
    assert get(guarded, "tools", task).body == b"ann"
    forged = put(guarded, "tools", task, b"v", "EVE", x_negawatt_cache_tags="tenant=acme")
    assert (forged.status, forged.error["param"]) == (400, "x-negawatt-cache-tags")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/cache/tools?key=a", "/cache/nothing", "/v1/cache"])
def test_strangers_are_refused_before_anything_is_looked_at(guarded: Gateway, method: str, path: str) -> None:
    """401 as elsewhere, whatever is wrong with the rest; pages of foreign origins 403."""
    for headers in ({}, {"authorization": "Bearer key-of-nobody"}):
        answer = guarded.request(method, path, b"v" if method == "PUT" else None, headers)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    page = call(guarded, method, path, origin="https://evil.example")
    assert (page.status, page.error["param"]) == (403, "origin")


# -- invalidation ----------------------------------------------------------------------------------------------


def test_entries_are_deleted_by_tags_in_one_layer_or_in_all(guarded: Gateway, task: str) -> None:
    """A dry run counts and deletes nothing; all tags must be there; other layers stay."""
    mine = f"run={task}"
    for layer, number in itertools.product(("tools", "retrieval"), range(4)):
        tags = f"{mine}, parity={number % 2}"
        put(guarded, layer, f"{task}{number}", b"v", **_VERSION, x_negawatt_cache_tags=tags)

    def deleted(path: str) -> Any:
        answer = call(guarded, "DELETE", path)
        assert answer.status == 200, answer.body
        return answer.json

    expected = {"deleted": 2, "dry_run": True, "store": 2}
    assert deleted(path_of("tools", tag=[mine, "parity=0"], dry_run=1)) == expected
    assert deleted(path_of("tools", tag=[mine, "parity=0"]))["deleted"] == 2
    assert deleted(path_of("tools", tag=[mine, "parity=0"]))["deleted"] == 0
    assert get(guarded, "tools", f"{task}1", **_VERSION).status == 200
    assert get(guarded, "retrieval", f"{task}0", **_VERSION).status == 200
    everywhere = "/v1/cache?" + urlencode({"tag": [mine, "corpus_version=1"]}, doseq=True)
    assert deleted(f"{everywhere}&dry_run=true")["deleted"] == 6
    assert deleted(everywhere)["deleted"] == 6
    assert get(guarded, "retrieval", f"{task}0", **_VERSION).status == 404


def test_one_invalidation_reaches_the_gateways_own_answers(guarded: Gateway, task: str) -> None:
    """What the exact cache and the item cache keep of this corpus version goes with what the application keeps."""
    version = {"x-negawatt-corpus-version": task}
    bearer = {"authorization": f"Bearer {KEYS['ANN']}"}
    request = chat({"tag": task}, temperature=0)
    vectors = {"model": "all-1", "input": [task, f"{task}-2"]}

    def asked() -> tuple[str, str]:
        answers = [
            guarded.post(body, None, path, **{**bearer, "x_negawatt_corpus_version": task})
            for body, path in ((request, "/v1/chat/completions"), (vectors, "/v1/embeddings"))
        ]
        assert [one.status for one in answers] == [200, 200], answers
        return answers[0].headers["x-negawatt-cache"], answers[1].headers["x-negawatt-cache"]

    asked()
    assert asked()[0] == "exact"
    put(guarded, "tools", task, b"v", **version)
    dry = f"?{urlencode({'tag': f'corpus_version={task}', 'dry_run': 1})}"
    counts = {
        name: call(guarded, "DELETE", f"/v1/cache{name}{dry}").json["deleted"]
        for name in ("", "/answers", "/embeddings", "/tools", "/retrieval")
    }
    assert counts == {"": 4, "/answers": 1, "/embeddings": 2, "/tools": 1, "/retrieval": 0}
    assert call(guarded, "DELETE", f"/v1/cache/answers?tag=corpus_version={task}").json["deleted"] == 1
    assert asked()[0] == "miss"
    assert asked()[0] == "exact"
    assert call(guarded, "DELETE", f"/v1/cache?tag=corpus_version={task}").json["deleted"] == 4


# -- one who makes it ------------------------------------------------------------------------------------------


async def claimed(session: aiohttp.ClientSession, gateway: Gateway, key: str, who: str = "ANN", **query: Any) -> Answer:
    """Ask for *key* with a claim; return the answer."""
    headers = {"authorization": f"Bearer {KEYS[who]}", **_VERSION}
    url = gateway.url + path_of("retrieval", key=key, claim=1, **query)
    async with session.get(url, headers=headers) as response:
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())


async def test_of_many_clients_one_makes_it(guarded: Gateway, task: str) -> None:
    """Thirty ask with a claim: one gets 404 and a token, the rest wait and get what it puts."""
    async with many_connections() as session:
        asks = [asyncio.ensure_future(claimed(session, guarded, task)) for _ in range(30)]
        done, waiting = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop().result()
        assert (first.status, done) == (404, set())
        token = first.headers["x-negawatt-claim"]
        assert all(not one.done() for one in waiting)
        stored = await in_thread(lambda: put(guarded, "retrieval", task, b"made", **_VERSION, x_negawatt_claim=token))
        assert stored.json["stored"]
        rest = await asyncio.gather(*waiting)
    assert {(one.status, one.body) for one in rest} == {(200, b"made")}
    assert {one.headers["x-negawatt-cache"] for one in rest} <= {"hit", "shared"}


async def test_one_who_gives_the_claim_back_lets_the_next_make_it(guarded: Gateway, task: str) -> None:
    """DELETE with the token: the next who waits gets a token of its own, long before the claim would lapse."""
    async with many_connections() as session:
        token = (await claimed(session, guarded, task)).headers["x-negawatt-claim"]
        waiting = asyncio.ensure_future(claimed(session, guarded, task))
        gone = await in_thread(
            lambda: call(guarded, "DELETE", path_of("retrieval", key=task), **_VERSION, x_negawatt_claim=token)
        )
        assert gone.json["deleted"] == 0
        second = await waiting
    assert second.headers["x-negawatt-claim"] not in (token, "")


async def test_a_put_that_is_refused_gives_the_claim_back(guarded: Gateway, task: str) -> None:
    """Too large: nobody waits for what will not come."""
    async with many_connections() as session:
        token = (await claimed(session, guarded, task)).headers["x-negawatt-claim"]
        large = b"x" * (1024 * 1024 + 1)
        refused = await in_thread(lambda: put(guarded, "retrieval", task, large, **_VERSION, x_negawatt_claim=token))
        assert refused.status == 413
        assert "x-negawatt-claim" in (await claimed(session, guarded, task)).headers


async def test_nobody_waits_longer_than_they_say(guarded: Gateway, task: str) -> None:
    """wait=0 looks once; the answer has no token and says when to come again. Another's tenant does not wait at all."""
    async with many_connections() as session:
        assert "x-negawatt-claim" in (await claimed(session, guarded, task)).headers
        second = await claimed(session, guarded, task, wait=0)
        assert (second.status, second.headers["retry-after"]) == (404, "1")
        assert "x-negawatt-claim" not in second.headers
        assert "x-negawatt-claim" in (await claimed(session, guarded, task, "EVE", wait=0)).headers


async def test_one_who_hangs_up_while_waiting_gets_no_claim(guarded: Gateway, task: str) -> None:
    """The claim goes to somebody who is still there."""
    async with many_connections() as session:
        token = (await claimed(session, guarded, task)).headers["x-negawatt-claim"]
        quitter = asyncio.ensure_future(claimed(session, guarded, task))
        await asyncio.sleep(0.3)
        quitter.cancel()
        await asyncio.gather(quitter, return_exceptions=True)
        await asyncio.sleep(0.2)
        await in_thread(
            lambda: call(guarded, "DELETE", path_of("retrieval", key=task), **_VERSION, x_negawatt_claim=token)
        )
        assert "x-negawatt-claim" in (await claimed(session, guarded, task)).headers


# -- over a restart --------------------------------------------------------------------------------------------


def test_entries_outlive_a_restart_and_a_kill(start: Start, configured: Configured, tmp_path: Path, task: str) -> None:
    """With a SQLite store all that was acknowledged is there after a stop, and after kill -9 in the middle of puts."""
    config = configured(cache={"store": f"sqlite:///{tmp_path / 'cache.sqlite'}"})
    acknowledged: list[str] = []

    def fill(gateway: Gateway, count: int) -> None:
        for _ in range(count):
            key = f"{task}-{len(acknowledged)}"
            answer = gateway.request("PUT", path_of("tools", key=key), key.encode(), {"content-type": "text/plain"})
            assert answer.json["stored"]
            acknowledged.append(key)

    first = start(config)
    fill(first, 20)
    first.stop()
    second = start(config)
    fill(second, 50)
    second.signal(signal.SIGKILL)
    second.wait()
    third = start(config)
    found = [third.get(path_of("tools", key=key)) for key in acknowledged]
    assert [one.body.decode() for one in found] == acknowledged
    assert {one.headers["content-type"] for one in found} == {"text/plain"}
    stats = third.get("/v1/cache").json
    assert stats["entries"] == 70
    assert stats["layers"]["tools"] == {"hit": 70}
    metrics = third.get("/metrics").body.decode()
    assert 'negawatt_layer_operations_total{layer="tools",action="hit"} 70' in metrics


# -- the command line ------------------------------------------------------------------------------------------


def negawatt(*words: str, expect: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-m", "negawatt", "cache", *words], capture_output=True, text=True, timeout=60,
        env={**kept, **environ},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
def test_the_command_line_reaches_a_memory_store_in_its_server(guarded: Gateway, task: str, suffix: str) -> None:
    """--url with the key of a tenant: counts, deletes, and leaves other tenants alone."""
    for who in ("ANN", "EVE"):
        put(guarded, "tools", task, b"v", who, x_negawatt_cache_tags=f"run={task}")
    asked = ["--url", guarded.url + suffix, "--key-env", "ANN"]
    dry = negawatt("delete", *asked, "--tag", f"run={task}", "--dry-run", ANN=KEYS["ANN"])
    assert dry.stdout == "1 entries would be deleted\n"
    done = negawatt("delete", *asked, "--tag", f"run={task}", "--tag", "layer=tools", "--json", ANN=KEYS["ANN"])
    assert json.loads(done.stdout) == {"entries": 1, "dry_run": False, "store": 1}
    assert get(guarded, "tools", task).status == 404
    assert get(guarded, "tools", task, "EVE").status == 200
    assert "\n  tools: " in negawatt("stats", *asked, ANN=KEYS["ANN"]).stdout
    assert json.loads(negawatt("stats", *asked, "--json", ANN=KEYS["ANN"]).stdout)["layers"]["tools"]["put"] >= 2


def test_the_command_line_says_in_one_line_why_it_cannot(guarded: Gateway) -> None:
    """No key, a wrong one, another's tenant, nobody there, no gateway, no address: exit code 2."""
    here = ["--url", guarded.url]
    tag = ["--tag", "a=b"]
    cases: list[tuple[list[str], str]] = [
        (["stats", *here], "no API key"),
        (["stats", *here, "--key-env", "UNSET"], "UNSET"),
        (["delete", *here, *tag, "--key-env", "WRONG"], "not known here"),
        (["delete", *here, "--tag", "tenant=acme", "--key-env", "EVE"], "of the tenant 'other'"),
        (["stats", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9: cannot be asked"),
        (["stats", "--url", f"{guarded.url}/elsewhere"], "nothing at"),
        (["delete", *tag, "--url", "127.0.0.1:4100"], "is not an address"),
    ]
    for words, say in cases:
        done = negawatt(*words, expect=2, EVE=KEYS["EVE"], WRONG="key-of-nobody")
        assert say in done.stderr
        assert len(done.stderr.splitlines()) == 1


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/v1/cache/nothing?key=a", {}, (404, "layer", "known: answers, brief, mine, prompts, retrieval")),
        ("PUT", "/v1/cache/nothing?key=a", {}, (404, "layer", "tools")),
        ("DELETE", "/v1/cache/nothing?tag=a=b", {}, (404, "layer", "embeddings")),
        ("GET", "/v1/cache/embeddings?key=a", {}, (404, "layer", "embeddings")),
        ("GET", "/v1/cache/tools", {}, (400, "key", "arguments")),
        ("PUT", "/v1/cache/tools", {}, (400, "key", "arguments")),
        ("DELETE", "/v1/cache/tools", {}, (400, "key", "tag")),
        ("DELETE", "/v1/cache", {}, (400, "tag", "what is to be deleted")),
        ("GET", "/v1/cache/tools?key=", {}, (400, "key", "empty")),
        ("GET", "/v1/cache/tools?key=a&key=b", {}, (400, "key", "twice")),
        ("GET", "/v1/cache/tools?key=a&arguments=1", {}, (400, "key", "arguments")),
        ("GET", "/v1/cache/tools?key=%ff", {}, (400, "query", "read")),
        ("GET", "/v1/cache/tools?arguments=%7B", {}, (400, "arguments", "JSON")),
        ("GET", "/v1/cache/tools?arguments=NaN", {}, (400, "arguments", "JSON")),
        ("GET", "/v1/cache/tools?key=a&claim=yes", {}, (400, "claim", "yes")),
        ("GET", "/v1/cache/tools?key=a&claim=1&wait=inf", {}, (400, "wait", "inf")),
        ("GET", "/v1/cache/tools?key=a&wait=-1", {}, (400, "wait", "-1")),
        ("GET", "/v1/cache/tools?key=a&tag=a=b", {}, (400, "tag", "known: key")),
        ("DELETE", "/v1/cache/tools?tag=a=b&dryrun=1", {}, (400, "dryrun", "dry_run")),
        ("DELETE", "/v1/cache/tools?tag=a=b&dry_run=maybe", {}, (400, "dry_run", "maybe")),
        ("DELETE", "/v1/cache/tools?key=a&dry_run=1", {}, (400, "dry_run", "key")),
        ("DELETE", "/v1/cache/tools?key=a&tag=a=b", {}, (400, "tag", "key")),
        ("DELETE", "/v1/cache/tools?tag=colour", {}, (400, "tag", "NAME=VALUE")),
        ("DELETE", "/v1/cache/tools?tag==b", {}, (400, "tag", "NAME=VALUE")),
        ("DELETE", "/v1/cache/tools?" + "&".join(f"tag=a{n}=b" for n in range(33)), {}, (400, "tag", "33")),
        ("GET", "/v1/cache/tools?" + "&".join("key=a" for _ in range(101)), {}, (400, "query", "read")),
        ("PUT", "/v1/cache/tools?key=a", {"cache-control": "max-age=soon"}, (400, "cache-control", "max-age")),
        ("GET", "/v1/cache/tools?key=a", {"cache-control": "max-age="}, (400, "cache-control", "max-age")),
        ("PUT", "/v1/cache/tools?key=a", {"x-negawatt-cache-tags": "colour"}, (400, "x-negawatt-cache-tags", "colour")),
        ("PUT", "/v1/cache/tools?key=a", {"content-encoding": "gzip"}, (400, "content-encoding", "as it is")),
        ("PUT", "/v1/cache/tools?key=a", {"content-type": "a\tb"}, (400, "content-type", "printable")),
        ("PUT", "/v1/cache", {}, (405, None, "DELETE, GET")),
        ("POST", "/v1/cache/tools?key=a", {}, (405, None, "DELETE, GET, PUT")),
        ("GET", "/v1/cache/tools/more?key=a", {}, (404, None, "nothing at")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    guarded: Gateway, method: str, path: str, headers: dict[str, str], expected: tuple[int, str | None, str]
) -> None:
    """The status, the parameter, and what was expected; nothing is kept or deleted."""
    answer = call(guarded, method, path, body=b"v" if method in ("PUT", "POST") else None, **headers)
    status, param, word = expected
    assert (answer.status, answer.error["param"]) == (status, param), answer.body
    assert word in answer.error["message"]
    assert (answer.headers.get("allow") is not None) == (status == 405)


@pytest.mark.parametrize("size", [100, 101, 3_000_000])
def test_a_layer_has_its_own_limit(guarded: Gateway, task: str, size: int) -> None:
    """What fits is kept, one byte more is a 413 that names the limit; chunked or declared."""
    answer = put(guarded, "small", task, b"x" * size)
    assert answer.status == (200 if size == 100 else 413)
    if answer.status == 413:
        assert "100 bytes (cache.layers.small.max_entry_bytes)" in answer.error["message"]
        assert get(guarded, "small", task).status == 404


async def test_a_body_of_unknown_length_has_the_same_limit(guarded: Gateway, task: str) -> None:
    """Chunked: counted as it comes."""

    async def pieces(count: int) -> Any:
        for _ in range(count):
            yield b"x" * 10

    headers = {"authorization": f"Bearer {KEYS['ANN']}"}
    async with many_connections() as session:
        for count, status in ((10, 200), (11, 413)):
            url = guarded.url + path_of("small", key=task)
            async with session.put(url, data=pieces(count), headers=headers) as response:
                assert response.status == status


def test_a_page_that_was_allowed_may_use_the_layers(guarded: Gateway, task: str) -> None:
    """The preflight names the methods, and the answers carry the page's origin, hit or miss."""
    origin = "http://localhost:3000"
    asked = {"origin": origin, "access-control-request-method": "PUT"}
    preflight = guarded.request("OPTIONS", path_of("tools", key=task), None, asked)
    assert preflight.status == 204
    assert {"PUT", "DELETE"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    answers = [
        get(guarded, "tools", task, origin=origin),
        put(guarded, "tools", task, b"v", origin=origin),
        get(guarded, "tools", task, origin=origin),
    ]
    assert [one.status for one in answers] == [404, 200, 200]
    assert {one.headers["access-control-allow-origin"] for one in answers} == {origin}
