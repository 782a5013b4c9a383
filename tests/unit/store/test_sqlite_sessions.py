"""The durable session store: group commit, durability, full disks, kills."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from store_kit import change, on_disk, on_thread, opened, snapshot

from ecan.errors import StoreError
from ecan.store import (
    Ended,
    TokenRow,
    sqlite_queue,
)
from ecan.store.sqlite import SqliteStore
from ecan.store.sqlite_db import load_migrations

FOREVER_S = 3600.0


async def count_transactions(store):
    """A list that grows by one with each transaction that ends well."""
    ended = []
    connection = store._writer._connection
    await on_thread(store, lambda: connection.set_commit_hook(lambda: ended.append(1) or False))
    return ended


async def limit_pages(store, spare):
    """The file may grow by so many pages; None: as it likes."""
    connection = store._writer._connection

    def limit():
        pages = connection.pragma("page_count") + spare if spare is not None else 2**30
        connection.pragma("max_page_count", pages)

    await on_thread(store, limit)


async def test_many_commits_at_once_are_few_transactions(path):
    """The first goes alone, the others while it is written: two transactions for 500."""
    async with opened(path) as store:
        for n in range(100):
            await store.create(snapshot(f"s{n}"))
        ended = await count_transactions(store)
        await asyncio.gather(
            *[store.commit(change(n, f"s{i}")) for n in range(1, 6) for i in range(100)]
        )
        assert len(ended) == 2
        assert (await store.load("s99")).slots == {"n": b"5"}


async def test_a_batch_is_bounded(path, monkeypatch):
    monkeypatch.setattr(sqlite_queue, "MAX_BATCH", 10)
    async with opened(path) as store:
        await store.create(snapshot())
        ended = await count_transactions(store)
        await asyncio.gather(*[store.commit(change(n)) for n in range(1, 32)])
        assert len(ended) == 4
        assert (await store.load("s1")).seq == 31


async def test_a_commit_that_is_done_is_on_disk(path):
    """A second connection sees each one as soon as it is awaited."""
    async with opened(path) as store:
        await store.create(snapshot())
        for n in range(1, 20):
            await store.commit(change(n))
            assert on_disk(path) == str(n).encode()


async def test_create_commit_delete_keep_their_order(path):
    """In one batch, with loads between: each sees what was queued before it, no more."""
    async with opened(path) as store:

        async def commit(n):
            await store.commit(change(n))

        ended = await count_transactions(store)
        first = asyncio.ensure_future(store.count())
        steps = asyncio.gather(
            store.create(snapshot()),
            commit(1),
            store.load("s1"),
            commit(2),
            store.load("s1"),
            store.delete("s1", "logout"),
            commit(3),
            store.load("s1"),
            store.count(),
        )
        assert await first == 0
        outcomes = await steps
        assert outcomes[2].slots == {"n": b"1"}
        assert outcomes[4].slots == {"n": b"2"}
        assert outcomes[4].seq == 2
        assert outcomes[7:] == [Ended(reason="logout"), 0]
        assert len(ended) == 1


async def test_after_a_delete_nothing_of_the_session_is_left(path):
    async with opened(path) as store:
        await store.create(snapshot(tokens=(TokenRow(digest=b"t", expires_at=1.0),)))
        await store.commit(change(1))
        await store.delete("s1", "logout")
    connection = apsw.Connection(str(path))
    for table in ("sessions", "slots", "tokens", "ledger", "pushes"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]  # noqa: S608
    connection.close()


@pytest.mark.parametrize("durability", ["commit", "interval", "off"])
async def test_close_writes_what_is_pending(path, durability):
    """Also what nobody awaited; the reopened store gives equal snapshots, in one private file."""
    async with opened(path, durability=durability, interval_s=FOREVER_S) as store:
        await store.create(snapshot(tokens=(TokenRow(digest=b"t", expires_at=1.0),)))
        for n in range(1, 100):
            store.commit(change(n))
        loaded = await store.load("s1")
        last = store.commit(change(100, incarnation=4))
    if last is not None:
        await last
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with opened(path) as store:
        again = await store.load("s1")
    assert (again.seq, again.row.incarnation, again.slots) == (100, 4, {"n": b"100"})
    assert again.ledger[:-1] == loaded.ledger
    assert again.tokens == loaded.tokens


async def test_closed_means_closed(path):
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="not open"):
        await store.count()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        store.commit(change(1))


async def test_interval_commits_are_done_at_once_and_written_within_it(path):
    """Nothing is on disk before the interval is over, all of it after, in one transaction."""
    async with opened(path, durability="interval", interval_s=0.05) as store:
        await store.create(snapshot())
        ended = await count_transactions(store)
        assert [store.commit(change(n)) for n in range(1, 51)] == [None] * 50
        assert on_disk(path) is None
        while not ended:
            await asyncio.sleep(0.01)
        assert on_disk(path) == b"50"
        assert len(ended) == 1


async def test_a_full_disk_fails_commits_and_is_survived(path):
    """StoreError, nothing changed, loads go on; with room again so do commits."""
    async with opened(path) as store:
        await store.create(snapshot())
        await store.commit(change(1))
        before = await store.load("s1")
        await limit_pages(store, 0)
        landing = [store.commit(change(n, size=90_000)) for n in (2, 3)]
        load = store.load("s1")
        for commit in landing:
            with pytest.raises(StoreError, match="nothing was changed"):
                await commit
        assert await load == before
        await limit_pages(store, None)
        await store.commit(change(2))
        assert (await store.load("s1")).seq == 2


async def test_a_read_is_answered_although_its_batch_cannot_be_written(path):
    async with opened(path) as store:
        await store.create(snapshot())
        await limit_pages(store, 0)
        first = store.commit(change(1, size=90_000))
        outcomes = await asyncio.gather(
            first, store.commit(change(1, size=90_000)), store.load("s1"), return_exceptions=True
        )
        assert all(isinstance(outcome, StoreError) for outcome in outcomes[:2])
        assert outcomes[0] is not outcomes[1]
        assert outcomes[2] == snapshot()


async def test_interval_commits_are_kept_until_the_disk_has_room(path, monkeypatch):
    """Whoever waits hears of it; too many kept commits are refused; in the end all are there."""
    monkeypatch.setattr(sqlite_queue, "MAX_PENDING", 5)
    async with opened(path, durability="interval", interval_s=0.02) as store:
        await store.create(snapshot())
        await limit_pages(store, 0)
        for n in range(1, 5):
            store.commit(change(n, size=90_000))
        with pytest.raises(StoreError, match="nothing was changed"):
            await store.load("s1")
        store.commit(change(5))
        with pytest.raises(StoreError, match="keep up"):
            store.commit(change(6))
        await limit_pages(store, None)
        while not store._queue.idle:
            await asyncio.sleep(0.01)
        loaded = await store.load("s1")
        assert [push.seq for push in loaded.pushes] == [1, 2, 3, 4, 5]


async def test_a_locked_file_fails_commits_until_it_is_free(path):
    """Another process's transaction: StoreError after the busy time-out, reads go on."""
    async with opened(path) as store:
        await store.create(snapshot())
        await on_thread(store, lambda: store._writer._connection.set_busy_timeout(1))
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.commit(change(1))
        assert await store.load("s1") == snapshot()
        other.execute("ROLLBACK")
        other.close()
        await store.commit(change(1))
        assert on_disk(path) == b"1"


async def test_close_gives_up_on_a_full_disk(path):
    async with opened(path, durability="interval", interval_s=FOREVER_S) as store:
        await store.create(snapshot())
        await limit_pages(store, 0)
        store.commit(change(1, size=90_000))
    async with opened(path) as store:
        kept = await store.load("s1")
    assert kept.slots == {}
    assert kept.row.epoch == "e1.1"  # what the lost commit pushed may have been seen


async def test_one_wrong_commit_fails_alone(path):
    """A push number that is taken, a value SQLite cannot keep: their batch lands without them."""
    async with opened(path) as store:
        await store.create(snapshot())
        outcomes = await asyncio.gather(
            store.commit(change(1)),
            store.commit(change(2)),
            store.commit(change(2, slots={"n": b"wrong"})),
            store.commit(change(3, incarnation=2**70)),
            store.commit(change(3)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, StoreError) for outcome in outcomes] == [
            False, False, True, True, False,
        ]  # fmt: skip
        loaded = await store.load("s1")
        assert loaded.slots == {"n": b"3"}
        assert [entry.request_id for entry in loaded.ledger] == ["r1", "r2", "r3"]


async def test_who_stops_waiting_does_not_stop_the_write(path):
    async with opened(path) as store:
        await store.create(snapshot())
        store.commit(change(1)).cancel()
        assert (await store.load("s1")).seq == 1


@pytest.mark.parametrize("durability", ["commit", "interval"])
async def test_a_file_that_cannot_be_used_is_named(path, durability):
    """Garbage, a newer schema, lost tables: StoreError at the start."""
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=path.name):
        await SqliteStore(path, durability=durability).open()
    path.unlink()
    for sql in ("PRAGMA user_version = 99", "DROP TABLE sessions"):
        async with opened(path):
            pass
        connection = apsw.Connection(str(path))
        connection.execute(sql)
        connection.close()
        with pytest.raises(StoreError, match=path.name):
            await SqliteStore(path, durability=durability).open()
        connection = apsw.Connection(str(path))
        connection.pragma("user_version", len(load_migrations("sessions")))
        connection.close()


COMMITTER = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[2])
from store_kit import change, snapshot
from ecan.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.open()
    loaded = await store.load("s1")
    if loaded is None:
        await store.create(snapshot())
    n = loaded.seq if loaded else 0
    async def one(n):
        await store.commit(change(n))
        print(n, flush=True)
    while True:
        await asyncio.gather(*[one(n + k) for k in range(1, 8)])
        n += 7

asyncio.run(main())
"""


@pytest.mark.slow
async def test_no_acknowledged_commit_is_missing_after_kill_9(path):
    """Five kills in the middle of commits; the ledger and the pushes have no holes either."""
    for kill in range(5):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                COMMITTER,
                str(path),
                str(Path(__file__).parent),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = [process.stdout.readline() for _ in range(50 + 37 * kill)]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        acknowledged = [int(n) for n in ("".join(lines) + rest).splitlines() if n]
        async with opened(path) as store:
            loaded = await store.load("s1")
        assert loaded.seq >= max(acknowledged)
        assert loaded.slots == {"n": str(loaded.seq).encode()}
        seqs = [push.seq for push in loaded.pushes]
        assert seqs == list(range(max(1, loaded.seq - 999), loaded.seq + 1))
        assert loaded.ledger[-1].request_id == f"r{loaded.seq}"
        assert process.returncode == -signal.SIGKILL


async def test_a_session_that_cannot_be_put_leaves_the_one_that_is_there(path):
    """What is wrong is noticed when the old one has made room already."""
    async with opened(path) as store:
        await store.create(snapshot(slots={"a": b"1"}))
        await store.commit(change(1))
        before = await store.load("s1")
        with pytest.raises(StoreError, match="Put refused"):
            await store.create(snapshot(slots={"a": None}))
        assert await store.load("s1") == before
