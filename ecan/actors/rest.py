"""Rest: how a session leaves memory, and how one that rests in the store ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.directory import Ending
from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import refuse
from ecan.actors.reaper import EVICT_AFTER_S
from ecan.actors.refusals import RetryError
from ecan.errors import ReplyError, StoreError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Sid

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.incarnations import Incarnations
    from ecan.actors.messages import Spawn
    from ecan.actors.reaper import Reaper
    from ecan.observability import Metrics

RETRY_S = 60.0
"""When the store refused something about an idle session."""

FIRST_RETRY_S = 1.0
"""When the store refused to end a session; doubles up to `RETRY_S`."""

FOUND_GRACE_S = 1.0
"""A session that was just looked for is not let go."""

EXPIRE_SLICE = 100
"""Sessions at rest that are ended in one turn."""

log = get_logger("ecan.supervisor")


class Rest:
    """Saves idle sessions, lets them go and wakes them, for the supervisor; a `ReaperActions`.

    Attributes:
        reaper: who says which session is idle; set by the supervisor.
    """

    reaper: Reaper

    def __init__(
        self,
        env: Environment,
        directory: Directory,
        incarnations: Incarnations,
        spawn: Spawn,
        close: Callable[[Cell, str], object],
        is_finding: Callable[[Sid], bool],
        metrics: Metrics,
    ) -> None:
        self._env = env
        self._directory = directory
        self._incarnations = incarnations
        self._spawn = spawn
        self._close = close
        self._is_finding = is_finding
        self._metrics = metrics

    # -- leaving memory ----------------------------------------------------------------

    def expire(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._close(cell, "idle")

    def passivate(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        cell.transit(Event.IDLE)
        self._incarnations.halt(
            cell, ReplyError(ErrorCode.CANCELLED, "The session was passivated.")
        )
        self._spawn(self.settle(cell))

    def evict(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._spawn(self.settle(cell))

    async def settle(self, cell: Cell) -> None:
        """Finish a passivation; without a tab the session leaves memory.

        All it did was committed already. What it was last used goes to the store now, and
        since commits land in order, nothing of it is on its way when that has landed.
        """
        try:
            durable = cell.write_facts()
            if durable is not None:
                await durable
        except StoreError as error:
            log.warning(
                "session.not_at_rest", sid=cell.sid, incarnation=cell.incarnation, error=str(error)
            )
            if cell.state is State.PASSIVATING:
                # It stays in memory rather than being lost; tried again in a while.
                cell.transit(Event.WOKEN, "could not be saved")
                self._incarnations.start(cell)
            self.reaper.schedule_at(cell.sid, self._env.clock.mono() + RETRY_S)
            return
        if cell.state is State.PASSIVATING:
            cell.transit(Event.SAVED)
            self._metrics.passivations += 1
            log.debug("session.passivated", sid=cell.sid, incarnation=cell.incarnation)
            self._env.events.emit("session.passivated", sid=cell.sid)
        if cell.state is not State.PASSIVATED:
            return
        if cell.waits:
            self.wake(cell)
        elif cell.tabs:
            self.reaper.schedule(cell)
        elif self._must_stay(cell):
            self.reaper.schedule_at(cell.sid, self._env.clock.mono() + EVICT_AFTER_S)
        else:
            self._directory.evict(cell)
            self.reaper.cancel(cell.sid)
            self.reaper.stored(cell)

    def _must_stay(self, cell: Cell) -> bool:
        """Whether it was just looked for, or memory has what the store has not.

        That is crashes that count, and that an operator paused it.
        """
        now = self._env.clock.mono()
        if now < cell.found_mono + FOUND_GRACE_S or cell.mailbox.paused:
            return True
        return cell.budget is not None and cell.budget.counts(now)

    def wake(self, cell: Cell) -> None:
        """A request waits for a passivated session."""
        if cell.state is not State.PASSIVATED:
            return
        if self._directory.get(cell.sid) not in (None, cell):
            # RACE: it was evicted and loaded again while a connection held the old cell.
            cell.refuse_all(
                RetryError(
                    ErrorCode.BUSY,
                    "The session was just loaded; try again.",
                    outcome="not_run",
                    retry_after_ms=100,
                )
            )
            return
        cell.transit(Event.WOKEN)
        self._directory.add(cell)
        self._incarnations.start(cell)
        self._metrics.activations += 1
        self._env.events.emit("session.activated", sid=cell.sid)
        self.reaper.schedule(cell)

    # -- the end -----------------------------------------------------------------------

    async def expire_stored(self) -> None:
        """See `ReaperActions`."""
        clock, settings = self._env.clock, self._env.settings
        try:
            found = await self._env.store.expiring(
                clock.now(), settings.session_timeout_s, EXPIRE_SLICE
            )
        except StoreError as error:
            log.warning("session.expiry_failed", error=str(error))
            self.reaper.look_in_store_at(clock.mono() + RETRY_S)
            return
        # RACE: no await from here on: who comes back now is told that the session ended.
        for name in found.sids:
            sid = Sid(name)
            cell = self._directory.get(sid)
            if cell is not None:
                cell.write_facts_quietly()  # it is in use, and the store is told so
            elif not self._is_finding(sid) and sid not in self._directory.ending:
                self.end_stored(sid, "idle")
        if len(found.sids) >= EXPIRE_SLICE:
            self.reaper.look_in_store_at(clock.mono())
        elif found.next_at is not None:
            self.reaper.look_in_store_at(clock.mono() + max(0.0, found.next_at - clock.now()))

    def end_stored(self, sid: Sid, reason: str) -> asyncio.Future[bool]:
        """End a session that rests in the store, which may not know it.

        Returns:
            Whether there was one, once that is durable.
        """
        self._directory.bury(sid, reason)
        self._metrics.session_closed(reason)
        log.info("session.closed", sid=sid, reason=reason)
        self._env.events.emit("session.closed", sid=sid, reason=reason)
        return self.forget(sid, reason)

    def forget(self, sid: Sid, reason: str) -> asyncio.Future[bool]:
        """Have the store forget an ended session, tried until it does.

        Returns:
            Whether it was there; StoreError if the first try failed.
        """
        first: asyncio.Future[bool] = self._env.loop.create_future()
        self._directory.ending[sid] = Ending(reason, first)
        first.add_done_callback(_seen)
        self._spawn(self._forget(sid, reason, first), first)
        return first

    async def _forget(self, sid: Sid, reason: str, first: asyncio.Future[bool]) -> None:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                was_there = await self._env.store.delete(sid, reason)
            except StoreError as error:
                log.warning("session.not_forgotten", sid=sid, error=str(error))
                refuse(first, error)
            else:
                self._directory.ending.pop(sid, None)
                if not first.done():
                    first.set_result(was_there)
                return
            await self._env.clock.sleep(delay_s)
            delay_s = min(RETRY_S, 2 * delay_s)


def _seen(first: asyncio.Future[bool]) -> None:
    """Not everybody waits for the end of a session."""
    if not first.cancelled():
        first.exception()
