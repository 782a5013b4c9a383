"""Sessions in one SQLite file, written by one thread: the durable store of one server.

Group commit: while the thread writes a batch, the loop queues what comes; all of that
is the next batch and one transaction. Nobody waits for a timer: a lone commit costs one
sync of the disk, a thousand at once cost one as well.

Everything goes through the same queue, so a load sees what was committed before it, and
what is queued for a session lands in order.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ecan.errors import StoreError
from ecan.observability import get_logger
from ecan.store.sqlite_db import open_database
from ecan.store.sqlite_writer import (
    Count,
    Delete,
    ListSessions,
    Load,
    Put,
    StoreUnavailableError,
    Writer,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from ecan.store.base import Commit, Snapshot
    from ecan.store.sqlite_writer import Work

log = get_logger("ecan.store")

Durability = Literal["commit", "interval", "off"]

MAX_BATCH = 2000
"""Of work in one transaction: some 50 ms, so that the first need not wait for the last."""

MAX_PENDING = 100_000
"""Of work in the queue while the file cannot be written; at 1 KB each, 100 MB."""

_SYNCHRONOUS = {"commit": "FULL", "interval": "NORMAL", "off": "OFF"}


@attrs.frozen(eq=False)
class _Job:
    """Queued work.

    Attributes:
        waiter: None for a commit that is answered before it is written. It is kept until
            it can be; a job somebody waits for fails instead.
    """

    work: Work
    waiter: asyncio.Future[Any] | None


class SqliteStore:
    """Sessions in a file. See `SessionStore`.

    Args:
        path: of the file; made if it is missing.
        durability: ``commit``: a commit is done when the disk has it. ``interval``: done at
            once, a crash loses up to `interval_s` of commits, a power cut some more.
            ``off``: as ``interval``, and a power cut may ruin the file.
        interval_s: unused with ``commit``.
    """

    name = "sqlite"

    def __init__(
        self, path: Path, *, durability: Durability = "commit", interval_s: float = 0.5
    ) -> None:
        self._path = path
        self._durability: Durability = durability
        self._interval_s = interval_s
        self._queue: list[_Job] = []
        self._urgent = False  # somebody waits for something in the queue
        self._failing = False  # commits are kept because the file cannot be written
        self._settled = asyncio.Event()  # no batch is being written
        self._settled.set()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """See `SessionStore.open`.

        Raises:
            StoreError: the file cannot be used, is no database or of a newer version.
        """
        self._loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="sessions-writer")
        try:
            self._writer = await self._loop.run_in_executor(thread, self._open)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        self._thread = thread

    def _open(self) -> Writer:
        synchronous = _SYNCHRONOUS[self._durability]
        writer = Writer(open_database(self._path, "sessions", synchronous=synchronous), self._path)
        (outcome,) = writer.run([Count()])  # a broken file is found now
        if isinstance(outcome, StoreError):
            writer.close()
            raise outcome
        return writer

    async def close(self) -> None:
        """See `SessionStore.close`; twice is fine.

        Side effects: logs an error if the file cannot be written; kept commits are lost then.
        """
        thread, self._thread = self._thread, None  # nothing new from here on
        if thread is None or self._writer is None or self._loop is None:
            return
        while self._queue or not self._settled.is_set():
            self._flush(thread)
            await self._settled.wait()
            if self._failing:
                break
        self._cancel_timer()
        if self._queue:
            log.error("store.lost", path=str(self._path), commits=len(self._queue))
            self._queue.clear()
        try:
            await self._loop.run_in_executor(thread, self._writer.close)
        except StoreError as error:
            log.warning("store.checkpoint_failed", error=str(error))
        finally:
            thread.shutdown(wait=False)

    async def create(self, snapshot: Snapshot) -> None:
        """See `SessionStore.create`."""
        await self._ask(Put(snapshot.row.sid, snapshot))

    async def save(self, snapshot: Snapshot) -> None:
        """See `SessionStore.save`."""
        await self._ask(Put(snapshot.row.sid, snapshot))

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """See `SessionStore.commit`."""
        if self._durability == "commit":
            return self._ask(commit)
        self._add(_Job(commit, None))
        return None

    async def load(self, sid: str) -> Snapshot | None:
        """See `SessionStore.load`."""
        snapshot: Snapshot | None = await self._ask(Load(sid))
        return snapshot

    async def delete(self, sid: str) -> None:
        """See `SessionStore.delete`."""
        await self._ask(Delete(sid))

    async def count(self) -> int:
        """See `SessionStore.count`."""
        return int(await self._ask(Count()))

    async def sessions(self) -> list[tuple[str, int, float]]:
        """All of them as (sid, user_id, last_active_at): what a server must know at its start."""
        return list(await self._ask(ListSessions()))

    def _ask(self, work: Work) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(_Job(work, waiter))
        return waiter

    def _add(self, job: _Job) -> None:
        if self._thread is None:
            raise StoreError(f"{self._path} is not open")
        if len(self._queue) >= MAX_PENDING:
            raise StoreError(f"{self._path} cannot keep up: {MAX_PENDING} changes are not written")
        self._queue.append(job)
        self._urgent |= job.waiter is not None
        self._go_on(self._thread)

    def _go_on(self, thread: ThreadPoolExecutor) -> None:
        """Write now if somebody waits or it is much; else within the interval."""
        if not self._queue or not self._settled.is_set():
            return
        if self._urgent or (len(self._queue) >= MAX_BATCH and not self._failing):
            self._flush(thread)
        elif self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._interval_s, self._flush, thread)

    def _flush(self, thread: ThreadPoolExecutor) -> None:
        self._cancel_timer()
        if not self._queue or not self._settled.is_set():
            return
        batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        self._urgent = any(job.waiter is not None for job in self._queue)
        self._settled.clear()
        thread.submit(self._write, batch, thread)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, batch: list[_Job], thread: ThreadPoolExecutor) -> None:
        # Runs on: the thread.
        if self._writer is not None and self._loop is not None:
            outcomes = self._writer.run([job.work for job in batch])
            self._loop.call_soon_threadsafe(self._written, batch, outcomes, thread)

    def _written(self, batch: list[_Job], outcomes: list[Any], thread: ThreadPoolExecutor) -> None:
        done = list(zip(batch, outcomes, strict=True))
        kept: list[_Job] = []
        for job, outcome in done:
            if job.waiter is None and isinstance(outcome, StoreUnavailableError):
                kept.append(job)
            elif job.waiter is None and isinstance(outcome, StoreError):
                log.error("store.commit_refused", error=str(outcome))
        if kept:
            error = next(outcome for job, outcome in done if job.waiter is None)
            if not self._failing:
                log.error("store.failing", error=str(error))
            # Nobody may see the file without the commits that are kept.
            waiting = [job for job in (*batch, *self._queue) if job.waiter is not None]
            done = [(job, error) for job in waiting]
            self._queue = kept + [job for job in self._queue if job.waiter is None]
            self._urgent = False
        self._failing = bool(kept)
        for job, outcome in done:
            _settle(job.waiter, outcome)
        self._settled.set()
        self._go_on(thread)


def _settle(waiter: asyncio.Future[Any] | None, outcome: Any) -> None:
    if waiter is None or waiter.done():  # nobody waits, or not any more
        return
    if isinstance(outcome, StoreError):
        error = type(outcome)(*outcome.args)  # its own: whoever raises it adds a traceback
        error.__cause__ = outcome.__cause__
        waiter.set_exception(error)
    else:
        waiter.set_result(outcome)
