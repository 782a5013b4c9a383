"""Plays a plan with the users of one process: arrivals, closed loops, chaos, the end."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from typing import TYPE_CHECKING, Any

from ecan.loadtest.recorder import ITERATION
from ecan.loadtest.session import MAX_UNDER_WAY
from ecan.loadtest.timer import Timer
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from ecan.loadtest.health import Health
    from ecan.loadtest.plan import Plan
    from ecan.loadtest.user import User
    from ecan.loadtest.world import World

MAX_LOOKS = 50
"""Users looked at for one arrival before it is dropped: a bound on the work when all are full."""

MAX_CRASHES, CRASH_WINDOW_S = 3, 60.0
"""P6: one more, and the session fails."""

CONNECTING_AT_ONCE = 64
VERIFYING_AT_ONCE = 64
PATIENCE_AFTER_STOP_S = 2.0
NOTHING_WORKS_S = 0.05
"""A user of a closed loop waits so long after a failure, or it would spin."""


class Driver:
    """One process's part of a run.

    Args:
        world: what the users share.
        plan: with the phases as they are to be played.
        users: of this process.
        health: of this process.
        of: how many processes there are; chaos is divided among them.
    """

    def __init__(
        self, world: World, plan: Plan, users: Sequence[User], health: Health, of: int = 1
    ) -> None:
        self.withheld_crashes = 0
        self.scenario_errors: dict[str, int] = {}
        self.traceback = ""
        self._world, self._plan, self._users, self._health = world, plan, list(users), health
        self._of = of
        self._random = random.Random(world.seed)  # noqa: S311 - repeatable
        self._calls = list(plan.calls)
        self._weights: list[float] = []
        total = 0.0
        for call in plan.calls:
            total += call.weight
            self._weights.append(total)
        self._key = next((c.counter for c in plan.calls if c.counter), None) or "load"
        self._arrivals: Iterator[tuple[float, int]] = world.schedule.arrivals()
        self._next: tuple[float, int] | None = None
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._timer: Timer | None = None

    # -- before ------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect every user, if the plan wants that.

        Raises:
            WireError: one of them could not.
        """
        if self._plan.connected:
            await _many(CONNECTING_AT_ONCE, [user.arrive for user in self._users])

    # -- the plan ----------------------------------------------------------------------

    def stop(self) -> None:
        """End early; what is under way gets a moment."""
        self._stopping.set()

    async def play(self, every_second: Callable[[], None]) -> None:
        """From the world's start to the last answer."""
        world = self._world
        await asyncio.sleep(max(0.0, world.start_mono - time.monotonic()))
        self._health.start()
        self._timer = Timer(self._due)
        self._next = next(self._arrivals, None)
        self._due()
        background = [self._seconds(every_second), *self._chaos(), *self._closed_loops()]
        tasks = [asyncio.create_task(coroutine) for coroutine in background]
        try:
            await self._until(world.schedule.seconds)
            self._timer.close()
            self._health.measuring = False
            await self._drain()
        finally:
            self._timer.close()
            self._health.stop()
            for task in [*tasks, *self._tasks]:
                task.cancel()
            await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)

    async def finish(self) -> int:
        """Verify the counters and part; how many totals were compared."""
        compared: list[int] = []

        def verify(user: User) -> Callable[[], Awaitable[None]]:
            async def one() -> None:
                try:
                    compared.append(await user.verify())
                except WireError as error:
                    user.checks.broken("P3", f"the counter at the end: {error}")

            return one

        await _many(VERIFYING_AT_ONCE, [verify(user) for user in self._users])
        await _many(CONNECTING_AT_ONCE, [user.leave for user in self._users])
        return sum(compared)

    async def _until(self, second: float) -> None:
        """Wait for this second of the plan; returns early when it is to stop."""
        left = self._world.start_mono + second - time.monotonic()
        if left > 0 and not self._stopping.is_set():
            try:
                async with asyncio.timeout(left):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _drain(self) -> None:
        patience = PATIENCE_AFTER_STOP_S if self._stopping.is_set() else self._plan.timeout_s
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not self._tasks and all(user.settled for user in self._users):
                return
            await asyncio.sleep(0.02)
        for user in self._users:
            user.give_up(float("inf") if self._stopping.is_set() else time.monotonic() + 1.0)

    async def _seconds(self, every_second: Callable[[], None]) -> None:
        second = 0
        while True:
            second += 1
            self._health.measuring = self._plan.phases[self._world.phase_now()].measured
            await asyncio.sleep(self._world.start_mono + second - time.monotonic())
            every_second()
            now = time.monotonic()
            for user in self._users:
                if user.under_way:
                    user.give_up(now)

    # -- open arrivals -----------------------------------------------------------------

    def _due(self) -> None:
        start = self._world.start_mono
        while self._next is not None and not self._stopping.is_set():
            due, phase = self._next
            if start + due > time.monotonic():
                if self._timer is not None:
                    self._timer.set(start + due)
                return
            self._next = next(self._arrivals, None)
            self._arrive(start + due, phase)

    def _arrive(self, due: float, phase: int) -> None:
        chaos = self._plan.chaos
        if chaos.crash and self._random.random() < chaos.crash:
            self._crash_one(due, phase)
            return
        user = self._free_user()
        if user is None:
            self._world.recorder.drop(phase)
        elif self._plan.scenario is None:
            call = self._calls[0]
            if len(self._calls) > 1:
                (call,) = self._random.choices(self._calls, cum_weights=self._weights)
            user.fire(call, due, phase)
        else:
            user.begin_run(due, phase)
            task = asyncio.get_running_loop().create_task(self._run(user, due, phase))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _free_user(self) -> User | None:
        count = len(self._users)
        for _ in range(min(count, MAX_LOOKS)):
            user = self._users[self._turn % count]
            self._turn += 1
            if not (user.busy or user.dead or len(user.under_way) >= MAX_UNDER_WAY):
                return user
        return None

    async def _run(self, user: User, due: float, phase: int) -> None:
        scenario = self._plan.scenario
        assert scenario is not None  # noqa: S101 - the caller looked
        recorder = self._world.recorder
        recorder.sent(phase, ITERATION)
        try:
            await scenario(user)
            recorder.ok(phase, ITERATION, time.monotonic() - due)
        except Exception as error:  # noqa: BLE001 - a scenario is somebody else's code
            name = type(error).__name__
            self.scenario_errors[name] = self.scenario_errors.get(name, 0) + 1
            self.traceback = self.traceback or traceback.format_exc()
            recorder.error(phase, ITERATION, "SCENARIO_FAILED")
        finally:
            user.busy = False

    # -- closed loops ------------------------------------------------------------------

    def _closed_loops(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._closed_loop(user, index)
            for index, phase in enumerate(self._plan.phases)
            if phase.rate is None
            for user in self._users
        ]

    async def _closed_loop(self, user: User, phase: int) -> None:
        start = self._world.schedule.start_of(phase)
        end = self._world.start_mono + start + self._plan.phases[phase].seconds
        await asyncio.sleep(max(0.0, self._world.start_mono + start - time.monotonic()))
        while (now := time.monotonic()) < end and not self._stopping.is_set() and not user.dead:
            user.begin_run(now, phase)
            if self._plan.scenario is not None:
                await self._run(user, now, phase)
            else:
                (call,) = self._random.choices(self._calls, cum_weights=self._weights)
                reply = await user.do(call)
                if not reply.ok:
                    await asyncio.sleep(NOTHING_WORKS_S)

    # -- chaos -------------------------------------------------------------------------

    def _chaos(self) -> list[Coroutine[Any, Any, None]]:
        chaos = self._plan.chaos
        loops = []
        if chaos.cut_s:
            loops.append(self._again_and_again(chaos.cut_s, lambda u: u.lose_connection()))
        if chaos.freeze_s:
            loops.append(
                self._again_and_again(chaos.freeze_s, lambda u: u.freeze(chaos.freeze_for_s))
            )
        return loops

    async def _again_and_again(self, rate: float, action: Callable[[User], None]) -> None:
        period_s = self._of / rate
        at = self._world.start_mono + period_s * self._random.random()
        end = self._world.start_mono + self._world.schedule.seconds
        while at < end and not self._stopping.is_set():
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            action(self._random.choice(self._users))
            at += period_s

    def _crash_one(self, due: float, phase: int) -> None:
        user = self._free_user()
        if user is None:
            self._world.recorder.drop(phase)
            return
        while user.crashes and user.crashes[0] < due - CRASH_WINDOW_S:
            user.crashes.popleft()
        if len(user.crashes) >= MAX_CRASHES:
            self.withheld_crashes += 1
            return
        user.crash(due, phase, self._key)

    def dump(self) -> dict[str, Any]:
        """For JSON: what only the driver knows."""
        return {
            "withheld_crashes": self.withheld_crashes,
            "scenario_errors": self.scenario_errors,
            "traceback": self.traceback,
        }


async def _many(at_once: int, jobs: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """Run many, so many at once; the first error ends it."""
    gate = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Awaitable[Any]]) -> None:
        async with gate:
            await job()

    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(one(job))
    except* WireError as errors:
        raise errors.exceptions[0] from None
