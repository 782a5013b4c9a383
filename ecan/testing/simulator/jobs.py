"""Stand-ins for worker threads and worker processes: jobs that take simulated time.

A job's function is called when its time is over, on the loop's own thread. So a handler
that was given up while it "blocked" comes back later and still writes to its old
context, as a real thread does (P7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.runtime import ProcessJob, ProcessLane, WorkerThreads
from ecan.runtime.processes import ProcessDied, ProcessFailure
from ecan.runtime.workers import Job
from ecan.testing.simulator.chance import delay_s

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Callable
    from random import Random

    from ecan.testing.simulator.trace import Trace

QUEUE_S = 0.002
LONG_BLOCKS_S = (0.5, 5.0, 45.0)
"""Some block for longer than any deadline."""


def _duration_s(random: Random) -> float:
    return random.choice(LONG_BLOCKS_S) if random.random() < 0.3 else random.random() * 0.1  # noqa: PLR2004


class SimulatedJob(Job):
    """One call in a thread that is none."""

    __slots__ = ("abandoned", "state")

    def __init__(
        self,
        pool: SimulatedThreads,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
        future: asyncio.Future[Any],
    ) -> None:
        super().__init__(pool, function, args, context, future)
        self.state = "queued"
        self.abandoned = False

    @property
    def started(self) -> bool:
        """See `Job.started`."""
        return self.state != "queued"

    def abandon(self) -> None:
        """See `Job.abandon`."""
        if self.abandoned or self.state == "done":
            return
        self.abandoned = True
        self.future.cancel()


class SimulatedThreads(WorkerThreads):
    """Worker threads without threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, trace: Trace) -> None:
        self._loop = loop
        self._random = random
        self._trace = trace
        self._stopped = False
        self.threads = self.zombies = self.idle = 0

    @property
    def queued(self) -> int:
        """See `WorkerThreads.queued`."""
        return 0

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Job:
        """See `WorkerThreads.run`."""
        assert context is not None
        job = SimulatedJob(self, function, args, context, self._loop.create_future())
        self._loop.call_later(delay_s(self._random, QUEUE_S), self._start, job)
        return job

    def _start(self, job: SimulatedJob) -> None:
        if job.abandoned or job.future.cancelled() or self._stopped:
            return
        job.state = "running"
        self._loop.call_later(_duration_s(self._random), self._finish, job)

    def _finish(self, job: SimulatedJob) -> None:
        value, error = job._call()  # noqa: SLF001 - as the real pool
        job.state = "done"
        if job.abandoned:
            self._trace.add("zombie.returned")
            return
        if job.future.done():
            return
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)

    def stop(self) -> None:
        """See `WorkerThreads.stop`."""
        self._stopped = True


class SimulatedProcessJob(ProcessJob):
    """One call in a worker process that is none."""

    __slots__ = ("args", "function", "running")

    def __init__(
        self,
        lane: SimulatedProcesses,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any],
    ) -> None:
        super().__init__(lane, b"", future)
        self.function = function
        self.args = args
        self.running = False

    @property
    def started(self) -> bool:
        """See `ProcessJob.started`."""
        return self.running

    def kill(self) -> None:
        """See `ProcessJob.kill`."""
        if self.future.done():
            return
        self.killed = True
        if self.running:
            self.future.set_exception(ProcessDied(-9))
        else:
            self.future.cancel()


class SimulatedProcesses(ProcessLane):
    """Worker processes without processes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random) -> None:
        self.generation = 0
        self._loop = loop
        self._random = random

    def run(self, function: Callable[..., Any], *args: Any) -> ProcessJob:
        """See `ProcessLane.run`."""
        job = SimulatedProcessJob(self, function, args, self._loop.create_future())
        self._loop.call_later(delay_s(self._random, QUEUE_S), self._start, job)
        return job

    def _start(self, job: SimulatedProcessJob) -> None:
        if not job.future.done():
            job.running = True
            self._loop.call_later(_duration_s(self._random), self._finish, job)

    def _finish(self, job: SimulatedProcessJob) -> None:
        if job.future.done():  # killed
            return
        try:
            job.future.set_result(job.function(*job.args))
        except Exception as error:  # noqa: BLE001 - told as the worker process tells it
            job.future.set_exception(ProcessFailure(type(error).__name__, str(error), ""))

    async def stop(self) -> None:
        """See `ProcessLane.stop`."""
