"""The loop's side of the writing thread: what comes while it writes is its next batch.

Nobody waits for a timer: a lone commit costs one sync of the disk, a thousand at once
cost one as well. Work that nobody waits for (durability ``interval`` and ``off``) is
written within the interval, or with the first work somebody waits for.

When the file cannot be written, whoever waits hears of it, what nobody waits for is
kept, and a probe finds out when it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ecan.errors import StoreError, StoreUnavailableError
from ecan.observability import get_logger
from ecan.store.sqlite_work import Change

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from ecan.store.sqlite_work import Work
    from ecan.store.sqlite_writer import Writer

log = get_logger("ecan.store")

MAX_BATCH = 2000
"""Of work in one transaction: some 50 ms, so that the first need not wait for the last."""

TELL_SLICE = 200
"""Of those who wait for a batch, told in one turn: each has an answer to send, 20 µs or so."""

MAX_PENDING = 100_000
"""Of work in the queue while the file cannot be written; at 1 KB each, 100 MB."""

PROBE_S = 1.0
"""Between attempts to write while that does not work: a tiny transaction each."""


class StoreObserver(Protocol):
    """Hears of every batch, for histograms. Runs on the loop."""

    def batch_written(self, works: int, seconds: float) -> None:
        """A batch of so many works took so long in the thread, syncs included."""


class NoObserver:
    """Does nothing."""

    def batch_written(self, works: int, seconds: float) -> None:
        """See `StoreObserver`."""


class CallLater(Protocol):
    """As `asyncio.AbstractEventLoop.call_later`."""

    def __call__(
        self, delay: float, callback: Callable[..., object], /, *args: Any
    ) -> asyncio.TimerHandle:
        """Call it after so many seconds."""


@attrs.frozen(eq=False)
class _Job:
    """Queued work.

    Attributes:
        waiter: None for a commit that is answered before it is written. It is kept until
            it can be; a job somebody waits for fails instead.
    """

    work: Work
    waiter: asyncio.Future[Any] | None


class GroupQueue:
    """Work on its way to the thread, in order.

    Args:
        writer: does it, in `thread`.
        thread: has one worker; nobody else uses it while the queue is open.
        path: for messages.
        interval_s: work that nobody waits for may stay so long.
        observer: hears of every batch.
        call_later: for the timers.

    Attributes:
        trouble: why the last attempt to write failed; None: it did not.
    """

    def __init__(
        self,
        writer: Writer,
        thread: ThreadPoolExecutor,
        path: Path,
        *,
        interval_s: float,
        observer: StoreObserver,
        call_later: CallLater,
    ) -> None:
        self.trouble: str | None = None
        self._writer = writer
        self._thread = thread
        self._path = path
        self._interval_s = interval_s
        self._observer = observer
        self._call_later = call_later
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._queue: list[_Job] = []
        self._urgent = False  # somebody waits for something in the queue
        self._untold: deque[tuple[_Job, Any]] = deque()  # done; who waits has not heard of it
        self._failing = False  # commits are kept because the file cannot be written
        self._settled = asyncio.Event()  # no batch is being written
        self._settled.set()
        self._timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Nothing is queued or being written."""
        return not self._queue and self._settled.is_set()

    def ask(self, work: Work) -> asyncio.Future[Any]:
        """Queue work, urgently; the future has its outcome."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._add(_Job(work, waiter))
        return waiter

    def tell(self, work: Work) -> None:
        """Queue work whose outcome nobody waits for."""
        self._add(_Job(work, None))

    async def close(self) -> int:
        """Write what is queued, and take nothing more.

        Returns:
            How many works could not be written and are lost.
        """
        self._open = False
        while not self.idle:
            self._flush()
            await self._settled.wait()
            if self._failing:
                break
        self._cancel_timer()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        while self._untold:
            self._tell()
        lost = len(self._queue)
        self._queue.clear()
        return lost

    def _add(self, job: _Job) -> None:
        if not self._open:
            raise StoreError(f"{self._path} is not open")
        if len(self._queue) >= MAX_PENDING:
            raise StoreUnavailableError(
                f"{self._path} cannot keep up: {MAX_PENDING} changes are not written"
            )
        self._queue.append(job)
        self._urgent |= job.waiter is not None
        self._go_on()

    def _go_on(self) -> None:
        """Write now if somebody waits or it is much; else within the interval."""
        if self.idle or not self._settled.is_set():
            return
        if self._urgent or (len(self._queue) >= MAX_BATCH and not self._failing):
            self._flush()
        elif self._timer is None:
            self._timer = self._call_later(self._interval_s, self._flush)

    def _flush(self) -> None:
        self._cancel_timer()
        if not self._queue or not self._settled.is_set():
            return
        batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        self._urgent = any(job.waiter is not None for job in self._queue)
        self._settled.clear()
        self._thread.submit(self._write, batch)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, batch: list[_Job]) -> None:
        # Runs on: the thread.
        started = time.perf_counter()
        outcomes, wrote = self._writer.run([job.work for job in batch])
        took_s = time.perf_counter() - started
        self._loop.call_soon_threadsafe(self._written, batch, outcomes, wrote, took_s)
        self._writer.rest()

    def _written(self, batch: list[_Job], outcomes: list[Any], wrote: bool, took_s: float) -> None:
        self._observer.batch_written(len(batch), took_s)
        self._note(outcomes, wrote)
        done = list(zip(batch, outcomes, strict=True))
        kept: list[_Job] = []
        for job, outcome in done:
            if job.waiter is None and isinstance(outcome, StoreUnavailableError):
                kept.append(job)
            elif job.waiter is None and isinstance(outcome, StoreError):
                log.error("store.commit_refused", error=str(outcome))
        if kept:
            error = next(outcome for job, outcome in done if job.waiter is None)
            # Nobody may see the file without the commits that are kept.
            waiting = [job for job in (*batch, *self._queue) if job.waiter is not None]
            done = [(job, error) for job in waiting]
            self._queue = kept + [job for job in self._queue if job.waiter is None]
            self._urgent = False
        self._failing = bool(kept)
        telling = bool(self._untold)
        self._untold.extend(done)
        if not telling:
            self._tell()
        self._settled.set()
        self._go_on()

    def _tell(self) -> None:
        """Tell those who waited, in order; more than a slice of them in turns of the loop."""
        for _ in range(min(TELL_SLICE, len(self._untold))):
            job, outcome = self._untold.popleft()
            _settle(job.waiter, outcome)
        if self._untold:
            self._loop.call_soon(self._tell)

    def _note(self, outcomes: list[Any], wrote: bool) -> None:
        """Keep up what is known about the file's trouble."""
        failed = next((o for o in outcomes if isinstance(o, StoreUnavailableError)), None)
        if failed is not None:
            if self.trouble is None:
                log.error("store.failing", path=str(self._path), error=str(failed))
            self.trouble = str(failed.__cause__ or failed)
            if self._probe_timer is None and self._open:
                self._probe_timer = self._call_later(PROBE_S, self._probe)
        elif wrote and self.trouble is not None:
            log.info("store.recovered", path=str(self._path))
            self.trouble = None

    def _probe(self) -> None:
        self._probe_timer = None
        if self.trouble is None or not self._open:
            return
        # What is kept is tried again by itself, and is as good a probe.
        self._probe_timer = self._call_later(PROBE_S, self._probe)
        if not self._failing and len(self._queue) < MAX_PENDING:
            self._queue.append(_Job(Change(lambda tables: tables.meta.probe()), self._unheard()))
            self._urgent = True
            self._go_on()

    def _unheard(self) -> asyncio.Future[Any]:
        """A waiter for what may fail without being kept."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        waiter.add_done_callback(lambda done: done.exception())
        return waiter


def _settle(waiter: asyncio.Future[Any] | None, outcome: Any) -> None:
    if waiter is None or waiter.done():  # nobody waits, or not any more
        return
    if isinstance(outcome, StoreError):
        error = type(outcome)(*outcome.args)  # its own: whoever raises it adds a traceback
        error.__cause__ = outcome.__cause__
        waiter.set_exception(error)
    else:
        waiter.set_result(outcome)
