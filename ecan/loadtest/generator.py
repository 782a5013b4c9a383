"""A generator process: ``python -m ecan.loadtest.generator``, spoken to in JSON lines.

In: a `Job`; then ``{"go": start}``, maybe ``{"stop": true}``. Out: ``{"ready": users}``,
``{"tick": {...}}`` every second, ``{"done": {...}}`` or ``{"error": text}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.loadtest.driver import Driver
from ecan.loadtest.health import Health
from ecan.loadtest.plan import Chaos, Phase, Plan, PlanError
from ecan.loadtest.plan_file import find_plan
from ecan.loadtest.recorder import Recorder
from ecan.loadtest.schedule import Schedule
from ecan.loadtest.user import User
from ecan.loadtest.wire import Address, WireError
from ecan.loadtest.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE_BYTES = 64 << 20


@attrs.frozen(kw_only=True)
class Job:
    """What one process is told.

    Attributes:
        plan: a name or a path.
        phases, chaos, missing, timeout_s: as they are to be played.
        url: of the server.
        sessions: credentials of the users of this process; empty: they log in.
        accounts: of the users of this process.
        first: number of the first of its users.
        k, of: which process of how many.
        ordered: methods that are answered in order.
        durable: a session that is gone is a broken promise.
        seed: of chance.
    """

    plan: str
    url: str
    phases: list[dict[str, Any]]
    chaos: dict[str, Any] = attrs.field(factory=dict)
    missing: list[str] = attrs.field(factory=list)
    sessions: list[dict[str, str]] = attrs.field(factory=list)
    accounts: list[tuple[str, str]] = attrs.field(factory=list)
    users: int = 1
    first: int = 0
    k: int = 0
    of: int = 1
    ordered: list[str] = attrs.field(factory=list)
    timeout_s: float = 35.0
    durable: bool = False
    seed: int = 0

    def make_plan(self) -> Plan:
        """The plan as it is to be played.

        Raises:
            PlanError: there is none.
        """
        plan = find_plan(self.plan).without(set(self.missing))
        phases = tuple(Phase(**phase) for phase in self.phases)
        return attrs.evolve(
            plan, phases=phases, chaos=Chaos(**self.chaos), timeout_s=self.timeout_s
        )


class Generator:
    """One process's part of a run.

    Args:
        job: what it is told.
        tell: gets what it has to say.
    """

    def __init__(self, job: Job, tell: Callable[[dict[str, Any]], None]) -> None:
        plan = job.make_plan()
        schedule = Schedule(plan.phases, job.k, job.of)
        self._tell = tell
        self._world = World(
            address=Address.parse(job.url),
            recorder=Recorder(len(plan.phases)),
            schedule=schedule,
            counters={call.counter: call.read_back for call in plan.calls if call.counter},
            ordered=frozenset(job.ordered),
            timeout_s=plan.timeout_s,
            durable=job.durable,
            seed=job.seed + job.k,
        )
        self._users = [
            User(
                self._world,
                job.first + i,
                job.sessions[i] if i < len(job.sessions) else None,
                job.accounts[i] if i < len(job.accounts) else None,
            )
            for i in range(job.users)
        ]
        self._health = Health()
        self._driver = Driver(self._world, plan, self._users, self._health, job.of)
        self._seconds = 0

    async def connect(self) -> None:
        """Connect the users.

        Raises:
            WireError: one of them could not.
        """
        await self._driver.connect()
        self._tell({"ready": len(self._users)})

    def stop(self) -> None:
        """End early."""
        self._driver.stop()

    async def run(self, start_mono: float) -> None:
        """Play the plan from this time on, then tell the result."""
        self._world.start_mono = start_mono
        cpu, wall = time.process_time(), time.monotonic()
        await self._driver.play(self._second)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        self._second()
        compared = await self._driver.finish()
        self._tell(
            {
                "done": {
                    **self._world.recorder.dump(),
                    **self._driver.dump(),
                    "violations": self._world.violations.dump(),
                    "lost_sessions": self._world.lost_sessions,
                    "compared": compared,
                    "health": self._health.dump(),
                    "lateness": self._world.lateness.dump(),
                    "cpu_s": cpu,
                    "wall_s": wall,
                    "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                }
            }
        )

    def _second(self) -> None:
        self._seconds += 1
        self._tell(
            {
                "tick": {
                    "second": self._seconds,
                    **self._world.recorder.tick(),
                    "connected": sum(user.connected for user in self._users),
                    "under_way": sum(len(user.under_way) for user in self._users),
                    "violations": self._world.violations.total,
                }
            }
        )


def raise_file_limit() -> int:
    """Allow as many open connections as the system lets us; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _write(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    raise_file_limit()
    try:
        generator = Generator(Job(**orjson.loads(await reader.readline())), _write)
        await generator.connect()
    except (PlanError, WireError, ValueError) as error:
        _write({"error": str(error)})
        return
    gc.collect()
    gc.freeze()
    line = await reader.readline()
    if not line:
        return
    run = loop.create_task(generator.run(orjson.loads(line)["go"]))

    async def listen() -> None:
        await reader.readline()  # stop, or the end of the coordinator
        generator.stop()

    listening = loop.create_task(listen())
    await run
    listening.cancel()


def main() -> None:
    """Run until the job is done."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - not everywhere

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main())


if __name__ == "__main__":
    main()
