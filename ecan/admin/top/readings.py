"""What the screen's header shows, from look to look: rates, latencies, sparklines. Pure.

Latencies are of the last ten looks or so: the server's histograms only ever grow, so what
was observed in between is their difference.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from typing import Any

LOOKS = 120
_WINDOW = 10
_BARS = "▁▂▃▄▅▆▇█"
_BUCKET = re.compile(
    r'^ecan_request_run_seconds_bucket\{.*?le="([^"]+)".*?\} ([0-9.e+]+)', re.MULTILINE
)


class Readings:
    """The last `LOOKS` looks at a server."""

    def __init__(self) -> None:
        self.requests: deque[float] = deque(maxlen=LOOKS)
        self.p99: deque[float] = deque(maxlen=LOOKS)
        self.p50_ms: float | None = None
        self.p99_ms: float | None = None
        self.cpu_percent = 0.0
        self._buckets: deque[Counter[float]] = deque(maxlen=_WINDOW)
        self._before: dict[str, Any] = {}

    def look(self, status: dict[str, Any], metrics: str) -> None:
        """One more; a server that was started anew starts over."""
        if status["uptime_s"] < self._before.get("uptime_s", 0):
            self._before = {}
            self._buckets.clear()
        self.requests.append(status["rates"]["requests_s"])
        self._buckets.append(run_buckets(metrics))
        grown = Counter(self._buckets[-1])
        grown.subtract(self._buckets[0])
        busy = any(grown.values())
        self.p50_ms = 1000 * quantile(grown, 0.5) if busy else None
        self.p99_ms = 1000 * quantile(grown, 0.99) if busy else None
        self.p99.append(self.p99_ms or 0.0)
        if self._before:
            passed = status["uptime_s"] - self._before["uptime_s"]
            used = status["cpu_s"] - self._before["cpu_s"]
            self.cpu_percent = 100 * used / passed if passed > 0 else self.cpu_percent
        self._before = status


def run_buckets(metrics: str) -> Counter[float]:
    """How long handlers ran, over all methods: upper bound to how many were below it.

    >>> run_buckets('ecan_request_run_seconds_bucket{le="0.1",method="a"} 2.0')
    Counter({0.1: 2})
    """
    counts: Counter[float] = Counter()
    for bound, count in _BUCKET.findall(metrics):
        counts[float(bound)] += int(float(count))
    return counts


def quantile(cumulative: Counter[float], q: float) -> float:
    """By linear interpolation in its bucket; the last bound for what is beyond all.

    >>> quantile(Counter({1.0: 2, 2.0: 4, float("inf"): 4}), 0.75)
    1.5
    """
    bounds = sorted(cumulative)
    total = cumulative[bounds[-1]] if bounds else 0
    low, below = 0.0, 0
    for bound in bounds:
        count = cumulative[bound]
        if total and count >= q * total and count > below:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (q * total - below) / (count - below)
        low, below = bound, count
    return 0.0


def sparkline(values: deque[float], width: int) -> str:
    """The last values, the highest of them a full bar.

    >>> sparkline(deque([0, 1, 2]), 4)
    ' ▁▅█'
    """
    last = list(values)[-width:] if width > 0 else []
    top = max(last, default=0) or 1
    bars = (_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in last)
    return "".join(bars).rjust(width)
