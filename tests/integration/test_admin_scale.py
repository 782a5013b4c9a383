"""Ten thousand sessions are listed in slices: nobody else waits for an operator's page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from ecan.admin.commands import listing, lookup
from ecan.admin.slices import SLICE, slices
from ecan.testing import running_app

COUNT = 10_000


class Turns:
    """Counts the turns of the loop, and the work done in each."""

    def __init__(self, monkeypatch):
        self.number = 0
        self.work = Counter()
        self.longest_s = 0.0
        self._last = time.perf_counter()
        self._running = True
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)

        async def counted(items, size=SLICE):
            async for part in slices(items, size):
                self.work[self.number] += len(part)
                yield part

        for module in (listing, lookup):
            monkeypatch.setattr(module, "slices", counted)

    def _turn(self):
        self.number += 1
        now = time.perf_counter()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        if self._running:
            self._loop.call_soon(self._turn)

    def stop(self):
        self._running = False


@pytest.mark.slow
async def test_a_page_of_ten_thousand_sessions_is_made_in_slices(monkeypatch):
    """Whatever the order; all are found, once, by paging; what it takes is printed."""
    quiet = {"passivate_after_s": 86400.0, "passivate_detached_after_s": 86400.0}
    async with running_app(store="memory", **quiet) as server, server.admin() as operator:
        made = await operator.call("sessions.create", {"user": "admin", "count": COUNT})
        sids = {row["sid"] for row in made["sessions"]}
        assert len(sids) == COUNT

        for sort in listing.KEYS:
            turns = Turns(monkeypatch)
            began = time.perf_counter()
            page = await operator.call("sessions.list", {"sort": sort})
            print(
                f"by {sort}: {(time.perf_counter() - began) * 1000:.1f} ms,"
                f" longest slice {turns.longest_s * 1000:.1f} ms"
            )
            turns.stop()
            assert (len(page["sessions"]), page["total"]) == (100, COUNT)
            assert sum(turns.work.values()) == COUNT + 100
            assert max(turns.work.values()) <= SLICE + listing.ROWS

        turns = Turns(monkeypatch)
        seen, cursor = [], None
        while True:
            page = await operator.call("sessions.list", {"limit": 1000, "cursor": cursor})
            seen += [row["sid"] for row in page["sessions"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        turns.stop()
        assert (len(seen), set(seen)) == (COUNT, sids)
        assert max(turns.work.values()) <= SLICE + listing.ROWS

        # Half of them at rest: those in memory come first, and again each comes once.
        for cell in list(server.app.directory)[::2]:
            cell.actor.halt()
            cell.actor = None
            server.app.directory.evict(cell)
        in_memory = {cell.sid for cell in server.app.directory}
        seen, cursor = [], None
        while True:
            page = await operator.call(
                "sessions.list", {"limit": 700, "cursor": cursor, "sort": "traffic"}
            )
            seen += [row["sid"] for row in page["sessions"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert (len(seen), set(seen)) == (COUNT, sids)
        assert set(seen[: len(in_memory)]) == in_memory
