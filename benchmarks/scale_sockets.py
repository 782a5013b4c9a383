"""What a frame costs the server, its socket included, beside 1000 and 100 000 sessions.

Two servers as in production (store in memory) on one CPU. Each has 1000 connections with
one request in flight each, spread over all its sessions; the other sessions are in memory
and idle. Slices take turns, so a ratio is to the server with few sessions a moment before.
`scale` has the same without sockets, where only the way from frame to answer counts, and
with requests of any session.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    LoadClient,
    Server,
    load_client,
    make_sessions,
    measured,
    median,
    ours,
    table,
)
from ecan.runtime.huge_pages import LOOK_EVERY_S

COUNTS = (1_000, 100_000)
CONNECTIONS = 1_000
METHODS: dict[str, tuple[Any, bool]] = {
    "ping": (None, False),
    "debug.state_get": ({"key": "n"}, False),
    "debug.incr": ({"key": "n"}, True),
}
SETTLED_S = 60.0
"""So long a server may take to put its heap into huge pages (ADR 18)."""


def huge_mb(server: Server) -> float:
    """MB of its heap in huge pages, as the kernel says."""
    for line in Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


async def settled(server: Server) -> float:
    """Wait until no more pages become huge; MB that are."""
    before, until = -1.0, time.perf_counter() + SETTLED_S
    while time.perf_counter() < until:
        await asyncio.sleep(LOOK_EVERY_S + 1.0)
        now = huge_mb(server)
        if now == before:
            break
        before = now
    return before


async def prepare(load: LoadClient, server: Server, count: int, connections: int) -> float:
    """Sessions, connections, workloads; CPU microseconds to make a session."""
    cpu = server.cpu_us()
    sessions = await make_sessions(server, count)
    each = (server.cpu_us() - cpu) / count
    group = str(count)
    await load("connect", group=group, port=server.port, count=connections)
    spread = sessions[:: max(1, count // connections)][:connections]
    for method, (params, counting) in METHODS.items():
        await load(
            "workload",
            name=f"{method} {count}",
            group=group,
            method=method,
            params=params,
            metas=spread,
            counting=counting,
        )
        await load("closed", name=f"{method} {count}", seconds=0.5)  # warms up
    return each


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    counts, connections = ((20, 60), 20) if quick else (COUNTS, CONNECTIONS)
    rounds, slice_s = (1, 0.2) if quick else (9, 1.0)
    first = counts[0]
    cpu_us: dict[str, dict[int, list[float]]] = {m: {c: [] for c in counts} for m in METHODS}
    failed = 0
    with contextlib.ExitStack() as stack:
        servers = {
            count: stack.enter_context(
                ours(
                    ECAN_STORE="memory",
                    ECAN_MAX_SESSIONS="1000000",
                    ECAN_MAX_SESSIONS_PER_USER="1000000",
                    ECAN_PASSIVATE_AFTER="24h",
                    ECAN_PASSIVATE_DETACHED_AFTER="24h",
                )
            )
            for count in counts
        }
        async with load_client() as load:
            created = {c: await prepare(load, s, c, connections) for c, s in servers.items()}
            huge = 0.0 if quick else await settled(servers[counts[-1]])
            for _ in range(rounds):
                for method in METHODS:
                    for count, server in servers.items():
                        row = await measured(
                            load, server, "closed", f"{method} {count}", seconds=slice_s
                        )
                        cpu_us[method][count].append(row["cpu_us"])
                        failed += sum(row["failures"].values())
    rows = {
        method: {
            "cpu_us": {str(count): median(values) for count, values in of.items()},
            "ratio": median([b / a for a, b in zip(of[first], of[counts[-1]], strict=True)]),
        }
        for method, of in cpu_us.items()
    }
    result = {
        "counts": list(counts),
        "connections": connections,
        "creation_cpu_us": {str(count): value for count, value in created.items()},
        "huge_pages_mb": huge,
        "failed": failed,
        "requests": rows,
    }
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    few, many = result["counts"]
    print(
        f"\nA frame with its socket, {result['connections']} connections; the server with "
        f"{many} sessions has {result['huge_pages_mb']:.0f} MB in huge pages; "
        f"{result['failed']} failed"
    )
    print(
        table(
            ["CPU us", f"{few} sessions", f"{many} sessions", "x"],
            [
                [method, row["cpu_us"][str(few)], row["cpu_us"][str(many)], f"{row['ratio']:.2f}"]
                for method, row in result["requests"].items()
            ],
        )
    )
