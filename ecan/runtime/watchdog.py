"""Notices that the event loop stands still, and says where.

A handler that computes or blocks on the loop stops all sessions. The loop beats
every `interval_s`; a thread looks at the beat, and when it is too old takes the
loop's stack while the culprit is still on it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stall", "StallWatchdog"]

logger = logging.getLogger("ecan.runtime")


@attrs.frozen
class Stall:
    """The loop did not turn.

    Attributes:
        label: what ran, as `StallWatchdog.current` says, else the task's name, else None.
        seconds: since the last beat; up to one interval more than the truth.
        stack: the loop thread's stack when the stall was noticed.
        ended: False when noticed, True when the loop turns again.
    """

    label: Any
    seconds: float
    stack: str
    ended: bool


class StallWatchdog:
    """Watches one loop; reports a stall when noticed and again when it ends.

    A stall is noticed when the last beat is older than ``threshold_s``, so one that
    lasts threshold + interval is never missed. If the watching thread itself was
    not run for that long (machine suspended, process stopped), nothing is reported:
    nobody in this process is to blame.

    Args:
        loop: the loop to watch.
        threshold_s: seconds without a turn that are too many.
        interval_s: seconds between beats, and between looks (measured: 0.8 % of
            a CPU at 25 ms).
        on_stall: called on the loop once it turns again, first with the stall as
            noticed, then with its end. The log warning comes at once, from the
            watching thread: a loop that never returns is seen too.

    Attributes:
        current: what runs on the loop now; actors set it around synchronous work
            (anything with a readable str; None for nothing).

    Runs on: `start` and `stop` on the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threshold_s: float = 0.1,
        interval_s: float = 0.025,
        on_stall: Callable[[Stall], object] | None = None,
    ) -> None:
        self.current: Any = None
        self.threshold_s = threshold_s
        self.interval_s = interval_s
        self._loop = loop
        self._on_stall = on_stall
        self._beat_mono = 0.0
        self._loop_thread_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; the loop must run."""
        self._loop_thread_id = threading.get_ident()
        self._stopped.clear()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="ecan-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; does not wait for the thread."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        # time.monotonic, not loop.time: a loop with simulated time still stalls in
        # real time.
        self._beat_mono = time.monotonic()
        self._timer = self._loop.call_later(self.interval_s, self._beat)

    # -- on the watching thread ------------------------------------------------

    def _watch(self) -> None:
        stall: Stall | None = None
        stalled_beat_mono = 0.0
        looked_mono = time.monotonic()
        while not self._stopped.wait(self.interval_s):
            now_mono = time.monotonic()
            overslept = now_mono - looked_mono > self.interval_s + self.threshold_s
            looked_mono = now_mono
            beat_mono = self._beat_mono
            if stall is not None:
                if beat_mono != stalled_beat_mono:
                    self._report(
                        attrs.evolve(stall, seconds=beat_mono - stalled_beat_mono, ended=True)
                    )
                    stall = None
            elif now_mono - beat_mono > self.threshold_s and not overslept:
                stalled_beat_mono = beat_mono
                stall = Stall(self._label(), now_mono - beat_mono, self._stack(), ended=False)
                self._report(stall)

    def _label(self) -> Any:
        if self.current is not None:
            return self.current
        task = asyncio.current_task(self._loop)
        return None if task is None else task.get_name()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001  documented
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def _report(self, stall: Stall) -> None:
        if stall.ended:
            logger.warning("loop.resumed after %.3f s (%s)", stall.seconds, stall.label)
        else:
            logger.warning(
                "loop.stalled for %.3f s so far (%s)\n%s", stall.seconds, stall.label, stall.stack
            )
        if self._on_stall is not None:
            try:
                self._loop.call_soon_threadsafe(self._on_stall, stall)
            except RuntimeError:  # the loop is closed
                self._stopped.set()
