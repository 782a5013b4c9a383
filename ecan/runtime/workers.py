"""Threads for handlers that block, as many as are blocked.

A fixed small pool is a trap: asyncio's default executor (6 threads on 2 cores)
was exhausted by 16 blocked handlers and cost everybody else 0.8 s at the median.
So threads grow while none is idle, up to a bound, and leave when idle.

A thread cannot be killed. What hangs is abandoned: its outcome is discarded, and
its thread counts as a zombie until it comes back. All threads are daemons, so a
zombie does not keep the process from exiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import sys
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Job", "WorkerFailure", "WorkerThreads", "set_switch_interval"]

logger = logging.getLogger("ecan.runtime")

_QUEUED, _RUNNING, _DONE = "queued", "running", "done"


class WorkerFailure(Exception):  # noqa: N818  an envelope, not an error of its own
    """Carries what an asyncio future refuses or a loop does not survive.

    StopIteration cannot be set on a future; SystemExit and KeyboardInterrupt would
    end the loop of whoever awaits; CancelledError would look like a cancellation.
    All other exceptions are delivered as they are.

    Attributes:
        cause: what the function raised.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.cause = cause
        self.__cause__ = cause


class Job:
    """One call in a worker thread.

    Attributes:
        future: its result, on the loop. Cancelling it does not stop the function;
            `abandon` says so to the pool.
        thread_id: the ident of its thread while it runs, else None.
    """

    __slots__ = (
        "_abandoned",
        "_args",
        "_context",
        "_function",
        "_pool",
        "_state",
        "future",
        "thread_id",
    )

    def __init__(
        self,
        pool: WorkerThreads,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
        future: asyncio.Future[Any],
    ) -> None:
        self._pool = pool
        self._function = function
        self._args = args
        self._context = context
        self._state = _QUEUED
        self._abandoned = False
        self.future = future
        self.thread_id: int | None = None

    @property
    def started(self) -> bool:
        """Whether the function was called; False means it had no effect so far."""
        return self._state is not _QUEUED

    def abandon(self) -> None:
        """Give the job up: it never starts, or its outcome is discarded.

        Side effects: cancels `future`; a running job's thread is a zombie until the
        function returns. Nothing happens if it is done.

        Runs on: the loop.
        """
        self._pool._abandon(self)  # noqa: SLF001  one unit

    def stack(self) -> str:
        """Return where the function is right now; empty when it does not run."""
        thread_id = self.thread_id
        frame = None if thread_id is None else sys._current_frames().get(thread_id)  # noqa: SLF001
        if frame is None or self.thread_id != thread_id:
            return ""
        return "".join(traceback.format_stack(frame))

    def _forget(self) -> None:
        """Let go of what it called, which often refers to the job again (ADR 17)."""
        del self._function, self._args, self._context

    def _call(self) -> tuple[Any, BaseException | None]:
        try:
            return self._context.run(self._function, *self._args), None
        except (StopIteration, asyncio.CancelledError) as error:
            return None, WorkerFailure(error)
        except Exception as error:  # noqa: BLE001  the caller's business
            return None, error
        except BaseException as error:  # noqa: BLE001  SystemExit ends a job, not a thread
            return None, WorkerFailure(error)


class WorkerThreads:
    """A pool of daemon threads that grows when all are busy.

    Args:
        max_threads: bound; what comes then waits in order (``ECAN_WORKER_THREADS``).
        name: prefix of the threads' names.
        core: idle threads up to this number stay.
        idle_s: seconds after which an idle thread beyond the core leaves.

    Runs on: made and used on the loop; functions run on the threads.
    """

    def __init__(
        self,
        max_threads: int = 256,
        name: str = "ecan-worker",
        *,
        core: int = 4,
        idle_s: float = 30.0,
    ) -> None:
        self.max_threads = max_threads
        self.threads = 0
        self.idle = 0
        self.zombies = 0
        self._name = name
        self._core = core
        self._idle_s = idle_s
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._stopping = False
        self._done: deque[tuple[Job, Any, BaseException | None]] = deque()
        self._signalled = False

    @property
    def queued(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Job:
        """Call ``function(*args)`` in a thread.

        Args:
            function: may block as long as it likes.
            args: its arguments.
            context: it runs in; must not be entered elsewhere meanwhile, so give a
                copy. None takes an empty one.

        Returns:
            The job; await its ``future``.

        Raises:
            RuntimeError: the pool is stopped, or no thread could be started at all.
        """
        if self._stopping:
            raise RuntimeError("the worker threads are stopped")
        future = self._loop.create_future()
        job = Job(self, function, args, context or contextvars.Context(), future)
        with self._changed:
            self._jobs.append(job)
            # `idle` includes threads that start, wake up or hand over a result, and
            # the queue includes the jobs meant for them.
            grow = len(self._jobs) > self.idle and self.threads < self.max_threads
            if grow:
                self.threads += 1
                self.idle += 1
            else:
                self._changed.notify()
        if grow:
            self._start_thread(job)
        return job

    def _start_thread(self, job: Job) -> None:
        name = f"{self._name}-{next(self._numbers)}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the system's limit of threads
            with self._changed:
                self._leave()
                alone = self.threads == 0 and job in self._jobs
                if alone:
                    self._jobs.remove(job)
            if alone:
                raise
            logger.warning("workers.limit %d threads, %d jobs wait", self.threads, self.queued)

    def stop(self) -> None:
        """Take no more jobs, cancel the waiting ones, let the threads leave.

        Does not wait: a thread that runs leaves when its function returns, and a
        zombie never keeps the process from exiting.
        """
        with self._changed:
            self._stopping = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            job.future.cancel()

    def _abandon(self, job: Job) -> None:
        with self._changed:
            if job._abandoned or job._state is _DONE:  # noqa: SLF001  one unit
                return
            job._abandoned = True  # noqa: SLF001
            if job._state is _RUNNING:  # noqa: SLF001
                self.zombies += 1
            elif job in self._jobs:
                self._jobs.remove(job)
        job.future.cancel()

    # -- on the threads --------------------------------------------------------

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                while self._jobs:
                    job = self._jobs.popleft()
                    if job.future.cancelled():
                        continue
                    job._state = _RUNNING  # noqa: SLF001
                    job.thread_id = threading.get_ident()
                    self.idle -= 1
                    return job
                if self._stopping:
                    self._leave()
                    return None
                notified = self._changed.wait(self._idle_s)
                if not notified and not self._jobs and self.threads > self._core:
                    self._leave()
                    return None

    def _leave(self) -> None:
        self.threads -= 1
        self.idle -= 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            value, error = job._call()  # noqa: SLF001
            job._forget()  # noqa: SLF001
            with self._changed:
                job.thread_id = None
                job._state = _DONE  # noqa: SLF001
                self.idle += 1  # before the result is out, or its reader grows the pool
                abandoned = job._abandoned  # noqa: SLF001
                if abandoned:
                    self.zombies -= 1
            if not abandoned:
                self._hand_over(job, value, error)
            # Not kept alive by an idle thread; tracebacks hold whole call chains.
            del job, value, error

    def _hand_over(self, job: Job, value: Any, error: BaseException | None) -> None:
        self._done.append((job, value, error))
        # RACE: `_deliver` lowers the flag before it reads the queue; so who sees it
        # raised has appended in time, and who sees it lowered signals. Two signals
        # are harmless; many results share one write to the loop's self-pipe.
        if not self._signalled:
            self._signalled = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._done.clear()

    def _deliver(self) -> None:
        self._signalled = False
        while self._done:
            job, value, error = self._done.popleft()
            if job.future.done():  # cancelled
                continue
            if error is None:
                job.future.set_result(value)
            else:
                job.future.set_exception(error)


SWITCH_INTERVAL_S: Final = 0.0005


def set_switch_interval() -> None:
    """Let CPU-bound threads hold the interpreter for 0.5 ms a turn, not 5.

    With Python's default, each CPU-bound thread delays the loop by 5 ms whenever it
    gives the interpreter away (on every system call); 0.5 ms costs 1 to 2 % of their
    throughput.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
