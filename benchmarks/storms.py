"""Everybody at once: 500 logins while others work, and 5000 lost connections that come back.

Login storm: 200 sessions count, open loop, on a server with default settings; then 500
users log in at the same moment, each from an address of its own (127.x.y.z), with a real
argon2id hash. Whoever is told to come later waits as long as told. Quiet slices and storms
take turns. The server has one CPU, which the hashes share with the loop.

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

RUNNING = 200


def add_accounts(server: Server, names: list[str]) -> None:
    """Accounts with one password, by the file, as `ecan users add` does it."""
    from ecan.handlers.accounts.passwords import hash_password
    from ecan.store.users import UserStore

    hashed = hash_password(PASSWORD)
    with UserStore(server.data_dir) as store:
        for name in names:
            store.add(name, hashed)


async def logins(count: int, rounds: int, rate: float, quiet_s: float) -> dict[str, Any]:
    """Quiet, storm, quiet, ...: each storm against the quiet slices around it."""
    quiet: list[dict[str, Any]] = []
    stormy: list[dict[str, Any]] = []
    storms: list[dict[str, Any]] = []
    with ours(**AS_DEFAULT) as server:
        names = [[f"storm{r}x{n}" for n in range(count)] for r in range(rounds)]
        add_accounts(server, [name for of in names for name in of])
        sessions = await make_sessions(server, RUNNING)
        async with load_client() as load, load_client(nice=10) as crowd:
            await load("connect", group="v", port=server.port, count=RUNNING)
            await load(
                "workload",
                name="v",
                group="v",
                method="debug.incr",
                params={"key": "n"},
                metas=sessions,
                counting=True,
            )
            await load("open", name="v", rate=rate, seconds=1.0)  # warms up

            async def calm() -> None:
                quiet.append(await measured(load, server, "open", "v", rate=rate, seconds=quiet_s))

            await calm()
            for users in names:
                storm = asyncio.create_task(
                    crowd("login_storm", port=server.port, users=users, password=PASSWORD)
                )
                # As long as a storm of this size takes; its tail is quieter.
                seconds = max(quiet_s, 0.02 * count)
                one = await measured(load, server, "open", "v", rate=rate, seconds=seconds)
                storms.append(await storm)
                stormy.append(one)
                await asyncio.sleep(0.5)
                await calm()
    failures = sum(sum(one["failures"].values()) for one in quiet + stormy)
    around = [(a["p99_ms"] + b["p99_ms"]) / 2 for a, b in zip(quiet, quiet[1:])]
    return {
        "count": count,
        "rate": rate,
        "quiet": quiet,
        "stormy": stormy,
        "storms": storms,
        "failures": failures,
        "ratios": [one["p99_ms"] / base for one, base in zip(stormy, around)],
        "ratios_p50": [
            one["p50_ms"] / ((a["p50_ms"] + b["p50_ms"]) / 2)
            for one, a, b in zip(stormy, quiet, quiet[1:])
        ],
    }


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
        f"\n{login['count']} logins at once; {RUNNING} other sessions change their state, "
        f"{login['rate']} requests/s"
    )
    rows = [
        ["others, quiet", one["p50_ms"], one["p99_ms"], one["max_ms"], "", one["server_cpu"]]
        for one in login["quiet"]
    ]
    for number, one in enumerate(login["stormy"]):
        rows.insert(
            2 * number + 1,
            [
                "others, storm",
                one["p50_ms"],
                one["p99_ms"],
                one["max_ms"],
                f"{login['ratios'][number]:.2f}",
                one["server_cpu"],
            ],
        )
    print(
        table(
            ["", "p50 ms", "p99 ms", "max ms", "p99 x quiet", "server CPU"],
            [[*row[:5], f"{row[5]:.0%}"] for row in rows],
        )
    )
    print(
        table(
            ["storm", "logged in", "failed", "told to wait", "all in after, s", "p50 / p99 s"],
            [
                [
                    number,
                    one["logged_in"],
                    sum(one["failures"].values()),
                    ", ".join(f"{n} {code}" for code, n in one["refusals"].items()) or "-",
                    one["seconds"],
                    f"{one['p50_ms'] / 1000:.1f} / {one['p99_ms'] / 1000:.1f}",
                ]
                for number, one in enumerate(login["storms"], 1)
            ],
        )
    )
    for one in login["storms"]:
        if one["failures"]:
            print(f"  FAILED: {one['failures']}")
    if login["failures"]:
        print(f"  the others: {login['failures']} FAILED")
    print(f"p99 of the others, x quiet: median {median(login['ratios']):.2f}")
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
