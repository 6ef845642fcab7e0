"""Keys that are made here: scopes, endings, and that nothing which opens a door lies anywhere."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import EPOCH, ManualClock

from negawatt.access import sql
from negawatt.access.file import Held, KeyFile
from negawatt.access.key import Terms
from negawatt.access.keyring import Keyring
from negawatt.access.secrets import PATTERN, digest_of, masked, mistyped, new_secret
from negawatt.caller import Caller
from negawatt.cli import cli
from negawatt.clock import SystemClock
from negawatt.config import Config, parse_config
from negawatt.doors import Audit, key_file, open_access, open_keyring
from negawatt.errors import (
    AuthenticationError,
    ConfigError,
    ExpiredKey,
    InvalidRequest,
    KeyFileError,
    NegawattError,
    NotFound,
    PermissionDenied,
    RevokedKey,
)
from negawatt.levers.admit import administrator
from negawatt.serving import look_at_doors, refuse_open_doors

NOW = EPOCH + 1_000.0
CLOCK = ManualClock()


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A file of keys that nobody has made yet."""
    return KeyFile(tmp_path / "keys.sqlite")


def ring(file: KeyFile, clock: ManualClock = CLOCK, **more) -> Keyring:
    return Keyring((), {}, file=file, clock=clock, **more)


# -- secrets ---------------------------------------------------------------------------------------------------


def test_no_two_secrets_are_alike_and_each_looks_like_one():
    """Of a thousand, all have the form that scanners look for, and none has another's handle."""
    made = [new_secret() for _ in range(1000)]
    assert all(PATTERN.fullmatch(one.text) for one in made)
    assert len({one.text for one in made}) == len({one.handle for one in made}) == 1000
    assert not any(mistyped(one.text) for one in made)
    assert all(one.digest == digest_of(one.text) for one in made)


@given(st.integers(0, 63), st.sampled_from("0123456789abcdefghjkmnpqrstvwxyzABCZ"))
@settings(max_examples=200, deadline=None)
def test_one_wrong_character_is_told_from_a_key_that_is_not_known(place, character):
    """Whichever it is; and so is a key that lost its end. Keys of other makes are not called mistyped."""
    text = new_secret().text
    wrong = text[:place] + character + text[place + 1 :]
    if wrong.startswith("nwk_"):
        assert mistyped(wrong) == (wrong != text)
    assert place < 4 or mistyped(text[:place])
    assert not mistyped("sk-another")


def test_a_secret_in_a_text_is_reduced_to_its_handle():
    """What people paste into notes goes no further."""
    one = new_secret()
    said = masked(f"my key is {one.text}, thanks")
    assert one.text not in said and f"nwk_{one.handle}_..." in said


# -- the file --------------------------------------------------------------------------------------------------


NAMES = st.text("abc:._-Z09", min_size=1, max_size=12).filter(lambda name: name[0].isalnum())
TERMS = st.builds(
    Terms,
    note=st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=40).filter(str.isprintable),
    tenant=NAMES, user=st.none() | NAMES, permissions=st.lists(NAMES, max_size=3).map(tuple),
    models=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    classes=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    budgets=st.lists(NAMES, max_size=3).map(tuple), admin=st.booleans(), use=st.just(True),
    expires_at=st.none() | st.floats(NOW + 1, NOW + 1e8),
)  # fmt: skip


@given(terms=st.lists(TERMS, min_size=1, max_size=3), paste=st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_secret_lies_anywhere(tmp_path_factory, terms, paste):
    """Not in the file, the list, the audit log or an error: whatever keys are made, rotated and revoked."""
    folder = tmp_path_factory.mktemp("keys")
    file = KeyFile(folder / "keys.sqlite")
    secrets, said = [], []
    for one in terms:
        key, secret = file.create(one, "test", NOW)
        secrets += [secret, file.rotate(key.id, "test", NOW, 60.0)[1]]
        if paste:
            file.note(NOW, secret, "key.pasted", about=secret, detail={"note": f"here: {secret}"})
        file.revoke(key.id, secret if paste else "test", NOW)
    keyring = ring(file)
    for secret in secrets:
        for asked in (secret, secret[:-1]):
            with pytest.raises(NegawattError) as caught:
                keyring.caller(asked)
            said.append(caught.value.message)
    keyring.close()
    said += [repr(file.all()), repr(file.lines(limit=1000)), repr(keyring.__dict__)]
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in secrets:
        middle = secret[15:-6]  # without the handle, which may be shown
        assert middle.encode() not in kept
        assert middle not in "".join(said)


@given(TERMS)
@settings(max_examples=50, deadline=None)
def test_a_key_is_kept_as_it_was_asked_for(tmp_path_factory, terms):
    """And its caller has its scopes."""
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.sqlite")
    key, secret = file.create(terms, "test", NOW)
    for name in ("note", "tenant", "user", "permissions", "models", "classes", "budgets", "admin", "use", "expires_at"):
        assert getattr(key, name) == getattr(terms, name)
    caller = ring(file).holder(secret)
    assert (caller.key_id, caller.tenant, caller.user) == (key.id, terms.tenant, terms.user)
    assert caller.models == (None if terms.models is None else frozenset(terms.models))
    assert (caller.budgets, caller.admin, caller.use) == (terms.budgets, terms.admin, terms.use)
    assert caller.may_be_of("zz") == (terms.classes is None)


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"id": "two words"}, "id"), ({"id": ""}, "id"), ({"tenant": ""}, "tenant"), ({"note": "a\nb"}, "note"),
        ({"id": "server"}, "id"), ({"id": "cli:root"}, "id"),
        ({"note": "a" * 501}, "note"), ({"models": ()}, "models"), ({"classes": ("",)}, "classes"),
        ({"expires_at": NOW - 1}, "expires_at"), ({"expires_at": float("nan")}, "expires_at"), ({"use": False}, "use"),
        ({"user": "\ud800"}, "user"),
    ],
)  # fmt: skip
def test_what_no_key_can_be_is_refused_by_name(file, terms, field):
    """And nothing is kept of it: no file, no line."""
    with pytest.raises(InvalidRequest) as caught:
        file.create(Terms(**terms), "test", NOW)
    assert caught.value.param == field
    assert not file.begun


def test_an_id_is_never_given_again(file):
    """Not even after its key was revoked: the ledger's rows would be of two keys."""
    file.create(Terms(id="ci"), "test", NOW)
    file.revoke("ci", "test", NOW)
    with pytest.raises(InvalidRequest, match="there is, or was, a key 'ci'"):
        file.create(Terms(id="ci"), "test", NOW)
    for change in (file.revoke, file.rotate):
        with pytest.raises(InvalidRequest, match="revoked"):
            change("ci", "test", NOW)
        with pytest.raises(NotFound, match="no key 'cd'"):
            change("cd", "test", NOW)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX'")
def test_the_file_is_its_owners_alone(file):
    """Made so, whatever the umask; one that others may write is refused: they could write a key of their own."""
    before = os.umask(0)
    try:
        _, secret = file.create(Terms(), "test", NOW)
    finally:
        os.umask(before)
    assert file.path.stat().st_mode & 0o777 == 0o600
    keyring = ring(file)
    assert keyring.caller(secret)
    file.path.chmod(0o620)
    with pytest.raises(KeyFileError, match="chmod 600"):
        ring(file)
    with pytest.raises(KeyFileError, match="chmod 600"):
        file.create(Terms(), "test", NOW)


@pytest.mark.parametrize(
    "change",
    ["UPDATE access_key SET models = 'x'", "UPDATE access_key SET budgets = '5'", "DELETE FROM access_key",
     "UPDATE access_secret SET digest = 5", "DROP TABLE access_key"],
)  # fmt: skip
def test_a_row_that_cannot_be_read_lets_nobody_in(file, change):
    """At the start, and while it runs: then the watch goes on, and the next sound file counts."""
    _, secret = file.create(Terms(), "test", NOW)
    keyring, kept = ring(file), file.path.read_bytes()
    with sqlite3.connect(file.path) as connection:
        connection.execute(change)
    connection.close()
    keyring.look()
    assert not keyring.open
    with pytest.raises((KeyFileError, AuthenticationError)):
        keyring.caller(secret)
    with pytest.raises((KeyFileError, AuthenticationError)):
        ring(file).caller(secret)
    file.path.write_bytes(kept)
    keyring.look()
    assert keyring.caller(secret)


def test_who_came_in_earlier_is_known_while_their_key_stands(file):
    """Until it is revoked or the secret that they came in by ends; a session can ask."""
    key, first = file.create(Terms(admin=True), "test", NOW)
    keyring = ring(file)
    caller = keyring.holder(first)
    assert keyring.stands(caller, digest_of(first)) and not keyring.stands(caller, digest_of("other"))
    assert not keyring.stands(Caller(key_id=key.id), digest_of(first)), "what the key may do has changed"
    _, second = file.rotate(key.id, "test", NOW, 0.0)
    keyring.look()
    assert [keyring.stands(caller, digest_of(secret)) for secret in (first, second)] == [False, True]
    file.revoke(key.id, "test", NOW)
    keyring.look()
    assert not keyring.stands(caller, digest_of(second))


async def test_callers_that_were_given_stand():
    """Whoever opens a gateway with callers of their own says who may come in; nobody else ends that."""

    class Given:
        open, divided = False, False

        def holder(self, secret):
            return Caller(admin=True)

        caller = holder

    async with open_access(Config(), {}, SystemClock(), Given()) as access:
        assert access.stands(access.keyring.holder("whatever"), digest_of("whatever"))


@pytest.mark.parametrize("damage", ["garbage", "other database", "later version", "folder"])
def test_a_file_that_is_none_lets_nobody_in(file, damage):
    """The error names the file, and nothing is opened by guess."""
    if damage == "garbage":
        file.path.write_bytes(b"this is no database" * 100)
    elif damage == "folder":
        file.path.mkdir()
    else:
        with sqlite3.connect(file.path) as connection:
            connection.execute("CREATE TABLE t (x)")
            if damage == "later version":
                connection.execute(f"PRAGMA application_id = {sql.APPLICATION}")
                connection.execute(f"PRAGMA user_version = {sql.VERSION + 1}")
        connection.close()
        file.path.chmod(0o600)
    for work in (lambda: ring(file), lambda: file.create(Terms(), "test", NOW), file.all):
        with pytest.raises(KeyFileError, match=r"keys\.sqlite"):
            work()


def test_a_file_that_is_named_has_to_be_there(tmp_path, monkeypatch):
    """The usual one need not be: then no key was made yet."""
    monkeypatch.chdir(tmp_path)
    assert open_keyring(parse_config({}), {}).open
    with pytest.raises(KeyFileError, match="negawatt keys create"):
        open_keyring(parse_config({"access": {"keys": "sqlite:///mine.sqlite"}}), {})
    for text in ("redis://localhost", "sqlite:", "sqlite:///x?mode=ro"):
        with pytest.raises(ConfigError, match=r"access\.keys"):
            key_file(parse_config({"access": {"keys": text}}))


# -- the keyring -----------------------------------------------------------------------------------------------


def test_the_door_shuts_with_the_first_key_and_stays_shut(file):
    """Whatever becomes of the file: gone, emptied, damaged or of another key, nobody comes in by its loss."""
    keyring = ring(file)
    assert keyring.open and keyring.caller("anything").key_id is None
    key, secret = file.create(Terms(id="one"), "test", NOW)
    keyring.look()
    assert not keyring.open and keyring.caller(secret).key_id == "one"
    for wrong in (None, "", "anything", secret + "x", secret.upper()):
        with pytest.raises(AuthenticationError):
            keyring.caller(wrong)
    kept = file.path.read_bytes()
    for damage in (file.path.unlink, lambda: file.path.write_bytes(b""), lambda: file.path.write_bytes(kept[:5000])):
        damage()
        keyring.look()
        assert not keyring.open
        with pytest.raises(KeyFileError, match="cannot be read at the moment") as caught:
            keyring.caller(secret)
        assert caught.value.status == 503 and str(file.path) not in caught.value.message
    file.path.unlink()
    other = KeyFile(file.path)
    other.create(Terms(id="two"), "test", NOW)
    keyring.look()
    with pytest.raises(AuthenticationError, match="not known"):
        keyring.caller(secret)
    file.path.write_bytes(kept)
    keyring.look()
    assert keyring.caller(secret).key_id == key.id


def test_keys_of_the_configuration_outlive_the_file(file):
    """What lies in the environment does not depend on it."""
    config = parse_config({"keys": [{"id": "desk", "key_env": "DESK", "admin": True, "use": False}]})
    _, secret = file.create(Terms(), "test", NOW)
    keyring = Keyring(config.keys, {"DESK": "desk-key"}, file=file, clock=CLOCK)
    assert keyring.caller(secret) and keyring.holder("desk-key").admin
    with pytest.raises(PermissionDenied, match="administration"):
        keyring.caller("desk-key")
    file.path.write_bytes(b"broken")
    keyring.look()
    assert keyring.holder("desk-key").key_id == "desk"


def test_a_change_by_another_process_is_seen_at_the_next_look(file):
    """Each create, rotation and revocation; what has not changed is not read again."""
    keyring = ring(file)
    other = KeyFile(file.path)
    first, one = other.create(Terms(), "test", NOW)
    keyring.look()
    known = keyring._known
    keyring.look()
    assert keyring._known is known, "nothing has changed, so nothing was read"
    _, two = other.rotate(first.id, "test", NOW, 0.0)
    keyring.look()
    assert keyring.caller(two).key_id == first.id
    with pytest.raises(RevokedKey, match="replaced"):
        keyring.caller(one)
    other.revoke(first.id, "test", NOW)
    keyring.look()
    with pytest.raises(RevokedKey, match="was revoked"):
        keyring.caller(two)


def test_a_key_ends_when_it_was_said_to(file):
    """At that moment, without a look at the file; the grace of a rotation too."""
    clock = ManualClock()
    key, secret = file.create(Terms(expires_at=clock.time() + 100), "test", clock.time())
    keyring = ring(file, clock)
    _, new = file.rotate(key.id, "test", clock.time(), 50.0)
    keyring.look()
    clock.now += 49.9
    assert keyring.caller(secret) == keyring.caller(new)
    clock.now += 0.2
    with pytest.raises(RevokedKey, match="replaced by a new one"):
        keyring.caller(secret)
    assert keyring.caller(new)
    clock.now += 50
    with pytest.raises(ExpiredKey, match="expired on 2026"):
        keyring.caller(new)


def test_a_second_rotation_prolongs_nothing(file):
    """An old secret keeps the shorter of two graces."""
    key, _ = file.create(Terms(), "test", NOW)
    file.rotate(key.id, "test", NOW, 10.0)
    key, _ = file.rotate(key.id, "test", NOW + 1, 1000.0)
    assert sorted(one.ends_at or 9e99 for one in key.secrets) == [NOW + 10, NOW + 1001, 9e99]
    for grace in (-1.0, 1e9, float("nan")):
        with pytest.raises(InvalidRequest, match="grace_s"):
            file.rotate(key.id, "test", NOW, grace)


def test_administration_and_use_are_apart(file):
    """A key for one does not open the other; both have to be said."""
    secrets = {name: file.create(Terms(id=name, admin="a" in name, use="u" in name), "test", NOW)[1] for name in
               ("a", "u", "au")}  # fmt: skip
    keyring = ring(file)
    assert keyring.administered
    assert [administrator(keyring, secrets[name]).key_id for name in ("a", "au")] == ["a", "au"]
    assert [keyring.caller(secrets[name]).key_id for name in ("u", "au")] == ["u", "au"]
    with pytest.raises(PermissionDenied):
        administrator(keyring, secrets["u"])
    with pytest.raises(PermissionDenied):
        keyring.caller(secrets["a"])


def test_the_last_use_is_kept_to_the_minute_and_written_off_the_path(file):
    """A call writes nothing; what was used is written together, and survives the keyring."""
    clock = ManualClock()
    key, secret = file.create(Terms(), "test", clock.time())
    file.create(Terms(id="unused"), "test", clock.time())
    keyring = ring(file, clock)
    before = file.path.read_bytes()
    for _ in range(100):
        keyring.caller(secret)
    assert file.path.read_bytes() == before
    keyring.close()
    assert {one.id: one.used_at for one in file.all()} == {key.id: clock.time() // 60 * 60, "unused": None}


def test_only_a_new_key_begins_a_file(file):
    """Where one was lost, nothing lays an empty one, which would ask nobody for a key after the next start."""
    key, secret = file.create(Terms(), "test", NOW)
    keyring = ring(file)
    keyring.caller(secret)
    file.path.unlink()
    keyring.close()  # it would write down when the key was used
    for change in (lambda: file.revoke(key.id, "test", NOW), lambda: file.rotate(key.id, "test", NOW),
                   lambda: file.note(NOW, "test", "x", about="", detail={})):  # fmt: skip
        with pytest.raises(KeyFileError, match="there is no file of keys"):
            change()
    assert not file.path.exists()


def test_keys_of_different_tenants_divide_the_callers(file):
    """As soon as there are such: what providers keep is then told apart."""
    keyring = ring(file)
    file.create(Terms(tenant="one"), "test", NOW)
    keyring.look()
    assert not keyring.divided
    file.create(Terms(tenant="two"), "test", NOW)
    keyring.look()
    assert keyring.divided


def test_a_file_that_is_locked_for_a_moment_keeps_its_keys(file):
    """One that stays locked does not: revocations could no longer be seen."""
    _, secret = file.create(Terms(), "test", NOW)
    keyring = ring(file)
    keyring._watched._connection.execute("PRAGMA busy_timeout = 0")
    lock = sqlite3.connect(file.path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    for _ in range(20):
        keyring.look()
        assert keyring.caller(secret)
    keyring.look()
    with pytest.raises(KeyFileError):
        keyring.caller(secret)
    lock.execute("COMMIT")
    lock.close()
    keyring.look()
    assert keyring.caller(secret)


def test_ten_thousand_keys_are_found_as_one_is(file, monkeypatch):
    """By one look-up of the digest: no other key is looked at."""
    held = file.create(Terms(id="mine"), "test", NOW)[1]
    key = file.all()[0]
    others = [Held(digest_of(str(n)), key, None) for n in range(10_000)]
    monkeypatch.setattr("negawatt.access.keyring.secrets_in", lambda _: [*others, Held(digest_of(held), key, None)])
    keyring = ring(file)
    compared = []
    monkeypatch.setattr("negawatt.access.keyring.hmac.compare_digest", lambda *two: compared.append(two) or True)
    assert keyring.caller(held).key_id == "mine"
    assert len(compared) == 1


# -- at the same time, and in the middle -----------------------------------------------------------------------


def test_processes_that_make_keys_at_once_wait_for_each_other(file):
    """Also where all of them make the file: every key is there, and the chain of the log is whole."""
    code = """
import sys, time
from pathlib import Path
from negawatt.access.file import KeyFile
from negawatt.access.key import Terms
for n in range(10):
    KeyFile(Path(sys.argv[1])).create(Terms(id=f"{sys.argv[2]}.{n}"), sys.argv[2], time.time())
"""
    command = [sys.executable, "-c", code, str(file.path)]
    makers = [subprocess.Popen([*command, f"p{n}"]) for n in range(3)]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0]
    assert {key.id for key in file.all()} == {f"p{n}.{m}" for n in range(3) for m in range(10)}
    verified = file.verify()
    assert (verified.lines, verified.problem) == (30, None)


def test_a_process_that_is_killed_while_it_makes_keys_leaves_whole_ones(file):
    """Each key has its secret and its line, and the file takes the next."""
    code = """
import sys, time
from pathlib import Path
from negawatt.access.file import KeyFile
from negawatt.access.key import Terms
while True:
    print(KeyFile(Path(sys.argv[1])).create(Terms(), "killed", time.time())[1], flush=True)
"""
    for round_ in range(4):
        maker = subprocess.Popen(
            [sys.executable, "-c", code, str(file.path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )  # fmt: skip
        told = [maker.stdout.readline().strip() for _ in range(3 + round_)]
        time.sleep(0.001 * round_)  # at another moment of its work each time
        os.kill(maker.pid, signal.SIGKILL)
        told += [line.strip() for line in maker.stdout.read().splitlines() if PATTERN.fullmatch(line.strip())]
        maker.wait(10)
        keys, verified = file.all(), file.verify()
        assert verified.problem is None and verified.lines == len(keys)
        assert all(len(key.secrets) == 1 for key in keys)
        keyring = ring(file)
        assert all(keyring.caller(secret) for secret in told), "what was shown opens"
        keyring.close()


def test_a_start_that_was_killed_before_the_first_key_is_no_damage(file):
    """The empty file that it left is as good as none."""
    file.path.touch(0o600)
    keyring = ring(file)
    assert keyring.open
    _, secret = file.create(Terms(), "test", NOW)
    keyring.look()
    assert keyring.caller(secret)


def test_the_watch_sees_a_key_within_a_second(file):
    """In a thread of its own, that ends when it is closed."""
    keyring = ring(file)
    keyring.watch()
    key, secret = file.create(Terms(), "test", NOW)
    until = time.monotonic() + 20.0  # of a machine that is busy with other things
    while keyring.open and time.monotonic() < until:
        time.sleep(0.01)
    assert keyring.caller(secret).key_id == key.id
    keyring.close()
    assert not any(thread.name == "negawatt-keys" and thread.is_alive() for thread in threading.enumerate())


# -- the audit log ---------------------------------------------------------------------------------------------


def written(file: KeyFile) -> None:
    file.path.touch(0o600)
    for n in range(5):
        file.note(NOW + n, "cli:test", "test.done", about=f"thing {n}", detail={"n": n})


def tampered(file: KeyFile, statement: str, *values) -> str | None:
    """Return what verification says after *statement*, from which the file's own triggers were taken."""
    with sqlite3.connect(file.path) as connection:
        connection.execute("DROP TRIGGER audit_stays")
        connection.execute("DROP TRIGGER audit_is_final")
        connection.execute(statement, values)
    connection.close()
    return file.verify().problem


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit SET actor = 'cli:other' WHERE place = 3", "line 3 is not what was written"),
        ("UPDATE audit SET at = at - 1 WHERE place = 1", "line 1 is not what was written"),
        ("UPDATE audit SET detail = '{\"n\":9}' WHERE place = 5", "line 5 is not what was written"),
        ("DELETE FROM audit WHERE place = 1", "line 1 is missing"),
        ("DELETE FROM audit WHERE place = 3", "line 3 is missing"),
        ("DELETE FROM audit WHERE place = 5", "the newest lines are missing: 5 were written, 4 are there"),
        ("DELETE FROM audit", "the newest lines are missing: 5 were written, 0 are there"),
    ],
)  # fmt: skip
def test_a_line_that_was_altered_or_deleted_shows(file, statement, problem):
    """Wherever it stood."""
    written(file)
    assert file.verify().problem is None
    assert problem in (tampered(file, statement) or "whole")


def test_the_file_itself_lets_no_line_be_changed(file):
    """Whoever types a statement by hand is told."""
    written(file)
    connection = sqlite3.connect(file.path)
    for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="lines of the audit log"):
            connection.execute(statement)
    connection.close()


def test_a_chain_that_was_made_anew_does_not_lead_through_a_digest_noted_earlier(file, tmp_path):
    """That is what --expect is for."""
    written(file)
    head = file.verify().head
    file.note(NOW + 9, "cli:test", "test.done", about="later", detail={})
    found = file.verify(head)
    assert (found.problem, found.expected_at, found.lines) == (None, 5, 6)
    other = KeyFile(tmp_path / "other.sqlite")
    written(other)
    other.note(NOW, "cli:test", "test.done", about="", detail={})
    assert other.verify(head).problem is None, "the same lines are the same chain"
    assert "another chain" in (file.verify("0" * 64).problem or "")


def test_the_newest_lines_come_first_and_in_pages(file):
    """By their place; from a moment on."""
    written(file)
    assert [line.place for line in file.lines(limit=2)] == [5, 4]
    assert [line.place for line in file.lines(before=4, limit=2)] == [3, 2]
    assert [line.about for line in file.lines(since=NOW + 3)] == ["thing 4", "thing 3"]


def test_what_is_too_long_for_a_line_is_cut(file):
    """A note is no place to fill the disk."""
    file.path.touch(0o600)
    file.note(NOW, "a" * 10_000, "b" * 10_000, about="c" * 10_000, detail={"d": "e" * 1_000_000})
    assert file.path.stat().st_size < 65_536
    assert file.verify().problem is None


def test_where_there_is_no_file_of_keys_nothing_is_noted(file):
    """And none is made for it: a file would ask for keys that nobody has."""
    audit = Audit(file, CLOCK)
    assert audit.note("server", "server.started") is False and not file.begun
    file.create(Terms(), "test", NOW)
    assert audit.note("server", "server.started", detail={"config": "abc"}) is True
    assert file.lines(limit=1)[0].detail == {"config": "abc"}
    assert Audit(None, CLOCK).note("server", "x") is False


# -- doors, and the command line -------------------------------------------------------------------------------


def test_a_server_that_others_reach_needs_a_key_from_either_place(tmp_path, monkeypatch, caplog):
    """And says so where no administrator could look in."""
    monkeypatch.chdir(tmp_path)
    config = parse_config({"server": {"host": "0.0.0.0"}})
    with pytest.raises(ConfigError, match="negawatt keys create"):
        look_at_doors(config)
    file = key_file(config)[0]
    file.create(Terms(), "test", time.time())
    with caplog.at_level(logging.WARNING):
        look_at_doors(config)
    assert "no key is an administrator's" in caplog.text
    caplog.clear()
    file.create(Terms(admin=True), "test", time.time())
    look_at_doors(config)
    assert caplog.text == ""
    with pytest.raises(ConfigError):
        refuse_open_doors(config, Keyring((), {}))


def invoked(*arguments: str, code: int = 0):
    """Return what ``negawatt keys`` says to *arguments*: JSON where it is asked for."""
    found = CliRunner().invoke(cli, ["keys", *arguments])
    assert found.exit_code == code, (found.output, found.exception)
    return json.loads(found.stdout) if "--json" in arguments else found.stdout


def test_every_verb_speaks_json(tmp_path, monkeypatch):
    """create, list, rotate, revoke, audit: with the secret only where it is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "negawatt.toml").write_text('[[budgets]]\nname = "b"\ntokens = 5\n')
    made = invoked("create", "--id", "ci", "--expires", "90d", "--model", "m", "--budget", "b", "--json")
    assert made["key"]["models"] == ["m"] and made["key"]["budgets"] == ["b"] and made["key"]["state"] == "active"
    assert made["key"]["expires_at"] - made["key"]["created_at"] == 90 * 86_400
    assert PATTERN.fullmatch(made["secret"])
    rotated = invoked("rotate", "ci", "--grace", "0", "--json")
    assert rotated["secret"] != made["secret"] and len(rotated["key"]["secrets"]) == 2
    assert [key["id"] for key in invoked("list", "--json")["keys"]] == ["ci"]
    assert invoked("revoke", "ci", "--json")["key"]["state"] == "revoked"
    assert invoked("list", "--json")["keys"] == []
    assert [key["id"] for key in invoked("list", "--all", "--json")["keys"]] == ["ci"]
    lines = invoked("audit", "--json")["lines"]
    assert [line["action"] for line in lines] == ["key.revoked", "key.rotated", "key.created"]
    assert all(line["actor"].startswith("cli:") for line in lines)
    assert invoked("audit", "--verify", "--json")["problem"] is None
    assert invoked("audit", "--expect", "0" * 64, "--json", code=1)["problem"]
    with sqlite3.connect("negawatt-keys.sqlite") as connection:
        connection.execute("DROP TRIGGER audit_is_final")
        connection.execute("UPDATE audit SET actor = 'cli:other' WHERE place = 2")
    connection.close()
    assert "line 2" in invoked("audit", "--verify", code=1)


def test_a_line_of_the_log_stays_one_line(tmp_path, monkeypatch):
    """What callers named is told as it was, and looks like no change that nobody made."""
    monkeypatch.chdir(tmp_path)
    invoked("create", "--id", "ops", "--admin")
    tag = "class=x\n    9  2026-01-01 00:00 UTC  ops  key.created\x1b[2J"
    told = {"tags": [tag], "by": tag}
    KeyFile(Path("negawatt-keys.sqlite")).note(time.time(), "ci", "cache.deleted", about="", detail=told)
    lines = invoked("audit").splitlines()
    assert len(lines) == 2 and "\x1b" not in lines[0] and "cache.deleted" in lines[0]
    assert invoked("audit", "--json")["lines"][0]["detail"]["by"] == tag


def test_standard_output_has_the_secret_alone(tmp_path, monkeypatch):
    """So that a script can catch it."""
    monkeypatch.chdir(tmp_path)
    assert PATTERN.fullmatch(invoked("create", "--id", "ops", "--admin").strip())
    assert PATTERN.fullmatch(invoked("rotate", "ops").strip())
    assert "administration" in invoked("list")
    invoked("create", "--note", "[/bold] a note [red]", "--tenant", "[/]")
    assert "[/bold]" in invoked("list")
    key = next(key for key in invoked("list", "--json")["keys"] if key["id"] == "ops")
    assert key["admin"] and not key["use"]
    assert invoked("create", "--admin", "--use", "--json")["key"]["use"]


CONFIGURED = """
keys = [{ id = "desk", key_env = "DESK" }]
budgets = [{ name = "all", tokens = 1000 }]
providers = [{ name = "one", kind = "openai", models = ["small"] }]
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--class", "faq"], "no class is named 'faq'"), (["create", "--expires", "soon"], "--expires"),
        (["create", "--budget", "team"], "budgets: no budget is named 'team'; known: all"),
        (["create", "--model", "gpt"], "models: no provider here serves 'gpt'; known: small"),
        (["create", "--expires", "2020-01-01"], "expires_at"),
        (["create", "--id", "desk"], "a key of the configuration"),
        (["revoke", "nobody"], "no file of keys"), (["rotate", "nobody", "--grace", "x"], "--grace"),
        (["create", "--expires", "\N{SUPERSCRIPT TWO}d"], "--expires"),
        (["rotate", "x", "--grace", "9" * 5000 + "d"], "--grace"),
        (["audit"], "no file of keys"), (["create", "--no-use"], "opens nothing"),
    ],
)  # fmt: skip
def test_bad_input_is_named(tmp_path, monkeypatch, arguments, said):
    """With exit code 2, and no file made."""
    (tmp_path / "negawatt.toml").write_text(CONFIGURED)
    command = [sys.executable, "-m", "negawatt", "keys", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "negawatt-keys.sqlite").exists()
