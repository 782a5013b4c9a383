"""The journal is copied beside the writer, and stays short; real files."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import apsw
import pytest
from store_kit import change, crash, on_disk, opened, snapshot, until

from ecan.errors import StoreUnavailableError
from ecan.store import sqlite_db, sqlite_journal, sqlite_queue
from ecan.store.backup import back_up
from ecan.store.users import UserStore
from ecan.testing.faulty_disk import FaultyDisk

COPY, REST, ANEW, HARD = 20, 8, 40, 200


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Lengths that a test reaches in no time."""
    frames = {
        "COPY_FRAMES": COPY,
        "ANEW_FRAMES": ANEW,
        "REST_FRAMES": REST,
        "RETRY_FRAMES": 10,
        "HARD_FRAMES": HARD,
        "WARN_FRAMES": 400,
        "MAX_FRAMES": 1000,
    }
    for name, value in frames.items():
        monkeypatch.setattr(sqlite_journal, name, value)
    monkeypatch.setattr(sqlite_queue, "PROBE_S", 0.02)


@pytest.fixture
def logged(monkeypatch):
    """Names of what was logged."""
    names = []

    class Log:
        def error(self, event, **_fields):
            names.append(event)

        warning = info = error

    monkeypatch.setattr(sqlite_journal, "log", Log())
    return names


@pytest.fixture
def no_limit(monkeypatch):
    """However long the journal gets while a starved thread has not begun to copy."""
    monkeypatch.setattr(sqlite_journal, "HARD_FRAMES", 1 << 30)


class SlowDisk(FaultyDisk):
    """Copying into the file stands still while the gate is closed."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.syncs = []

    def due(self, operation, part):
        if part == "database" and operation == "sync":
            self.syncs.append(threading.current_thread().name)
        if part == "database" and operation == "write" and not self.gate.is_set():
            self.waiting.set()
            self.gate.wait(10)
        return super().due(operation, part)


@pytest.fixture
def disk():
    with SlowDisk() as slow:
        yield slow
        slow.gate.set()


class Writing:
    """Commits to one session, one after another."""

    def __init__(self, store):
        self.store = store
        self.n = 0
        self.lengths = []

    async def __call__(self, count=1):
        for _ in range(count):
            self.n += 1
            try:
                await self.store.commit(change(self.n))
            except StoreUnavailableError:
                self.n -= 1
                raise
            self.lengths.append(self.store._writer._journal._length)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await self()

    async def length(self, at_least):
        await self.until(lambda: self.lengths[-1:] >= [at_least])


@pytest.fixture
async def writing(path, disk):
    async with opened(path, vfs=disk.name) as store:
        await store.create(snapshot())
        yield Writing(store)
        disk.heal()
        disk.gate.set()


async def test_it_begins_anew_again_and_again_while_commits_never_pause(writing, path):
    """And so its file has a bound, though nobody ever waits for quiet."""
    await writing(600)
    begun = sum(after < before for before, after in itertools.pairwise(writing.lengths))
    assert begun >= 5
    assert max(writing.lengths) < 2 * HARD
    assert path.with_name(f"{path.name}-wal").stat().st_size < 2 * HARD * 4120


@pytest.mark.usefixtures("no_limit")
async def test_commits_land_while_it_is_copied(writing, disk):
    """The copying stands still; SQLite's own checkpoint would hold them up."""
    disk.gate.clear()
    await writing.until(disk.waiting.is_set)
    before = writing.lengths[-1]
    await writing(5)
    assert writing.lengths[-1] > before
    disk.gate.set()
    await writing.until(lambda: writing.lengths[-1] < before)  # begun anew


@pytest.mark.usefixtures("no_limit")
async def test_what_is_copied_beside_commits_is_synced_beside_them(writing, disk, monkeypatch):
    """SQLite leaves that to the last piece, the writer's, if something was committed meanwhile."""
    monkeypatch.setattr(sqlite_journal, "MAX_CATCH_UPS", 1)
    disk.gate.clear()
    await writing.until(disk.waiting.is_set)
    await writing(REST + 1)
    disk.syncs.clear()
    disk.gate.set()
    await until(lambda: disk.syncs)
    assert disk.syncs[0].startswith("sessions-checkpoints")


async def test_a_load_that_the_disk_does_not_take_waits_for_it(writing, disk):
    """At the hard limit the next batch comes after the copying, so the journal is bounded."""
    disk.gate.clear()
    await writing.until(disk.waiting.is_set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await writing(HARD)
    assert writing.lengths[-1] <= HARD + 10
    landed = writing.n
    disk.gate.set()
    writing.n += 1  # the one that was on its way
    await until(lambda: writing.store._queue.idle)
    assert (await writing.store.load("s1")).seq >= landed
    await writing(50)
    assert writing.lengths[-1] < HARD


async def test_a_reader_is_not_waited_for_and_then_all_is_well(writing, path, logged):
    """A backup, a shell: beyond the hard limit at full speed, with a warning; then short again."""
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM slots").get == 0
    await writing.length(500)
    assert logged == ["store.journal_grows"]
    assert writing.store.trouble is None
    reader.execute("COMMIT")
    await writing.until(lambda: writing.lengths[-1] < ANEW)
    assert reader.execute("SELECT data FROM slots").get is not None
    reader.close()


async def test_the_journal_of_a_reader_that_never_ends_is_bounded(
    writing, path, logged, monkeypatch
):
    """Then changes are refused, reads go on, and it recovers by itself when the reader ends."""
    monkeypatch.setattr(sqlite_db, "JOURNAL_BYTES", 64 << 10)
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM slots").fetchall()
    with pytest.raises(StoreUnavailableError, match="another program keeps reading"):
        await writing.length(5000)
    assert 1000 <= writing.lengths[-1] < 1100
    assert "keeps reading" in writing.store.trouble
    assert (await writing.store.load("s1")).seq == writing.n
    reader.close()
    await until(lambda: writing.store.trouble is None)
    await writing(3)
    assert writing.lengths[-1] < ANEW
    assert (await writing.store.load("s1")).seq == writing.n


@pytest.mark.parametrize(
    ("operation", "fault"), [("write", "full"), ("write", "io"), ("sync", "io")]
)
async def test_a_disk_that_fails_while_it_is_copied_fails_no_change(
    writing, disk, logged, path, operation, fault
):
    """Neither those that land meanwhile nor those before; told once, and when it is over."""
    await writing(10)
    disk.fail(operation, fault, part="database")
    await writing.until(lambda: disk.faults >= 3)
    assert logged[0] == "store.checkpoint_failed"
    assert logged.count("store.checkpoint_failed") == 1
    assert (await writing.store.load("s1")).seq == writing.n
    disk.heal()
    await writing.until(lambda: "store.checkpoint_recovered" in logged)
    await writing.until(lambda: writing.lengths[-1] < ANEW)
    await writing.store.close()
    connection = apsw.Connection(str(path))
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    assert connection.execute("SELECT seq FROM sessions").get == writing.n
    connection.close()


async def test_killed_with_a_journal_half_copied_everything_is_there(writing, disk, path):
    """Some pages are in the file, others are not; the next start has all."""
    disk.fail("write", "io", part="database", after=3)
    await writing.until(lambda: disk.faults > 0)
    await crash(writing.store)
    disk.heal()
    async with opened(path) as store:
        assert (await store.load("s1")).seq == writing.n
        await store._check._running
        assert store.trouble is None


@pytest.mark.usefixtures("no_limit")
async def test_closing_waits_for_the_copying_and_leaves_one_file(writing, disk, path):
    disk.gate.clear()
    await writing.until(disk.waiting.is_set)
    closing = asyncio.ensure_future(writing.store.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    disk.gate.set()
    await closing
    assert not path.with_name(f"{path.name}-wal").exists()
    assert on_disk(path) is not None


async def test_backups_beside_it_are_whole(writing, path, tmp_path):
    """Each is the file as of one moment, whatever is copied meanwhile."""
    accounts = tmp_path / "accounts.sqlite3"
    with UserStore(tmp_path):
        pass
    for number in range(5):
        target = tmp_path / f"{number}.tar"
        making = asyncio.get_running_loop().run_in_executor(None, back_up, target, accounts, path)
        await writing.until(making.done)
        assert making.result().files["sessions.sqlite3"].bytes > 0


@pytest.mark.parametrize(("durability", "synced"), [("interval", True), ("off", False)])
async def test_it_syncs_what_the_mode_promises(path, disk, durability, synced):
    async with opened(path, vfs=disk.name, durability=durability, interval_s=0.001) as store:
        await store.create(snapshot())
        disk.syncs.clear()
        for n in range(1, 300):
            store.commit(change(n))
            await store.count()
        assert bool(disk.syncs) == synced


async def test_a_checkpoint_by_somebody_else_is_no_trouble(writing, path, disk, logged):
    """An operator's shell, or a program that ships the journal elsewhere; it stands still here."""
    await writing(3)
    other = apsw.Connection(str(path), vfs=disk.name)
    assert other.execute("SELECT seq FROM sessions").get == 3
    disk.gate.clear()

    def copy():
        while True:
            try:
                return other.wal_checkpoint()
            except apsw.BusyError:  # RACE: ours was first
                time.sleep(0.01)

    copying = asyncio.get_running_loop().run_in_executor(None, copy)
    await until(disk.waiting.is_set)
    await writing.length(ANEW + 30)
    disk.gate.set()
    await copying
    other.close()
    await writing.until(lambda: writing.lengths[-1] < ANEW)
    assert logged == []
