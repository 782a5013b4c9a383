"""What it costs that a reply waits for the disk: ECAN_DURABILITY commit, off, and no disk at all.

200 sessions, one request in flight each, four of five only look (`debug.state_get`), the
fifth counts (`debug.incr`, its result checked). The three servers take turns, short
slices, `off` between any two others, so that each is compared with its neighbours. Then
the same mixture at a fixed rate, far from saturation: the latency a user has; and one
session alone, counting as fast as it is answered: the bare latency of a commit.

Then changes only, at a steady rate for half a minute: what the store's housekeeping costs
(moving the journal into the file), and how long the journal gets.

The first is measured twice: young sessions have not answered 256 changes yet, so their ledger is
not full and mode `off` answers before it writes; grown ones have, and then every mode
waits until the store has looked whether the request's id was used before.

This module is also the load process: ``python -m benchmarks.durability`` is
`benchmarks.load` with a command for mixed requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks import load
from benchmarks.harness import (
    CLIENT_CPU,
    ROOT,
    LoadClient,
    Server,
    log_in,
    measured,
    median,
    ours,
    pin,
    table,
)

SHARE = 0.2
"""Of the requests that change something."""

MODES = {
    "commit": {"ECAN_STORE": "sqlite", "ECAN_DURABILITY": "commit"},
    "off": {"ECAN_STORE": "sqlite", "ECAN_DURABILITY": "off"},
    "memory": {"ECAN_STORE": "memory"},
}
YOUNG = 240
GROWN = 340
"""Changes of each session: before and after its ledger (256, and 64 of slack) is full."""

GOAL = 0.7
"""Of the throughput of `off`, in mode `commit`."""

MAX_NOISE = 0.06
"""Slices with more foreign CPU or steal are left out, if enough others remain."""


# -- the load process --------------------------------------------------------------------


class Mixed(load.Run):
    """Two kinds of requests over the same connections; knows the latencies of each.

    Args:
        closed: an answer is followed by the next request.
    """

    def __init__(self, writes: Any, reads: Any, share: float, closed: bool) -> None:
        super().__init__()
        self.by_kind = {"read": array("d"), "write": array("d")}
        self._writes, self._reads, self._share = dict(writes), dict(reads), share
        self._closed = closed

    def ask(self, socket: load.Socket, since: float) -> None:
        """Send one or the other."""
        self.sent += 1
        kind = self._writes if random.random() < self._share else self._reads
        socket.send(kind[socket], since)

    def answered(self, socket: load.Socket, since: float, template: load.Template) -> None:
        now = time.perf_counter()
        self.latencies_s.append(now - since)
        self.by_kind["write" if template.counting else "read"].append(now - since)
        if self._closed and not self.stopping:
            self.ask(socket, now)


class MixedClient(load.Client):
    """The load process with two commands more."""

    async def mixed(self, name: str, reads: str, share: float, seconds: float) -> dict[str, Any]:
        """A slice at saturation of two workloads."""
        run = Mixed(self.workloads[name], self.workloads[reads], share, closed=True)
        pairs = self._begin(name, run)
        started, cpu = time.perf_counter(), time.process_time()
        for socket, _ in pairs:
            run.ask(socket, time.perf_counter())
        await asyncio.sleep(seconds)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        run.stopping = True
        answered = len(run.latencies_s)
        await self._finish(pairs, run)
        return self._of_kinds(run, answered, seconds, cpu)

    async def mixed_open(
        self, name: str, reads: str, share: float, rate: float, seconds: float
    ) -> dict[str, Any]:
        """A slice at a fixed rate; latency counts from when the request should have left."""
        run = Mixed(self.workloads[name], self.workloads[reads], share, closed=False)
        pairs = self._begin(name, run)
        turn = itertools.cycle(socket for socket, _ in pairs)
        cpu = time.process_time()
        began = await self._at_rate(run, rate, seconds, lambda moment: run.ask(next(turn), moment))
        await self._finish(pairs, run)
        cpu = time.process_time() - cpu
        return self._of_kinds(run, len(run.latencies_s), time.perf_counter() - began, cpu)

    def _of_kinds(self, run: Mixed, answered: int, seconds: float, cpu: float) -> dict[str, Any]:
        result = self._result(run, answered, seconds, cpu)
        for kind, latencies in run.by_kind.items():
            one = load.Run()
            one.latencies_s = latencies
            of_kind = self._result(one, len(latencies), seconds, cpu)
            result[kind] = {key: of_kind[key] for key in ("requests", "p50_ms", "p99_ms")}
        return result


async def serve_load() -> None:
    """As `load.main`, for a `MixedClient`."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    client = MixedClient()
    while line := await reader.readline():
        command, arguments = orjson.loads(line)
        try:
            answer = {"ok": await getattr(client, command)(**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


@contextlib.asynccontextmanager
async def mixed_client() -> AsyncIterator[LoadClient]:
    """Start this module as the load process, bound to its CPU."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.durability",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        preexec_fn=lambda: pin(0, CLIENT_CPU),
    )
    try:
        yield LoadClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# -- the benchmark -----------------------------------------------------------------------


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    connections = 20 if quick else 200
    young_s, grown_s, rounds, alone_s, open_s, quiet_rounds = (
        (0.1, 0.1, 1, 0.2, 0.3, 1) if quick else (0.7, 1.2, 8, 1.0, 2.0, 4)
    )
    rate = 500 if quick else 4000
    steady_rate, steady_s = (200, 0.5) if quick else (2000, 30.0)
    changes = dict.fromkeys(MODES, 0.0)
    with contextlib.ExitStack() as stack:
        servers = {mode: stack.enter_context(ours(**env)) for mode, env in MODES.items()}
        async with mixed_client() as client:

            async def one(mode: str, seconds: float) -> dict[str, Any]:
                found = await _slice(client, mode, servers[mode], seconds)
                changes[mode] += found["write"]["requests"] / connections
                return found

            for mode, server in servers.items():
                await _prepare(client, mode, server, connections)
            for mode in servers:
                await one(mode, young_s)  # warms up
            slices = {
                "young": await _slices(one, young_s, rounds, lambda: changes["off"] < YOUNG),
            }
            for mode in servers:
                while changes[mode] < GROWN and not quick:
                    await one(mode, grown_s)
            slices["grown"] = await _slices(one, grown_s, rounds, lambda: True)
            alone: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
            at_rate: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
            for _ in range(quiet_rounds):
                for mode, server in servers.items():
                    found = await measured(
                        client, server, "closed", f"{mode} alone", seconds=alone_s
                    )
                    alone[mode].append(found)
                    found = await measured(
                        client,
                        server,
                        "mixed_open",
                        f"{mode} write",
                        reads=f"{mode} read",
                        share=SHARE,
                        rate=rate,
                        seconds=open_s,
                    )
                    at_rate[mode].append(found)
            steady = {
                mode: await _steady(client, mode, server, steady_rate, steady_s)
                for mode, server in servers.items()
            }
    result = {
        "connections": connections,
        "share": SHARE,
        "fdatasync_us": _fdatasync_us(),
        "rows": [_row(age, mode, slices[age][mode]) for age in slices for mode in MODES],
        "slices": slices,
        "alone": alone,
        "open_rate": rate,
        "at_rate": at_rate,
        "steady_rate": steady_rate,
        "steady_s": steady_s,
        "steady": steady,
        "latencies": [_latencies(mode, at_rate[mode], alone[mode]) for mode in MODES],
    }
    _print(result)
    return result


async def _prepare(client: LoadClient, mode: str, server: Server, connections: int) -> None:
    sessions, _ = await log_in(server, connections + 1)
    kinds = {"read": ("debug.state_get", False), "write": ("debug.incr", True)}
    await client("connect", group=mode, port=server.port, count=connections)
    for kind, (method, counting) in kinds.items():
        await client(
            "workload",
            name=f"{mode} {kind}",
            group=mode,
            method=method,
            params={"key": "n"},
            metas=sessions[1:],
            counting=counting,
        )
    await client("connect", group=f"{mode} alone", port=server.port, count=1)
    await client(
        "workload",
        name=f"{mode} alone",
        group=f"{mode} alone",
        method="debug.incr",
        params={"key": "n"},
        metas=sessions[:1],
        counting=True,
    )


async def _slice(client: LoadClient, mode: str, server: Server, seconds: float) -> dict[str, Any]:
    return await measured(
        client,
        server,
        "mixed",
        f"{mode} write",
        reads=f"{mode} read",
        share=SHARE,
        seconds=seconds,
    )


async def _steady(
    client: LoadClient, mode: str, server: Server, rate: float, seconds: float
) -> dict[str, Any]:
    """Changes at a fixed rate; knows the longest the journal was."""
    journal = server.data_dir / "sessions.sqlite3-wal"
    longest = 0

    async def watch() -> None:
        nonlocal longest
        while True:
            with contextlib.suppress(OSError):
                longest = max(longest, journal.stat().st_size)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        found = await measured(client, server, "open", f"{mode} write", rate=rate, seconds=seconds)
    finally:
        watching.cancel()
    return {**found, "journal_mb": longest / 1e6}


async def _slices(
    one: Callable[[str, float], Awaitable[dict[str, Any]]],
    seconds: float,
    rounds: int,
    may_go_on: Callable[[], bool],
) -> dict[str, list[dict[str, Any]]]:
    """off, commit, off, memory, off ...: each knows the slices of `off` before and after it."""
    slices: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    before = await one("off", seconds)
    slices["off"].append(before)
    for _ in range(rounds):
        for mode in MODES:
            if mode == "off" or not may_go_on():
                continue
            found = await one(mode, seconds)
            after = await one("off", seconds)
            found["ratio"] = found["rate"] / ((before["rate"] + after["rate"]) / 2)
            found["cpu_ratio"] = found["cpu_us"] / ((before["cpu_us"] + after["cpu_us"]) / 2)
            found["quiet"] = all(
                max(each["foreign"], each["steal"]) <= MAX_NOISE for each in (before, found, after)
            )
            slices["off"].append(after)
            slices[mode].append(found)
            before = after
    return slices


def _row(age: str, mode: str, slices: list[dict[str, Any]]) -> dict[str, Any]:
    quiet = [s for s in slices if s.get("quiet", max(s["foreign"], s["steal"]) <= MAX_NOISE)]
    good = quiet if len(quiet) >= 3 else slices
    ratios = sorted(s.get("ratio", 1.0) for s in good)
    return {
        "age": age,
        "mode": mode,
        "rate": median([s["rate"] for s in good]),
        "ratio": median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
        "cpu_us": median([s["cpu_us"] for s in good]),
        "cpu_ratio": median([s.get("cpu_ratio", 1.0) for s in good]),
        "server_cpu": median([s["server_cpu"] for s in good]),
        **_quantiles(good),
        "failures": sum(sum(s["failures"].values()) for s in slices),
        "client_cpu_max": max(s["client_cpu"] for s in good),
        "foreign": median([s["foreign"] for s in good]),
        "steal": median([s["steal"] for s in good]),
        "slices": f"{len(good)}/{len(slices)}",
        "quiet": len(quiet) >= 3,
    }


def _quantiles(slices: list[dict[str, Any]]) -> dict[str, float]:
    return {
        f"{kind}_{quantile}": median([s[kind][quantile] for s in slices])
        for kind in ("read", "write")
        for quantile in ("p50_ms", "p99_ms")
    }


def _latencies(
    mode: str, at_rate: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "mode": mode,
        **_quantiles(at_rate),
        "write_p99_best_ms": min(s["write"]["p99_ms"] for s in at_rate),
        "server_cpu": median([s["server_cpu"] for s in at_rate]),
        "alone_p50_ms": median([s["p50_ms"] for s in alone]),
        "alone_p99_ms": median([s["p99_ms"] for s in alone]),
        "failures": sum(sum(s["failures"].values()) for s in at_rate + alone),
        "foreign": median([s["foreign"] for s in at_rate + alone]),
    }


def _fdatasync_us(count: int = 200) -> float:
    """What the disk below the data directories takes for one sync."""
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        file = os.open(Path(folder) / "probe", os.O_CREAT | os.O_WRONLY)
        times = []
        for number in range(count):
            started = time.perf_counter()
            os.pwrite(file, bytes(4096), number * 4096)
            os.fdatasync(file)
            times.append((time.perf_counter() - started) * 1e6)
        os.close(file)
    return median(times)


def _print(result: dict[str, Any]) -> None:
    print(
        f"\nDurability, {result['connections']} sessions, one request in flight each,"
        f" {result['share']:.0%} of the requests change something;"
        f" one sync of this disk takes {result['fdatasync_us']:.0f} us"
    )
    print(
        table(
            [
                "sessions, mode",
                "req/s",
                "x off (min-max)",
                "CPU us/req",
                "x off",
                "server CPU",
                "look p50 / p99 ms",
                "change p50 / p99 ms",
                "failed",
                "client CPU",
                "foreign / steal",
                "slices",
            ],
            [
                [
                    f"{row['age']}, {row['mode']}",
                    row["rate"],
                    f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
                    row["cpu_us"],
                    f"{row['cpu_ratio']:.2f}",
                    f"{row['server_cpu']:.0%}",
                    f"{row['read_p50_ms']:.1f} / {row['read_p99_ms']:.1f}",
                    f"{row['write_p50_ms']:.1f} / {row['write_p99_ms']:.1f}",
                    row["failures"],
                    f"{row['client_cpu_max']:.0%}",
                    f"{row['foreign']:.0%} / {row['steal']:.0%}",
                    row["slices"] if row["quiet"] else f"{row['slices']} noisy",
                ]
                for row in result["rows"]
            ],
        )
    )
    print(
        table(
            [
                "mode",
                f"{result['open_rate']}/s, look p50 / p99 ms",
                "change p50 / p99 (best) ms",
                "server CPU",
                "one session alone, change p50 / p99 ms",
                "failed",
                "foreign",
            ],
            [
                [
                    row["mode"],
                    f"{row['read_p50_ms']:.2f} / {row['read_p99_ms']:.1f}",
                    f"{row['write_p50_ms']:.2f} / {row['write_p99_ms']:.1f}"
                    f" ({row['write_p99_best_ms']:.1f})",
                    f"{row['server_cpu']:.0%}",
                    f"{row['alone_p50_ms']:.2f} / {row['alone_p99_ms']:.2f}",
                    row["failures"],
                    f"{row['foreign']:.0%}",
                ]
                for row in result["latencies"]
            ],
        )
    )
    print(
        table(
            [
                f"{result['steady_rate']} changes/s for {result['steady_s']:.0f} s",
                "p50 / p99 / p99.9 ms",
                "server CPU",
                "journal MB",
                "failed",
                "foreign",
            ],
            [
                [
                    mode,
                    f"{found['p50_ms']:.2f} / {found['p99_ms']:.1f} / {found['p999_ms']:.1f}",
                    f"{found['server_cpu']:.0%}",
                    f"{found['journal_mb']:.0f}",
                    sum(found["failures"].values()),
                    f"{found['foreign']:.0%}",
                ]
                for mode, found in result["steady"].items()
            ],
        )
    )
    for row in result["rows"]:
        if row["mode"] == "commit":
            verdict = "reached" if row["ratio"] >= GOAL else "missed"
            print(f"Goal, {row['age']}: commit at {GOAL} of off: {verdict}, {row['ratio']:.2f}.")
    for phase in (*result["slices"].values(), result["alone"], result["at_rate"]):
        for mode, slices in phase.items():
            for one in slices:
                if one["failures"]:
                    print(f"  {mode}: {one['failures']} {one['example']}")
                    break


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_load())
