"""Rest: how a session leaves memory, and how one that rests in the store ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.lifecycle import Event, State
from ecan.actors.snapshots import snapshot_of
from ecan.errors import ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.incarnations import Incarnations
    from ecan.actors.messages import Spawn
    from ecan.actors.reaper import Reaper
    from ecan.observability import Metrics
    from ecan.protocol.frames import Sid

RETRY_SAVE_S = 60.0
"""When the store refused a snapshot."""

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
        close: Callable[[Cell, str], None],
        metrics: Metrics,
    ) -> None:
        self._env = env
        self._directory = directory
        self._incarnations = incarnations
        self._spawn = spawn
        self._close = close
        self._metrics = metrics

    async def save(self, cell: Cell) -> None:
        """Write all of a session into the store."""
        await self._env.store.save(snapshot_of(cell, self._env.clock.now(), self._env.clock.mono()))

    def expire(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._close(cell, "idle")

    def expire_stored(self, sid: Sid) -> None:
        """See `ReaperActions`."""
        self.reaper.schedule_at(sid, self._env.clock.mono() + RETRY_SAVE_S)  # if the store fails
        self._spawn(self._expire_stored(sid))

    async def _expire_stored(self, sid: Sid) -> None:
        snapshot = await self._env.store.load(sid)
        if self._directory.get(sid) is not None:
            return  # a tab came back: its cell has a deadline of its own
        if snapshot is not None:
            row, settings = snapshot.row, self._env.settings
            expires_at = max(row.last_active_at + settings.session_timeout_s, row.keep_until_at)
            left_s = expires_at - self._env.clock.now()
            if left_s > 0:
                self.reaper.schedule_at(sid, self._env.clock.mono() + left_s)
                return
        await self.end_stored(sid, "idle")

    def passivate(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        cell.transit(Event.IDLE)
        self._incarnations.halt(
            cell, ReplyError(ErrorCode.CANCELLED, "The session was passivated.")
        )
        self._spawn(self.save_passivated(cell))

    def evict(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._spawn(self.save_passivated(cell))

    async def save_passivated(self, cell: Cell) -> None:
        """Finish a passivation; without a tab the session leaves memory."""
        try:
            await self.save(cell)
        except Exception:
            log.exception("session.save_failed", sid=cell.sid)
            if cell.state is State.PASSIVATING:
                # It stays in memory rather than being lost; tried again in a while.
                cell.transit(Event.WOKEN, "could not be saved")
                self._incarnations.start(cell)
            self.reaper.schedule_at(cell.sid, self._env.clock.mono() + RETRY_SAVE_S)
            return
        if cell.state is State.PASSIVATING:
            cell.transit(Event.SAVED)
            self._metrics.passivations += 1
            log.debug("session.passivated", sid=cell.sid)
        if cell.state is not State.PASSIVATED:
            return
        if cell.pending:
            self.wake(cell)
            return
        if not cell.tabs:
            self._directory.evict(cell)
            self.reaper.schedule_expiry(cell)
        else:
            self.reaper.schedule(cell)

    def wake(self, cell: Cell) -> None:
        """A request waits for a passivated session."""
        if cell.state is State.PASSIVATED:
            cell.transit(Event.WOKEN)
            # RACE: it may have been evicted between being found and being asked.
            self._directory.add(cell)
            self._incarnations.start(cell)
            self._metrics.activations += 1
            self.reaper.schedule(cell)

    async def end_stored(self, sid: Sid, reason: str) -> bool:
        """End a session that rests in the store; False if there is none."""
        snapshot = await self._env.store.load(sid)
        cell = self._directory.get(sid)
        if cell is not None:
            # RACE: a tab came back while we looked it up.
            self._close(cell, reason)
            return True
        if snapshot is None:
            self.reaper.cancel(sid)
            return False
        user = snapshot.row.user
        self._directory.bury(sid, int(user["user_id"]), reason)
        await self._env.store.delete(sid)
        self.reaper.cancel(sid)
        self._metrics.session_closed(reason)
        log.info("session.closed", sid=sid, user=user["username"], reason=reason)
        return True
