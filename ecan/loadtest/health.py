"""Whether the generator itself keeps up: how late its loop wakes, how much CPU it takes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ecan.loadtest.counts import Counts

BEAT_S = 0.005
MAX_CPU = 0.9
LAG_PERCENTILE = 99.0


class Health:
    """Watches the loop of this process while `measuring` is set.

    Attributes:
        lag: how much later than asked for the loop called back.
        measuring: what is seen now counts; warm-ups do not.
    """

    def __init__(self) -> None:
        self.lag = Counts()
        self.measuring = False
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._cpu_s = self._wall_s = 0.0
        self._mark = (time.process_time(), time.monotonic())

    def start(self) -> None:
        """Begin to watch."""
        self._mark = (time.process_time(), time.monotonic())
        self._next()

    def _next(self) -> None:
        self._handle = self._loop.call_at(self._loop.time() + BEAT_S, self._beat, time.monotonic())

    def _beat(self, set_at: float) -> None:
        cpu, now = time.process_time(), time.monotonic()
        if self.measuring:
            self.lag.add(max(0.0, now - set_at - BEAT_S))
            self._cpu_s += cpu - self._mark[0]
            self._wall_s += now - self._mark[1]
        self._mark = (cpu, now)
        self._next()

    def stop(self) -> None:
        """Stop watching."""
        if self._handle is not None:
            self._handle.cancel()

    def dump(self) -> dict[str, Any]:
        """For JSON."""
        return {"lag": self.lag.dump(), "cpu_s": self._cpu_s, "wall_s": self._wall_s}


def verdict(lag_ms: float | None, cpu: float, max_lag_s: float) -> list[str]:
    """Why what was measured is not to be trusted; empty if it is.

    >>> verdict(3.0, 0.4, 0.02)
    []
    >>> verdict(55.0, 0.97, 0.02)
    ['its loop was 55 ms late (p99, allowed 20 ms)', 'it used 97 % of a CPU (allowed 90 %)']
    """
    reasons = []
    if lag_ms is not None and lag_ms > max_lag_s * 1000:
        reasons.append(
            f"its loop was {lag_ms:.0f} ms late (p99, allowed {max_lag_s * 1000:.0f} ms)"
        )
    if cpu > MAX_CPU:
        reasons.append(f"it used {cpu * 100:.0f} % of a CPU (allowed {MAX_CPU * 100:.0f} %)")
    return reasons
