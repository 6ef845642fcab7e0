"""Feedback through real sockets: who may speak of what, what is refused, once and only once, late, early, and kept."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from world import Answer, Gateway, Json, chat, until

from negawatt.success.figures import Figures, figures
from negawatt.success.keeping import catch_up

KEYS = {"ANN": "key-of-ann", "CHIEF": "key-of-chief", "EVE": "key-of-eve"}
Start = Callable[..., Gateway]
Configured = Callable[..., Json]


def keys() -> list[Json]:
    """Ann and the chief are of one tenant and differ in permissions; Eve is of another."""
    return [
        {"id": "ann", "key_env": "ANN", "tenant": "acme", "user": "ann"},
        {"id": "chief", "key_env": "CHIEF", "tenant": "acme", "permissions": ["salaries"]},
        {"id": "eve", "key_env": "EVE", "tenant": "other"},
    ]


@pytest.fixture(scope="module")
def guarded(configured: Configured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = configured(keys=keys())
    gateway = Gateway(tmp_path_factory.mktemp("feedback"), config, STUB_KEY="the-provider-key", **KEYS)
    yield gateway
    gateway.stop()


def bearer(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[who]}"}


def tell(
    gateway: Gateway, said: Json | bytes, who: str | None = "ANN", path: str = "/v1/feedback", **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return gateway.request("POST", path, body, {**(bearer(who) if who else {}), **named})


def asked(gateway: Gateway, task: str, who: str = "ANN", **headers: str) -> str:
    """Ask once under *task*; return the call's id when its row is there."""
    answer = gateway.post(chat({"tag": task}), task, **bearer(who), **headers)
    assert answer.status == 200
    return answer.headers["x-negawatt-call-id"]


def words(gateway: Gateway, about: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True, timeout=5.0)
    try:
        found = connection.execute("SELECT success, score FROM feedback WHERE about = ? ORDER BY seq", (about,))
        return found.fetchall()
    finally:
        connection.close()


def verdict(gateway: Gateway, task: str) -> tuple[Any, ...] | None:
    """Return success and basis of *task* as the roll-up has them now; None while it has none."""
    connection = sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True, timeout=5.0)
    try:
        found: Any = connection.execute("SELECT success, basis FROM task WHERE id = ?", (task,)).fetchone()
        return None if found is None else tuple(found)
    finally:
        connection.close()


def comes_to(gateway: Gateway, task: str, expected: tuple[Any, ...]) -> None:
    until(lambda: verdict(gateway, task) == expected, 20.0)


@pytest.mark.parametrize("path", ["/v1/feedback", "/feedback"])
def test_feedback_on_a_call_or_a_task_makes_its_verdict(guarded: Gateway, task: str, path: str) -> None:
    """By the call's id or by the task's name, at both addresses; it is on disk when it is answered."""
    call = asked(guarded, task)
    said = tell(
        guarded, {"call_id": call, "success": True, "score": 0.9, "useful_tokens": 3, "reason": "ok"}, path=path
    )
    assert (said.status, said.json) == (200, {"recorded": True, "repeated": False, "call_id": call})
    assert words(guarded, call) == [(1, 0.9)]
    comes_to(guarded, task, (1, "feedback"))
    said = tell(guarded, {"task_id": task, "success": False}, path=path)
    assert said.json == {"recorded": True, "repeated": False, "task_id": task}
    comes_to(guarded, task, (0, "feedback"))


WRONG: list[tuple[Json | bytes, str | None]] = [
    (b"", None), (b"{", None), (b"[]", None), (b'"x"', None), (b"\xff", None), (b"null", None),
    ({}, "call_id"), ({"success": True}, "call_id"), ({"call_id": "a", "task_id": "b", "success": True}, "call_id"),
    ({"call_id": "a"}, "success"), ({"call_id": "a", "idempotency_key": "k"}, "success"),
    ({"call_id": 1, "success": True}, "call_id"), ({"call_id": "", "success": True}, "call_id"),
    ({"task_id": "x" * 513, "success": True}, "task_id"), ({"task_id": "a", "success": "yes"}, "success"),
    ({"task_id": "a", "success": 1}, "success"), ({"task_id": "a", "score": 1.01}, "score"),
    ({"task_id": "a", "score": -0.1}, "score"), ({"task_id": "a", "score": "1"}, "score"),
    ({"task_id": "a", "useful_tokens": -1}, "useful_tokens"), ({"task_id": "a", "useful_tokens": 1.5}, "useful_tokens"),
    ({"task_id": "a", "useful_tokens": 2**60}, "useful_tokens"),
    ({"task_id": "a", "useful_tokens": 2**70}, "useful_tokens"),
    ({"task_id": "a", "reason": "x" * 2001}, "reason"), ({"task_id": "a", "sucess": True}, "sucess"),
    ({"task_id": "a", "success": True, "idempotency_key": ""}, "idempotency_key"),
    ({"task_id": "a", "success": True, "idempotency_key": "x" * 201}, "idempotency_key"),
    (b'{"task_id": "a", "success": true, "reason": "\\ud800"}', None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "field"), WRONG, ids=[f"{str(said)[:50]}" for said, _ in WRONG])
def test_what_is_wrong_is_refused_with_the_name_of_the_field(
    guarded: Gateway, said: Json | bytes, field: str | None
) -> None:
    """A 400 that names it; nothing is kept."""
    answer = tell(guarded, said)
    assert (answer.status, answer.error["param"]) == (400, field), answer.body
    assert words(guarded, "a") == []


def test_strangers_others_methods_and_too_much_are_refused(guarded: Gateway, task: str) -> None:
    """No key 401 whatever the body, other methods 405 with the allowed one, more than 64 KiB 413."""
    assert tell(guarded, b"{", None).status == 401
    assert tell(guarded, {"task_id": task, "success": True}, None, authorization="Bearer nobody").status == 401
    refused = guarded.get("/v1/feedback", bearer("ANN"))
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    assert tell(guarded, {"task_id": task, "reason": "x" * 70_000}).status == 413
    page = tell(guarded, {"task_id": task, "success": True}, origin="https://evil.example")
    assert (page.status, page.error["param"]) == (403, "origin")
    assert words(guarded, task) == []


def test_no_tenant_speaks_of_anothers_calls_or_tasks(guarded: Gateway, task: str) -> None:
    """Eve's words are answered as any others are, and change nothing of Ann's; her own task of that name is hers."""
    call = asked(guarded, task)
    foreign = tell(guarded, {"call_id": call, "success": False}, "EVE")
    unknown = tell(guarded, {"call_id": f"{call}0", "success": False}, "EVE")
    assert (foreign.status, {**foreign.json, "call_id": ""}) == (unknown.status, {**unknown.json, "call_id": ""})
    tell(guarded, {"task_id": task, "success": False}, "EVE")
    tell(guarded, {"call_id": call, "success": True})
    comes_to(guarded, task, (1, "feedback"))


def test_permissions_divide_who_may_speak(guarded: Gateway, task: str) -> None:
    """Of what a key with a permission asked only such a key may speak; what a call adds need not be named."""
    call = asked(guarded, task, "CHIEF", x_negawatt_permissions="team-a")
    comes_to(guarded, task, (None, None))
    tell(guarded, {"call_id": call, "success": False}, "ANN")
    tell(guarded, {"task_id": task, "success": False}, "ANN")
    tell(guarded, {"task_id": task, "success": False}, "CHIEF", x_negawatt_permissions="team-b")
    tell(guarded, {"call_id": call, "success": True}, "CHIEF")
    comes_to(guarded, task, (1, "feedback"))
    key, word = f"key-{task}", {"call_id": call, "success": False}
    for who, said in (("ANN", word), ("CHIEF", word), ("EVE", word)):  # nobody takes another's key, nor learns of it
        assert tell(guarded, said, who, idempotency_key=key).json["recorded"]
    comes_to(guarded, task, (0, "feedback"))
    tell(guarded, {"call_id": call, "success": True}, "CHIEF")
    comes_to(guarded, task, (1, "feedback"))
    tell(guarded, {"task_id": task, "success": False}, "CHIEF", x_negawatt_permissions="team-a")
    comes_to(guarded, task, (0, "feedback"))


def test_the_same_is_kept_once(guarded: Gateway, task: str) -> None:
    """By key, in the body or the header, and by content; a key of another word is refused; a later word replaces."""
    one = {"task_id": task, "success": True}
    assert tell(guarded, one).json["recorded"]
    assert tell(guarded, one).json == {"recorded": False, "repeated": True, "task_id": task}
    key = f"key-{task}"
    assert tell(guarded, {**one, "success": False, "idempotency_key": key}).json["recorded"]
    assert tell(guarded, {**one, "success": False}, idempotency_key=key).json["repeated"]
    other = tell(guarded, one, idempotency_key=key)
    assert (other.status, other.error["param"]) == (400, "idempotency_key")
    two = tell(guarded, {**one, "idempotency_key": "a"}, idempotency_key="b")
    assert (two.status, two.error["param"]) == (400, "idempotency_key")
    assert words(guarded, task) == [(1, None), (0, None)]
    assert tell(guarded, one).json["recorded"]  # somebody has changed their mind again
    assert tell(guarded, {**one, "success": False, "idempotency_key": key}).json["repeated"]  # sent long ago
    asked(guarded, task)
    comes_to(guarded, task, (1, "feedback"))
    assert tell(guarded, {"task_id": task, "score": 0.25}).json["recorded"]  # what it does not mention stays
    comes_to(guarded, task, (1, "feedback"))


def test_feedback_may_come_before_what_it_is_about(guarded: Gateway, task: str) -> None:
    """A task that nobody has seen yet is no task until it has a row; then the word counts."""
    assert tell(guarded, {"task_id": task, "success": True}).json["recorded"]
    assert verdict(guarded, task) is None
    asked(guarded, task)
    comes_to(guarded, task, (1, "feedback"))


def test_feedback_outlives_a_kill(start: Start, task: str) -> None:
    """What was answered is on disk: after kill -9 it is there, counts once, and after a restart is known again."""
    first = start()
    call = first.post(chat({"tag": task}), task).headers["x-negawatt-call-id"]
    until(lambda: first.rows(task))
    said = {"call_id": call, "success": True, "idempotency_key": "once"}
    assert tell(first, said, None).json["recorded"]
    first.signal(signal.SIGKILL)
    first.wait()
    second = start()
    assert tell(second, said, None).json["repeated"]
    late = second.post(chat({"tag": task}), task).headers["x-negawatt-call-id"]
    tell(second, {"call_id": late, "success": False}, None)
    comes_to(second, task, (0, "feedback"))  # the last that was spoken of decides
    second.stop()
    catch_up(second.ledger)
    (found,) = [one for one in figures(second.ledger) if isinstance(one, Figures)]
    assert (found.tasks, found.calls, found.judged, found.successes) == (1, 2, 1, 0)
    assert found.cost_per_success_usd.mean is None


def test_the_metrics_count_verdicts_by_class(start: Start, task: str) -> None:
    """Each task when it is first seen, and again when its verdict changes."""
    gateway = start()
    gateway.post(chat({"tag": task}), task)
    comes_to(gateway, task, (None, None))
    tell(gateway, {"task_id": task, "success": True}, None)
    comes_to(gateway, task, (1, "feedback"))
    line = 'negawatt_task_success_total{request_class="default",outcome="%s"} 1.0'
    until(lambda: (line % "success").encode() in gateway.get("/metrics").body)
    assert (line % "unknown").encode() in gateway.get("/metrics").body
