"""Where every time, delay and date of the project comes from.

Two kinds of time, told apart by their names: ``*_mono`` is seconds on a clock
that never jumps and means nothing outside the process (time-outs, idle
deadlines, back-off); ``*_at`` is UTC epoch seconds (what is stored and shown).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "Handle", "LoopClock"]


class Handle(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Make sure the callback is not called; twice is fine."""


class Clock(Protocol):
    """Tells the time and calls back later; injected everywhere.

    Two implementations: `LoopClock` in the server,
    `ecan.testing.clock.FakeClock` in pure tests and the simulator.
    """

    def mono(self) -> float:
        """Seconds on a monotonic clock; only differences mean something."""

    def now(self) -> float:
        """UTC epoch seconds; may jump when the system's clock is set."""

    def call_at(self, when_mono: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` when `mono` has reached ``when_mono``."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` in ``delay_s`` seconds."""

    async def sleep(self, delay_s: float) -> None:
        """Wait ``delay_s`` seconds; zero lets others run once."""


class LoopClock:
    """The real clock, on an asyncio loop.

    `mono` is ``loop.time()``, so that a loop with simulated time (looptime)
    carries the whole tree with it; on uvloop, whose ``time()`` counts whole
    milliseconds and stands still within a turn, it is ``time.monotonic``, which has
    the same origin. `now` is asked of the system each time: wall
    time at start plus elapsed `mono` would stand still while a machine sleeps.

    Args:
        loop: None takes the running one.
        wall: gives UTC epoch seconds; for tests of dates.

    Runs on: the loop.
    """

    __slots__ = ("_loop", "_wall", "call_at", "call_later", "mono", "now")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._wall = wall
        # Bound here instead of delegating in methods: `mono` is asked for every
        # frame, and one Python call less is a third of its cost.
        coarse = type(self._loop).__module__.partition(".")[0] == "uvloop"
        self.mono: Callable[[], float] = time.monotonic if coarse else self._loop.time
        self.now: Callable[[], float] = wall
        self.call_at: Callable[..., Handle] = self._loop.call_at
        self.call_later: Callable[..., Handle] = self._loop.call_later

    async def sleep(self, delay_s: float) -> None:
        """Wait ``delay_s`` seconds of the loop's time."""
        await asyncio.sleep(delay_s)
