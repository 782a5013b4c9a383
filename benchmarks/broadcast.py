"""One push to 5000 connected sessions, beside `websockets.broadcast` to as many connections.

Ours is ``sessions.push`` of the admin socket: each session numbers the push, keeps it for
who must ask again, and with a store that lives on commits it. The reference writes one
frame to every socket and is done. The longest hold of the loop is a timer's lateness inside the
server (`benchmarks.probe`), to a millisecond; of the reference, the time of the one call.
The client has a CPU of its own, and reads what comes as it comes.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from benchmarks.harness import (
    AS_DEFAULT,
    LoadClient,
    Server,
    load_client,
    make_sessions,
    median,
    ours,
    reference,
    table,
)
from ecan.testing.client import Client

METHOD = "news"
PARAMS = {"text": "x" * 100}
WITHIN_S = 60.0
STORES = {"sqlite": "ecan, SQLite, commit", "memory": "ecan, store in memory"}


async def push_ours(load: LoadClient, server: Server, count: int, probe: Client) -> dict[str, Any]:
    """One push to everybody by an operator."""
    async with server.admin() as operator:
        await probe.call("bench.ticks_start")
        cpu, since = server.cpu_us(), time.perf_counter()
        # The server has one more session, the probe's; it gets the push, too.
        told = await operator.call(
            "sessions.push", {"all": True, "method": METHOD, "params": PARAMS}
        )
        one = await load("crowd_await_push", name=server.name, within_s=WITHIN_S)
        held_ms = (await probe.call("bench.ticks_stop"))["max_ms"]
        cpu = server.cpu_us() - cpu
    if told["sessions"] != count + 1:
        raise RuntimeError(f"{told['sessions']} sessions were told")
    return _row(one, count, since, cpu, held_ms)


async def push_bare(load: LoadClient, server: Server, count: int) -> dict[str, Any]:
    """One message to everybody by `websockets.broadcast`."""
    cpu, since = server.cpu_us(), time.perf_counter()
    reply = await load("crowd_tell", name=server.name, method="broadcast")
    one = await load("crowd_await_push", name=server.name, within_s=WITHIN_S)
    return _row(one, count, since, server.cpu_us() - cpu, reply["result"])


def _row(
    one: dict[str, Any], count: int, since: float, cpu_us: float, held_ms: float
) -> dict[str, Any]:
    if one["got"] != count or one["pushes"] != count:
        raise RuntimeError(f"{one} of {count} got it")
    return {
        "first_ms": (one["first"] - since) * 1000,
        "middle_ms": (one["middle"] - since) * 1000,
        "last_ms": (one["last"] - since) * 1000,
        "cpu_us_each": cpu_us / count,
        "held_ms": held_ms,
    }


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    count, rounds = (100, 2) if quick else (5000, 7)
    rows: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                ours(**{**AS_DEFAULT, "ECAN_STORE": name, "ECAN_HANDLERS": "benchmarks.probe"})
            )
            for name in STORES
        }
        bare = stack.enter_context(reference("broadcast"))
        async with load_client() as load, contextlib.AsyncExitStack() as clients:
            probes = {}
            for name, server in servers.items():
                server.name = name
                sessions = await make_sessions(server, count + 1)
                await load("crowd_connect", name=name, port=server.port, sessions=sessions[:count])
                probes[name] = await clients.enter_async_context(Client(server.url))
                await probes[name].resume(sessions[count])
            await load("crowd_connect", name=bare.name, port=bare.port, count=count)
            for number in range(rounds + 1):
                for name, server in servers.items():
                    one = await push_ours(load, server, count, probes[name])
                    rows.setdefault(name, []).extend([one] if number else [])  # warms up
                one = await push_bare(load, bare, count)
                rows.setdefault("bare", []).extend([one] if number else [])
    result = {
        "count": count,
        "rounds": rows,
        "rows": {
            name: {key: median([one[key] for one in of]) for key in of[0]}
            for name, of in rows.items()
        },
    }
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    print(f"\nOne push to {result['count']} connected sessions, medians")
    rows = result["rows"]
    print(
        table(
            ["", "first / middle / last got it, ms", "CPU us each", "x bare", "longest hold, ms"],
            [
                [
                    label,
                    f"{rows[name]['first_ms']:.1f} / {rows[name]['middle_ms']:.0f}"
                    f" / {rows[name]['last_ms']:.0f}",
                    rows[name]["cpu_us_each"],
                    f"{rows[name]['cpu_us_each'] / rows['bare']['cpu_us_each']:.2f}",
                    rows[name]["held_ms"],
                ]
                for name, label in {**STORES, "bare": "bare websockets broadcast"}.items()
            ],
        )
    )
