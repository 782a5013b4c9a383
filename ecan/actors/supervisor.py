"""The supervisor: creates sessions, restarts crashed ones, gives up, reaps idle ones."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from ecan.actors.arrivals import Arrivals
from ecan.actors.biography import MAX_MESSAGE_CHARS, CrashNote
from ecan.actors.crashes import crash_reply, error_text, record_crash
from ecan.actors.incarnations import Incarnations
from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import (
    CloseSession,
    DeadlinesDue,
    FindSession,
    HandlerAbandoned,
    OpenSession,
    RestartDue,
    SessionCrashed,
    SessionWanted,
    SteerSession,
    TabsChanged,
    TimeoutsChanged,
    refuse,
)
from ecan.actors.reaper import Reaper
from ecan.actors.refusals import closed_error, failed_error
from ecan.actors.rest import Rest
from ecan.actors.restart import RestartBudget
from ecan.actors.steering import Steering
from ecan.errors import ReplyError, StoreError
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.runtime import LoopActor
from ecan.store import Snapshot

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.guard import PoisonGuard
    from ecan.observability import Metrics
    from ecan.runtime import Mailbox

log = get_logger("ecan.supervisor")


class SupervisorActor(LoopActor):
    """Keeps every session alive, one for one.

    State owned: the heap of idle deadlines, and work in flight at the store. All that
    is known of a session is in its cell, so that a new supervisor can take over.

    Messages in: see `ecan.actors.messages`. Messages out: none; it starts and halts
    session actors and answers requests that they cannot answer any more.

    A crash: the sessions go on; `ecan.actors.sessions.SessionService` starts another
    supervisor over the same directory, which rebuilds its view (`on_start`).
    """

    registered = False

    def __init__(
        self,
        env: Environment,
        directory: Directory,
        guard: PoisonGuard,
        metrics: Metrics,
        mailbox: Mailbox,
        on_failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(mailbox=mailbox)
        self.env = env
        self.directory = directory
        self.guard = guard
        self.metrics = metrics
        self._on_failed = on_failed
        self._incarnations = Incarnations(env, metrics)
        self._rest = Rest(
            env,
            directory,
            self._incarnations,
            self._spawn,
            self._end_session,
            lambda sid: self._arrivals.is_finding(sid),  # noqa: PLW0108 - made below
            metrics,
        )
        self._reaper = self._rest.reaper = Reaper(env, directory, self._rest, self._spawn)
        self._arrivals = Arrivals(
            env,
            directory,
            self._incarnations,
            self._reaper,
            self._spawn,
            lambda cell: env.tell_supervisor(SessionWanted(cell)),
            self._end_session,
            metrics,
        )
        self._steering = Steering(env, directory, self._incarnations, self._rest)
        self._work: dict[asyncio.Task[Any], asyncio.Future[Any] | None] = {}
        self._handling: Any = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            OpenSession: self._arrivals.open,
            FindSession: self._arrivals.find,
            CloseSession: self._close_session,
            SteerSession: self._steering.steer,
            SessionCrashed: self._crashed,
            HandlerAbandoned: self._abandoned,
            SessionWanted: lambda message: self._rest.wake(message.cell),
            TabsChanged: self._tabs_changed,
            RestartDue: self._restart_due,
            DeadlinesDue: lambda _: self._reaper.reap(),
            TimeoutsChanged: lambda _: self._spawn(self._reaper.reschedule()),
        }

    # -- the actor -------------------------------------------------------------------

    def on_start(self) -> None:
        """Build the view: from the directory, after a supervisor's own crash; from the store."""
        self._reaper.look_in_store_at(self.env.clock.mono())
        for sid, ending in list(self.directory.ending.items()):
            self._rest.forget(sid, ending.reason)
        for cell in self.directory:
            if cell.state is State.STARTING and cell.incarnation == 0:
                # Its creation ended with the last supervisor; nobody knows its secrets.
                cell.transit(Event.CLOSED, "could not be stored")
                self.directory.forget(cell)
                self._rest.forget(cell.sid, "abandoned")
                continue
            self._reaper.schedule(cell)
            if cell.state is State.RESTARTING:
                self._incarnations.restart_later(cell, 0.0)
            elif cell.state is State.STARTING:
                self._begin_when_landed(cell)
            elif cell.state is State.ACTIVE and (
                cell.actor is None or not cell.actor.actor_ref.is_alive()
            ):
                self._lost(cell)
            elif cell.state is State.PASSIVATING:
                self._spawn(self._rest.settle(cell))
            elif cell.state is State.PASSIVATED and cell.waits:
                self._rest.wake(cell)

    def _begin_when_landed(self, cell: Cell) -> None:
        """Whoever was to begin it may have ended with the last supervisor.

        RACE: a reset on its way begins it itself, and must not land in a later incarnation.
        """
        landing = cell.landing
        if landing is not None and not landing.done():
            landing.add_done_callback(lambda _: self._begin_when_landed(cell))
        elif cell.state is State.STARTING and cell.actor is None:
            self._incarnations.start(cell)

    def _lost(self, cell: Cell) -> None:
        """Its crash was on the way to the supervisor that crashed itself."""
        if cell.actor is None:
            cell.transit(Event.REPLACED, "lost")
            self._incarnations.restart(cell, "lost")
            return
        error = RuntimeError("the session's actor was found dead")
        self._crashed(SessionCrashed(cell, cell.incarnation, None, error))

    def on_receive(self, message: Any) -> None:
        """Dispatch by the message's type."""
        self._handling = message
        self._handlers[type(message)](message)
        self._handling = None

    def on_stop(self) -> None:
        """Let go of timers and work at the store."""
        self._reaper.stop()
        for task in self._work:
            task.cancel()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002 - pykka's signature
        exception_value: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """A bug of ours: hand over to a successor."""
        self.on_stop()
        busy = ReplyError(
            ErrorCode.BUSY, "The supervisor was restarted; try again.", retry_after_ms=200
        )
        owed = [getattr(self._handling, "reply", None), *self._work.values()]
        for reply in [*owed, *self._arrivals.owed()]:
            if reply is not None:
                refuse(reply, busy)
        self._on_failed(exception_value or RuntimeError("unknown"))

    def _spawn(
        self, coroutine: Coroutine[Any, Any, Any], reply: asyncio.Future[Any] | None = None
    ) -> None:
        """Work at the store, so that the supervisor itself never waits."""
        name = f"supervisor {getattr(coroutine, '__name__', '')}"
        task = self.env.loop.create_task(coroutine, name=name)
        self._work[task] = reply
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[Any]) -> None:
        del self._work[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("supervisor.work_failed", task=task.get_name(), exc_info=error)

    # -- crashes ---------------------------------------------------------------------

    def _crashed(self, message: SessionCrashed) -> None:
        cell, call = message.cell, message.call
        clock = self.env.clock
        suspended = len(self.guard.suspended)
        crash_id, letter = record_crash(message, clock, self.guard, self.metrics)
        self._tell_of_crash(message, crash_id)
        if call is not None and len(self.guard.suspended) > suspended:
            name = call.spec.name
            self.env.events.emit("method.suspended", method=name, why=self.guard.suspended[name])
        # A late message of an earlier incarnation is recorded and answered, no more.
        current = (
            cell.incarnation == message.incarnation
            and cell.state is State.ACTIVE
            and cell.actor is not None
        )
        delay_s: float | None = None
        if current:
            if cell.budget is None:
                cell.budget = RestartBudget()
            delay_s = cell.budget.crashed(clock.mono(), random.random)
        reply = crash_reply(crash_id, message.incarnation, delay_s, late=not current)
        if call is not None:
            if call.started_mono == 0.0:
                call.started_mono = clock.mono()
            self.env.observe(call, "crashed")
            cell.refuse(call, reply, letter=letter)
        if not current:
            return
        actor, cell.actor = cell.actor, None
        if actor is not None:
            actor.end_running(reply)
        if delay_s is None:
            self._give_up_on(cell)
            return
        cell.transit(Event.CRASHED, f"{type(message.error).__name__} {crash_id}")
        self._incarnations.restart_later(cell, delay_s)

    def _tell_of_crash(self, message: SessionCrashed, crash_id: str) -> None:
        cell = message.cell
        method = "" if message.call is None else message.call.spec.name
        error = error_text(message)[:MAX_MESSAGE_CHARS]
        cell.biography.crashed(CrashNote(self.env.clock.now(), crash_id, method, error))
        self.env.events.emit(
            "session.crashed",
            sid=cell.sid,
            incarnation=message.incarnation,
            method=method,
            crash_id=crash_id,
            error=type(message.error).__name__,
        )

    def _give_up_on(self, cell: Cell) -> None:
        """Too many crashes: keep everything, refuse requests, wait for an operator (P6)."""
        cell.transit(Event.GAVE_UP, "crash loop")
        self.metrics.give_ups += 1
        log.error(
            "session.failed",
            sid=cell.sid,
            incarnation=cell.incarnation,
            user=cell.user.username,
            reason="crash_loop",
        )
        self.env.events.emit("session.failed", sid=cell.sid, reason="crash_loop")
        cell.refuse_all(failed_error())
        cell.facts_changed = True
        cell.notify("session.failed", {"reason": "crash_loop"})

    def _restart_due(self, message: RestartDue) -> None:
        cell = message.cell
        if cell.state is State.RESTARTING and cell.incarnation == message.incarnation:
            cell.timer = None
            cell.transit(Event.BACKOFF_OVER)
            self._incarnations.restart(cell, "crash")

    def _abandoned(self, message: HandlerAbandoned) -> None:
        """A handler did not stop: go on without it, from the last commit (P7)."""
        cell = message.cell
        if cell.incarnation != message.incarnation or cell.state is not State.ACTIVE:
            return
        self.metrics.handlers_abandoned += 1
        reason = "timeout" if message.reason is ErrorCode.TIMEOUT else "cancelled"
        log.warning(
            "session.handler_abandoned",
            sid=cell.sid,
            incarnation=cell.incarnation,
            method=message.method,
            reason=reason,
        )
        self.env.events.emit(
            "session.stuck",
            sid=cell.sid,
            incarnation=cell.incarnation,
            method=message.method,
            reason=reason,
        )
        self._incarnations.replace(cell, Event.REPLACED, reason)

    # -- the end ---------------------------------------------------------------------

    def _close_session(self, message: CloseSession) -> None:
        sid, reply = message.sid, message.reply
        cell = self.directory.get(sid)
        if cell is not None:
            ended = self._end_session(cell, message.reason)
        elif sid in self.directory.ending:
            ended = self.directory.ending[sid].known
        elif self.directory.reason(sid) is not None:
            if not reply.done():
                reply.set_result(False)
            return
        else:
            # It may be on its way out of the store: `Arrivals` looks for its tombstone.
            self._spawn(self._close_stored(message), reply)
            return
        ended.add_done_callback(partial(_pass_on, reply))

    async def _close_stored(self, message: CloseSession) -> None:
        sid, reply = message.sid, message.reply
        try:
            found = await self.env.store.load(sid)
        except StoreError as error:
            refuse(reply, error)
            return
        cell = self.directory.get(sid)
        if cell is not None:
            # RACE: a tab came back while we looked it up.
            ended = self._end_session(cell, message.reason)
        elif isinstance(found, Snapshot) and self.directory.reason(sid) is None:
            ended = self._rest.end_stored(sid, message.reason)
        else:
            if not reply.done():
                reply.set_result(False)
            return
        ended.add_done_callback(partial(_pass_on, reply))

    def _end_session(self, cell: Cell, reason: str) -> asyncio.Future[bool]:
        cell.transit(Event.CLOSED, reason)
        cell.close_reason = reason
        error = closed_error(reason)
        error.outcome = "not_run"
        cell.refuse_all(error)
        running = closed_error(reason)
        running.outcome = "unknown"
        self._incarnations.halt(cell, running)
        cell.tokens.revoke_all()
        cell.notify("session.closed", {"reason": reason})
        self.directory.bury(cell.sid, reason)
        self.directory.leave(cell)
        self._reaper.cancel(cell.sid)
        self.metrics.session_closed(reason)
        log.info(
            "session.closed",
            sid=cell.sid,
            incarnation=cell.incarnation,
            user=cell.user.username,
            reason=reason,
        )
        self.env.events.emit("session.closed", sid=cell.sid, reason=reason)
        if reason == "killed":
            for peer in list(cell.tabs.values()):
                peer.close(CloseCode.SESSION_KILLED, "An operator ended the session.")
        cell.tabs = {}
        cell.slots = {}
        return self._rest.forget(cell.sid, reason)

    def _tabs_changed(self, message: TabsChanged) -> None:
        cell = message.cell
        if cell.state is not State.CLOSED and self.directory.get(cell.sid) is cell:
            self._reaper.schedule(cell)


def _pass_on(reply: asyncio.Future[bool], ended: asyncio.Future[bool]) -> None:
    """Tell whoever asked for the end of a session that it is durable, or is not."""
    if ended.cancelled() or reply.done():
        return
    error = ended.exception()
    if error is not None:
        reply.set_exception(error)
    else:
        reply.set_result(True)
