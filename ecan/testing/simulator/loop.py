"""An event loop without a clock, a selector and threads: the same seed, the same order.

asyncio promises that callbacks run in the order of `call_soon`, and the core relies on
it; so does this loop. What it may choose is which of two timers that are due at the same
instant comes first. When nothing is ready, time jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import itertools
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from ecan.runtime import actor as runtime_actor

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Coroutine
    from random import Random

    from ecan.testing.simulator.trace import Trace

MAX_CALLBACKS = 100_000
"""Run in one go without any time passing: something spins."""

_numbers = itertools.count(1)


class SimulatedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.number = next(_numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs one callback at a time, when asked to.

    Args:
        random: decides between timers of the same instant.
        start_mono: where its time starts.
        trace: is told what would go to the loop's exception handler, and the time.

    Attributes:
        dead: the process is no more; nothing runs again, and nobody complains.
        exits: SystemExit and its kin that left a callback; a server enters its loop again.
    """

    def __init__(self, random: Random, start_mono: float, trace: Trace) -> None:
        self.dead = False
        self.exits = 0
        self._mono = start_mono
        self._random = random
        self._trace = trace
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._tasks: dict[SimulatedTask, None] = {}
        self._left = 0
        self._order = itertools.count()

    # -- asyncio's interface -----------------------------------------------------------

    def time(self) -> float:
        """Seconds since the loop's own beginning of time."""
        return self._mono

    def call_soon(  # type: ignore[override]  # as asyncio runs it
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """See `asyncio`."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        entry = (when, self._random.random(), next(self._order), handle)
        heapq.heappush(self._timers, entry)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio`."""
        return self.call_at(self._mono + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio`."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        """See `asyncio`."""
        task = SimulatedTask(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)  # type: ignore[call-overload]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """What a cancelled timer tells its loop."""

    def get_debug(self) -> bool:
        """See `asyncio`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio`."""
        return asyncio._get_running_loop() is self  # noqa: SLF001  documented

    def is_closed(self) -> bool:
        """See `asyncio`."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `asyncio`: an exception that nobody caught or retrieved."""
        if not self.dead:
            error = context.get("exception")
            story = "".join(traceback.format_exception(error)) if error is not None else ""
            self._trace.broken("P5", f"{context.get('message')}: {story}")

    # -- running -----------------------------------------------------------------------

    def run_callbacks(self, count: int) -> None:
        """Run so many callbacks; no time passes."""
        for _ in range(count):
            if not self._run_next(self._mono):
                return

    def run_until(self, when_mono: float) -> None:
        """Let time pass until then, with all that is due."""
        count, before = 0, self._mono
        while self._run_next(when_mono):
            count += 1
            if self._mono != before:
                count, before = 0, self._mono
            elif count > MAX_CALLBACKS:
                self._trace.broken("P1", f"{MAX_CALLBACKS} callbacks ran and no time passed")
        self._mono = self._trace.now_s = max(self._mono, when_mono)

    def _run_next(self, until_mono: float) -> bool:
        """Run one callback that is due by then; False if there is none."""
        if not self._left:  # a turn of the loop is over
            self._take_due(until_mono)
            self._left = len(self._ready)
            if not self._left:
                return False
        self._left -= 1
        handle = self._ready.popleft()
        if not handle.cancelled():
            asyncio._set_running_loop(self)  # noqa: SLF001  documented
            try:
                handle._run()  # noqa: SLF001  what a loop does
            except (SystemExit, KeyboardInterrupt):
                self.exits += 1  # as `ecan.runtime.loop.run_fenced`
            finally:
                asyncio._set_running_loop(None)  # noqa: SLF001
        self._trace.check()
        return True

    def _take_due(self, until_mono: float) -> None:
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heapq.heappop(timers)
        if not self._ready and timers and self._mono < timers[0][0] <= until_mono:
            self._mono = self._trace.now_s = timers[0][0]
        while timers and timers[0][0] <= self._mono:
            handle = heapq.heappop(timers)[3]
            if not handle.cancelled():
                self._ready.append(handle)

    def die(self) -> None:
        """The process is killed: no callback runs any more.

        What waits in a coroutine is thrown away here, in order, and not by the garbage
        collector at some time that no seed decides.
        """
        self.dead = True
        self._ready.clear()
        self._timers.clear()
        tasks = list(self._tasks)
        runtime_actor._tasks.difference_update(tasks)  # noqa: SLF001  it holds them for life
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            _throw_away(task.get_coro())
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()


def _throw_away(coroutine: Any) -> None:
    """Close a coroutine, and those it was given and never began to await."""
    waiting: list[Any] = []
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        waiting = [v for v in coroutine.cr_frame.f_locals.values() if inspect.iscoroutine(v)]
    with contextlib.suppress(BaseException):  # it runs in a process that is no more
        coroutine.close()
    for other in waiting:
        _throw_away(other)
