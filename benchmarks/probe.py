"""Handlers for servers that are measured (ECAN_HANDLERS=benchmarks.probe): what the loop sees.

The server is the one of production; only these methods are added.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

from benchmarks.crowd import spread_ms
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

TICK_S = 0.001
"""The longest hold of the loop is known to about this."""


class Ticks:
    """How late a timer of the loop is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late_s: list[float] = []
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._last = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._late_s.append(max(0.0, now - self._last - TICK_S))
        self._last = now
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def stop(self) -> dict[str, float]:
        """The end; percentiles of all that was seen."""
        self._timer.cancel()
        self._late_s.append(max(0.0, time.perf_counter() - self._last - TICK_S))
        return spread_ms(self._late_s)


_ticks: list[Ticks] = []


@handler("bench.ticks_start", reads=True)
async def ticks_start(ctx: UserContext) -> bool:
    """Begins to look how long the loop is held."""
    _ticks.append(Ticks())
    return True


@handler("bench.ticks_stop", reads=True)
async def ticks_stop(ctx: UserContext) -> dict[str, float]:
    """How late the loop was since the start."""
    return _ticks.pop().stop()


def _is_socket(handle: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{handle}").startswith("socket:")
    except OSError:  # the one that listed them
        return False


@handler("bench.vitals", reads=True)
async def vitals(ctx: UserContext) -> dict[str, Any]:
    """What must not grow in a server that is only used."""
    handles = [_is_socket(name) for name in os.listdir("/proc/self/fd")]
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "handles": len(handles),
        "sockets": sum(handles),
        "blocks": sys.getallocatedblocks(),
    }


HANDLERS = [ticks_start, ticks_stop, vitals]
