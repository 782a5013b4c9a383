"""``ecan backup`` and ``ecan restore``: whole files, while a server runs, and no way to lose data."""

from __future__ import annotations

import asyncio
import io
import json
import re
import stat
import sys
import tarfile
import threading
from types import SimpleNamespace

import apsw
import pytest

from ecan.cli import app
from ecan.cli import backup as cli
from ecan.store import Commit, DocumentWrite, Facts, LedgerRow, SessionRow, Snapshot
from ecan.store.backup import back_up
from ecan.store.sqlite import SqliteStore
from ecan.store.sqlite_db import load_migrations
from ecan.store.users import UserStore

TERMINAL = SimpleNamespace(isatty=lambda: True)


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("ECAN_DATA_DIR", str(folder))
    monkeypatch.setenv("ECAN_STORE", "sqlite")
    with UserStore(folder) as users:
        users.add("ann", "hash")
    return folder


@pytest.fixture
def run(data_dir, monkeypatch, capsys):
    def run(*words, stdin=None):
        monkeypatch.setattr(sys, "stdin", stdin or io.StringIO())
        with pytest.raises(SystemExit) as caught:
            app([str(word) for word in words])
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def snapshot(sid="s1"):
    return Snapshot(
        row=SessionRow(
            sid=sid,
            key=b"k" * 32,
            user={"user_id": 1, "username": "ann"},
            created_at=1000.0,
            incarnation=1,
            epoch="e1",
            facts=Facts(last_active_at=1000.0),
        )
    )


def change(n, **changes):
    answer = LedgerRow(request_id=f"r{n}", fingerprint=b"f", frame=b"{}", at=1.0)
    slots = {"n": b"%d" % n}
    return Commit(sid="s1", incarnation=1, answer=answer, slots=slots, **changes)


def with_store(data_dir, use):
    """What `use` returns, with the server's store open."""

    async def main():
        store = SqliteStore(data_dir / "sessions.sqlite3")
        await store.open()
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(main())


def fill(data_dir, first=1, last=20):
    async def use(store):
        if await store.load("s1") is None:
            await store.create(snapshot())
        for n in range(first, last + 1):
            write = DocumentWrite(collection="notes", key=f"k{n}", data=b"1")
            await store.commit(change(n, user_id=1, documents=(write,)))

    with_store(data_dir, use)


def state(data_dir):
    async def use(store):
        documents = await store.documents(1, "notes")
        return await store.load("s1"), [document.key for document in documents.documents]

    return with_store(data_dir, use)


def names(data_dir):
    with UserStore(data_dir) as users:
        return [row.username for row in users.list_users()]


def before_restore(data_dir):
    return sorted(file.name.partition(".before-restore-")[0] for file in data_dir.glob("*.before*"))


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz", "b.tgz"])
def test_what_was_backed_up_comes_back(run, data_dir, tmp_path, name):
    """Accounts, sessions and documents as they were; what was there is kept; epochs are others."""
    fill(data_dir)
    code, out, err = run("backup", tmp_path / name)
    assert (code, err) == (0, "")
    assert "accounts.sqlite3" in out
    assert "sessions.sqlite3" in out
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []

    fill(data_dir, 21, 30)
    with UserStore(data_dir) as users:
        users.add("bob", "hash")
    code, out, err = run("restore", tmp_path / name, "--yes")
    assert (code, err) == (0, "")
    assert out.count("What was there before: ") == 2
    assert before_restore(data_dir) == ["accounts.sqlite3", "sessions.sqlite3"]
    assert list(data_dir.glob("*.restoring*")) == []

    loaded, keys = state(data_dir)
    assert names(data_dir) == ["ann"]
    assert loaded.slots == {"n": b"20"}
    assert loaded.row.epoch == "e1.1"
    assert len(keys) == 20
    assert stat.S_IMODE((data_dir / "sessions.sqlite3").stat().st_mode) == 0o600


def test_without_sessions_everybody_logs_in_again(run, data_dir, tmp_path):
    """Documents are restored nevertheless."""
    fill(data_dir)
    run("backup", tmp_path / "b.tar")
    assert run("restore", tmp_path / "b.tar", "--yes", "--without-sessions")[0] == 0
    loaded, keys = state(data_dir)
    assert loaded is None
    assert len(keys) == 20


@pytest.mark.parametrize("compressed", [False, True])
def test_the_manifest_says_what_is_in_it(run, data_dir, tmp_path, compressed):
    fill(data_dir)
    file = tmp_path / ("b.tar.gz" if compressed else "b.tar")
    run("backup", file)
    with tarfile.open(file, "r:gz" if compressed else "r:") as tar:
        assert tar.getnames() == ["manifest.json", "accounts.sqlite3", "sessions.sqlite3"]
        manifest = json.load(tar.extractfile("manifest.json"))
    assert manifest["format"] == 1
    assert manifest["files"]["sessions.sqlite3"]["schema"] == len(load_migrations("sessions"))
    assert len(manifest["files"]["accounts.sqlite3"]["sha256"]) == 64


def test_a_backup_under_load_is_of_one_moment(data_dir, tmp_path):
    """A server commits all the time: the copy has every commit up to one, and none after."""
    fill(data_dir, 1, 3)
    target = tmp_path / "b.tar"

    async def use(store):
        done = threading.Event()

        def make():
            try:
                back_up(target, data_dir / "accounts.sqlite3", data_dir / "sessions.sqlite3")
            finally:
                done.set()

        thread = threading.Thread(target=make)
        thread.start()
        n = 3
        while not done.is_set() or n < 50:
            n += 1
            await store.commit(change(n))
        thread.join()
        return n

    last = with_store(data_dir, use)
    with tarfile.open(target) as tar:
        tar.extract("sessions.sqlite3", tmp_path, filter="data")
    connection = apsw.Connection(str(tmp_path / "sessions.sqlite3"))
    ids = [row[0] for row in connection.execute("SELECT request_id FROM ledger ORDER BY n")]
    slot = connection.execute("SELECT data FROM slots").get
    connection.close()
    assert ids == [f"r{n}" for n in range(int(ids[0][1:]), int(slot) + 1)]
    assert 3 <= int(slot) <= last


def test_nothing_is_overwritten_unasked(run, data_dir, tmp_path):
    file = tmp_path / "b.tar"
    file.write_bytes(b"precious")
    code, _, err = run("backup", file)
    assert (code, file.read_bytes()) == (1, b"precious")
    assert "--force" in err
    assert run("backup", file, "--force")[0] == 0
    assert tarfile.is_tarfile(file)


def test_a_damaged_file_is_not_backed_up(run, data_dir, tmp_path):
    """The last good backup must not be replaced by a bad one."""
    fill(data_dir)
    path = data_dir / "sessions.sqlite3"
    data = bytearray(path.read_bytes())
    data[-4096:-3000] = b"\xa5" * 1096
    path.write_bytes(data)
    code, _, err = run("backup", tmp_path / "b.tar")
    assert code == 1
    assert "damaged" in err
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_restore_needs_the_server_stopped(run, data_dir, tmp_path):
    fill(data_dir)
    run("backup", tmp_path / "b.tar")

    async def use(_store):
        return await asyncio.to_thread(run, "restore", tmp_path / "b.tar", "--yes")

    code, _, err = with_store(data_dir, use)
    assert code == 1
    assert "is in use by process" in err
    assert before_restore(data_dir) == []


def flip(data):
    at = data.rindex(b"SQLite format 3") + 5000
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(flip, "SHA-256", id="a bit"),
        pytest.param(lambda data: data[: len(data) // 2], "damaged|missing", id="half of it"),
        pytest.param(lambda _: b"hello" * 1000, "no backup of ecan", id="no tar"),
        pytest.param(lambda _: b"", "no backup of ecan", id="empty"),
        pytest.param(
            lambda data: data.replace(b'"format": 1', b'"format": 9'), "newer ecan", id="newer"
        ),
        pytest.param(
            lambda data: data.replace(b'"schema"', b'"schemb"'), "manifest", id="manifest"
        ),
    ],
)
def test_a_backup_that_is_spoiled_changes_nothing(run, data_dir, tmp_path, spoil, problem):
    fill(data_dir)
    file = tmp_path / "b.tar"
    run("backup", file)
    file.write_bytes(spoil(file.read_bytes()))
    there = sorted(path.name for path in data_dir.iterdir())
    code, _, err = run("restore", file, "--yes")
    assert code == 1
    assert err.startswith("ecan restore: ")
    assert err.count("\n") == 1
    assert re.search(problem, err)
    assert sorted(path.name for path in data_dir.iterdir()) == there
    assert state(data_dir)[0].row.epoch == "e1"


def test_files_that_do_not_belong_there_are_refused(run, data_dir, tmp_path):
    """Nothing of an archive is unpacked under a name of its own."""
    run("backup", tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar", "a") as tar:
        entry = tarfile.TarInfo("../../evil")
        tar.addfile(entry, io.BytesIO())
    code, _, err = run("restore", tmp_path / "b.tar", "--yes")
    assert code == 1
    assert "does not belong" in err


def test_a_restore_asks(run, data_dir, tmp_path, monkeypatch):
    """On a terminal; elsewhere it wants --yes."""
    run("backup", tmp_path / "b.tar")
    code, _, err = run("restore", tmp_path / "b.tar")
    assert (code, "--yes" in err) == (1, True)
    for answer, code in (("n", 1), ("", 1), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda _prompt, answer=answer: answer)
        assert run("restore", tmp_path / "b.tar", stdin=TERMINAL)[0] == code

    def closed(_prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert run("restore", tmp_path / "b.tar", stdin=TERMINAL)[0] == 1


def test_with_the_memory_store_there_are_accounts_only(run, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("ECAN_STORE", "memory")
    code, out, _ = run("backup", tmp_path / "b.tar")
    assert code == 0
    assert "Sessions are not in it" in out
    assert run("restore", tmp_path / "b.tar", "--yes")[0] == 0
    assert before_restore(data_dir) == ["accounts.sqlite3"]


def test_sessions_elsewhere_are_found_and_put_back_there(run, data_dir, tmp_path, monkeypatch):
    """ECAN_STORE=sqlite:path, as the server reads it."""
    fill(data_dir)
    (data_dir / "deep").mkdir()
    for file in data_dir.glob("sessions*"):
        file.rename(data_dir / "deep" / file.name)
    monkeypatch.setenv("ECAN_STORE", "sqlite:deep/sessions.sqlite3")
    assert "sessions" in run("backup", tmp_path / "b.tar")[1]
    (data_dir / "deep" / "sessions.sqlite3").unlink()
    assert run("restore", tmp_path / "b.tar", "--yes")[0] == 0
    assert state(data_dir / "deep")[0].slots == {"n": b"20"}


def test_a_journal_that_was_not_closed_moves_with_its_file(run, data_dir, tmp_path):
    """Left in place it would be taken for the restored file's."""
    fill(data_dir)
    run("backup", tmp_path / "b.tar")
    (data_dir / "sessions.sqlite3-wal").write_bytes(b"journal")
    assert run("restore", tmp_path / "b.tar", "--yes")[0] == 0
    assert [file.read_bytes() for file in data_dir.glob("sessions*.before*-wal")] == [b"journal"]
    assert state(data_dir)[0].slots == {"n": b"20"}


def test_wrong_settings_are_usage(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ECAN_STORE", "nonsense")
    for command in ("backup", "restore"):
        assert run(command, tmp_path / "b.tar")[0] == 2


def test_what_is_not_there_is_said(run, data_dir, tmp_path, monkeypatch):
    """No accounts, no archive, no folder: one line, exit code 1."""
    assert "No such file" in run("restore", tmp_path / "none.tar", "--yes")[2]
    code, _, err = run("backup", tmp_path / "none" / "b.tar")
    assert (code, "cannot be written" in err) == (1, True)
    monkeypatch.setenv("ECAN_DATA_DIR", str(tmp_path / "empty"))
    assert "ECAN_DATA_DIR" in run("backup", tmp_path / "b.tar")[2]


def test_a_move_that_fails_is_taken_back(run, data_dir, tmp_path, monkeypatch):
    """In the middle, with the accounts moved and the sessions not."""
    fill(data_dir)
    run("backup", tmp_path / "b.tar")
    real = type(tmp_path).rename
    count = iter(range(100))

    def rename(self, target):
        if next(count) == 3:
            raise OSError(5, "Input/output error", str(self))
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    code, _, err = run("restore", tmp_path / "b.tar", "--yes")
    assert (code, "cannot be moved" in err) == (1, True)
    assert before_restore(data_dir) == []
    assert state(data_dir)[0].row.epoch == "e1"
    assert names(data_dir) == ["ann"]


def test_progress_is_shown_on_a_terminal_only(monkeypatch):
    lines = io.StringIO()
    lines.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", lines)
    progress = cli._Progress()
    for done in (0, 1, 1, 2):
        progress("a", done, 2)
    assert lines.getvalue() == "\ra: 0 %\ra: 50 %\ra: 100 %\n"
