"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeClock"]


class _FakeHandle:
    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        """Make sure the callback is not called."""
        self.cancelled = True


class FakeClock:
    """A `ecan.runtime.clock.Clock` for pure tests and the simulator.

    >>> clock = FakeClock(mono=100.0)
    >>> seen = []
    >>> handle = clock.call_later(5, seen.append, "five")
    >>> _ = clock.call_later(3, lambda: seen.append(clock.mono()))
    >>> clock.advance(10)
    >>> seen, clock.mono()
    ([103.0, 'five'], 110.0)

    Args:
        mono: where the monotonic time starts.
        at: where UTC epoch seconds start.
    """

    def __init__(self, mono: float = 1000.0, at: float = 1_700_000_000.0) -> None:
        self._mono = mono
        self._offset_s = at - mono
        self._due: list[tuple[float, int, _FakeHandle]] = []
        self._order = itertools.count()

    def mono(self) -> float:
        """Seconds on the monotonic clock."""
        return self._mono

    def now(self) -> float:
        """UTC epoch seconds."""
        return self._mono + self._offset_s

    def jump_wall(self, seconds: float) -> None:
        """Set the system's clock forward or back; `mono` does not notice."""
        self._offset_s += seconds

    def call_at(self, when_mono: float, callback: Callable[..., object], *args: Any) -> _FakeHandle:
        """Call back when `mono` has reached ``when_mono``."""
        handle = _FakeHandle(callback, args)
        heapq.heappush(self._due, (when_mono, next(self._order), handle))
        return handle

    def call_later(
        self, delay_s: float, callback: Callable[..., object], *args: Any
    ) -> _FakeHandle:
        """Call back in ``delay_s`` seconds."""
        return self.call_at(self._mono + delay_s, callback, *args)

    async def sleep(self, delay_s: float) -> None:
        """Wait until somebody else has advanced the clock by ``delay_s``."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():  # its task may have been cancelled and not have run yet
                woken.set_result(None)

        handle = self.call_later(delay_s, wake)
        try:
            await woken
        finally:
            handle.cancel()

    @property
    def next_due_mono(self) -> float | None:
        """When the next callback is due; None when there is none."""
        while self._due and self._due[0][2].cancelled:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def advance(self, seconds: float) -> None:
        """Let time pass; callbacks run in the order they are due, each at its time.

        What a callback schedules within the span runs too.
        """
        end_mono = self._mono + seconds
        while (due := self.next_due_mono) is not None and due <= end_mono:
            _, _, handle = heapq.heappop(self._due)
            self._mono = max(self._mono, due)
            handle.callback(*handle.args)
        self._mono = end_mono
