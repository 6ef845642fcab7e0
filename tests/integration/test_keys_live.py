"""Keys that come and go while a real gateway runs: made, rotated and revoked beside it, and over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import NEGAWATT, Answer, Gateway, Json, chat, until

Configured = Callable[..., Json]
CLASSES = {"faq": {"match": [{"says": "refund"}]}, "code": {}}
BUDGETS = [{"name": "team", "tokens": 1_000_000, "assigned": True}]


def keys(gateway: Gateway, *arguments: str) -> Json:
    """Run ``negawatt keys`` beside *gateway*, on the file that it reads; return what it says."""
    command = [str(NEGAWATT), "keys", *arguments, "--config", str(gateway.log.parent / "negawatt.toml"), "--json"]
    done = subprocess.run(command, cwd=gateway.log.parent, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def bearer(secret: str) -> Json:
    return {"authorization": f"Bearer {secret}", "content-type": "application/json"}


def ask(gateway: Gateway, secret: str, say: str = "hello", **headers: str) -> Answer:
    return gateway.post(chat(say), authorization=f"Bearer {secret}", **headers)


def admin(gateway: Gateway, secret: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, f"/admin/{path}", data, {**bearer(secret), **fields})


def within_a_second(found: Callable[[], Any]) -> Any:
    """Wait for what a running gateway sees by itself: within a second, and what a busy machine adds."""
    return until(found, within_s=10.0)


@pytest.fixture(scope="module")
def guarded(configured: Configured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway with classes, and the key of its administrator, which was made before it started."""
    folder = tmp_path_factory.mktemp("keys")
    made = subprocess.run([str(NEGAWATT), "keys", "create", "--id", "chief", "--admin"], cwd=folder,
                          capture_output=True, text=True, timeout=30, check=True)  # fmt: skip
    gateway = Gateway(folder, configured(classes=CLASSES, budgets=BUDGETS), STUB_KEY="the-provider-key")
    yield gateway, made.stdout.strip()
    gateway.stop()


def test_an_open_gateway_asks_for_keys_from_the_first_on(configured: Configured, start: Any) -> None:
    """Without a restart; and it goes on when the file that holds them is lost, letting nobody in."""
    gateway = start()
    assert ask(gateway, "whatever").status == 200
    for method in ("GET", "POST"):  # by a page whose own name leads to this machine
        refused = admin(gateway, "whatever", method, "keys", {}, host="rebound.example")
        assert refused.status == 403 and refused.error["param"] == "host"
    for method, path in (("DELETE", "keys/nobody"), ("POST", "keys/nobody/rotate")):
        assert admin(gateway, "whatever", method, path, {}).status == 404
    secret = keys(gateway, "create", "--id", "first")["secret"]
    within_a_second(lambda: ask(gateway, "whatever").status == 401)
    assert ask(gateway, secret).status == 200
    assert gateway.post(chat()).error["code"] == "invalid_api_key"
    path = gateway.log.parent / "negawatt-keys.sqlite"
    kept = path.read_bytes()
    path.unlink()
    lost = within_a_second(lambda: (found := ask(gateway, secret)).status == 503 and found)
    assert lost.error["code"] == "keys_unavailable" and str(path) not in lost.error["message"]
    path.write_bytes(kept)
    path.chmod(0o600)
    within_a_second(lambda: ask(gateway, secret).status == 200)
    assert secret not in gateway.output


def test_a_key_is_made_used_rotated_and_revoked_while_the_gateway_runs(guarded: tuple[Gateway, str], task: str) -> None:
    """Its rows have its id and tenant throughout; the old secret ends with its grace."""
    gateway, _ = guarded
    made = keys(gateway, "create", "--id", task, "--tenant", "acme", "--user", "ann")
    first = made["secret"]
    within_a_second(lambda: ask(gateway, first, x_negawatt_task=task).status == 200)
    second = keys(gateway, "rotate", task, "--grace", "1h")["secret"]
    within_a_second(lambda: ask(gateway, second).status == 200)
    assert ask(gateway, first).status == 200
    third = keys(gateway, "rotate", task, "--grace", "0")["secret"]
    gone = within_a_second(lambda: (found := ask(gateway, second)).status == 401 and found)
    assert gone.error["code"] == "revoked_api_key" and "replaced" in gone.error["message"]
    assert ask(gateway, first).status == 401, "it ends with the shorter of its graces"
    assert ask(gateway, third, x_negawatt_task=task).status == 200
    keys(gateway, "revoke", task)
    ended = within_a_second(lambda: (found := ask(gateway, third)).status == 401 and found)
    assert "was revoked" in ended.error["message"]
    rows = gateway.settled_rows(task, 2)
    assert {(row["key_id"], row["tenant"], row["user_id"]) for row in rows} == {(task, "acme", "ann")}


def test_a_key_expires_by_itself(guarded: tuple[Gateway, str]) -> None:
    """The answer says that it did, and when."""
    gateway, chief = guarded
    ends = time.time() + 2.0
    made = admin(gateway, chief, "POST", "keys", {"expires_at": ends}).json
    assert ask(gateway, made["secret"]).status == 200
    found = until(lambda: (found := ask(gateway, made["secret"])).status == 401 and found, within_s=10.0)
    assert time.time() >= ends
    assert found.error["code"] == "expired_api_key" and "expired on" in found.error["message"]


def test_a_key_keeps_to_its_models_and_classes(guarded: tuple[Gateway, str], task: str) -> None:
    """A class that is declared and one that is found: 403, which names it, and a row that says so."""
    gateway, chief = guarded
    made = admin(gateway, chief, "POST", "keys", {"models": ["plain"], "classes": ["faq"]}).json["secret"]
    assert gateway.post(chat(model="other"), authorization=f"Bearer {made}").error["param"] == "model"
    found = ask(gateway, made, "I want a refund")
    assert (found.status, found.headers["x-negawatt-class"]) == (200, "faq")
    assert ask(gateway, made, "hello", x_negawatt_class="faq").status == 200
    for say, headers, named in (
        ("hello", {}, "default"), ("I want a refund", {"x_negawatt_class": "code"}, "code"),
        ("I want a refund", {"x_negawatt_class": "default"}, "default"),
    ):  # fmt: skip
        refused = ask(gateway, made, say, x_negawatt_task=task, **headers)
        assert refused.status == 403 and refused.error["param"] == "class", refused.json
        assert repr(named) in refused.error["message"]
    hidden = []  # whether there is a class of that name, and which there are, is not for this key
    for name in ("code", "nope"):
        hidden.append(ask(gateway, made, "hello", x_negawatt_class=name, x_negawatt_task=task))
        said = chat("hello", metadata={"negawatt_class": name})
        hidden.append(gateway.post(said, task, authorization=f"Bearer {made}"))
    assert {answer.status for answer in hidden} == {403}
    assert len({answer.error["message"].replace("'nope'", "'code'") for answer in hidden}) == 1
    assert {row["ending"] for row in gateway.settled_rows(task, 7)} == {"refused"}
    assert [model["id"] for model in gateway.get("/v1/models", bearer(made)).json["data"]] == ["plain"]


def test_administration_and_use_are_apart(guarded: tuple[Gateway, str]) -> None:
    """The chief makes no calls, callers see no keys, and one who may do both is asked for by name."""
    gateway, chief = guarded
    assert ask(gateway, chief).status == 403
    assert gateway.get("/v1/models", bearer(chief)).status == 403
    assert gateway.get("/metrics", bearer(chief)).status == 200
    plain = admin(gateway, chief, "POST", "keys", {"note": "plain"}).json["secret"]
    for method, path, body in (("GET", "keys", None), ("POST", "keys", {}), ("DELETE", "keys/chief", None),
                               ("POST", "keys/chief/rotate", {}), ("GET", "audit", None)):  # fmt: skip
        assert admin(gateway, plain, method, path, body).status == 403
        assert admin(gateway, "wrong", method, path, body).status == 401
        assert gateway.request(method, f"/admin/{path}").status == 401
    both = admin(gateway, chief, "POST", "keys", {"admin": True, "use": True}).json["secret"]
    assert ask(gateway, both).status == 200 and admin(gateway, both, "GET", "keys").status == 200


def test_keys_over_http_count_at_once_and_are_told_without_their_secrets(guarded: tuple[Gateway, str]) -> None:
    """Made, listed, rotated, revoked; each change is in the log under the administrator's name."""
    gateway, chief = guarded
    answer = admin(gateway, chief, "POST", "keys", {"id": "http", "budgets": ["team"], "note": "by http"})
    assert answer.status == 201 and answer.headers["cache-control"] == "no-store"
    secrets = [answer.json["secret"]]
    assert ask(gateway, secrets[0]).status == 200
    rotated = admin(gateway, chief, "POST", "keys/http/rotate", {"grace_s": 0})
    secrets.append(rotated.json["secret"])
    assert [ask(gateway, secret).status for secret in secrets] == [401, 200]
    assert admin(gateway, chief, "DELETE", "keys/http").json["key"]["state"] == "revoked"
    assert ask(gateway, secrets[1]).status == 401
    listed = admin(gateway, chief, "GET", "keys")
    found = next(key for key in listed.json["keys"] if key["id"] == "http")
    assert (found["budgets"], found["note"], found["state"]) == (["team"], "by http", "revoked")
    log = admin(gateway, chief, "GET", "audit?limit=200&verify=1")
    mine = [(line["actor"], line["action"]) for line in log.json["lines"] if line["about"] == "http"]
    assert mine == [("chief", "key.revoked"), ("chief", "key.rotated"), ("chief", "key.created")]
    assert log.json["verified"]["problem"] is None
    started = next(line for line in log.json["lines"] if line["action"] == "server.started")
    assert len(started["detail"]["config"]) == 64 and started["detail"]["prices"]
    for secret in (*secrets, chief):
        for text in (listed.body.decode(), log.body.decode(), gateway.output):
            assert secret not in text


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("keys", {"id": "chief"}, "id"), ("keys", {"id": "a b"}, "id"), ("keys", {"class": ["faq"]}, "class"),
        ("keys", {"classes": ["nothing"]}, "classes"), ("keys", {"expires_at": 1}, "expires_at"),
        ("keys", {"budgets": ["team", "nothing"]}, "budgets"),
        ("keys", {"tenant": 5}, "tenant"), ("keys", [], None), ("keys/chief/rotate", {"grace_s": -1}, "grace_s"),
        ("keys/nobody/rotate", {}, "id"),
    ],
)  # fmt: skip
def test_bad_input_over_http_is_named(guarded: tuple[Gateway, str], path: str, body: Any, param: str | None) -> None:
    """With a 4xx and the field, and nothing is changed."""
    gateway, chief = guarded
    before = admin(gateway, chief, "GET", "audit?limit=1").json["lines"]
    found = admin(gateway, chief, "POST", path, body)
    assert found.status in (400, 404) and found.error["param"] in (param, "")
    assert admin(gateway, chief, "GET", "audit?limit=1").json["lines"] == before


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "before=-1", "before=" + "9" * 5000, "before=1" + "0" * 19,
              "limit=1&limit=2", "tenant=a", "verify=yes", "limit=%FF"],
)  # fmt: skip
def test_a_question_to_the_log_that_makes_no_sense_is_named(guarded: tuple[Gateway, str], query: str) -> None:
    """With a 400 and the parameter, whatever its length."""
    gateway, chief = guarded
    found = admin(gateway, chief, "GET", f"audit?{query}")
    assert found.status == 400 and found.error["param"] in (query.partition("=")[0], "query")


def test_no_page_can_make_a_key_in_an_administrators_name(guarded: tuple[Gateway, str]) -> None:
    """Neither of another origin, nor by a form, which says that it is no JSON."""
    gateway, chief = guarded
    for headers in (
        {"origin": "https://elsewhere.example"}, {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"},
        {"origin": f"http://127.0.0.1:{gateway.port + 1}"}, {"origin": "null"}, {"origin": "http://["},
        {"content_type": "text/plain"}, {"content_type": "application/x-www-form-urlencoded"},
    ):  # fmt: skip
        refused = admin(gateway, chief, "POST", "keys", {"id": "stolen"}, **headers)
        assert refused.status in (400, 403), headers
    assert all(key["id"] != "stolen" for key in admin(gateway, chief, "GET", "keys").json["keys"])
    own = {"origin": f"http://127.0.0.1:{gateway.port}"}
    assert admin(gateway, chief, "GET", "keys", None, **own).status == 200
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    assert gateway.request("OPTIONS", "/admin/keys", None, asked).status == 403


def test_caches_that_are_cleared_are_in_the_log(guarded: tuple[Gateway, str]) -> None:
    """With the tags and who it was."""
    gateway, chief = guarded
    made = admin(gateway, chief, "POST", "keys", {"id": "cleaner"}).json["secret"]
    assert gateway.request("DELETE", "/v1/cache?tag=class%3Dfaq", None, bearer(made)).status == 200
    line = admin(gateway, chief, "GET", "audit?limit=1").json["lines"][0]
    assert (line["actor"], line["action"]) == ("cleaner", "cache.deleted")
    assert "class=faq" in line["detail"]["tags"]


def test_a_killed_gateway_comes_back_with_its_keys(start: Any) -> None:
    """What was revoked stays so."""
    gateway = start()
    kept, revoked = (keys(gateway, "create", "--id", name)["secret"] for name in ("kept", "revoked"))
    within_a_second(lambda: ask(gateway, kept).status == 200)
    keys(gateway, "revoke", "revoked")
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    again = Gateway(gateway.log.parent, {**json_of(gateway)}, STUB_KEY="the-provider-key")
    try:
        assert [ask(again, secret).status for secret in (kept, revoked, "none")] == [200, 401, 401]
    finally:
        again.stop()


def json_of(gateway: Gateway) -> Json:
    """Return the configuration that *gateway* was started with."""
    import tomllib

    return tomllib.loads((gateway.log.parent / "negawatt.toml").read_text(encoding="utf-8"))


def test_a_damaged_file_keeps_the_gateway_from_starting(start: Any, configured: Configured, tmp_path: Any) -> None:
    """With exit code 2, and the name of the file."""
    (tmp_path / "negawatt-keys.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "negawatt-keys.sqlite").chmod(0o600)
    command = [str(NEGAWATT), "serve", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30,
                          env={"OPENAI_API_KEY": "x", "PATH": "/usr/bin:/bin", **python_path()})  # fmt: skip
    assert done.returncode == 2 and "negawatt-keys.sqlite" in done.stderr, done.stderr


def python_path() -> dict[str, str]:
    import os

    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
