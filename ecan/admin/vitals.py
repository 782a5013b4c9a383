"""What is measured for operators only: rates, loop lag, what held the loop up."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ecan.observability import Metrics
    from ecan.runtime import Clock, Stall

SAMPLES = 11
"""Of which the newest and the oldest make the rates: over the last ten seconds."""

MAX_STALLS = 5
MAX_STACK_CHARS = 8000


class _Sample(NamedTuple):
    at_mono: float
    frames_in: int
    requests: int
    errors: int


class VitalSigns:
    """Sampled once a second. Runs on: the loop."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._lags: deque[float] = deque(maxlen=SAMPLES)
        self._stalls: deque[dict[str, Any]] = deque(maxlen=MAX_STALLS)

    def sample(self, lag_s: float) -> None:
        """Look at the counters; ``lag_s`` is how late the loop was."""
        requests = errors = 0
        for figures in self._metrics.methods.values():
            calls = sum(figures.by_status.values())
            requests += calls
            errors += calls - figures.by_status.get("success", 0)
        self._lags.append(lag_s)
        self._samples.append(_Sample(self._clock.mono(), self._metrics.frames_in, requests, errors))

    def stalled(self, stall: Stall) -> None:
        """The loop stood still, or goes on."""
        row = {
            "at": self._clock.now(),
            "what": str(stall.label or ""),
            "seconds": round(stall.seconds, 3),
            "stack": stall.stack[-MAX_STACK_CHARS:],
        }
        if stall.ended and self._stalls:
            self._stalls.pop()  # the same one, with its whole length
        self._stalls.append(row)

    def read(self) -> dict[str, Any]:
        """As `status` answers them."""
        return {
            "pid": os.getpid(),
            "rates": self._rates(),
            "loop_lag_ms": round(max(self._lags, default=0.0) * 1000, 2),
            "loop_stalls": list(self._stalls),
            "rss_bytes": rss_bytes(),
            "cpu_s": round(time.process_time(), 2),
        }

    def _rates(self) -> dict[str, float]:
        names = ("frames_in", "requests", "errors")
        if len(self._samples) < 2:  # noqa: PLR2004 - a rate needs two
            return {f"{name}_s": 0.0 for name in names}
        first, last = self._samples[0], self._samples[-1]
        span_s = last.at_mono - first.at_mono or 1.0
        return {
            f"{name}_s": round((getattr(last, name) - getattr(first, name)) / span_s, 1)
            for name in names
        }


def rss_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):  # pragma: no cover - not on Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
