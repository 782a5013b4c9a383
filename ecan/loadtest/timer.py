"""A one-shot timer on the monotonic clock, finer than a loop's millisecond (Linux timerfd)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TFD_TIMER_ABSTIME = 1
_LEAST_NS = 1
"""0 would disarm it."""


class Timer:
    """Calls ``due`` once, at the time given to `set`; elsewhere than on Linux to a millisecond.

    Runs on: the loop.
    """

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            # time.monotonic is CLOCK_MONOTONIC there.
            self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._fired)

    def set(self, at_mono: float) -> None:
        """Fire at this time, at once if it is past; replaces what was set before."""
        if self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            delay = max(0.0, at_mono - time.monotonic())
            self._handle = self._loop.call_later(delay, self._due)
            return
        ns = max(_LEAST_NS, int(at_mono * 1e9))
        spec = (ctypes.c_long * 4)(0, 0, ns // 1_000_000_000, ns % 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._due()

    def close(self) -> None:
        """Never fire again."""
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
