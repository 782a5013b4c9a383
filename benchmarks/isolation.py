"""What a misbehaving session does to the others.

200 sessions on one server with its usual rate limit. 157 of them ask for a counter, open
loop, and check it; the other 43 block a synchronous handler for 5 seconds (40), spin for
5 seconds (1), crash in a loop (1) and flood (1): each kind by itself, then all at once,
between two quiet runs. The flooding client shares the clients' CPU at a lower priority.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from benchmarks.harness import LoadClient, load_client, log_in, measured, ours, table
from ecan.testing.client import Client

FAILED_SPARES = 8
FLOOD_WINDOW = 128
CALM_S = 0.5


class Disturbers:
    """The sessions that misbehave; ``outcomes`` says what they were told."""

    def __init__(
        self,
        url: str,
        sessions: list[dict[str, str]],
        flooder: LoadClient,
        seconds: float,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url, self._seconds, self._flooder = url, seconds, flooder
        self._crashing = sessions[:FAILED_SPARES]
        self._spinning = sessions[FAILED_SPARES]
        self._blocking = sessions[FAILED_SPARES + 1 :]

    async def misbehave(self, kinds: tuple[str, ...]) -> None:
        """Until cancelled."""
        jobs: list[Any] = []
        if "block" in kinds:
            # Every other one has a deadline below its blocking: its thread is abandoned.
            jobs += [
                self._long("debug.block", session, 0.4 * self._seconds if i % 2 else None)
                for i, session in enumerate(self._blocking)
            ]
        if "spin" in kinds:
            jobs.append(self._long("debug.spin", self._spinning, None))
        if "crash" in kinds:
            jobs.append(self._crash())
        if "flood" in kinds:
            jobs.append(self._flood())
        await asyncio.gather(*jobs)

    async def _client(self, stack: contextlib.AsyncExitStack, session: dict[str, str]) -> Client:
        client = await stack.enter_async_context(Client(self._url))
        client.session = dict(session)
        return client

    def _count(self, method: str, reply: dict[str, Any]) -> str:
        outcome = reply["error"]["code"] if reply["status"] == "error" else "success"
        self.outcomes[f"{method} {outcome}"] += 1
        return str(outcome)

    async def _long(self, method: str, session: dict[str, str], deadline_s: float | None) -> None:
        async with contextlib.AsyncExitStack() as stack:
            client = await self._client(stack, session)
            meta = {} if deadline_s is None else {"deadline_ms": deadline_s * 1000}
            while True:
                reply = await client.request(method, {"seconds": self._seconds}, **meta)
                if self._count(method, reply) in ("BUSY", "SESSION_FAILED"):
                    await asyncio.sleep(1.0)

    async def _crash(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for session in self._crashing:
                client = await self._client(stack, session)
                outcome = ""
                while outcome != "SESSION_FAILED":
                    outcome = self._count("debug.crash", await client.request("debug.crash"))
            await asyncio.get_running_loop().create_future()

    async def _flood(self) -> None:
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


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    victims, blocking = (20, 5) if quick else (157, 40)
    rate, seconds, block_s = (200, 0.6, 0.3) if quick else (1000, 8.0, 5.0)
    spoiled = FAILED_SPARES + 1 + blocking
    phases: dict[str, tuple[str, ...]] = {
        "quiet": (),
        f"{blocking} block {block_s:g} s": ("block",),
        "1 spins": ("spin",),
        "1 crash-loops": ("crash",),
        "1 floods": ("flood",),
        "all of these": ("block", "spin", "crash", "flood"),
        "quiet again": (),
    }
    rows: list[dict[str, Any]] = []
    with ours(ECAN_RATE_LIMIT="100/200") as server:
        sessions, _ = await log_in(server, victims + spoiled + 1)
        url = f"ws://127.0.0.1:{server.port}/ws"
        async with load_client() as load, load_client(nice=10) as flooder:
            await load("connect", group="v", port=server.port, count=victims)
            await load(
                "workload",
                name="v",
                group="v",
                method="debug.incr",
                params={"key": "n"},
                metas=sessions[:victims],
                counting=True,
            )
            await flooder("connect", group="f", port=server.port, count=1)
            await flooder(
                "workload",
                name="flood",
                group="f",
                method="debug.incr",
                params={"key": "n"},
                metas=[sessions[victims]],
            )
            await load("open", name="v", rate=rate, seconds=min(seconds, 1.0))  # warms up
            for name, kinds in phases.items():
                disturbers = Disturbers(url, sessions[victims + 1 :], flooder, block_s)
                task = asyncio.create_task(disturbers.misbehave(kinds))
                await asyncio.sleep(CALM_S)
                row = await measured(load, server, "open", "v", rate=rate, seconds=seconds)
                if kinds and task.done():
                    task.result()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                row.update(name=name, outcomes=dict(disturbers.outcomes))
                rows.append(row)
                if kinds:
                    await asyncio.sleep(CALM_S + block_s)  # until no thread is left behind
    result = {"victims": victims, "rate": rate, "rows": rows}
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    print(f"\nIsolation: the other {result['victims']} sessions at {result['rate']} requests/s")
    print(
        table(
            [
                "meanwhile",
                "p50 ms",
                "p99 ms",
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
                    row["name"],
                    row["p50_ms"],
                    row["p99_ms"],
                    row["p999_ms"],
                    row["max_ms"],
                    row["requests"],
                    sum(row["failures"].values()),
                    row["sent"] - row["requests"],
                    f"{row['server_cpu']:.0%}",
                    f"{row['foreign']:.0%} / {row['steal']:.0%}",
                ]
                for row in result["rows"]
            ],
        )
    )
    for row in result["rows"]:
        if row["outcomes"]:
            told = ", ".join(f"{what} {n}" for what, n in sorted(row["outcomes"].items()))
            print(f"  {row['name']}: {told}")
        if row["failures"]:
            print(f"  {row['name']}: FAILED {row['failures']} {row['example']}")
