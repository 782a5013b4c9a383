"""Many sessions in one process, without sockets: memory, creation, messages, reaping, login.

Each part runs in a process of its own, ``python -m benchmarks.sessions PART COUNT``,
bound to the server's CPU, and prints its result as JSON. Frames go through the gateway's
router as if a socket had delivered them; only the WebSocket library is missing. What a
request costs is measured with the store in memory, all else with SQLite as by default.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import orjson

from benchmarks import in_process
from benchmarks.harness import PASSWORD, ROOT, SERVER_CPU, pin, table
from benchmarks.in_process import BATCH, Bench, watch_loop

REAP_AFTER_S = 2.0
"""Idle time of the reaping part beyond what creation takes."""


def rss_bytes() -> int:
    """Resident memory after a collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def traced_bytes() -> int:
    """Allocated Python memory after a collection."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def memory(bench: Bench, count: int, read: Any = rss_bytes) -> dict[str, Any]:
    """Bytes per session: fresh, after a request, passivated; and the cost of creation."""
    await bench.create(BATCH)  # what is made once
    empty = read()
    started, cpu = time.perf_counter(), time.process_time()
    await bench.create(count)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    fresh = read()
    sessions = bench.opened[BATCH:]
    for session in sessions:
        connection = bench.connection()
        done = bench.wire.frames + 1
        bench.app.router.receive(connection, bench.frame(session, "debug.incr", {"key": "number"}))
        await bench.answered(done)
        connection.lost()
    used = read()
    started_down, cpu_down = time.perf_counter(), time.process_time()
    for first in range(0, len(sessions), BATCH):
        await asyncio.gather(
            *(
                bench.app.sessions.steer(session["sid"], "passivate")
                for session in sessions[first : first + BATCH]
            )
        )
    while bench.app.sessions.by_state()["passivated"] < count:
        await asyncio.sleep(0.01)
    cpu_down = time.process_time() - cpu_down
    seconds_down = time.perf_counter() - started_down
    passivated = read()
    # What the benchmark itself keeps of a session: its credentials.
    own = sum(map(sys.getsizeof, (sessions[0], *sessions[0].values()))) + 8
    return {
        "sessions": count,
        "created_per_s": count / seconds,
        "creation_cpu_us": cpu / count * 1e6,
        "fresh_bytes": (fresh - empty) / count - own,
        "used_bytes": (used - empty) / count - own,
        "passivated_bytes": (passivated - empty) / count - own,
        "passivated_per_s": count / seconds_down,
        "passivation_cpu_us": cpu_down / count * 1e6,
        "total_bytes": used,
    }


async def traced(bench: Bench, count: int) -> dict[str, Any]:
    """`memory` as Python counts it; its times mean nothing."""
    tracemalloc.start()
    return await memory(bench, count, traced_bytes)


async def messages(bench: Bench, count: int) -> dict[str, Any]:
    """CPU of one request without the socket, with few and with many sessions."""
    result: dict[str, Any] = {}
    connections: list[Any] = []
    total = min(20_000, count * 2)
    for sessions in sorted({max(1, count // 20), count // 2, count}):
        await bench.create(sessions - len(bench.opened))
        connections += [bench.connection() for _ in range(sessions - len(connections))]
        for method, params in (("ping", None), ("debug.incr", {"key": "n"})):
            costs = []
            for measured in (False, True, True, True):
                gc.collect()
                chosen = [random.randrange(sessions) for _ in range(total)]
                frames = [bench.frame(bench.opened[i], method, params) for i in chosen]
                cpu, done = time.process_time(), bench.wire.frames
                for first in range(0, total, BATCH):
                    for i in range(first, min(total, first + BATCH)):
                        bench.app.router.receive(connections[chosen[i]], frames[i])
                    await bench.answered(done + min(total, first + BATCH))
                if measured:
                    costs.append((time.process_time() - cpu) / total * 1e6)
            result[f"{method} at {sessions}"] = min(costs)
    return result


async def reap(bench: Bench, count: int) -> dict[str, Any]:
    """All sessions become idle at once: how long does the loop stand still?"""
    await bench.create(count)
    gc.collect()
    settings = bench.app.settings
    closing = settings.session_timeout_s < settings.passivate_detached_after_s
    newest = max(cell.detached_mono for cell in bench.app.directory)
    after = settings.session_timeout_s if closing else settings.passivate_detached_after_s
    time.sleep(max(0.0, newest + after + 0.05 - bench.app.clock.mono()))
    by_state = bench.app.sessions.by_state

    def done() -> bool:
        nonlocal looks
        looks += 1
        if looks % 20:
            return False
        return (len(bench.app.directory) == 0) if closing else by_state()["active"] == 0

    looks = 0
    seen = await watch_loop(done)
    return {"sessions": count, **seen, "cpu_us_each": seen["cpu_s"] / count * 1e6}


async def login(bench: Bench, count: int) -> dict[str, Any]:
    """The whole of `login` but for the password hash, one after another."""

    async def fits(*_: Any) -> bool:
        return True

    bench.app.accounts._passwords.verify = fits
    started, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        done = bench.wire.frames + 1
        frame = {
            "id": str(number),
            "type": "request",
            "method": "login",
            "params": {"username": "admin", "password": PASSWORD},
        }
        bench.app.router.receive(bench.connection(), orjson.dumps(frame))
        while bench.wire.frames < done:
            await asyncio.sleep(0.0001)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    await bench.answered(bench.wire.frames)
    return {"logins_per_s": count / seconds, "login_cpu_us": cpu / count * 1e6}


PARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "memory": (memory, {"store": "sqlite"}),
    "traced": (traced, {"store": "sqlite"}),
    "messages": (messages, {}),
    "reap_passivate": (reap, {"store": "sqlite", "session_timeout_s": 1e6}),
    "reap_close": (
        reap,
        {"store": "sqlite", "passivate_after_s": 1e6, "passivate_detached_after_s": 1e6},
    ),
    "login": (login, {}),
}


async def _part(name: str, count: int, folder: str) -> dict[str, Any]:
    part, changes = PARTS[name]
    idle_s = REAP_AFTER_S + count / 2000
    if name == "reap_passivate":
        changes = {**changes, "passivate_detached_after_s": idle_s, "passivate_after_s": idle_s}
    elif name == "reap_close":
        changes = {**changes, "session_timeout_s": idle_s}
    async with in_process.bench(folder, **changes) as server:
        result: dict[str, Any] = await part(server, count)
    return result


def main(name: str, count: int) -> None:
    """Run one part in this process."""
    import uvloop

    with (
        tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print(orjson.dumps(runner.run(_part(name, count, folder))).decode())


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    counts = {
        "memory": 20_000,
        "traced": 5_000,
        "messages": 20_000,
        "reap_passivate": 10_000,
        "reap_close": 10_000,
        "login": 500,
    }
    if quick:
        counts = {name: min(200, count) for name, count in counts.items()}
    result: dict[str, Any] = {}
    for name, count in counts.items():
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.sessions", name, str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: pin(0, SERVER_CPU),
        )
        if process.returncode:
            raise RuntimeError(f"sessions, {name}:\n{process.stderr[-3000:]}")
        result[name] = orjson.loads(process.stdout.splitlines()[-1])
    result["counts"] = counts
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    resident, python = result["memory"], result["traced"]
    print(f"\n{resident['sessions']} sessions in one process, no sockets, store on disk")
    print(
        table(
            ["bytes per session", "resident", f"Python's ({python['sessions']} sessions)"],
            [
                ["fresh", resident["fresh_bytes"], python["fresh_bytes"]],
                ["after one request", resident["used_bytes"], python["used_bytes"]],
                ["passivated", resident["passivated_bytes"], python["passivated_bytes"]],
            ],
        )
    )
    passivate, close = result["reap_passivate"], result["reap_close"]
    print(
        table(
            ["work", "per second", "CPU us each", "longest hold of the loop, ms (CPU)"],
            [
                ["creation", resident["created_per_s"], resident["creation_cpu_us"], "-"],
                [
                    "login without the hash",
                    result["login"]["logins_per_s"],
                    result["login"]["login_cpu_us"],
                    "-",
                ],
                [
                    "passivation, asked for",
                    resident["passivated_per_s"],
                    resident["passivation_cpu_us"],
                    "-",
                ],
                [
                    f"{passivate['sessions']} idle at once, passivated",
                    passivate["sessions"] / passivate["seconds"],
                    passivate["cpu_us_each"],
                    f"{passivate['hold_ms']:.1f} ({passivate['hold_cpu_ms']:.1f})",
                ],
                [
                    f"{close['sessions']} idle at once, closed",
                    close["sessions"] / close["seconds"],
                    close["cpu_us_each"],
                    f"{close['hold_ms']:.1f} ({close['hold_cpu_ms']:.1f})",
                ],
            ],
        )
    )
    print(
        table(
            ["one request, no socket", "CPU us"],
            [[name, cost] for name, cost in result["messages"].items()],
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
