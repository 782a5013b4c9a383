"""CPU and memory of the server: from /proc when it is here, from its metrics when told where."""

from __future__ import annotations

import asyncio
import os
import re
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(?P<value>[-+\w.]+)")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SCRAPE_TIMEOUT_S = 2.0
MAX_SCRAPE_BYTES = 16 << 20

METRICS = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "ecan_sessions",
    "ecan_connections",
    "ecan_frames_in_total",
    "ecan_commits_total",
    "ecan_crashes_total",
    "ecan_restarts_total",
    "ecan_replays_total",
    "ecan_stalls_total",
    "ecan_worker_threads",
    "ecan_rejected_total",
)
"""What is kept of a scrape; series of one name are added up."""


def parse_metrics(text: str) -> dict[str, float]:
    """The metrics of interest in a Prometheus text.

    >>> parse_metrics('ecan_sessions{state="active"} 3')
    {'ecan_sessions': 3.0}
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None and match["name"] in METRICS:
            try:
                found[match["name"]] = found.get(match["name"], 0.0) + float(match["value"])
            except ValueError:
                continue
    return found


def _scrape(url: str) -> dict[str, float]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not an http:// address")
    with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as answer:  # noqa: S310 - checked
        return parse_metrics(answer.read(MAX_SCRAPE_BYTES).decode("utf-8", "replace"))


def read_proc(pid: int) -> tuple[float, int] | None:
    """CPU seconds and resident bytes of a process of this machine; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S, pages * _PAGE_BYTES


class Sampler:
    """Samples of the server, one a call.

    Args:
        pid: of the server now; None: not on this machine, or not running.
        metrics_url: where to scrape, or None.
    """

    def __init__(self, pid: Callable[[], int | None], metrics_url: str | None = None) -> None:
        self.problem: str | None = None
        self._pid, self._url = pid, metrics_url
        self._last: tuple[int | None, float, float] | None = None

    async def sample(self) -> dict[str, Any]:
        """``cpu`` (1.0 is one core) and ``rss_bytes``, and ``metrics`` as scraped."""
        metrics: dict[str, float] = {}
        if self._url is not None:
            try:
                metrics = await asyncio.to_thread(_scrape, self._url)
            except (OSError, ValueError) as error:
                self.problem = f"cannot scrape {self._url}: {error}"
        pid = self._pid()
        proc = None if pid is None else read_proc(pid)
        cpu_s: float | None
        rss: float | None
        if proc is not None:
            cpu_s, rss = proc
        else:
            cpu_s = metrics.get("process_cpu_seconds_total")
            rss = metrics.get("process_resident_memory_bytes")
        now = time.monotonic()
        sample: dict[str, Any] = {}
        if cpu_s is not None:
            last = self._last
            if last is not None and last[0] == pid and cpu_s >= last[1] and now > last[2]:
                sample["cpu"] = round((cpu_s - last[1]) / (now - last[2]), 3)
            self._last = (pid, cpu_s, now)
        if rss is not None:
            sample["rss_bytes"] = int(rss)
        if metrics:
            sample["metrics"] = metrics
        return sample
