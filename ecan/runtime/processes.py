"""Worker processes for handlers that compute, and that must be killable.

A thread that computes shares the interpreter with the loop and cannot be
stopped; a process can. Each worker process has one thread here that starts it,
hands it one job at a time and reads the answer, so the loop never waits.

Ends with the parent: when the parent dies, even by ``kill -9``, the worker's pipe
reads EOF; a thread of the worker waits for that while a job runs.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import threading
import time
from collections import deque
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from ecan.runtime.process_worker import Answer, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

__all__ = ["ProcessDied", "ProcessFailure", "ProcessJob", "ProcessLane", "ProcessRenewedError"]

logger = logging.getLogger("ecan.runtime")


class ProcessFailure(Exception):  # noqa: N818  the failure of a process, told here
    """The function raised, or its arguments or result cannot be pickled.

    Attributes:
        type_name: qualified name of the exception's class.
        message: its text.
        remote_traceback: the traceback in the worker, as text.
    """

    def __init__(self, type_name: str, message: str, remote_traceback: str) -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback


class ProcessDied(Exception):  # noqa: N818  as above
    """The worker process ended before it answered.

    Attributes:
        exitcode: as `multiprocessing.Process.exitcode`: negative is a signal.
    """

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(f"worker process died with exit code {exitcode}")
        self.exitcode = exitcode


class ProcessRenewedError(Exception):
    """The code was loaded anew before a process had begun the job: hand it in again."""


class ProcessJob:
    """One call in a worker process.

    Attributes:
        future: its result, on the loop. Cancelling it does not stop the function.
        cpu_s: CPU seconds of the process for it, as soon as it is done; of one that died,
            how long it had the job: what has to be killed has mostly computed all the time.
    """

    __slots__ = ("_lane", "_owner", "cpu_s", "future", "generation", "killed", "request")

    def __init__(self, lane: ProcessLane, request: bytes, future: asyncio.Future[Any]) -> None:
        self._lane = lane
        self._owner: _Owner | None = None
        self.request = request
        self.generation = lane.generation
        self.future = future
        self.killed = False
        self.cpu_s = 0.0

    @property
    def started(self) -> bool:
        """Whether a process has taken it."""
        return self._owner is not None

    def kill(self) -> None:
        """Kill the process that runs it; ``future`` gets `ProcessDied`.

        A job that waits never runs, and its future is cancelled. Nothing happens if
        it is done.

        Runs on: the loop.
        """
        self._lane._kill(self)  # noqa: SLF001  one unit


class ProcessLane:
    """A few worker processes, started when first needed, used again and again.

    Args:
        max_processes: None takes the number of CPUs.

    Attributes:
        generation: how often the code was loaded anew; processes of older ones get no job.
        setup: a function and its argument, called in every process when it starts.

    Runs on: made and used on the loop.
    """

    def __init__(self, max_processes: int | None = None) -> None:
        self.max_processes = max_processes or os.cpu_count() or 1
        self.idle = 0
        self.generation = 0
        self.setup: tuple[Callable[..., Any], Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[ProcessJob] = deque()
        self._owners: set[_Owner] = set()
        self._changed = threading.Condition(threading.Lock())
        self._stopping = False
        self._numbers = itertools.count(1)

    @property
    def processes(self) -> int:
        """Worker processes, starting ones included."""
        return len(self._owners)

    @property
    def queued(self) -> int:
        """Jobs that no process has taken yet."""
        return len(self._jobs)

    def run(self, function: Callable[..., Any], *args: Any) -> ProcessJob:
        """Call ``function(*args)`` in a worker process.

        Args:
            function: importable by its name: a module's function, no lambda.
            args: must pickle, as must the result.

        Returns:
            The job. Its ``future`` fails with `ProcessFailure` when the function
            raises or does not pickle, with `ProcessDied` when its process ends, with
            `ProcessRenewedError` when it has to be handed in again.

        Raises:
            RuntimeError: the lane is stopped.
        """
        if self._stopping:
            raise RuntimeError("the process lane is stopped")
        future = self._loop.create_future()
        try:
            # Here, not in the owner's thread: by then `renew` may have given the name to another.
            job = ProcessJob(self, bytes(ForkingPickler.dumps((function, args))), future)
        except Exception as error:  # noqa: BLE001  a value that does not pickle
            future.set_exception(ProcessFailure(type(error).__qualname__, str(error), ""))
            return ProcessJob(self, b"", future)
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) > self.idle and len(self._owners) < self.max_processes:
                owner = _Owner(self, self._loop.create_future())
                self._owners.add(owner)
                self.idle += 1  # until it takes a job
                name = f"ecan-process-{next(self._numbers)}"
                threading.Thread(target=owner.work, name=name, daemon=True).start()
            else:
                self._changed.notify()
        return job

    def renew(self, setup: tuple[Callable[..., Any], Any] | None = None) -> None:
        """Have every job that no process has begun run by a fresh process with this setup.

        Side effects: those jobs fail with `ProcessRenewedError`; processes that run one
        finish it and are replaced.
        """
        with self._changed:
            self.generation += 1
            self.setup = setup
            waiting = list(self._jobs)
            self._jobs.clear()
        for job in waiting:
            if not job.future.done():
                job.future.set_exception(ProcessRenewedError())

    async def stop(self) -> None:
        """Cancel the waiting jobs, kill the running ones, wait for the processes' end."""
        with self._changed:
            self._stopping = True
            waiting = list(self._jobs)
            self._jobs.clear()
            owners = list(self._owners)
            for owner in owners:
                owner.kill_current()
            self._changed.notify_all()
        for job in waiting:
            job.future.cancel()
        for owner in owners:
            await owner.ended

    def _kill(self, job: ProcessJob) -> None:
        with self._changed:
            job.killed = True
            if job in self._jobs:
                self._jobs.remove(job)
            elif job._owner is not None and job._owner.job is job:  # noqa: SLF001  one unit
                job._owner.kill_current()  # noqa: SLF001
                return
            else:
                return
        job.future.cancel()


class _Owner:
    """The thread that owns one worker process."""

    def __init__(self, lane: ProcessLane, ended: asyncio.Future[None]) -> None:
        self.job: ProcessJob | None = None
        self.ended = ended
        self._lane = lane
        self._generation = 0
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def kill_current(self) -> None:
        """Kill the process if it runs a job; the caller holds the lane's lock."""
        if self.job is not None:
            self.job.killed = True
            if self._process is not None:
                self._process.kill()

    def work(self) -> None:
        """Run jobs until the lane stops.

        Runs on: its own thread.
        """
        while (job := self._next()) is not None:
            value, error = self._run(job)
            with self._lane._changed:  # noqa: SLF001  one unit
                self.job = None
                self._lane.idle += 1  # before the result is out, or its reader grows the lane
            self._on_loop(_settle, job.future, value, error)
            del job, value, error
        self._end_process()
        self._on_loop(_settle, self.ended, None, None)

    def _next(self) -> ProcessJob | None:
        lane = self._lane
        with lane._changed:  # noqa: SLF001
            while True:
                while lane._jobs:  # noqa: SLF001
                    job = lane._jobs.popleft()  # noqa: SLF001
                    if not job.future.cancelled():
                        job._owner = self  # noqa: SLF001
                        self.job = job
                        lane.idle -= 1
                        return job
                if lane._stopping:  # noqa: SLF001
                    lane._owners.discard(self)  # noqa: SLF001
                    lane.idle -= 1
                    return None
                lane._changed.wait()  # noqa: SLF001

    def _run(self, job: ProcessJob) -> tuple[Any, Exception | None]:
        began_s = time.monotonic()
        try:
            process, pipe = self._alive_process()
            # RACE: killed while the process was starting, when there was nothing to
            # kill yet; `_process` is set and `killed` is read under the same lock.
            with self._lane._changed:  # noqa: SLF001
                self._process = process
                if job.killed:
                    process.kill()
                # RACE: a process takes a while to start, and `renew` may come meanwhile.
                if job.generation != self._lane.generation:
                    return None, ProcessRenewedError()
            began_s = time.monotonic()
            pipe.send_bytes(job.request)
            wait([pipe, process.sentinel])
            answer: Answer | None = pipe.recv() if pipe.poll() else None
        except (EOFError, OSError):
            job.cpu_s = time.monotonic() - began_s
            return None, ProcessDied(self._bury())
        if answer is None:
            job.cpu_s = time.monotonic() - began_s
            return None, ProcessDied(self._bury())
        job.cpu_s = answer.cpu_s
        if answer.declared is not None:
            return None, answer.declared
        if answer.error is not None:
            return None, ProcessFailure(*answer.error)
        return answer.value, None

    def _alive_process(self) -> tuple[SpawnProcess, Connection[Any, Any]]:
        stale = self._generation != self._lane.generation
        if self._process is not None and (stale or not self._process.is_alive()):
            self._bury()
        if self._process is None or self._pipe is None:
            with self._lane._changed:  # noqa: SLF001  one unit
                self._generation, setup = self._lane.generation, self._lane.setup
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve,
                args=(theirs, setup),
                name=threading.current_thread().name,
                daemon=True,
            )
            process.start()
            theirs.close()  # else its own end would keep EOF from us
            self._pipe = ours
            return process, ours
        return self._process, self._pipe

    def _bury(self) -> int | None:
        """Make sure the process is gone; returns its exit code."""
        with self._lane._changed:  # noqa: SLF001
            process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()
        exitcode = process.exitcode
        process.close()
        return exitcode

    def _end_process(self) -> None:
        self._bury()  # closing the pipe asks it to leave

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._lane._loop.call_soon_threadsafe(function, *args)  # noqa: SLF001
        except RuntimeError:  # the loop is closed: nobody waits any more
            logger.debug("process.unclaimed")


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
