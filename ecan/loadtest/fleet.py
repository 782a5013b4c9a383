"""The generator processes of a run: started, told, heard, merged."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import attrs
import orjson

from ecan.loadtest.counts import Counts
from ecan.loadtest.generator import MAX_LINE_BYTES
from ecan.loadtest.processes import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecan.loadtest.generator import Job

HEAD_START_S = 0.3
"""From the word go to the start of the plan."""


class FleetError(Exception):
    """A generator could not do its job; ``str`` says why."""


class Seconds:
    """Ticks of all processes, merged by second."""

    def __init__(self, of: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._of = of
        self._open: dict[int, list[dict[str, Any]]] = {}

    def add(self, tick: dict[str, Any]) -> dict[str, Any] | None:
        """Add one; the row of a second that is complete, else None."""
        ticks = self._open.setdefault(tick["second"], [])
        ticks.append(tick)
        if len(ticks) < self._of:
            return None
        del self._open[tick["second"]]
        latency = Counts.merged(Counts.load(t["latency"]) for t in ticks)
        row: dict[str, Any] = {"second": tick["second"]}
        for key in ("sent", "ok", "errors", "dropped", "connected", "under_way", "violations"):
            row[key] = sum(t[key] for t in ticks)
        for name, percentile in (("p50_ms", 50), ("p90_ms", 90), ("p99_ms", 99), ("max_ms", 100)):
            row[name] = latency.quick_ms(percentile)
        self.rows.append(row)
        return row


class Fleet:
    """Some generator processes; an asynchronous context manager.

    Args:
        jobs: one for each.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.start_mono = 0.0
        self.seconds = Seconds(len(jobs))
        self._jobs = jobs
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for job in self._jobs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ecan.loadtest.generator",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                env=os.environ,
                # Ctrl-C is for the coordinator, which tells them to stop.
                start_new_session=True,
            )
            self._processes.append(process)
            self._tell(process, attrs.asdict(job))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            await end(process)

    @staticmethod
    def _tell(process: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
        assert process.stdin is not None  # noqa: S101 - a pipe
        if not process.stdin.is_closing():
            process.stdin.write(orjson.dumps(message) + b"\n")

    @staticmethod
    async def _hear(process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None  # noqa: S101 - a pipe
        line = await process.stdout.readline()
        if not line:
            raise FleetError("a generator process ended; its error is above")
        message: dict[str, Any] = orjson.loads(line)
        if "error" in message:
            raise FleetError(message["error"])
        return message

    async def connected(self) -> int:
        """Wait until all users are connected; how many.

        Raises:
            FleetError: some could not.
        """
        ready = await asyncio.gather(*(self._hear(process) for process in self._processes))
        return sum(message["ready"] for message in ready)

    def go(self) -> float:
        """Start the plan; when that is, on the monotonic clock."""
        self.start_mono = time.monotonic() + HEAD_START_S
        for process in self._processes:
            self._tell(process, {"go": self.start_mono})
        return self.start_mono

    def stop(self) -> None:
        """End early; `results` comes soon."""
        for process in self._processes:
            self._tell(process, {"stop": True})

    async def results(self, on_second: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Hear them to the end: what each process has counted.

        Args:
            on_second: gets the row of each second.

        Raises:
            FleetError: one of them failed.
        """

        async def hear(process: asyncio.subprocess.Process) -> dict[str, Any]:
            while True:
                message = await self._hear(process)
                if "done" in message:
                    done: dict[str, Any] = message["done"]
                    return done
                row = self.seconds.add(message["tick"])
                if row is not None:
                    on_second(row)

        return list(await asyncio.gather(*(hear(process) for process in self._processes)))
