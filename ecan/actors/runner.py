"""How each kind of handler runs, and how it is made to stop (P7)."""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ecan.actors.metered import Metered
from ecan.errors import ReplyError
from ecan.handlers.registry import Final, Kind
from ecan.protocol.codes import ErrorCode
from ecan.runtime import ProcessRenewedError, WorkerFailure, task_stack

if TYPE_CHECKING:
    from ecan.actors.call import Call
    from ecan.actors.session import SessionActor
    from ecan.handlers.context import UserContext
    from ecan.runtime import Job, ProcessJob

STOP_GRACE_S = 1.0
"""How long a cancelled coroutine may clean up before its session goes on without it."""

MAX_ZOMBIES = 8
"""Abandoned threads one session may leave behind before its blocking calls are BUSY."""

STREAM_BACKLOG_BYTES = 256 * 1024
"""A stream waits while its reader is this far behind, well below the 1 MiB that cuts it off."""


CALLS_COROUTINE = "return await meter.run(call.spec.function(*_arguments(call, ctx)))\n"
CALLS_THREAD = "return function(*arguments)\n"
"""The last lines of ours in a handler's stack; what follows is the author's."""


class Stopper:
    """Makes one running handler stop."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task

    @property
    def started(self) -> bool:
        """Whether any of the handler's code has run."""
        return True

    def stack(self) -> str:
        """Where the handler is right now, as a traceback shows it; empty if nobody knows."""
        stack = "" if self._task is None else task_stack(self._task)
        return stack.rpartition(CALLS_COROUTINE)[2]

    def stop(self) -> float:
        """Ask it to stop; returns the seconds it gets until it is abandoned."""
        if self._task is not None:
            self._task.cancel()
        return STOP_GRACE_S


class ThreadStopper(Stopper):
    """A thread cannot be stopped: it is left behind, and its outcome discarded."""

    __slots__ = ("_actor", "abandoned", "call", "cpu_s", "job")

    def __init__(self, task: asyncio.Task[Any] | None, actor: SessionActor, call: Call) -> None:
        super().__init__(task)
        self._actor = actor
        self.call = call
        self.job: Job | None = None
        self.abandoned = False
        self.cpu_s = 0.0

    @property
    def started(self) -> bool:
        """See `Stopper.started`."""
        return self.job is not None and self.job.started

    @property
    def sid(self) -> str:
        """Whose session's handler it is."""
        return self._actor.cell.sid

    def stack(self) -> str:
        """See `Stopper.stack`."""
        stack = "" if self.job is None else self.job.stack()
        return stack.rpartition(CALLS_THREAD)[2]

    def stop(self) -> float:
        """See `Stopper.stop`."""
        job = self.job
        if job is None or not job.started:
            if job is not None:
                job.abandon()
                self._actor.env.threads.discard(self)
            return super().stop()
        if not self.abandoned:
            self.abandoned = True
            self._actor.cell.zombies += 1
            job.abandon()
        return 0.0

    def thread_returned(self) -> None:
        """Runs in the worker thread, last."""
        self._actor.env.threads.discard(self)
        if self.abandoned:
            self._actor.env.on_loop(self._zombie_gone)

    def _zombie_gone(self) -> None:
        self._actor.cell.zombies -= 1
        self._actor.usage.charge(self._actor.env.clock.mono(), 0.0, self.cpu_s)


class ProcessStopper(Stopper):
    """A worker process is killed; the lane starts another."""

    __slots__ = ("_job",)

    def __init__(self, task: asyncio.Task[Any] | None, job: ProcessJob) -> None:
        super().__init__(task)
        self._job = job

    def stack(self) -> str:
        """See `Stopper.stack`; another process's is out of sight."""
        return ""

    def stop(self) -> float:
        """See `Stopper.stop`."""
        self._job.kill()
        return super().stop()


async def run_handler(actor: SessionActor, call: Call, ctx: UserContext) -> Any:
    """Run the handler of a call and return its result.

    Raises:
        ReplyError: declared by the handler, or BUSY when the session left too many
            abandoned threads behind.
        BaseException: whatever else the handler raised: a crash.
    """
    kind = call.spec.kind
    ctx.state  # noqa: B018 - made here, as two threads of the handler may be the first to ask
    meter = Metered()
    mono = actor.env.clock.mono
    began_mono = mono()
    try:
        if kind is Kind.ASYNC:
            actor.set_stopper(call, Stopper(asyncio.current_task()))
            return await meter.run(call.spec.function(*_arguments(call, ctx)))
        if kind is Kind.STREAM:
            return await _run_stream(actor, call, ctx, meter)
        if kind is Kind.PROCESS:
            return await _run_in_process(actor, call, meter)
        return await _run_in_thread(actor, call, ctx, meter)
    finally:
        now = mono()
        actor.usage.charge(now, now - began_mono, meter.cpu_s)


def _arguments(call: Call, ctx: UserContext) -> tuple[Any, ...]:
    return (ctx,) if call.spec.params_type is None else (ctx, call.params)


async def _run_stream(actor: SessionActor, call: Call, ctx: UserContext, meter: Metered) -> Any:
    actor.set_stopper(call, Stopper(asyncio.current_task()))
    count = 0
    result: Any = None
    final = False
    stream = call.spec.function(*_arguments(call, ctx))
    try:
        while True:
            try:
                item = await meter.run(anext(stream))
            except StopAsyncIteration:
                break
            if type(item) is Final:
                result, final = item.result, True
                break
            count += 1
            ctx.progress(item)
            await asyncio.sleep(0)
            while call.origin.is_open and call.origin.backlog_bytes > STREAM_BACKLOG_BYTES:
                await actor.env.clock.sleep(0.01)
    finally:
        await stream.aclose()
    return result if final else {"streamed": count}


async def _run_in_thread(actor: SessionActor, call: Call, ctx: UserContext, meter: Metered) -> Any:
    if actor.cell.zombies >= MAX_ZOMBIES:
        raise ReplyError(
            ErrorCode.BUSY,
            f"{MAX_ZOMBIES} timed-out handlers of this session still block a thread each.",
            outcome="not_run",
            retry_after_ms=5000,
        )
    stopper = ThreadStopper(asyncio.current_task(), actor, call)
    function, arguments = call.spec.function, _arguments(call, ctx)

    def invoke() -> Any:
        began_s = time.thread_time()
        try:
            return function(*arguments)
        finally:
            stopper.cpu_s = time.thread_time() - began_s
            stopper.thread_returned()

    actor.env.threads.add(stopper)
    try:
        stopper.job = actor.env.workers.run(invoke, context=copy_context())
    except RuntimeError:
        actor.env.threads.discard(stopper)
        raise
    actor.set_stopper(call, stopper)
    try:
        return await stopper.job.future
    except WorkerFailure as failure:
        if isinstance(failure.cause, StopIteration | asyncio.CancelledError):
            raise  # neither may leave a coroutine as itself
        raise failure.cause from None
    finally:
        if not stopper.abandoned:
            meter.cpu_s += stopper.cpu_s


async def _run_in_process(actor: SessionActor, call: Call, meter: Metered) -> Any:
    while True:
        _renew(actor, call)
        arguments = () if call.spec.params_type is None else (call.params,)
        job = actor.env.processes.run(call.spec.function, *arguments)
        actor.set_stopper(call, ProcessStopper(asyncio.current_task(), job))
        try:
            return await job.future
        except ProcessRenewedError:
            continue
        finally:
            meter.cpu_s += job.cpu_s


def _renew(actor: SessionActor, call: Call) -> None:
    """A function travels to a process by its name, which may mean another one by now (ADR 12).

    Raises:
        ReplyError: METHOD_NOT_FOUND, INVALID_PARAMS; BUSY if it is no process handler any more.
    """
    spec = actor.env.server.registry.get(call.spec.name)
    if spec is call.spec:
        return
    if spec is None:
        raise ReplyError(
            ErrorCode.METHOD_NOT_FOUND,
            f"The method {call.spec.name} was removed while the request waited.",
            outcome="not_run",
        )
    if spec.kind is not Kind.PROCESS:
        raise ReplyError(
            ErrorCode.BUSY,
            "The handlers were reloaded while the request waited; try again.",
            details={"reason": "reloaded"},
            outcome="not_run",
            retry_after_ms=100,
        )
    call.params = spec.structure(call.request.params)
    call.spec = spec
