"""How long a crash, a restart of a session and a restart of the server are noticed.

A session: it crashes, and its next request is sent in the same moment; when is that
answered? An automatic restart waits 0.16 to 0.24 s on purpose (back-off), so beside it
operators restart sessions, which waits for nothing, and a reference server restarts
`pykka` thread actors (no supervision, no state, no store).

The server: it has so many sessions with one connection each, and is told to drain
(SIGTERM) and started again, then killed (-9) and started again. Every client comes back
as soon as it is let, and asks for what it missed. The outage is from the first connection
lost to the last session resumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from typing import Any

from benchmarks.crowd import spread_ms
from benchmarks.harness import (
    AS_DEFAULT,
    Server,
    load_client,
    make_sessions,
    ours,
    reference,
    table,
)
from ecan.testing.client import Client
from ecan.testing.process import free_port

COUNTS = (1_000, 10_000)
AT_ONCE = 8
"""Sessions that crash at the same time: a few, so that they do not wait for each other."""

METHOD = {"ours": "debug.incr", "pykka": "counter.incr"}
PARAMS = {"key": "n"}


# -- a session -----------------------------------------------------------------------------


async def crashes(server: Server, sessions: list[dict[str, str]], method: str) -> dict[str, Any]:
    """Crash each once; from the crash to its answer, and to that of the next request."""
    told: list[float] = []
    back: list[float] = []
    gate = asyncio.Semaphore(AT_ONCE)
    cpu = server.cpu_us()

    async def one(session: dict[str, str]) -> None:
        async with gate, Client(server.url) as client:
            client.session = dict(session)
            before = await client.call(method, PARAMS)
            started = time.perf_counter()
            crash = await client.start("debug.crash")
            after = await client.start(method, PARAMS)
            reply = await crash
            told.append(time.perf_counter() - started)
            if reply["status"] != "error":
                raise RuntimeError(f"no crash: {reply}")
            reply = await after
            back.append(time.perf_counter() - started)
            if session and reply.get("result") != before + 1:
                raise RuntimeError(f"the state is lost: {reply}")

    await asyncio.gather(*map(one, sessions))
    return {
        "told": spread_ms(told),
        "back": spread_ms(back),
        "cpu_us_each": (server.cpu_us() - cpu) / len(sessions),
    }


async def restarts(server: Server, sessions: list[dict[str, str]]) -> dict[str, Any]:
    """An operator restarts each; from the command to the answer of the next request."""
    back: list[float] = []
    async with server.admin() as operator:
        cpu = server.cpu_us()
        for session in sessions:
            async with Client(server.url) as client:
                client.session = dict(session)
                info = await client.call("session.info")
                started = time.perf_counter()
                await operator.call("sessions.restart", {"sid": info["sid"]})
                await client.call("debug.incr", PARAMS)
                back.append(time.perf_counter() - started)
        cpu = server.cpu_us() - cpu
    return {"back": spread_ms(back), "cpu_us_each": cpu / len(sessions)}


async def session_part(count: int) -> dict[str, Any]:
    """All of it about single sessions."""
    with ours(**AS_DEFAULT) as server, reference("pykka") as pykka:
        sessions = await make_sessions(server, count)
        return {
            "ours": await crashes(server, sessions, METHOD["ours"]),
            "by hand": await restarts(server, sessions),
            "pykka": await crashes(pykka, [{}] * count, METHOD["pykka"]),
        }


# -- the server ----------------------------------------------------------------------------


async def server_part(count: int) -> list[dict[str, Any]]:
    """A drain, then a kill, of a server with so many connected sessions."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        settings = {
            **AS_DEFAULT,
            "ECAN_DATA_DIR": folder,
            "ECAN_WS_PORT": str(free_port()),
        }
        async with load_client() as load:
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(ours(**settings))
                sessions = await make_sessions(server, count)
                await load("crowd_connect", name="all", port=server.port, sessions=sessions)
                for what, number in (("drain", signal.SIGTERM), ("kill -9", signal.SIGKILL)):
                    returning = asyncio.create_task(
                        load("crowd_return", name="all", port=server.port)
                    )
                    await asyncio.sleep(0.5)
                    began = time.perf_counter()
                    os.kill(server.process.pid, number)
                    await asyncio.to_thread(server.process.wait)
                    ended = time.perf_counter()
                    server = stack.enter_context(ours(**settings))
                    ready = time.perf_counter()
                    cpu = server.cpu_us()
                    one = await returning
                    rows.append(
                        {
                            "sessions": count,
                            "what": what,
                            "stop_s": ended - began,
                            "start_s": ready - ended,
                            "first_s": one["back_first"] - ready,
                            "all_s": one["back_last"] - ready,
                            "outage_s": one["back_last"] - one["lost_first"],
                            "each": {k: one[k] for k in ("p50_ms", "p99_ms", "max_ms")},
                            "cpu_us_each": (server.cpu_us() - cpu) / count,
                            "resumed": one["resumed"],
                            "troubles": one["troubles"],
                        }
                    )
                    await asyncio.sleep(1.0)
    return rows


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    session = await session_part(20 if quick else 400)
    servers = []
    for count in (50,) if quick else COUNTS:
        servers += await server_part(count)
    result = {"session": session, "servers": servers}
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    session = result["session"]
    print("\nA session crashes; its next request is sent right behind")
    rows = []
    for name, key in (
        ("ecan, crash, back-off of 160 to 240 ms", "ours"),
        ("ecan, restarted by an operator", "by hand"),
        ("pykka thread actor, crash, restarted at once", "pykka"),
    ):
        one = session[key]
        told = one.get("told")
        rows.append(
            [
                name,
                f"{told['p50_ms']:.2f} / {told['p99_ms']:.1f}" if told else "-",
                f"{one['back']['p50_ms']:.2f} / {one['back']['p99_ms']:.1f}",
                one["cpu_us_each"],
            ]
        )
    print(
        table(
            [
                "",
                "crash answered p50 / p99 ms",
                "next request answered p50 / p99 ms",
                "CPU us for all of it",
            ],
            rows,
        )
    )
    print("\nThe server stops and starts; every session is connected and comes back")
    print(
        table(
            [
                "sessions",
                "",
                "stop s",
                "start to ready s",
                "first resumed s",
                "all resumed s",
                "outage s",
                "outage of one p50 / p99 s",
                "CPU us per resume",
                "resumed",
            ],
            [
                [
                    row["sessions"],
                    row["what"],
                    row["stop_s"],
                    row["start_s"],
                    row["first_s"],
                    row["all_s"],
                    row["outage_s"],
                    f"{row['each']['p50_ms'] / 1000:.2f} / {row['each']['p99_ms'] / 1000:.2f}",
                    row["cpu_us_each"],
                    row["resumed"],
                ]
                for row in result["servers"]
            ],
        )
    )
    print("Tries that failed while there was no server, or it was full of others:")
    for row in result["servers"]:
        print(f"  {row['sessions']} {row['what']}: {row['troubles'] or 'none'}")
