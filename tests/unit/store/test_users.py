"""The accounts file: names, changes, migrations, several processes."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ecan.errors import StoreError
from ecan.store import sqlite_db, users
from ecan.store.users import (
    USERS_FILE,
    UserExistsError,
    UserFieldError,
    UserNotFoundError,
    UserStore,
    clean_text,
    clean_username,
    username_key,
)

HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$Zm9vYmFy"


class Now:
    at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def store(tmp_path, now):
    with UserStore(tmp_path / "data", now=now) as store:
        yield store


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_and_its_directory_are_private(store, tmp_path):
    store.add("ann", HASH)
    assert mode(tmp_path / "data") == 0o700
    assert {mode(path) for path in (tmp_path / "data").iterdir()} == {0o600}


def test_a_file_others_could_read_is_made_private(tmp_path):
    (tmp_path / USERS_FILE).touch(mode=0o644)
    (tmp_path / USERS_FILE).chmod(0o644)
    with UserStore(tmp_path):
        assert mode(tmp_path / USERS_FILE) == 0o600


def test_durable_settings(store):
    connection = store._connection
    assert connection.pragma("journal_mode") == "wal"
    assert connection.pragma("synchronous") == 2  # FULL
    assert connection.pragma("foreign_keys") == 1
    assert connection.pragma("busy_timeout") == 5000


def test_an_account_comes_back_as_it_was_made(store):
    row = store.add(" Ann ", HASH, role="admin", email=" a@b.c ", name="Ann Ü", lang="zh")
    assert store.get(row.user_id) == store.get_by_name("ANN") == row
    assert (row.username, row.role, row.email, row.name, row.lang) == (
        "Ann", "admin", "a@b.c", "Ann Ü", "zh",
    )  # fmt: skip
    assert (row.disabled, row.auth_version, row.revoke_reason) == (False, 1, None)
    assert (row.created_at, row.last_login_at, row.previous_login_at) == (1000.0, None, None)
    assert store.count() == 1


def test_the_password_hash_is_in_no_repr(store):
    """P16"""
    assert HASH not in repr(store.add("ann", HASH))


@pytest.mark.parametrize("other", ["ann", "ANN", "\uff21nn", " ann"])
def test_a_name_is_taken_in_every_spelling(store, other):
    store.add("Ann", HASH)
    with pytest.raises(UserExistsError) as caught:
        store.add(other, HASH)
    assert "already a user" in str(caught.value)
    assert HASH not in str(caught.value)
    assert store.count() == 1


@pytest.mark.parametrize(
    "name", ["", "  ", "a b", "a\tb", "a\u200bb", "a\x00", "\ud800", "x" * 65, "\ufdfa" * 10]
)
def test_names_nobody_can_have(store, name):
    with pytest.raises(UserFieldError):
        clean_username(name)
    assert store.get_by_name(name) is None


@pytest.mark.parametrize("value", ["x" * 255, "a\nb", "a\x1bb", "\ud800", "a\u2028b"])
def test_fields_are_one_line(store, value):
    with pytest.raises(UserFieldError) as caught:
        store.add("ann", HASH, email=value)
    assert caught.value.field == "email"
    assert clean_text("name", "王 👩\u200d💻 ") == "王 👩\u200d💻"


@given(st.text(max_size=64))
def test_folding_twice_is_folding_once(name):
    assert username_key(username_key(name)) == username_key(name)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20))
def test_names_in_other_case_or_form_have_the_same_key(name):
    try:
        shown = clean_username(name)
    except UserFieldError:
        assume(False)
    assert username_key(shown) == username_key(name.strip())
    for other in (shown.casefold(), shown.lower()):
        assert username_key(other) == username_key(shown)
    assert clean_username(shown) == shown


def test_an_unknown_role_is_refused_by_the_file(store):
    with pytest.raises(StoreError, match="CHECK constraint"):
        store.add("ann", HASH, role="root")


def test_list_is_ordered_by_name(store):
    for name in ("bob", "Ann", "cid"):
        store.add(name, HASH)
    assert [row.username for row in store.list_users()] == ["Ann", "bob", "cid"]


def test_a_new_password_ends_older_logins_p15(store):
    row = store.add("ann", HASH)
    changed = store.set_password(row.user_id, HASH + "2")
    assert (changed.auth_version, changed.revoke_reason) == (2, "password_changed")
    assert changed.password_hash == HASH + "2"
    assert store.pending_revocations() == [changed]
    again = store.set_password(row.user_id, HASH + "2")
    assert again.auth_version == 3


def test_disabling_ends_logins_once_and_enabling_ends_none_p15(store):
    row = store.add("ann", HASH)
    disabled = store.set_disabled(row.user_id, True)
    assert (disabled.disabled, disabled.auth_version, disabled.revoke_reason) == (
        True, 2, "disabled",
    )  # fmt: skip
    assert store.set_disabled(row.user_id, True) == disabled
    enabled = store.set_disabled(row.user_id, False)
    assert (enabled.disabled, enabled.auth_version, enabled.revoke_reason) == (False, 2, "disabled")


def test_another_role_ends_logins_the_same_role_does_not(store):
    row = store.add("ann", HASH)
    assert store.set_role(row.user_id, "user") == row
    assert store.set_role(row.user_id, "admin").revoke_reason == "role_changed"


def test_a_revocation_is_cleared_only_if_nothing_changed_since(store):
    row = store.add("ann", HASH)
    first = store.set_password(row.user_id, HASH)
    store.set_disabled(row.user_id, True)
    store.clear_revocation(row.user_id, first.auth_version)
    assert [row.revoke_reason for row in store.pending_revocations()] == ["disabled"]
    store.clear_revocation(row.user_id, first.auth_version + 1)
    assert store.pending_revocations() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.set_password(9, HASH),
        lambda store: store.set_disabled(9, True),
        lambda store: store.set_disabled(9, False),
        lambda store: store.set_role(9, "admin"),
    ],
)
def test_changes_need_a_user(store, change):
    with pytest.raises(UserNotFoundError):
        change(store)


def test_a_rehash_ends_nothing_and_never_undoes_a_change(store):
    row = store.add("ann", HASH)
    store.rehash(row.user_id, HASH, "new")
    assert store.get(row.user_id).password_hash == "new"
    assert store.get(row.user_id).auth_version == 1
    store.rehash(row.user_id, HASH, "late")
    assert store.get(row.user_id).password_hash == "new"


def test_a_login_is_noted_and_the_one_before_kept(store, now):
    row = store.add("ann", HASH)
    assert store.record_login(row.user_id, 1, "192.0.2.1")
    now.at = 2000.0
    row = store.record_login(row.user_id, 1, "192.0.2.2")
    assert row == store.get(row.user_id)
    assert (row.last_login_at, row.last_login_address) == (2000.0, "192.0.2.2")
    assert (row.previous_login_at, row.previous_login_address) == (1000.0, "192.0.2.1")


def test_a_change_during_a_login_wins_p15(store):
    row = store.add("ann", HASH)
    store.set_password(row.user_id, HASH)
    assert not store.record_login(row.user_id, row.auth_version, "192.0.2.1")
    store.set_disabled(row.user_id, True)
    assert not store.record_login(row.user_id, 3, "192.0.2.1")
    assert store.get(row.user_id).last_login_at is None


def test_data_version_tells_of_others_only(store, tmp_path):
    before = store.data_version()
    row = store.add("ann", HASH)
    assert store.data_version() == before
    with UserStore(tmp_path / "data") as other:
        other.set_disabled(row.user_id, True)
    assert store.data_version() != before
    assert store.get(row.user_id).disabled


def test_a_store_that_is_not_open_says_so(tmp_path):
    store = UserStore(tmp_path)
    with pytest.raises(StoreError, match="not open"):
        store.count()
    store.close()


def test_a_file_of_version_1_is_migrated(tmp_path):
    path = tmp_path / USERS_FILE
    connection = apsw.Connection(str(path))
    connection.execute(sqlite_db.load_migrations("users")[0])
    connection.execute(
        "INSERT INTO users (username, username_key, password_hash, created_at, last_login_at)"
        " VALUES ('Ann', 'ann', 'h', 1.0, 2.0)"
    )
    connection.pragma("user_version", 1)
    connection.close()
    with UserStore(tmp_path) as store:
        row = store.get_by_name("ann")
        assert (row.password_hash, row.last_login_at, row.revoke_reason) == ("h", 2.0, None)
        assert sqlite_db.schema_version(store._connection) == len(
            sqlite_db.load_migrations("users")
        )


def test_a_newer_file_is_refused_in_one_sentence(tmp_path):
    with UserStore(tmp_path) as store:
        store._connection.pragma("user_version", 99)
    with pytest.raises(StoreError, match=r"has schema 99, this version of ecan knows 2") as caught:
        UserStore(tmp_path).open()
    assert "\n" not in str(caught.value)


def test_a_failing_migration_changes_nothing(tmp_path):
    connection = apsw.Connection(str(tmp_path / "db"))
    with pytest.raises(apsw.SQLError):
        sqlite_db.migrate(connection, tmp_path, ["CREATE TABLE a (x); CREATE TABLE a (x);"])
    assert sqlite_db.schema_version(connection) == 0
    assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    assert sqlite_db.migrate(connection, tmp_path, ["CREATE TABLE a (x)"]) == 1
    assert sqlite_db.migrate(connection, tmp_path, ["CREATE TABLE a (x)"]) == 0
    connection.close()


def test_migrations_are_numbered_without_gaps(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_db.resources, "files", lambda _: tmp_path)
    folder = tmp_path / "migrations" / "bad"
    folder.mkdir(parents=True)
    with pytest.raises(StoreError, match="not numbered"):
        sqlite_db.load_migrations("bad")
    (folder / "0002_b.sql").write_text("SELECT 1")
    with pytest.raises(StoreError, match="0002_b"):
        sqlite_db.load_migrations("bad")


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / USERS_FILE).write_bytes(b"this is not a database, " * 100)
    with pytest.raises(StoreError, match="restore a backup"):
        UserStore(tmp_path).open()


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / USERS_FILE).mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        UserStore(tmp_path).open()


def test_a_path_sqlite_cannot_open_is_refused(tmp_path, monkeypatch):
    def fail(_path, **_how):
        raise apsw.CantOpenError("unable to open database file")

    monkeypatch.setattr(sqlite_db.apsw, "Connection", fail)
    with pytest.raises(StoreError, match="unable to open"):
        UserStore(tmp_path).open()


def test_a_broken_statement_names_no_values(store, monkeypatch):
    """P16"""
    monkeypatch.setattr(users, "_COLUMNS", "nonsense")
    with pytest.raises(StoreError) as caught:
        store.add("ann", HASH)
    assert HASH not in str(caught.value)


OPEN_AND_ADD = """
import sys
from pathlib import Path
from ecan.store.users import UserStore
with UserStore(Path(sys.argv[1])) as store:
    store.add(sys.argv[2], "hash")
"""


def test_processes_that_make_the_file_at_the_same_time(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_ADD, str(tmp_path / "new"), f"user{number}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 6
    with UserStore(Path(tmp_path / "new")) as store:
        assert store.count() == 6
