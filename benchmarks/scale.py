"""Does anything cost more because there are many sessions in memory?

Three servers, each in a process of its own, hold 1000, 10 000 and 100 000 sessions (the
store is in memory, so that its files have no say), all of them with a connection that is
no socket. They take turns in short slices on one CPU, so that a machine that becomes
faster or slower does so for all; a ratio is to the slice with 1000 sessions before it.

- a request of a session chosen at random among all, and among 1000 of them. The first one
  finds next to nothing of its session in the CPU's cache when there are many; that is what
  separates it from the second, not a line of code that runs more often;
- look-ups in the directory, re-scheduling in the reaper's heap (and the slowest of them,
  which rebuilds it);
- 10 000 sessions become idle in the same moment: how long the loop is held at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import orjson

from benchmarks import in_process
from benchmarks.harness import ROOT, SERVER_CPU, median, pin, table
from benchmarks.in_process import BATCH, Bench, watch_loop

COUNTS = (1_000, 10_000, 100_000)
BUSY = 1000
IDLE_AT_ONCE = 10_000
METHODS: dict[str, Any] = {
    "ping": None,
    "debug.state_get": {"key": "n"},
    "debug.incr": {"key": "n"},
}
PASSIVATE_S, CLOSE_S = 1e4, 1e6
LONG_AGO_S = {"passivated": 10 * PASSIVATE_S, "closed": 10 * CLOSE_S}


# -- the process with the sessions -----------------------------------------------------------


class Worker:
    """Does what the parent says, a JSON line each."""

    def __init__(self, server: Bench) -> None:
        self._bench = server
        self._app = server.app
        self._connections: list[Any] = []
        self._random = random.Random(1)

    async def create(self, count: int) -> dict[str, Any]:
        """Sessions with a connection and a slot each."""
        started, cpu = time.perf_counter(), time.process_time()
        await self._bench.create(count)
        created = (time.process_time() - cpu) / count * 1e6
        self._connections = [self._bench.connection() for _ in range(count)]
        await self._ask("debug.incr", list(range(count)))
        return {"seconds": time.perf_counter() - started, "creation_cpu_us": created}

    async def settle(self) -> dict[str, Any]:
        """The heap as it is after a while: in huge pages, if it is big enough for that."""
        return {"huge_pages_bytes": self._app.huge_pages.pass_now()}

    async def _ask(self, method: str, chosen: list[int]) -> float:
        """CPU microseconds each."""
        frames = [self._bench.frame(self._bench.opened[i], method, METHODS[method]) for i in chosen]
        done, total = self._bench.wire.frames, len(chosen)
        receive = self._app.router.receive
        cpu = time.process_time()
        for first in range(0, total, BATCH):
            last = min(total, first + BATCH)
            for i in range(first, last):
                receive(self._connections[chosen[i]], frames[i])
            await self._bench.answered(done + last)
        return (time.process_time() - cpu) / total * 1e6

    async def ask(self, method: str, among: int, count: int) -> float:
        """A slice of requests of sessions chosen at random."""
        sessions = len(self._connections)
        # Those that are busy are scattered in memory, as users are who come and go.
        step = max(1, sessions // among)
        chosen = [self._random.randrange(min(among, sessions)) * step for _ in range(count)]
        return await self._ask(method, chosen)

    async def directory(self, looks: int) -> dict[str, float]:
        """Look-ups, and the heap of deadlines."""
        directory, reaper = self._app.directory, self._app.sessions._supervisor._reaper
        sids = [cell.sid for cell in directory]
        chosen = [sids[self._random.randrange(len(sids))] for _ in range(looks)]
        get = directory.get
        cpu = time.process_time()
        for sid in chosen:
            get(sid)
        get_ns = (time.process_time() - cpu) / looks * 1e9
        cells = [get(sid) for sid in chosen]
        slowest = 0.0
        cpu = time.process_time()
        for cell in cells:
            began = time.perf_counter()
            reaper.schedule(cell)
            slowest = max(slowest, time.perf_counter() - began)
        schedule_us = (time.process_time() - cpu) / looks * 1e6
        # Enough to see the heap rebuilt at least once.
        for _ in range(3):
            for cell in directory:
                began = time.perf_counter()
                reaper.schedule(cell)
                slowest = max(slowest, time.perf_counter() - began)
        cpu = time.process_time()
        for _ in range(1000):
            self._app.sessions.count()
        count_ns = (time.process_time() - cpu) / 1000 * 1e9
        cpu = time.process_time()
        for _ in range(10):
            self._app.sessions.by_state()
        by_state_ms = (time.process_time() - cpu) / 10 * 1e3
        return {
            "get_ns": get_ns,
            "count_ns": count_ns,
            "by_state_ms": by_state_ms,
            "schedule_us": schedule_us,
            "slowest_schedule_ms": slowest * 1000,
        }

    async def reap(self, becoming: str, count: int) -> dict[str, float]:
        """So many become idle at once: passivated, or closed."""
        reaper = self._app.sessions._supervisor._reaper
        cells = [c for c in self._app.directory if c.state == "active" and c.actor is not None]
        for connection in self._connections:
            connection.lost()
        self._connections = []
        await asyncio.sleep(len(cells) / 20_000)  # until that has been taken note of
        chosen = self._random.sample(cells, min(count, len(cells)))
        gone = self._app.clock.mono() - LONG_AGO_S[becoming]
        gc.collect(0)
        for cell in chosen:
            cell.last_active_mono = cell.detached_mono = gone
            reaper.schedule(cell)
        left = list(chosen)

        def done() -> bool:
            while left and left[-1].state == becoming:
                left.pop()
            return not left

        seen = await watch_loop(done)
        return {
            "count": len(chosen),
            **seen,
            "cpu_us_each": seen["cpu_s"] / len(chosen) * 1e6,
        }


async def _worker(folder: str) -> None:
    changes = {
        "passivate_after_s": PASSIVATE_S,
        "passivate_detached_after_s": PASSIVATE_S,
        "session_timeout_s": CLOSE_S,
    }
    async with in_process.bench(folder, **changes) as server:
        worker = Worker(server)
        for line in sys.stdin:
            command, arguments = orjson.loads(line)
            answer = await getattr(worker, command)(**arguments)
            sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
            sys.stdout.buffer.flush()


# -- outside -------------------------------------------------------------------------------


class Process:
    """A worker from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps([command, arguments]) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"scale: the worker ended at {command}")
        return orjson.loads(line)


@contextlib.contextmanager
def working() -> Iterator[Process]:
    """A worker, on the server's CPU."""
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scale", folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: pin(0, SERVER_CPU),
        )
        try:
            yield Process(process)
        finally:
            process.kill()
            process.wait()


def requests(workers: dict[int, Process], rounds: int, slice_: int) -> dict[str, Any]:
    """Slices in turn: CPU of a request, and its ratio to that with the fewest sessions."""
    first = min(workers)
    found: dict[str, dict[int, list[float]]] = {}
    ratios: dict[str, dict[int, list[float]]] = {}
    for number in range(rounds + 1):
        for method in METHODS:
            for spread in ("all", "busy"):
                base = 0.0
                for count, worker in workers.items():
                    among = count if spread == "all" else BUSY
                    cost = worker("ask", method=method, among=among, count=slice_)
                    base = base or cost
                    if number:  # the first warms up
                        key = f"{method} {spread}"
                        found.setdefault(key, {}).setdefault(count, []).append(cost)
                        ratios.setdefault(key, {}).setdefault(count, []).append(cost / base)
    return {
        key: {
            str(count): {
                "cpu_us": median(costs),
                "ratio": median(ratios[key][count]) if count != first else 1.0,
            }
            for count, costs in of.items()
        }
        for key, of in found.items()
    }


def made(count: int, worker: Process) -> Any:
    """Sessions of a worker, what they cost, and how much of them is in huge pages."""
    return {**worker("create", count=count), **worker("settle")}


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    counts = (50, 200) if quick else COUNTS
    rounds, slice_, looks, idle = (1, 100, 200, 50) if quick else (9, 4000, 50_000, IDLE_AT_ONCE)
    with contextlib.ExitStack() as stack:
        workers = {count: stack.enter_context(working()) for count in counts}
        creations = {count: made(count, worker) for count, worker in workers.items()}
        asked = requests(workers, rounds, slice_)
        reaped = {
            becoming: {
                count: worker("reap", becoming=becoming, count=min(idle, count // 3))
                for count, worker in workers.items()
            }
            for becoming in LONG_AGO_S
        }
        looked = {count: worker("directory", looks=looks) for count, worker in workers.items()}
    result = {
        "counts": list(counts),
        "creation": {str(k): v for k, v in creations.items()},
        "requests": asked,
        "directory": {str(k): v for k, v in looked.items()},
        "reaped": {what: {str(k): v for k, v in of.items()} for what, of in reaped.items()},
    }
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    counts = [str(count) for count in result["counts"]]
    print("\nSessions in memory, CPU us of one request without its socket (x the first)")
    names = {"all": "of any session", "busy": f"of {BUSY} busy ones"}
    print(
        table(
            ["", *counts],
            [
                [
                    f"{key.split()[0]}, {names[key.split()[1]]}",
                    *(f"{of[n]['cpu_us']:.1f} ({of[n]['ratio']:.2f})" for n in counts),
                ]
                for key, of in result["requests"].items()
            ],
        )
    )
    directory, reaped = result["directory"], result["reaped"]
    rows: list[list[Any]] = [
        [label, *(directory[n][key] for n in counts)]
        for label, key in (
            ("look-up by id, ns", "get_ns"),
            ("number of sessions, ns", "count_ns"),
            ("sessions by state (/metrics, status), ms", "by_state_ms"),
            ("new deadline, us", "schedule_us"),
            ("slowest new deadline (heap rebuilt), ms", "slowest_schedule_ms"),
        )
    ]
    rows.append(["creation, CPU us", *(result["creation"][n]["creation_cpu_us"] for n in counts)])
    rows.append(
        [
            "in huge pages, MB",
            *(result["creation"][n]["huge_pages_bytes"] / 2**20 for n in counts),
        ]
    )
    for becoming, of in reaped.items():
        rows.append([f"idle at once, {becoming}: how many", *(of[n]["count"] for n in counts)])
        rows.append(["  CPU us each", *(of[n]["cpu_us_each"] for n in counts)])
        rows.append(
            [
                "  longest hold of the loop, ms (CPU)",
                *(f"{of[n]['hold_ms']:.1f} ({of[n]['hold_cpu_ms']:.1f})" for n in counts),
            ]
        )
    print(table(["", *counts], rows))


def main(folder: str) -> None:
    """Be a worker."""
    import uvloop

    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_worker(folder))


if __name__ == "__main__":
    main(sys.argv[1])
