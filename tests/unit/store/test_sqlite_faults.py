"""The durable store on a disk that fails: nothing acknowledged is lost, and it recovers."""

from __future__ import annotations

import asyncio
import random

import pytest
from store_kit import change, opened, snapshot, until

from ecan.errors import StoreError, StoreUnavailableError
from ecan.store import Commit, DocumentWrite, sqlite_queue
from ecan.store.sqlite import SqliteStore
from ecan.testing.faulty_disk import FaultyDisk

FAULTS = [
    ("write", "full"),
    ("write", "io"),
    ("write", "short"),
    ("write", "locked"),
    ("sync", "io"),
]


@pytest.fixture
def disk():
    with FaultyDisk() as faulty:
        yield faulty


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch):
    monkeypatch.setattr(sqlite_queue, "PROBE_S", 0.02)


def put(n):
    write = DocumentWrite(collection="notes", key=f"k{n}", data=b"1")
    return Commit(sid="s1", incarnation=1, user_id=7, documents=(write,))


@pytest.mark.parametrize(("operation", "fault"), FAULTS)
async def test_changes_fail_and_reads_go_on_until_the_disk_is_well(path, disk, operation, fault):
    """Every kind of change; then it finds out by itself that it is over."""
    async with opened(path, vfs=disk.name) as store:
        await store.create(snapshot())
        await store.commit(change(1))
        await store.commit(put(1))
        before = await store.load("s1")

        disk.fail(operation, fault, part="wal")
        attempts = [
            lambda: store.commit(change(2)),
            lambda: store.commit(put(2)),
            lambda: store.create(snapshot("s2")),
            lambda: store.delete("s1", "logout"),
        ]
        for attempt in attempts:
            with pytest.raises(StoreUnavailableError, match="nothing was changed"):
                await attempt()
        outcomes = await asyncio.gather(
            store.commit(change(2)),
            store.load("s1"),
            store.document(7, "notes", "k1"),
            store.count(),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], StoreUnavailableError)
        assert outcomes[1] == before
        assert outcomes[2].version == 1
        assert outcomes[3] == 1
        assert store.trouble is not None

        await asyncio.sleep(0.06)  # probes fail too
        assert store.trouble is not None
        disk.heal()
        await until(lambda: store.trouble is None)
        await store.commit(change(2))
        assert (await store.load("s1")).seq == 2
    async with opened(path) as store:
        assert (await store.load("s1")).seq == 2


async def test_reads_that_fail_are_errors_and_recover(path, disk):
    """Of a file that is not in SQLite's cache."""
    async with opened(path) as store:
        for n in range(300):
            await store.create(snapshot(f"s{n}", slots={"a": bytes(4000)}))
    async with opened(path, vfs=disk.name) as store:
        await store._check.stop()
        disk.fail("read", "io")
        with pytest.raises(StoreUnavailableError):
            await store.load("s250")
        disk.heal()
        assert (await store.load("s250")).slots == {"a": bytes(4000)}
        await until(lambda: store.trouble is None)


@pytest.mark.parametrize(
    ("operation", "fault"), [("open", "io"), ("read", "io"), ("read", "short"), ("write", "full")]
)
async def test_a_start_on_a_broken_disk_is_refused_and_may_be_tried_again(
    path, disk, operation, fault
):
    async with opened(path):
        pass
    disk.fail(operation, fault)
    store = SqliteStore(path, vfs=disk.name)
    with pytest.raises(StoreError, match=path.name):
        await store.open()
    disk.heal()
    await store.open()
    await store.create(snapshot())
    await store.close()


@pytest.mark.parametrize("durability", ["interval", "off"])
async def test_without_waiting_commits_are_kept_through_the_fault(path, disk, durability):
    async with opened(path, vfs=disk.name, durability=durability, interval_s=0.01) as store:
        await store.create(snapshot())
        disk.fail("write", "full", part="wal")
        for n in range(1, 20):
            assert store.commit(change(n)) is None
        await until(lambda: store.trouble is not None)
        disk.heal()
        await until(lambda: store.trouble is None)
        assert (await store.load("s1")).seq == 19


async def test_the_probe_is_on_the_loops_timer_and_stops_with_the_store(path, disk):
    """A test moves its time; closed in trouble, no timer is left."""
    timers = []

    def call_later(delay, callback, /, *args):
        timers.append((delay, callback, args))
        return asyncio.get_running_loop().call_later(3600, callback, *args)

    store = SqliteStore(path, vfs=disk.name, call_later=call_later)
    await store.open()
    await store.create(snapshot())
    disk.fail("write", "full", part="wal")
    with pytest.raises(StoreUnavailableError):
        await store.commit(change(1))
    assert [delay for delay, *_ in timers] == [sqlite_queue.PROBE_S]
    disk.heal()
    assert store.trouble is not None
    timers[0][1](*timers[0][2])
    await until(lambda: store.trouble is None)
    disk.fail("sync", "io", part="wal")
    with pytest.raises(StoreUnavailableError):
        await store.commit(change(1))
    await store.close()
    assert store._queue._probe_timer.cancelled()
    async with opened(path) as again:
        assert (await again.load("s1")).row == snapshot().row


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_fails_when_nothing_acknowledged_is_lost(path, disk, seed):
    """Random faults under concurrent commits: each session has just what it was told."""
    rng = random.Random(seed)
    acknowledged: dict[str, list[int]] = {f"s{n}": [] for n in range(10)}

    async def client(store, sid):
        n = 0
        while n < 40:
            try:
                await store.commit(change(n + 1, sid, size=rng.choice((10, 5000))))
            except StoreUnavailableError:
                await asyncio.sleep(0.001)
                continue
            n += 1
            acknowledged[sid].append(n)

    async def weather():
        while True:
            operation, fault = rng.choice(FAULTS)
            after, times = rng.randrange(10), rng.randrange(1, 6)
            disk.fail(operation, fault, after=after, times=times, part="wal")
            await asyncio.sleep(rng.random() * 0.01)
            disk.heal()
            await asyncio.sleep(rng.random() * 0.01)

    async with opened(path, vfs=disk.name) as store:
        for sid in acknowledged:
            await store.create(snapshot(sid))
        storm = asyncio.ensure_future(weather())
        await asyncio.gather(*[client(store, sid) for sid in acknowledged])
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
        disk.heal()
        await until(lambda: store.trouble is None)
    assert disk.faults > 0
    async with opened(path) as store:
        for sid, numbers in acknowledged.items():
            loaded = await store.load(sid)
            assert [push.seq for push in loaded.pushes] == numbers == list(range(1, 41))
            assert [entry.request_id for entry in loaded.ledger] == [f"r{n}" for n in numbers]
            assert loaded.slots["n"].rstrip(b"\0") == b"40"
        await store._check._running
        assert store.trouble is None
