"""Which session is idle for too long, and what follows (P13).

A busy session is never reaped. An idle one leaves memory (passivated, then evicted),
is warned, and in the end is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ecan.actors.idle import DeadlineHeap
from ecan.actors.lifecycle import State
from ecan.actors.messages import DeadlinesDue
from ecan.protocol.frames import Sid

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.messages import Spawn
    from ecan.config import Settings

SLICE = 100
"""Idle sessions handled in one turn; the loop turns in between."""

TICK_S = 0.001
"""A timer may fire a tick of the clock early; re-armed for the same time, it would spin."""

COMING_UP = frozenset({State.STARTING, State.RESTARTING})
"""Active before long: when its incarnation's number is durable, when its back-off is over."""

COMES_UP_S = 1.0
"""Such a session that is to be passivated is looked at again after this."""

IN_STORE = ""
"""The key of the deadline of all sessions at rest."""

WARN_BEFORE_S = 60.0
"""`session.expiring` comes this long before the end, or at half of a shorter time-out (P13)."""

EVICT_AFTER_S = 60.0
"""A passivated session without a tab leaves memory after this."""


class ReaperActions(Protocol):
    """What the supervisor does for the reaper."""

    def expire(self, cell: Cell) -> None:
        """Close the session as idle."""

    async def expire_stored(self) -> None:
        """End what has been idle for too long in the store, and say when to look again."""

    def passivate(self, cell: Cell) -> None:
        """Let the actor go."""

    def evict(self, cell: Cell) -> None:
        """Drop the cell of the passivated session."""


def expires_at_mono(cell: Cell, settings: Settings) -> float:
    """When the session is closed as idle, if nothing happens before."""
    return max(cell.last_active_mono + settings.session_timeout_s, cell.keep_until_mono)


def passivates_at_mono(cell: Cell, settings: Settings) -> float:
    """When the actor is let go, if nothing happens before; sooner without a tab."""
    attached_s = settings.passivate_after_s
    if cell.tabs:
        return cell.last_active_mono + attached_s
    since = max(cell.last_active_mono, cell.detached_mono)
    return since + min(attached_s, settings.passivate_detached_after_s)


class Reaper:
    """The idle deadlines of the sessions in memory, and one for those in the store.

    One timer for the earliest. Sessions at rest cost nothing here; the store says when
    the next of them is due.
    """

    def __init__(
        self, env: Environment, directory: Directory, actions: ReaperActions, spawn: Spawn
    ) -> None:
        self._env = env
        self._directory = directory
        self._actions = actions
        self._spawn = spawn
        self._deadlines = DeadlineHeap()
        self._timer: Any = None
        self._timer_at = 0.0

    def schedule(self, cell: Cell) -> None:
        """Set the cell's next deadline: warn, passivate, evict or close."""
        settings = self._env.settings
        expires = expires_at_mono(cell, settings)
        when = expires
        if not cell.expiring_told and cell.tabs:
            when -= self._warn_before_s()
        if cell.state is State.ACTIVE:
            when = min(when, passivates_at_mono(cell, settings))
        elif cell.state in COMING_UP:
            again = self._env.clock.mono() + COMES_UP_S
            when = min(when, max(again, passivates_at_mono(cell, settings)))
        elif cell.state is State.PASSIVATED and not cell.tabs:
            when = min(when, cell.detached_mono + EVICT_AFTER_S)
        self.schedule_at(cell.sid, when)

    async def reschedule(self) -> None:
        """The time-outs were changed: set every deadline anew, some in each turn."""
        self.look_in_store_at(self._env.clock.mono())
        for number, cell in enumerate(self._directory, 1):
            if self._directory.get(cell.sid) is cell:
                self.schedule(cell)
            if number % SLICE == 0:
                await self._env.clock.sleep(0)

    def stored(self, cell: Cell) -> None:
        """The cell leaves memory: only its end is left to wait for."""
        self.look_in_store_at(expires_at_mono(cell, self._env.settings))

    def look_in_store_at(self, when_mono: float) -> None:
        """Look at the sessions at rest at that time, or before."""
        before = self._deadlines.get(IN_STORE)
        if before is None or when_mono < before:
            self.schedule_at(Sid(IN_STORE), when_mono)

    def schedule_at(self, sid: Sid, when_mono: float) -> None:
        """Look at the session at that time."""
        self._deadlines.schedule(sid, when_mono)
        self._arm()

    def cancel(self, sid: Sid) -> None:
        """The session is no more."""
        self._deadlines.cancel(sid)

    def stop(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reap(self) -> None:
        """Handle a slice of the deadlines that have come."""
        self._timer = None
        now = self._env.clock.mono() + TICK_S
        for key in self._deadlines.due(now, SLICE):
            cell = self._directory.get(Sid(key))
            if key == IN_STORE:
                self._spawn(self._actions.expire_stored())
            elif cell is not None:
                self._look_at(cell, now)
        self._arm()

    def _look_at(self, cell: Cell, now: float) -> None:
        settings = self._env.settings
        if cell.waits:
            cell.touch()
            cell.note_activity()
        expires = expires_at_mono(cell, settings)
        if now >= expires:
            self._actions.expire(cell)
            return
        if cell.tabs and not cell.expiring_told and now >= expires - self._warn_before_s():
            cell.expiring_told = True
            cell.notify("session.expiring", {"in_s": round(expires - now)})
        if cell.state is State.ACTIVE and now >= passivates_at_mono(cell, settings):
            self._actions.passivate(cell)
        elif (
            cell.state is State.PASSIVATED
            and not cell.tabs
            and now >= cell.detached_mono + EVICT_AFTER_S
        ):
            self._actions.evict(cell)
        else:
            self.schedule(cell)

    def _warn_before_s(self) -> float:
        return min(WARN_BEFORE_S, self._env.settings.session_timeout_s / 2)

    def _arm(self) -> None:
        next_at = self._deadlines.next_at()
        if next_at is None:
            return
        if self._timer is not None:
            if self._timer_at <= next_at:
                return
            self._timer.cancel()
        self._timer_at = next_at
        self._timer = self._env.clock.call_at(next_at, self._env.tell_supervisor, DeadlinesDue())
