"""P11: a process that does hardly anything but checkpoints is killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time

import apsw
import pytest

from ecan.store import Facts, SessionRow, Snapshot
from ecan.store.sqlite import SqliteStore

DEATHS = int(os.environ.get("ECAN_KILLS", "0")) or 12
SEED = int(os.environ.get("ECAN_SEED", "0")) or random.randrange(1, 2**32)
SESSIONS = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + 4 * DEATHS)]

# Each line it prints is a commit that was acknowledged: session and number.
SCRIPT = """
import asyncio, pathlib, sys
from ecan.store import Commit, LedgerRow, sqlite_journal
from ecan.store.sqlite import SqliteStore

sqlite_journal.COPY_FRAMES = sqlite_journal.RETRY_FRAMES = 8
sqlite_journal.ANEW_FRAMES = 30
sqlite_journal.REST_FRAMES = 8

async def client(store, sid):
    n = (await store.load(sid)).slots.get("n", b"0")
    n = int(n.rstrip(b"."))
    while True:
        n += 1
        answer = LedgerRow(request_id=f"r{n}", fingerprint=b"f", frame=b"{}", at=1.0)
        slots = {"n": str(n).encode() + b"." * (n % 3 * 3000)}
        await store.commit(Commit(sid=sid, incarnation=1, slots=slots, answer=answer))
        sys.stdout.write(f"{sid} {n}\\n")
        sys.stdout.flush()

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*[client(store, f"s{i}") for i in range(int(sys.argv[2]))])

asyncio.run(main())
"""


def new(sid):
    row = SessionRow(
        sid=sid,
        key=b"k",
        user={"user_id": 7},
        created_at=1.0,
        incarnation=1,
        epoch="e",
        facts=Facts(last_active_at=1.0),
    )
    return Snapshot(row=row)


@contextlib.contextmanager
def reader(path, rng):
    """Reads the file for a while, as a backup does; sometimes."""
    connection = apsw.Connection(str(path))
    if rng.random() < 0.5:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sessions").fetchall()
    try:
        yield
    finally:
        connection.close()


def live(path, rng):
    """One life: what it acknowledged until it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(SESSIONS)], stdout=subprocess.PIPE, text=True
    )
    told = [process.stdout.readline()]
    with reader(path, rng):
        time.sleep(rng.uniform(0.05, 0.6))
    time.sleep(rng.uniform(0.0, 0.3))
    process.kill()
    told += process.communicate()[0].splitlines(keepends=True)
    return [line.split() for line in told if line.endswith("\n")]


async def test_p11_a_kill_in_a_checkpoint_loses_nothing_and_leaves_the_file_whole(tmp_path):
    """kill -9 while pages are copied and the journal begins anew, dozens of times a second."""
    print(f"\n  seed {SEED}")
    rng = random.Random(SEED)
    path = tmp_path / "sessions.sqlite3"
    store = SqliteStore(path)
    await store.open()
    for number in range(SESSIONS):
        await store.create(new(f"s{number}"))
    await store.close()
    acknowledged = dict.fromkeys((f"s{number}" for number in range(SESSIONS)), 0)
    for _ in range(DEATHS):
        for sid, n in await asyncio.to_thread(live, path, rng):
            assert int(n) > acknowledged[sid]
            acknowledged[sid] = int(n)
        connection = apsw.Connection(str(path))
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        stored = {
            sid: (int(data.rstrip(b".")), answers)
            for sid, data, answers in connection.execute(
                "SELECT sid, slots.data, answers FROM sessions JOIN slots USING (sid)"
            )
        }
        # As a killed process leaves it, so that the next one begins with a journal.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()
        for sid, n in acknowledged.items():
            assert stored[sid][0] == stored[sid][1]  # state and answers are of one moment
            assert n <= stored[sid][0] <= n + 1  # the last one may not have been told any more
            acknowledged[sid] = stored[sid][0]
    assert min(acknowledged.values()) > DEATHS
