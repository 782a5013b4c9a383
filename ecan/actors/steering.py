"""What operators have the supervisor do with one session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import refuse
from ecan.errors import ReplyError, StoreError, SupervisionError
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.incarnations import Incarnations
    from ecan.actors.messages import SteerSession
    from ecan.actors.rest import Rest


class Steering:
    """Revives, resets, restarts, passivates and pauses, for the supervisor."""

    def __init__(
        self, env: Environment, directory: Directory, incarnations: Incarnations, rest: Rest
    ) -> None:
        self._env = env
        self._directory = directory
        self._incarnations = incarnations
        self._rest = rest

    def steer(self, message: SteerSession) -> None:
        """Do what the operator says, or say why it does not fit."""
        cell = self._directory.get(message.sid)
        try:
            if cell is None:
                raise SupervisionError("there is no such session in memory")  # noqa: TRY301
            if message.command == "reset":
                self._reset(cell, message.reply)
                return
            {
                "revive": self._revive,
                "restart": self._restart,
                "passivate": self._passivate_now,
                "pause": self._pause_queue,
                "resume": self._resume_queue,
            }[message.command](cell)
        except SupervisionError as error:
            refuse(message.reply, error)
        else:
            _accomplish(message.reply)

    def _revive(self, cell: Cell) -> None:
        cell.transit(Event.REVIVED)
        if cell.budget is not None:
            cell.budget.reset()
        self._incarnations.restart(cell, "revived")

    def _reset(self, cell: Cell, reply: asyncio.Future[None]) -> None:
        """Start over with an empty state; the ledger stays, so nothing runs twice."""
        cell.transit(Event.RESET)
        self._incarnations.halt(
            cell,
            ReplyError(
                ErrorCode.CANCELLED, "An operator reset the session.", details={"reason": "reset"}
            ),
        )
        if cell.budget is not None:
            cell.budget.reset()
        # RACE: as a commit on its way it outlives this supervisor, and the next incarnation,
        # whoever begins it, waits for it.
        cell.land(self._env.loop.create_task(self._empty(cell, cell.landing, reply)))

    async def _empty(
        self, cell: Cell, landing: asyncio.Task[None] | None, reply: asyncio.Future[None]
    ) -> None:
        """Delete a session's slots, in the store first; then it goes on."""
        if landing is not None and not landing.done():
            await asyncio.wait([landing])  # it may still add to the slots
        reason = "reset"
        try:
            durable = cell.write(cell.commit_of(slots=dict.fromkeys(cell.slots)))
            if durable is not None:
                await durable
        except StoreError as error:
            reason = "not reset"
            refuse(reply, SupervisionError(f"nothing was reset: {error}"))
        else:
            cell.slots = {}
            _accomplish(reply)
        if cell.state is State.STARTING:
            self._incarnations.restart(cell, reason)

    def _restart(self, cell: Cell) -> None:
        if cell.state is not State.ACTIVE:
            raise SupervisionError(f"a session that is {cell.state} cannot be restarted")
        self._incarnations.replace(cell, Event.REPLACED, "operator")

    def _passivate_now(self, cell: Cell) -> None:
        if cell.waits:
            raise SupervisionError("the session has requests in work")
        self._rest.passivate(cell)

    def _pause_queue(self, cell: Cell) -> None:
        """The mailbox outlives every incarnation, so each of them honours it."""
        cell.mailbox.pause()
        self._env.events.emit("queue.paused", sid=cell.sid)

    def _resume_queue(self, cell: Cell) -> None:
        cell.mailbox.resume()
        self._env.events.emit("queue.resumed", sid=cell.sid)


def _accomplish(reply: asyncio.Future[None]) -> None:
    if not reply.done():
        reply.set_result(None)
