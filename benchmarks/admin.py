"""What an operator's look at many sessions costs the others: loop time, and its longest slice.

    python -m benchmarks.admin [--sessions 10000]

The loop belongs to everybody: a list is made in slices, and between two of them frames
are handled. Measured inside the server's process, over the real socket: the CPU time of
the loop's thread for one page, and the longest time the loop did not turn.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import statistics
import time

from ecan.admin.client import AsyncClient
from ecan.testing import running_app

PAGES = 15


class Turns:
    """Measures the gaps between turns of the loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._running = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.perf_counter()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        if self._running:
            self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._running = False


async def measure(operator: AsyncClient, method: str, params: dict) -> tuple[float, float]:
    """Median of loop time and of the longest slice of one page, in ms; the client's share is in it."""
    times, slices = [], []
    for _ in range(PAGES):
        turns = Turns()
        await asyncio.sleep(0.01)
        turns.longest_s = 0.0
        before = time.perf_counter()
        await operator.call(method, params)
        times.append(time.perf_counter() - before)
        slices.append(turns.longest_s)
        turns.stop()
        await asyncio.sleep(0)
    return statistics.median(times) * 1000, statistics.median(slices) * 1000


async def main(count: int) -> None:
    logging.disable(logging.INFO)
    settings = {
        "max_sessions": 2 * count,
        "passivate_detached_after_s": 86400.0,
        "passivate_after_s": 86400.0,
    }
    async with running_app(**settings) as server, server.admin() as operator:
        began = time.perf_counter()
        for _ in range(max(1, count // 5000)):
            await operator.call("sessions.create", {"user": "admin", "count": min(count, 5000)})
        print(f"{count} sessions made in {time.perf_counter() - began:.1f} s")
        gc.collect()
        gc.freeze()
        print(f"{'page of 100':34}{'ms':>8}{'longest slice ms':>18}")
        for sort in ("created", "user", "idle", "traffic", "queue", "restarts", "bytes"):
            ms, longest = await measure(operator, "sessions.list", {"sort": sort})
            print(f"in memory, by {sort:20}{ms:8.1f}{longest:18.2f}")
        ms, longest = await measure(operator, "sessions.list", {"limit": 1000})
        print(f"{'in memory, page of 1000':34}{ms:8.1f}{longest:18.2f}")
        ms, longest = await measure(operator, "sessions.list", {"state": "failed"})
        print(f"{'none matches':34}{ms:8.1f}{longest:18.2f}")
        cell = next(iter(server.app.directory))
        ms, longest = await measure(operator, "sessions.show", {"sid": cell.sid[:8]})
        print(f"{'show, by the beginning of the id':34}{ms:8.1f}{longest:18.2f}")
        ms, longest = await measure(operator, "status", {})
        print(f"{'status':34}{ms:8.1f}{longest:18.2f}")
        for cell in server.app.directory:
            cell.actor.halt()
            cell.actor = None
            server.app.directory.evict(cell)
        ms, longest = await measure(operator, "sessions.list", {})
        print(f"{'at rest (sqlite)':34}{ms:8.1f}{longest:18.2f}")
        ms, longest = await measure(operator, "sessions.list", {"limit": 1000})
        print(f"{'at rest, page of 1000':34}{ms:8.1f}{longest:18.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    asyncio.run(main(parser.parse_args().sessions))
