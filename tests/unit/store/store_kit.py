"""Builders and helpers for the tests of the durable store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import apsw

from ecan.store import Commit, Facts, LedgerRow, PushRow, SessionRow, Snapshot
from ecan.store.sqlite import SqliteStore


def snapshot(sid="s1", **changes):
    row = SessionRow(
        sid=sid,
        key=b"k" * 32,
        user={"user_id": 7, "username": "ann"},
        created_at=1000.0,
        incarnation=1,
        epoch="e1",
        facts=Facts(last_active_at=1001.5, keep_until_at=9.5, restarts=2),
    )
    return Snapshot(**{"row": row, **changes})


def change(n, sid="s1", size=0, **facts):
    defaults = {
        "sid": sid,
        "incarnation": 1,
        "slots": {"n": str(n).encode() + bytes(size)},
        "answer": LedgerRow(request_id=f"r{n}", fingerprint=b"f", frame=b"{}", at=1002.0),
        "pushes": (PushRow(seq=n, frame=b"p"),),
    }
    return Commit(**{**defaults, **facts})


@asynccontextmanager
async def opened(path, **options):
    store = SqliteStore(path, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition):
    """Wait for what happens by itself, soon."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def on_thread(store, function):
    return await asyncio.get_running_loop().run_in_executor(store._thread, function)


async def crash(store):
    """Let go of the file as a killed process does: nothing is written any more."""
    if store._check is not None:
        await store._check.stop()
    store._queue._queue.clear()
    await store._queue.close()
    thread, store._thread = store._thread, None
    connection = store._writer._connection

    def drop():
        store._writer._journal.close()
        # Without the checkpoint that closing the last connection makes.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()

    await asyncio.get_running_loop().run_in_executor(thread, drop)
    thread.shutdown()
    store._lock.release()


def on_disk(path, sid="s1"):
    """What another process would see."""
    connection = apsw.Connection(str(path))
    try:
        rows = connection.execute("SELECT data FROM slots WHERE sid = ?", (sid,)).fetchall()
    finally:
        connection.close()
    return rows[0][0] if rows else None
