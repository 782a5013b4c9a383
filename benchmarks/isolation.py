"""What a misbehaving session does to the others.

1000 sessions on one server with its usual rate limit. Nearly all of them ask for a counter,
open loop, and check it. One in a hundred misbehaves: blocks a synchronous handler for 5 s
again and again (every other one with a deadline of 2 s, so that its thread is abandoned),
crashes in a loop (a fresh session when one was given up), or floods (128 requests in flight
each); two spin for 5 s. Each kind by itself, then all at once, with a quiet run between any
two; a ratio is to the mean of the quiet runs before and after. The flooding client shares
the clients' CPU at a lower priority.

Beside it the same quiet sessions on two reference servers: a request through the default
executor (the first eCan.ai), and handlers right on the loop. There they block or spin for
0.5 s at a time; with 5 s nothing else would be seen.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import (
    LoadClient,
    Server,
    load_client,
    make_sessions,
    measured,
    ours,
    reference,
    table,
)
from ecan.testing.client import Client

FLOOD_WINDOW = 128
CALM_S = 0.5
REFERENCE_LONG_S = 0.5
REFERENCES = {"executor": "executor per request", "inline": "handlers on the loop"}
STORES = {"memory": "ecan, store in memory", "sqlite": "ecan, SQLite, commit"}
"""With the second one a session may also keep the others from the disk."""

PHASES: dict[str, tuple[str, ...]] = {
    "1 % block": ("block",),
    "1 % crash-loop": ("crash",),
    "1 % flood": ("flood",),
    "2 spin": ("spin",),
    "all of these": ("block", "crash", "flood", "spin"),
}
REFERENCE_PHASES = ("1 % block", "2 spin")
SPINNING = 2


class Disturbers:
    """The sessions that misbehave; ``outcomes`` says what they were told.

    Args:
        url: of the server.
        sessions: credentials, for each kind as many as misbehave; for ``crash`` many more.
        flooder: has the connections of the flooding ones, as workload ``flood``.
        long_s: how long one blocks or spins.
    """

    def __init__(
        self,
        url: str,
        sessions: dict[str, Any],
        flooder: LoadClient | None,
        long_s: float,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._sessions, self._long_s = url, sessions, long_s
        self._flooder = flooder

    async def misbehave(self, kinds: tuple[str, ...]) -> None:
        """Until cancelled."""
        jobs: list[Any] = []
        if "block" in kinds:
            # Every other one has a deadline below its blocking: its thread is abandoned.
            jobs += [
                self._long("debug.block", session, 0.4 * self._long_s if i % 2 else None)
                for i, session in enumerate(self._sessions["block"])
            ]
        if "spin" in kinds:
            jobs += [self._long("debug.spin", s, None) for s in self._sessions["spin"]]
        if "crash" in kinds:
            jobs += [self._crash() for _ in self._sessions["block"]]
        if "flood" in kinds:
            jobs.append(self._flood())
        await asyncio.gather(*jobs)

    def _count(self, method: str, reply: dict[str, Any]) -> str:
        outcome = reply["error"]["code"] if reply["status"] == "error" else "success"
        self.outcomes[f"{method} {outcome}"] += 1
        return str(outcome)

    async def _long(self, method: str, session: dict[str, str], deadline_s: float | None) -> None:
        async with Client(self._url) as client:
            client.session = dict(session)
            meta = {} if deadline_s is None else {"deadline_ms": deadline_s * 1000}
            while True:
                reply = await client.request(method, {"seconds": self._long_s}, **meta)
                if self._count(method, reply) in ("BUSY", "SESSION_FAILED"):
                    await asyncio.sleep(1.0)

    async def _crash(self) -> None:
        fresh: Iterator[dict[str, str]] = self._sessions["crash"]
        for session in fresh:
            async with Client(self._url) as client:
                client.session = dict(session)
                outcome = ""
                while outcome != "SESSION_FAILED":
                    outcome = self._count("debug.crash", await client.request("debug.crash"))
        self.outcomes["no session left to crash"] += 1

    async def _flood(self) -> None:
        assert self._flooder is not None
        while True:
            one = asyncio.ensure_future(
                self._flooder("closed", name="flood", seconds=0.5, window=FLOOD_WINDOW)
            )
            try:
                await asyncio.shield(one)
            finally:
                # Even when cancelled: the load process must have answered before it is
                # told more.
                result = await one
                refused = sum(result["failures"].values())
                self.outcomes["flood success"] += result["requests"] - refused
                for why, count in result["failures"].items():
                    self.outcomes[f"flood {why}"] += count


class Quiet:
    """The sessions that behave, and how long their requests take."""

    def __init__(self, load: LoadClient, server: Server, rate: float, seconds: float) -> None:
        self._load, self._server, self._rate, self._seconds = load, server, rate, seconds

    async def prepare(self, method: str, metas: list[dict[str, str]]) -> None:
        """Connect them, and warm up."""
        group = self._server.name
        await self._load("connect", group=group, port=self._server.port, count=len(metas))
        await self._load(
            "workload",
            name=group,
            group=group,
            method=method,
            params={"key": "n"},
            metas=metas,
            counting=True,
        )
        await self.measure(min(self._seconds, 1.0))

    async def measure(self, seconds: float | None = None) -> dict[str, Any]:
        """One slice."""
        return await measured(
            self._load,
            self._server,
            "open",
            self._server.name,
            rate=self._rate,
            seconds=seconds or self._seconds,
        )

    async def beside(self, name: str, disturbers: Disturbers) -> dict[str, Any]:
        """A quiet slice, and one while others misbehave."""
        kinds = PHASES[name]
        before = await self.measure()
        task = asyncio.create_task(disturbers.misbehave(kinds))
        await asyncio.sleep(CALM_S)
        row = await self.measure()
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        row.update(name=name, before=before, outcomes=dict(disturbers.outcomes))
        return row


def rated(rows: list[dict[str, Any]], last: dict[str, Any]) -> list[dict[str, Any]]:
    """Each row with its ratio to the quiet slices around it."""
    for row, after in zip(rows, [*(row["before"] for row in rows[1:]), last], strict=True):
        for key in ("p50", "p99"):
            quiet = (row["before"][f"{key}_ms"] + after[f"{key}_ms"]) / 2
            row[f"quiet_{key}_ms"] = quiet
            row[f"{key}_ratio"] = row[f"{key}_ms"] / max(quiet, 1e-9)
    return rows


async def our_rows(
    store: str, phases: tuple[str, ...], count: int, rate: float, seconds: float, long_s: float
) -> list[dict[str, Any]]:
    """What misbehaves, on our server."""
    few = max(1, count // 100)
    rows = []
    with ours(ECAN_RATE_LIMIT="100/200", ECAN_STORE=store) as server:
        made = iter(await make_sessions(server, count + 20 * few))

        def take(number: int) -> list[dict[str, str]]:
            return list(itertools.islice(made, number))

        victims = take(count - 3 * few - SPINNING)
        sessions = {"block": take(few), "flood": take(few), "spin": take(SPINNING), "crash": made}
        async with load_client() as load, load_client(is_crowd=True) as flooder:
            quiet = Quiet(load, server, rate, seconds)
            await quiet.prepare("debug.incr", victims)
            await flooder("connect", group="f", port=server.port, count=few)
            await flooder(
                "workload",
                name="flood",
                group="f",
                method="debug.incr",
                params={"key": "n"},
                metas=sessions["flood"],
            )
            for name in phases:
                rows.append(
                    await quiet.beside(name, Disturbers(server.url, sessions, flooder, long_s))
                )
                # Until no thread is left behind.
                await asyncio.sleep(
                    CALM_S + (long_s if {"block", "spin"} & set(PHASES[name]) else 0)
                )
            return rated(rows, await quiet.measure())


async def reference_rows(
    name: str, phases: tuple[str, ...], count: int, rate: float, seconds: float
) -> list[dict[str, Any]]:
    """What blocks and spins, on a reference server."""
    few = max(1, count // 100)
    rows = []
    sessions = {"block": [{}] * few, "spin": [{}] * SPINNING}
    with reference(name) as server:
        async with load_client() as load:
            quiet = Quiet(load, server, rate, seconds)
            await quiet.prepare("counter.incr", [{}] * count)
            for phase in phases:
                rows.append(
                    await quiet.beside(
                        phase, Disturbers(server.url, sessions, None, REFERENCE_LONG_S)
                    )
                )
                await asyncio.sleep(CALM_S + REFERENCE_LONG_S * (few if name == "inline" else 1))
            return rated(rows, await quiet.measure())


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    count, rate = (100, 200) if quick else (1000, 1000)
    seconds, long_s, reference_s = (0.5, 0.3, 0.5) if quick else (8.0, 5.0, 4.0)
    phases, few = (("all of these",), 1) if quick else (tuple(PHASES), None)
    result = {
        "sessions": count,
        "rate": rate,
        "ours": {
            store: await our_rows(store, phases, count, rate, seconds, long_s)
            for store in list(STORES)[:few]
        },
        "references": {
            name: await reference_rows(name, REFERENCE_PHASES[:few], count, rate, reference_s)
            for name in list(REFERENCES)[:few]
        },
    }
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    print(f"\nIsolation: {result['sessions']} sessions, the quiet ones {result['rate']} requests/s")
    servers = {STORES[name]: rows for name, rows in result["ours"].items()} | {
        REFERENCES[name]: rows for name, rows in result["references"].items()
    }
    print(
        table(
            [
                "server",
                "meanwhile",
                "quiet p50 / p99 ms",
                "p50 / p99 ms",
                "p99 x quiet",
                "p99.9 ms",
                "max ms",
                "requests",
                "failed",
                "lost",
                "server CPU",
                "foreign / steal",
            ],
            [
                [
                    server,
                    row["name"],
                    f"{row['quiet_p50_ms']:.2f} / {row['quiet_p99_ms']:.2f}",
                    f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}",
                    f"{row['p99_ratio']:.2f}",
                    row["p999_ms"],
                    row["max_ms"],
                    row["requests"],
                    sum(row["failures"].values()),
                    row["sent"] - row["requests"],
                    f"{row['server_cpu']:.0%}",
                    f"{row['foreign']:.0%} / {row['steal']:.0%}",
                ]
                for server, rows in servers.items()
                for row in rows
            ],
        )
    )
    for row in itertools.chain(*result["ours"].values()):
        told = ", ".join(f"{what} {n}" for what, n in sorted(row["outcomes"].items()))
        print(f"  {row['name']}: {told}")
        if row["failures"]:
            print(f"  {row['name']}: FAILED {row['failures']} {row['example']}")
