"""Keeps the pauses of Python's garbage collector short (ADR 17).

New objects are looked at in small portions, as often as it takes for a look to be short;
what survives two looks is set aside (`gc.freeze`) and looked at again only by
`GarbageKeeper.look`, which is done by itself when it is known to be quick. Objects that die
by reference counting, nearly all, are freed at once wherever they are.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.runtime.clock import Clock, Handle

__all__ = ["GarbageKeeper", "Look"]

PORTION = 4000
"""New containers between two looks at the youngest: 1 to 2 ms."""

SECOND_LOOK = 1
"""Looks at the youngest between two at those that survived one: at most 3 portions."""

NEVER = 2**31 - 1

MIN_EVERY_S, MAX_EVERY_S = 0.002, 0.1
GOOD_PAUSE_S = 0.0005
"""Young objects are looked at so often that it takes so long. By their number alone it would be
too late: Python counts those that were made less those that died, and where requests replace
what former ones left (replies that are remembered) the difference does not grow, but the
young do, to 20 000 (9 ms) with 1000 requests/s."""

LOOK_EVERY_S = 600.0
MAX_PAUSE_S = 0.02
"""A look at everything is taken by itself if it will not hold the loop for longer."""

COLLECTS_IN_STEPS = sys.version_info >= (3, 14)
"""Later Pythons do by themselves what is done here; setting aside would be in their way."""


@attrs.frozen
class Look:
    """A look at all objects.

    Attributes:
        seconds: the loop stood still.
        found: objects in cycles that nobody could reach; they are freed.
    """

    seconds: float
    found: int


class GarbageKeeper:
    """The process's garbage collection, from `start` to `stop`. At most one a process.

    Args:
        clock: for the look every ten minutes.
        on_pause: called after each collection with its seconds; must be quick.

    Runs on: the loop. A collection runs in whatever thread made the object too many.
    """

    def __init__(self, clock: Clock, on_pause: Callable[[float], object]) -> None:
        self._clock = clock
        self._on_pause = on_pause
        self._before = gc.get_threshold()
        self._timer: Handle | None = None
        self._young_timer: Handle | None = None
        self._every_s = MAX_EVERY_S
        self._generation = 0
        self._began = 0.0
        self._keeps = False
        self._per_block_s = 0.0

    def start(self) -> None:
        """Set aside what start-up made, and collect as the module says from now on."""
        gc.callbacks.append(self._collected)
        self._keeps = not COLLECTS_IN_STEPS
        self.look()
        if self._keeps:
            gc.set_threshold(PORTION, SECOND_LOOK, NEVER)
            self._young_timer = self._clock.call_later(self._every_s, self._look_at_young)
        self._timer = self._clock.call_later(LOOK_EVERY_S, self._look_again)

    def stop(self) -> None:
        """Collect as Python does; twice is fine."""
        for timer in (self._timer, self._young_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._young_timer = None
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)
        if self._keeps:
            self._keeps = False
            gc.set_threshold(*self._before)
            gc.unfreeze()

    def look(self) -> Look:
        """Look at all objects now, however long it takes: 0.5 µs for each container."""
        if self._keeps:
            gc.unfreeze()
        began = time.perf_counter()
        found = gc.collect()
        seconds = time.perf_counter() - began
        self._per_block_s = seconds / max(1, sys.getallocatedblocks())
        if self._keeps:
            gc.freeze()
        return Look(seconds, found)

    @property
    def expected_s(self) -> float:
        """About how long `look` would take now."""
        return self._per_block_s * sys.getallocatedblocks()

    def _look_again(self) -> None:
        self._timer = self._clock.call_later(LOOK_EVERY_S, self._look_again)
        if self._keeps and self.expected_s <= MAX_PAUSE_S:
            self.look()

    def _look_at_young(self) -> None:
        """Every other time at those that were looked at once, too."""
        began = time.thread_time()
        gc.collect(self._generation)
        seconds = time.thread_time() - began
        self._generation = 1 - self._generation
        every_s = self._every_s * min(2.0, GOOD_PAUSE_S / max(seconds, 1e-9))
        self._every_s = min(MAX_EVERY_S, max(MIN_EVERY_S, every_s))
        self._young_timer = self._clock.call_later(self._every_s, self._look_at_young)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        self._on_pause(time.perf_counter() - self._began)
        if info["generation"] == 1 and self._keeps:
            gc.freeze()
