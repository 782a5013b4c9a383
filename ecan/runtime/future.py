"""A pykka future that a coroutine can await.

pykka's own ``await future`` yields once and then blocks in ``get()``: on a loop
that is the whole server standing still (measured 301 ms for a 300 ms reply;
jodal/pykka#99).
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pykka

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    # PYKKA: pykka.typing does not export it.
    ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

__all__ = ["LoopFuture"]

T = TypeVar("T")

_running_loop: Final = asyncio._get_running_loop  # noqa: SLF001  documented; None instead of raising

# One lock for all futures: it is held for a few bytecodes, and an own one would
# be a third of a future's cost. Reentrant, because the garbage collector may run
# a finaliser that settles another future while this thread holds it.
_lock: Final = threading.RLock()

_BLOCKING: Final = (
    "get() would block the event loop: use `await future`, "
    "or `await ref.ask(message, block=False)` instead of `ref.ask(message)`"
)
_LAZY: Final = (
    "this future computes its value in get() (map, filter, join, reduce), which blocks: "
    "await the futures it came from and compute from their values"
)


class LoopFuture(pykka.Future[T]):
    """The reply to an `ask`: settled once, from any thread.

    On a loop ``await`` it; on other threads call `get`. Any number of readers,
    on any number of loops, and as often as they like.

    Runs on: any thread; may be created without a loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._done = False
        self._value: Any = None
        self._exc_info: ExcInfo | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    def done(self) -> bool:
        """Say whether it is settled."""
        return self._done

    def exception(self) -> BaseException | None:
        """Return the exception it was settled with; None for a value or not yet."""
        if self._exc_info is None:
            return None
        exc_type, exc_value, traceback = self._exc_info
        if exc_value is None:
            if exc_type is None:
                raise TypeError("set_exception() was called without an exception")
            exc_value = exc_type()
            self._exc_info = (exc_type, exc_value, traceback)
        return exc_value

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the value, blocking this thread.

        Args:
            timeout: seconds; None waits forever.

        Raises:
            pykka.Timeout: it was not settled in time.
            RuntimeError: it is not settled, and this thread runs an event loop.
            Exception: what it was settled with.

        Runs on: any thread; on a loop's only once it is settled.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._done:
            if _running_loop() is not None:
                raise RuntimeError(_BLOCKING)
            settled = threading.Event()
            self.add_done_callback(settled.set)
            if not settled.wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
        return self._outcome()

    def _outcome(self) -> Any:
        error = self.exception()
        if error is None:
            return self._value
        # As pykka: each reader starts from the traceback of the failure, or the
        # tracebacks of all readers would be chained together.
        raise error.with_traceback(self._exc_info[2] if self._exc_info else None)

    def set(self, value: T | None = None) -> None:
        """Settle it with a value.

        Raises:
            queue.Full: it is settled already.
        """
        self._settle(value, None)

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Settle it with an exception.

        Args:
            exc_info: as `sys.exc_info` returns; None takes the one being handled.

        Raises:
            queue.Full: it is settled already.
        """
        self._settle(None, sys.exc_info() if exc_info is None else exc_info)

    def _settle(self, value: Any, exc_info: ExcInfo | None) -> None:
        with _lock:
            if self._done or self._get_hook is not None:
                raise queue.Full
            self._value = value
            self._exc_info = exc_info
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Compute the value in `get` (pykka's map, filter, join and reduce).

        Raises:
            queue.Full: it is settled already.
        """
        with _lock:
            if self._done:
                raise queue.Full
            super().set_get_hook(func)

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call back once it is settled: now if it is, else on the settling thread."""
        with _lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        callback()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait on the loop for the value.

        Raises:
            RuntimeError: its value is computed by a blocking hook.
        """
        if self._get_hook is not None:
            raise RuntimeError(_LAZY)
        if not self._done:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            self.add_done_callback(lambda: _wake(loop, waiter))
            yield from waiter
        result: T = self._outcome()
        return result

    __iter__ = __await__


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    if _running_loop() is loop:
        _release(waiter)
        return
    try:
        loop.call_soon_threadsafe(_release, waiter)
    except RuntimeError:  # the waiting loop was closed: nobody waits there any more
        return


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # its task may have been cancelled meanwhile
        waiter.set_result(None)
