"""Half an hour of mixed use of a real server, after which nothing may have grown.

    python -m benchmarks.soak [--minutes 30] [--rate 50] [--out build/soak]

`ecan loadtest` plays `benchmarks/soak_plan.py` against a server of its own (SQLite, every
commit on the disk): visits of many kinds, logins and logouts, absences, cut connections,
frozen readers, crashes. Sessions leave memory after an idle second or two and come back
with the next visit. Meanwhile the server is looked at every ten seconds, from outside
(/proc) and from inside (`benchmarks.probe`, the admin socket); at the end
`benchmarks.flatness` judges every figure. Exit code 1: something grew, or a promise was
broken. Ctrl-C ends it early and judges what there is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import attrs

from benchmarks.flatness import LEAST_SAMPLES, Bound, judge
from benchmarks.harness import ROOT, machine, more_files
from benchmarks.soak_report import print_soak, write_soak
from ecan.admin.client import AsyncClient
from ecan.loadtest import slo
from ecan.loadtest.live import Live
from ecan.loadtest.local_server import LocalServer
from ecan.loadtest.plan import Plan, make_phases
from ecan.loadtest.plan_file import find_plan
from ecan.loadtest.run import Options, Runner
from ecan.testing.client import Client

PLAN = Path(__file__).with_name("soak_plan.py")
EVERY_S, SAMPLES_LEAST = 10.0, 45

SETTINGS = {
    "ECAN_HANDLERS": "benchmarks.probe",
    "ECAN_PASSIVATE_AFTER": "2s",
    "ECAN_PASSIVATE_DETACHED_AFTER": "1s",
    # Of a login whose connection was cut nobody ever hears again.
    "ECAN_SESSION_TIMEOUT": "120s",
    "PYTHONPATH": str(ROOT),
}

MIB = 2**20
# Blocks: the ends of the last 10 000 sessions are remembered (two blocks each), and half an
# hour is what it takes to come that far: 1.6 % a third.
BOUNDS = (
    Bound(name="resident memory", absolute=2.0, relative=0.02, unit="MiB"),
    Bound(name="blocks of Python's allocator", absolute=5000, relative=0.03),
    Bound(name="handles", absolute=3, relative=0.05),
    Bound(name="sockets", absolute=3, relative=0.05),
    Bound(name="tasks", absolute=5, relative=0.05),
    Bound(name="threads", absolute=2, relative=0.1),
    Bound(name="sessions", absolute=2, relative=0.01),
    Bound(name="sessions in memory", absolute=5, relative=0.1),
)
TIMES = (
    Bound(name="p50", absolute=0.3, relative=0.2, unit="ms"),
    Bound(name="p99", absolute=10, relative=0.3, unit="ms"),
    Bound(name="CPU", absolute=2, relative=0.15, unit="%"),
)
SHOWN_ONLY = (Bound(name="data directory", absolute=0, unit="MiB", judged=False),)
"""The file keeps ledgers for their time, dead letters and ends: it may grow for a day."""


class Watched(Live):
    """What a load test shows, thinned out; also tells when it began and what each second was."""

    def __init__(self, stream: Any, plan: Plan, every_s: float) -> None:
        super().__init__(stream, plan, terminal=False)
        self.began = asyncio.Event()
        self.rows: list[dict[str, Any]] = []
        self._every_s = every_s

    def second(self, row: dict[str, Any], sample: dict[str, Any], phase: str) -> None:
        """A second is over."""
        self.rows.append(row)
        self.began.set()
        if row["second"] % max(1, round(self._every_s)) == 0:
            super().second(row, sample, phase)


class Watcher:
    """Looks at the server until it is cancelled.

    Attributes:
        samples: one each time, ``at_s`` from the beginning of the plan.
    """

    def __init__(self, server: LocalServer, live: Watched, every_s: float) -> None:
        self.samples: list[dict[str, float]] = []
        self._server, self._live, self._every_s = server, live, every_s
        self._cpu: tuple[float, float] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        server, loop = self._server, asyncio.get_running_loop()
        async with Client(server.url) as client, AsyncClient(server.admin_socket) as operator:
            await client.login("load", server.password)
            await self._live.began.wait()
            start = loop.time() - 1.0
            due = start
            while True:
                due += self._every_s
                await asyncio.sleep(max(0.0, due - loop.time()))
                sample = await self._look(client, operator)
                self.samples.append({"at_s": round(loop.time() - start, 2), **sample})

    async def _look(self, client: Client, operator: AsyncClient) -> dict[str, float]:
        vitals = await client.call("bench.vitals")
        states = (await operator.call("status"))["sessions"]
        pid = self._server.pid
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        rows = self._live.rows[-max(1, round(self._every_s)) :]
        return {
            "resident memory": rss / MIB,
            "blocks of Python's allocator": vitals["blocks"],
            "handles": vitals["handles"],
            "sockets": vitals["sockets"],
            "tasks": vitals["tasks"],
            "threads": vitals["threads"],
            "sessions": sum(states.values()),
            "sessions in memory": sum(states.values()) - states["passivated"],
            "data directory": _folder_bytes(self._server.folder) / MIB,
            "p50": _middle(rows, "p50_ms"),
            "p99": _middle(rows, "p99_ms"),
            "CPU": self._share_of_cpu(pid),
        }

    def _share_of_cpu(self, pid: int | None) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        now = asyncio.get_running_loop().time()
        last, self._cpu = self._cpu, (now, used)
        return 0.0 if last is None else (used - last[1]) / (now - last[0]) * 100


def _middle(rows: list[dict[str, Any]], key: str) -> float:
    """Median of the seconds' figures: one bad second is no trend."""
    values = [row[key] for row in rows if row[key] is not None]
    return statistics.median(values) if values else 0.0


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


async def soak(
    seconds: float,
    *,
    rate: float | None = None,
    plan_ref: Path = PLAN,
    handlers: str = "",
    judge_times: bool = True,
    slack: float = 1.0,
    stream: Any = sys.stderr,
) -> dict[str, Any]:
    """Run it; the result of the load test with ``samples`` and ``verdicts`` added.

    Args:
        seconds: how long.
        rate: visits a second; there are as many more or fewer users.
        plan_ref: another plan.
        handlers: more modules with handlers for the server.
        judge_times: latencies and CPU, too.
        slack: so many times the bounds; a short run is not warm after its first third.
        stream: for what is seen meanwhile.
    """
    plan = find_plan(str(plan_ref))
    usual = plan.phases[-1].rate or 1.0
    rate = rate or usual
    users = round(plan.users * rate / usual)
    plan = attrs.evolve(plan, phases=make_phases(rate, seconds), users=users)
    every_s = min(EVERY_S, seconds / SAMPLES_LEAST)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ECAN_")} | SETTINGS
    if handlers:
        environment["ECAN_HANDLERS"] += f",{handlers}"
    more_files()
    async with LocalServer(environment) as server:
        live = Watched(stream, plan, every_s)
        options = Options(
            plan_ref=str(plan_ref),
            url=server.url,
            server=server,
            sign_up=True,
            objective=slo.parse(plan.slo),
            max_lag_s=1.0,  # what is judged is growth, and the generator shares a busy machine
        )
        watcher = Watcher(server, live, every_s)
        result = await _run_watched(Runner(options, live), plan, watcher)
        result["facts"]["server_log"] = server.log_tail()
    samples = [sample for sample in watcher.samples if sample["at_s"] <= seconds]
    bounds = [bound.times(slack) for bound in BOUNDS]
    bounds += [attrs.evolve(bound, judged=judge_times) for bound in TIMES]
    bounds += SHOWN_ONLY
    times = [sample["at_s"] for sample in samples]
    verdicts = []
    if len(samples) >= LEAST_SAMPLES:  # else it was ended early
        verdicts = [judge(times, [s[bound.name] for s in samples], bound) for bound in bounds]
    return {
        **result,
        "samples": samples,
        "verdicts": [attrs.asdict(verdict) for verdict in verdicts],
        "machine": {**result["machine"], **machine()},
    }


async def _run_watched(runner: Runner, plan: Plan, watcher: Watcher) -> dict[str, Any]:
    """The run's result; a watcher that fails ends it."""
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, runner.stop)
    running = asyncio.create_task(runner.run(plan))
    watching = asyncio.create_task(watcher.run())
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        return await running
    finally:
        for task in (running, watching):
            task.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


def grown(result: dict[str, Any]) -> list[str]:
    """Names of the figures that are not flat."""
    return [row["name"] for row in result["verdicts"] if row["flat"] is False]


def main() -> None:
    """Soak, print, write, and say how it ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, help="visits a second (50)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak")
    options = parser.parse_args()
    result = asyncio.run(soak(options.minutes * 60, rate=options.rate))
    print_soak(result)
    for path in write_soak(result, options.out):
        print(path)
    good = result["verdicts"] and not grown(result) and result["verdict"]["ok"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
