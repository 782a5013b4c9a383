"""The sessions file: migrations, whose it is, damage, and numbers that may have gone back."""

from __future__ import annotations

import subprocess
import sys

import apsw
import orjson
import pytest
from store_kit import change, crash, opened, snapshot, until

from ecan.errors import IdUsedError, StoreError
from ecan.observability import get_logger
from ecan.store import Facts, LedgerRow, PushRow, TokenRow
from ecan.store import sqlite_check as check_module
from ecan.store.rows import MAX_LEDGER_ROWS, id_hash
from ecan.store.sqlite import SqliteStore
from ecan.store.sqlite_db import load_migrations
from ecan.store.users import USERS_FILE, UserStore


def old_file(path):
    """A file of the first schema, with rows in every table."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(load_migrations("sessions")[0])
    connection.pragma("user_version", 1)
    user = orjson.dumps({"user_id": 7, "username": "ann"}).decode()
    for sid, keep in (("s1", 0.0), ("s2", 9000.0)):
        connection.execute(
            "INSERT INTO sessions VALUES (?, x'6b6b', ?, 7, 1000, 1001.5, ?, 3, 2, 0, 'e1', 2, 300)",
            (sid, user, keep),
        )
    connection.execute("INSERT INTO slots VALUES ('s1', 'a', x'01')")
    connection.execute("INSERT INTO tokens VALUES ('s1', 0, x'02', 5000)")
    connection.executemany(
        "INSERT INTO ledger VALUES ('s1', ?, ?, x'66', x'7b7d', 1002)",
        [(n, f"r{n}") for n in range(45, 301)],
    )
    # An id that was used again after it had been forgotten: both rows are there.
    connection.execute("UPDATE ledger SET request_id = 'r300' WHERE n = 290")
    connection.executemany("INSERT INTO pushes VALUES ('s1', ?, x'70')", [(1,), (2,)])
    connection.close()


async def test_a_file_of_the_first_schema_is_migrated_with_all_it_holds(path):
    """It does not say how it was closed, so the epochs are others."""
    old_file(path)
    async with opened(path) as store:
        loaded = await store.load("s1")
        assert loaded.row.epoch == "e1.1"
        assert (loaded.row.incarnation, loaded.row.user["username"]) == (3, "ann")
        assert loaded.row.facts == Facts(last_active_at=1001.5, restarts=2)
        assert loaded.slots == {"a": b"\x01"}
        assert loaded.tokens == (TokenRow(digest=b"\x02", expires_at=5000.0),)
        ids = [entry.request_id for entry in loaded.ledger]
        assert ids == [f"r{n}" for n in range(45, 301) if n != 290]
        assert loaded.ledger[0] == LedgerRow(
            request_id="r45", fingerprint=b"f", frame=b"{}", at=1002.0
        )
        assert loaded.pushes == (PushRow(seq=1, frame=b"p"), PushRow(seq=2, frame=b"p"))
        assert (await store.expiring(5000.0, 60.0, 10)).sids == ("s1",)
        with pytest.raises(IdUsedError):
            await store.commit(change(45, pushes=()))
        for n in range(301, 371):
            await store.commit(change(n, pushes=()))
        loaded = await store.load("s1")
        assert len(loaded.ledger) == MAX_LEDGER_ROWS - 1  # r300 had two numbers
        assert loaded.used[0] == id_hash("r45")


async def test_a_migration_that_fails_changes_nothing(path):
    """Accounts are no sessions: the file stays what it was."""
    with UserStore(path.parent) as users:
        users.add("ann", "hash")
    accounts = path.parent / USERS_FILE
    with pytest.raises(StoreError, match=USERS_FILE):
        await SqliteStore(accounts).open()
    with UserStore(path.parent) as users:
        assert users.count() == 1


async def test_the_trimming_of_the_ledger_is_lazy(path):
    """Up to 64 rows more than are loaded; then all of them go at once, as hashes."""
    async with opened(path) as store:
        await store.create(snapshot())
        rows = store._writer._connection
        counts = []
        for n in range(1, 400):
            await store.commit(change(n))
            counts.append(rows.execute("SELECT count(*) FROM ledger").get)
        assert counts[:320] == list(range(1, 321))
        assert counts[320:322] == [256, 257]
        assert rows.execute("SELECT count(*) FROM used_ids").get == 400 - 1 - counts[-1]


async def test_an_id_that_is_still_in_the_ledger_is_used(path):
    """Also one that is answered twice in the same batch; the rest of the batch lands."""
    async with opened(path) as store:
        await store.create(snapshot())
        await store.commit(change(1))
        landing = [
            store.commit(change(1, slots={"n": b"wrong"}, pushes=())),
            store.commit(change(2)),
            store.commit(change(2, slots={"n": b"wrong"}, pushes=())),
            store.commit(change(3)),
        ]
        await landing[1]
        await landing[3]
        for refused in (landing[0], landing[2]):
            with pytest.raises(IdUsedError):
                await refused
        loaded = await store.load("s1")
        assert loaded.slots == {"n": b"3"}
        assert [entry.request_id for entry in loaded.ledger] == ["r1", "r2", "r3"]


async def test_with_interval_a_commit_that_may_be_refused_is_waited_for(path):
    """One whose session has more answers than the ledger holds; others are done at once."""
    async with opened(path, durability="interval", interval_s=3600.0) as store:
        await store.create(snapshot())
        for n in range(1, MAX_LEDGER_ROWS + 1):
            assert store.commit(change(n)) is None
        landing = store.commit(change(MAX_LEDGER_ROWS + 1))
        await landing
        assert store.commit(change(0, answer=None, pushes=())) is None
        with pytest.raises(IdUsedError):
            await store.commit(change(1, pushes=()))


# -- generations -------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["interval", "off"])
async def test_after_a_crash_that_may_have_lost_commits_epochs_are_others(path, durability):
    """Of the sessions from before it, each time; not of those made since."""
    for epoch in ("e1", "e1.1", "e1.2"):
        store = SqliteStore(path, durability=durability)
        await store.open()
        if epoch == "e1":
            await store.create(snapshot())
        assert (await store.load("s1")).row.epoch == epoch
        assert (await store.of_user(7))[0].epoch == epoch
        await crash(store)
    async with opened(path, durability=durability) as store:
        await store.create(snapshot("s2"))
    async with opened(path, durability=durability) as store:
        assert (await store.load("s1")).row.epoch == "e1.3"
        assert (await store.load("s2")).row.epoch == "e1"


async def test_a_crash_that_loses_nothing_leaves_the_epochs(path):
    for _ in range(2):
        store = SqliteStore(path)
        await store.open()
        if await store.load("s1") is None:
            await store.create(snapshot())
        await store.commit(change((await store.load("s1")).seq + 1))
        await crash(store)
    async with opened(path, durability="off") as store:
        assert (await store.load("s1")).row.epoch == "e1"
        assert (await store.load("s1")).seq == 2


# -- one server --------------------------------------------------------------------------


async def test_two_servers_do_not_share_a_file(path):
    """The second one ends at its start, and says whose it is; killed, the lock is free."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from ecan.store.sqlite import SqliteStore\n"
        "asyncio.run(SqliteStore(pathlib.Path(sys.argv[1])).open())\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match=rf"is in use by process {process.pid}: stop that"):
        await SqliteStore(path).open()
    process.kill()
    process.communicate()
    async with opened(path) as store:
        with pytest.raises(StoreError, match="is in use"):
            await SqliteStore(path).open()
        assert await store.count() == 0


# -- damage ------------------------------------------------------------------------------


async def filled(path, sessions=200):
    async with opened(path) as store:
        for n in range(sessions):
            await store.create(snapshot(f"s{n}", slots={"a": bytes(500)}))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a database at all", id="something else"),
        pytest.param(lambda data: data[:100], id="almost nothing left"),
        pytest.param(lambda data: data[: 4096 * 5 + 17], id="truncated"),
        pytest.param(lambda data: bytes(4096) + data[4096:], id="first page zeroed"),
        pytest.param(lambda data: data[:16] + b"\xff" * 84 + data[100:], id="header"),
        pytest.param(lambda data: data[:100] + b"\xff" * 3996 + data[4096:], id="schema"),
    ],
)
async def test_a_file_that_is_broken_ends_the_start_with_what_to_do(path, damage):
    """One line; the file is left as it is."""
    await filled(path)
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"ecan restore FILE.*or move the file away") as caught:
        await SqliteStore(path).open()
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == broken


async def test_overwritten_pages_are_found_while_the_server_runs(path, monkeypatch):
    """The start does not wait for it; the trouble names the remedy, and so does the log."""
    logged = []
    monkeypatch.setattr(
        check_module, "log", type("Log", (), {"error": lambda _, e, **f: logged.append((e, f))})()
    )
    await filled(path)
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    for page in range(pages - 3, pages):
        data[page * 4096 : page * 4096 + 600] = b"\xa5" * 600
    path.write_bytes(data)
    async with opened(path) as store:
        await until(lambda: store.trouble is not None)
        assert "ecan restore" in store.trouble
        assert logged[0][0] == "store.damaged"
        assert "ecan restore" in logged[0][1]["remedy"]


async def test_closing_does_not_wait_for_the_check(path):
    await filled(path)
    for _ in range(20):
        async with opened(path) as store:
            pass
        assert store.trouble is None
    assert get_logger("ecan.store") is not None


async def test_batches_are_observed(path):
    """For histograms: how many works, how long."""
    seen = []

    class Observer:
        def batch_written(self, works, seconds):
            seen.append((works, seconds))

    async with opened(path, observer=Observer()) as store:
        await store.create(snapshot())
        await store.load("s1")
    assert [works for works, _ in seen] == [1, 1]
    assert all(0 < seconds < 5 for _, seconds in seen)
