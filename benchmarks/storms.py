"""Everybody at once: 500 logins while others work, and 5000 lost connections that come back.

Login storm: 200 sessions look or change, open loop, on a server with default settings; then 500
users log in at the same moment, each from an address of its own (127.x.y.z), with a real
argon2id hash. Whoever is told to come later waits as long as told. Quiet slices and storms
take turns. The server has one CPU, which the hashes share with the loop. How late a timer of
its loop is says how much of a latency is the server's, and how much the machine's, on which
the load client has to be woken, too.

Reconnect storm: sessions with one connection each lose it at the same moment and come back
without waiting, resuming with what they have seen. Beside it the same with as many bare
`websockets` connections, which only shake hands. Latency counts from the cut.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.harness import (
    AS_DEFAULT,
    PASSWORD,
    LoadClient,
    Server,
    load_client,
    make_sessions,
    measured,
    median,
    ours,
    reference,
    table,
)
from ecan.testing.client import Client

RUNNING = 200
WORK = {"look": ("debug.state_get", False), "change": ("debug.incr", True)}


def add_accounts(server: Server, names: list[str]) -> None:
    """Accounts with one password, by the file, as `ecan users add` does it."""
    from ecan.handlers.accounts.passwords import hash_password
    from ecan.store.users import UserStore

    hashed = hash_password(PASSWORD)
    with UserStore(server.data_dir) as store:
        for name in names:
            store.add(name, hashed)


async def logins(count: int, rounds: int, rate: float, quiet_s: float) -> dict[str, Any]:
    """Quiet, storm, quiet, ... for looks and for changes: each storm against its surroundings."""
    rows: list[dict[str, Any]] = []
    with ours(**AS_DEFAULT, ECAN_HANDLERS="benchmarks.probe") as server:
        *sessions, watcher = await make_sessions(server, RUNNING + 1)
        async with (
            load_client() as load,
            load_client(is_crowd=True) as crowd,
            Client(server.url) as probe,
        ):
            probe.session = dict(watcher)
            await load("connect", group="v", port=server.port, count=RUNNING)
            for name, (method, counting) in WORK.items():
                await load(
                    "workload",
                    name=name,
                    group="v",
                    method=method,
                    params={"key": "n"},
                    metas=sessions,
                    counting=counting,
                )
                await load("open", name=name, rate=rate, seconds=1.0)  # warms up

            async def at_rate(name: str, seconds: float) -> dict[str, Any]:
                await probe.call("bench.ticks_start")
                row = await measured(load, server, "open", name, rate=rate, seconds=seconds)
                row["late"] = await probe.call("bench.ticks_stop")
                return row

            for number, name in enumerate(list(WORK) * rounds):
                users = [f"storm{number}x{n}" for n in range(count)]
                add_accounts(server, users)
                before = await at_rate(name, quiet_s)
                storm = asyncio.create_task(
                    crowd("login_storm", port=server.port, users=users, password=PASSWORD)
                )
                # About as long as the storm; after it the rest would be quiet.
                during = await at_rate(name, max(quiet_s, 0.02 * count))
                told = await storm
                await asyncio.sleep(0.5)
                after = await at_rate(name, quiet_s)
                calm = {
                    key: (before[key] + after[key]) / 2 for key in ("p50_ms", "p99_ms", "max_ms")
                }
                rows.append(
                    {
                        "work": name,
                        "before": before,
                        "during": during,
                        "after": after,
                        "quiet": calm,
                        "storm": told,
                        "p50_ratio": during["p50_ms"] / calm["p50_ms"],
                        "p99_ratio": during["p99_ms"] / calm["p99_ms"],
                        "failures": sum(
                            sum(one["failures"].values()) for one in (before, during, after)
                        ),
                    }
                )
    return {"count": count, "rate": rate, "rows": rows}


async def cut(load: LoadClient, server: Server, name: str) -> dict[str, Any]:
    """One storm of a crowd."""
    cpu = server.cpu_us()
    one = await load("crowd_cut", name=name, port=server.port)
    one["cpu_us_each"] = (server.cpu_us() - cpu) / one["resumed"]
    return one


async def reconnects(count: int, rounds: int) -> dict[str, Any]:
    """Ours and bare `websockets` in turns."""
    ours_rows: list[dict[str, Any]] = []
    bare_rows: list[dict[str, Any]] = []
    with ours(**AS_DEFAULT) as server, reference("echo") as echo:
        sessions = await make_sessions(server, count)
        async with load_client() as load:
            await load("crowd_connect", name="ours", port=server.port, sessions=sessions)
            await load("crowd_connect", name="bare", port=echo.port, count=count)
            for _ in range(rounds):
                ours_rows.append(await cut(load, server, "ours"))
                await asyncio.sleep(1.0)
                bare_rows.append(await cut(load, echo, "bare"))
                await asyncio.sleep(1.0)
        async with server.admin() as operator:
            states = (await operator.call("status"))["sessions"]
    return {"count": count, "ours": ours_rows, "bare": bare_rows, "states": states}


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    started = time.perf_counter()
    login = await (logins(12, 1, 200, 0.5) if quick else logins(500, 3, 500, 8.0))
    reconnect = await (reconnects(100, 1) if quick else reconnects(5000, 3))
    result = {
        "login": login,
        "reconnect": reconnect,
        "seconds": time.perf_counter() - started,
    }
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    login = result["login"]
    print(
        f"\n{login['count']} logins at once; {RUNNING} other sessions look or change, "
        f"{login['rate']} requests/s"
    )
    print(
        table(
            [
                "others",
                "quiet p50 / p99 / max ms",
                "meanwhile p50 / p99 / max ms",
                "p50 x",
                "p99 x",
                "loop late p99, quiet / meanwhile ms",
                "failed",
                "logged in",
                "not",
                "told to wait",
                "all in after, s",
                "login p50 / p99 s",
                "server CPU",
                "foreign / steal",
            ],
            [
                [
                    row["work"],
                    _three(row["quiet"]),
                    _three(row["during"]),
                    f"{row['p50_ratio']:.2f}",
                    f"{row['p99_ratio']:.2f}",
                    f"{row['before']['late']['p99_ms']:.2f} / {row['during']['late']['p99_ms']:.2f}",
                    row["failures"],
                    row["storm"]["logged_in"],
                    sum(row["storm"]["failures"].values()),
                    ", ".join(f"{n} {code}" for code, n in row["storm"]["refusals"].items()) or "-",
                    row["storm"]["seconds"],
                    f"{row['storm']['p50_ms'] / 1000:.1f} / {row['storm']['p99_ms'] / 1000:.1f}",
                    f"{row['during']['server_cpu']:.0%}",
                    f"{row['during']['foreign']:.0%} / {row['during']['steal']:.0%}",
                ]
                for row in login["rows"]
            ],
        )
    )
    for row in login["rows"]:
        if row["storm"]["failures"]:
            print(f"  FAILED: {row['storm']['failures']}")
    for work in WORK:
        ratios = [row["p99_ratio"] for row in login["rows"] if row["work"] == work]
        print(f"p99 of those who {work}, x quiet: median {median(ratios):.2f}")
    reconnect = result["reconnect"]
    print(f"\n{reconnect['count']} connections cut at once, all come back at once")
    print(
        table(
            ["", "back", "troubles", "all back, s", "p50 / p99 ms", "CPU us each", "client CPU s"],
            [
                [
                    name,
                    one["resumed"],
                    str(one["troubles"] or "none"),
                    one["seconds"],
                    f"{one['p50_ms']:.0f} / {one['p99_ms']:.0f}",
                    one["cpu_us_each"],
                    one["client_cpu_s"],
                ]
                for name, key in (("ecan, resumed", "ours"), ("bare websockets", "bare"))
                for one in reconnect[key]
            ],
        )
    )


def _three(one: dict[str, Any]) -> str:
    return f"{one['p50_ms']:.2f} / {one['p99_ms']:.1f} / {one['max_ms']:.0f}"
