"""Incarnations: how an actor comes to a cell and leaves it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import RestartDue
from ecan.actors.session import SessionActor
from ecan.errors import ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.actors.cell import Cell
    from ecan.actors.environment import Environment
    from ecan.observability import Metrics

FIRST = 1
"""The number of a session's first incarnation."""

log = get_logger("ecan.supervisor")


class Incarnations:
    """Starts, halts and restarts the actors of sessions, for the supervisor."""

    def __init__(self, env: Environment, metrics: Metrics) -> None:
        self._env = env
        self._metrics = metrics

    def start(self, cell: Cell, then: Callable[[], None] | None = None) -> None:
        """Begin an incarnation over the cell's mailbox.

        Its number is committed before there is an actor that could tell it (ADR 9); that
        of the first one came with the session's creation. If the store fails the
        incarnation begins all the same, for those who only read.
        """
        number = cell.incarnation + 1
        durable = None
        if number > FIRST:
            cell.facts_changed = True
            commit = attrs.evolve(cell.commit_of(), incarnation=number, begins=True)
            durable = cell.write_quietly(commit)
        if durable is None:
            self._begin(cell, number, then)
        else:
            durable.add_done_callback(lambda _: self._begin(cell, number, then))

    def _begin(self, cell: Cell, number: int, then: Callable[[], None] | None) -> None:
        if cell.state is not State.STARTING or cell.incarnation >= number:
            return  # RACE: closed meanwhile, or begun by another supervisor
        cell.incarnation = number
        actor = SessionActor(cell, self._env)
        cell.actor = actor
        cell.transit(Event.STARTED)
        actor.begin()
        if then is not None:
            then()

    def restart(self, cell: Cell, reason: str) -> None:
        """Begin the next incarnation and tell the tabs."""
        cell.restarts += 1
        self.start(cell, partial(self._restarted, cell, reason))

    def _restarted(self, cell: Cell, reason: str) -> None:
        self._metrics.restarts += 1
        log.info("session.restarted", sid=cell.sid, incarnation=cell.incarnation, reason=reason)
        self._env.events.emit(
            "session.restarted", sid=cell.sid, incarnation=cell.incarnation, reason=reason
        )
        cell.notify("session.restarted", {"incarnation": cell.incarnation, "reason": reason})

    def restart_later(self, cell: Cell, delay_s: float) -> None:
        """Send `RestartDue` after a back-off."""
        cell.timer = self._env.clock.call_later(
            delay_s, self._env.tell_supervisor, RestartDue(cell, cell.incarnation)
        )

    def replace(self, cell: Cell, event: Event, reason: str) -> None:
        """End the current incarnation and begin the next at once."""
        self.halt(
            cell,
            ReplyError(
                ErrorCode.CANCELLED,
                f"The session was restarted ({reason}); what the request did was rolled back.",
                details={"reason": reason},
                retryable=True,
            ),
        )
        cell.transit(event, reason)
        self.restart(cell, reason)

    def halt(self, cell: Cell, error: ReplyError) -> None:
        """End the current incarnation; its mail stays for the next one."""
        actor, cell.actor = cell.actor, None
        if actor is not None:
            actor.end_running(error)
            actor.halt()
        if cell.timer is not None:
            cell.timer.cancel()
            cell.timer = None
