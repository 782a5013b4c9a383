"""The supervisor: creates sessions, restarts crashed ones, gives up, reaps idle ones."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from ecan.actors.cell import Cell, closed_error, failed_error
from ecan.actors.crashes import crash_reply, record_crash
from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import (
    CloseSession,
    DeadlinesDue,
    FindSession,
    HandlerAbandoned,
    Opened,
    OpenSession,
    RestartDue,
    SessionCrashed,
    SessionWanted,
    SteerSession,
    TabsChanged,
)
from ecan.actors.reaper import Reaper
from ecan.actors.restart import RestartBudget
from ecan.actors.session import SessionActor
from ecan.actors.snapshots import cell_of, snapshot_of
from ecan.actors.tokens import digest, new_session_id, sid_of
from ecan.errors import ReplyError, StoreError, SupervisionError
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.runtime import LoopActor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.guard import DeadLetters, PoisonGuard
    from ecan.observability import Metrics
    from ecan.protocol.frames import Sid
    from ecan.runtime import Mailbox

RETRY_SAVE_S = 60.0
"""When the store refused a snapshot, or a look at one."""

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
        dead_letters: DeadLetters,
        metrics: Metrics,
        mailbox: Mailbox,
        on_failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(mailbox=mailbox)
        self.env = env
        self.directory = directory
        self.guard = guard
        self.dead_letters = dead_letters
        self.metrics = metrics
        self._on_failed = on_failed
        self._reaper = Reaper(env, directory, self)
        self._work: dict[asyncio.Task[Any], asyncio.Future[Any] | None] = {}
        self._handling: Any = None
        self._finding: dict[Sid, list[asyncio.Future[Cell | None]]] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            OpenSession: self._open,
            FindSession: self._find,
            CloseSession: self._close_session,
            SteerSession: self._steer,
            SessionCrashed: self._crashed,
            HandlerAbandoned: self._abandoned,
            SessionWanted: self._wanted,
            TabsChanged: self._tabs_changed,
            RestartDue: self._restart_due,
            DeadlinesDue: lambda _: self._reaper.reap(),
        }

    # -- the actor -------------------------------------------------------------------

    def on_start(self) -> None:
        """Rebuild the view from the directory: after a supervisor's own crash."""
        # When a stored session was last used, the store is asked when it may be idle at last.
        idle_mono = self.env.clock.mono() + self.env.settings.session_timeout_s
        for sid in self.directory.stored():
            self._reaper.schedule_at(sid, idle_mono)
        for cell in self.directory:
            if cell.state is State.STARTING and cell.incarnation == 0:
                # Its creation ended with the last supervisor; nobody knows its secrets.
                cell.transit(Event.CLOSED, "could not be stored")
                self.directory.forget(cell)
                self._spawn(self.env.store.delete(cell.sid))
                continue
            self._reaper.schedule(cell)
            if cell.state is State.RESTARTING:
                self._restart_later(cell, 0.0)
            elif cell.state in (State.ACTIVE, State.STARTING) and (
                cell.actor is None or not cell.actor.actor_ref.is_alive()
            ):
                self._lost(cell)
            elif cell.state is State.PASSIVATING:
                self._spawn(self._save_passivated(cell))
            elif cell.state is State.PASSIVATED and cell.pending:
                self._wanted(SessionWanted(cell))

    def _lost(self, cell: Cell) -> None:
        """Its crash was on the way to the supervisor that crashed itself."""
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
        for reply in itertools.chain(owed, *self._finding.values()):
            if reply is not None:
                _refuse(reply, busy)
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

    # -- creation --------------------------------------------------------------------

    def _open(self, message: OpenSession) -> None:
        settings = self.env.settings
        user = message.user
        problem = None
        if self.directory.total >= settings.max_sessions:
            problem = "The server has as many sessions as it takes."
        elif len(self.directory.of_user(user.user_id)) >= settings.max_sessions_per_user:
            problem = (
                f"You have {settings.max_sessions_per_user} sessions; log out of one of them first."
            )
        if problem is not None:
            self.metrics.rejected("session_limit")
            _refuse(
                message.reply,
                ReplyError(ErrorCode.SESSION_LIMIT, problem, retry_after_ms=60_000),
            )
            return
        clock = self.env.clock
        while True:
            session_id = new_session_id()
            key = digest(session_id)
            sid = sid_of(key)
            if not self.directory.knows(sid):
                break
        cell = Cell(
            sid,
            key,
            user,
            clock,
            mailbox_size=settings.mailbox_size,
            wake=self._wake_cell,
            created_at=clock.now(),
        )
        token, record = cell.tokens.issue(clock.now(), settings.token_ttl_s)
        self.directory.count_in(sid, user.user_id)
        self.directory.add(cell)
        opened = Opened(cell, session_id, token, record)
        self._spawn(self._create(message, opened), message.reply)

    async def _create(self, message: OpenSession, opened: Opened) -> None:
        cell = opened.cell
        try:
            await self.env.store.create(
                snapshot_of(cell, self.env.clock.now(), self.env.clock.mono())
            )
        except Exception as error:
            cell.transit(Event.CLOSED, "could not be stored")
            self.directory.forget(cell)
            _refuse(message.reply, error)
            raise
        if cell.state is not State.STARTING:
            _refuse(message.reply, closed_error(cell.close_reason))
            return
        self._start(cell)
        self._reaper.schedule(cell)
        self.metrics.sessions_opened += 1
        log.info("session.created", sid=cell.sid, user=cell.user.username)
        if not message.reply.done():
            message.reply.set_result(opened)

    def _start(self, cell: Cell) -> None:
        """Begin an incarnation over the cell's mailbox."""
        cell.incarnation += 1
        actor = SessionActor(cell, self.env)
        cell.actor = actor
        cell.transit(Event.STARTED)
        actor.begin()

    def _find(self, message: FindSession) -> None:
        sid = message.sid
        cell = self.directory.get(sid)
        if cell is not None:
            if not message.reply.done():
                message.reply.set_result(cell)
            return
        waiting = self._finding.get(sid)
        if waiting is not None:
            waiting.append(message.reply)
            return
        self._finding[sid] = [message.reply]
        self._spawn(self._load(sid))

    async def _load(self, sid: Sid) -> None:
        cell: Cell | None = None
        error: BaseException | None = None
        try:
            snapshot = await self.env.store.load(sid)
            reason = self.directory.reason(sid)
            if reason is not None:
                # RACE: it was closed while it was being loaded.
                error = closed_error(reason)
            elif snapshot is not None:
                cell = cell_of(
                    snapshot,
                    self.env.clock,
                    mailbox_size=self.env.settings.mailbox_size,
                    wake=self._wake_cell,
                )
                self.directory.count_in(sid, cell.user.user_id)
                self.directory.add(cell)
                self._reaper.schedule(cell)
        except Exception as problem:  # noqa: BLE001 - told to whoever asked
            error = problem
        for reply in self._finding.pop(sid, ()):
            if reply.done():
                continue
            if error is not None:
                reply.set_exception(error)
            else:
                reply.set_result(cell)

    # -- crashes ---------------------------------------------------------------------

    def _crashed(self, message: SessionCrashed) -> None:
        cell, call = message.cell, message.call
        clock = self.env.clock
        crash_id = record_crash(message, clock, self.guard, self.dead_letters, self.metrics)
        # A late message of an earlier incarnation is recorded and answered, no more.
        current = cell.incarnation == message.incarnation and cell.state in (
            State.ACTIVE,
            State.STARTING,
        )
        delay_s: float | None = None
        if current:
            if cell.budget is None:
                cell.budget = RestartBudget()
            delay_s = cell.budget.crashed(clock.mono(), random.random)
        reply = crash_reply(crash_id, message.incarnation, delay_s)
        if call is not None:
            if call.started_mono == 0.0:
                call.started_mono = clock.mono()
            self.env.observe(call, "crashed")
            cell.refuse(call, reply)
        if not current:
            return
        actor, cell.actor = cell.actor, None
        if actor is not None:
            actor.end_running(reply)
        if delay_s is None:
            self._give_up_on(cell)
            return
        cell.transit(Event.CRASHED, f"{type(message.error).__name__} {crash_id}")
        self._restart_later(cell, delay_s)

    def _give_up_on(self, cell: Cell) -> None:
        """Too many crashes: keep everything, refuse requests, wait for an operator (P6)."""
        cell.transit(Event.GAVE_UP, "crash loop")
        self.metrics.give_ups += 1
        log.error("session.failed", sid=cell.sid, user=cell.user.username, reason="crash_loop")
        cell.refuse_all(failed_error())
        cell.notify("session.failed", {"reason": "crash_loop"})
        self._spawn(self._save(cell))

    async def _save(self, cell: Cell) -> None:
        await self.env.store.save(snapshot_of(cell, self.env.clock.now(), self.env.clock.mono()))

    def _restart_later(self, cell: Cell, delay_s: float) -> None:
        cell.timer = self.env.clock.call_later(
            delay_s, self.env.tell_supervisor, RestartDue(cell, cell.incarnation)
        )

    def _restart_due(self, message: RestartDue) -> None:
        cell = message.cell
        if cell.state is State.RESTARTING and cell.incarnation == message.incarnation:
            cell.timer = None
            cell.transit(Event.BACKOFF_OVER)
            self._restarted(cell, "crash")

    def _restarted(self, cell: Cell, reason: str) -> None:
        cell.restarts += 1
        self._start(cell)
        self.metrics.restarts += 1
        log.info("session.restarted", sid=cell.sid, incarnation=cell.incarnation, reason=reason)
        cell.notify("session.restarted", {"incarnation": cell.incarnation, "reason": reason})

    def _abandoned(self, message: HandlerAbandoned) -> None:
        """A handler did not stop: go on without it, from the last commit (P7)."""
        cell = message.cell
        if cell.incarnation != message.incarnation or cell.state is not State.ACTIVE:
            return
        reason = "timeout" if message.reason is ErrorCode.TIMEOUT else "cancelled"
        log.warning(
            "session.handler_abandoned",
            sid=cell.sid,
            incarnation=cell.incarnation,
            method=message.method,
            reason=reason,
        )
        self._replace(cell, Event.REPLACED, reason)

    def _replace(self, cell: Cell, event: Event, reason: str) -> None:
        self._halt(
            cell,
            ReplyError(
                ErrorCode.CANCELLED,
                f"The session was restarted ({reason}); what the request did was rolled back.",
                details={"reason": reason},
                retryable=True,
            ),
        )
        cell.transit(event, reason)
        self._restarted(cell, reason)

    def _halt(self, cell: Cell, error: ReplyError) -> None:
        """End the current incarnation; its mail stays for the next one."""
        actor, cell.actor = cell.actor, None
        if actor is not None:
            actor.end_running(error)
            actor.halt()
        if cell.timer is not None:
            cell.timer.cancel()
            cell.timer = None

    # -- the end ---------------------------------------------------------------------

    def _close_session(self, message: CloseSession) -> None:
        cell = self.directory.get(message.sid)
        if cell is None:
            self._spawn(self._close_stored(message), message.reply)
            return
        self._end_session(cell, message.reason)
        if not message.reply.done():
            message.reply.set_result(True)

    async def _close_stored(self, message: CloseSession) -> None:
        try:
            ended = await self._end_stored(message.sid, message.reason)
        except Exception as error:
            _refuse(message.reply, error)
            raise
        if not message.reply.done():
            message.reply.set_result(ended)

    async def _end_stored(self, sid: Sid, reason: str) -> bool:
        """End a session that rests in the store; False if there is none."""
        snapshot = await self.env.store.load(sid)
        cell = self.directory.get(sid)
        if cell is not None:
            # RACE: a tab came back while we looked it up.
            self._end_session(cell, reason)
            return True
        if snapshot is None:
            self._reaper.cancel(sid)
            return False
        user = snapshot.row.user
        self.directory.bury(sid, int(user["user_id"]), reason)
        await self.env.store.delete(sid)
        self._reaper.cancel(sid)
        self.metrics.session_closed(reason)
        log.info("session.closed", sid=sid, user=user["username"], reason=reason)
        return True

    def _end_session(self, cell: Cell, reason: str) -> None:
        cell.transit(Event.CLOSED, reason)
        cell.close_reason = reason
        error = closed_error(reason)
        error.outcome = "not_run"
        cell.refuse_all(error)
        running = closed_error(reason)
        running.outcome = "unknown"
        self._halt(cell, running)
        cell.tokens.revoke_all()
        cell.notify("session.closed", {"reason": reason})
        self.directory.bury(cell.sid, cell.user.user_id, reason)
        self._reaper.cancel(cell.sid)
        self.metrics.session_closed(reason)
        log.info("session.closed", sid=cell.sid, user=cell.user.username, reason=reason)
        if reason == "killed":
            for peer in list(cell.tabs.values()):
                peer.close(CloseCode.SESSION_KILLED, "An operator ended the session.")
        cell.tabs = {}
        cell.slots = {}
        self._spawn(self.env.store.delete(cell.sid))

    def _steer(self, message: SteerSession) -> None:
        cell = self.directory.get(message.sid)
        try:
            if cell is None:
                raise SupervisionError("there is no such session in memory")  # noqa: TRY301
            {
                "revive": self._revive,
                "reset": self._reset,
                "restart": self._restart,
                "passivate": self._passivate_now,
            }[message.command](cell)
        except SupervisionError as error:
            _refuse(message.reply, error)
        else:
            if not message.reply.done():
                message.reply.set_result(None)

    def _revive(self, cell: Cell) -> None:
        cell.transit(Event.REVIVED)
        if cell.budget is not None:
            cell.budget.reset()
        self._restarted(cell, "revived")

    def _reset(self, cell: Cell) -> None:
        """Start over with an empty state; the ledger stays, so nothing runs twice."""
        cell.transit(Event.RESET)
        self._halt(
            cell,
            ReplyError(
                ErrorCode.CANCELLED, "An operator reset the session.", details={"reason": "reset"}
            ),
        )
        cell.slots = {}
        if cell.budget is not None:
            cell.budget.reset()
        self._restarted(cell, "reset")
        self._spawn(self._save(cell))

    def _restart(self, cell: Cell) -> None:
        if cell.state is not State.ACTIVE:
            raise SupervisionError(f"a session that is {cell.state} cannot be restarted")
        self._replace(cell, Event.REPLACED, "operator")

    def _passivate_now(self, cell: Cell) -> None:
        if cell.pending:
            raise SupervisionError("the session has requests in work")
        self.passivate(cell)

    # -- idleness: ReaperActions -----------------------------------------------------

    def expire(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._end_session(cell, "idle")

    def expire_stored(self, sid: Sid) -> None:
        """See `ReaperActions`."""
        self._reaper.schedule_at(sid, self.env.clock.mono() + RETRY_SAVE_S)  # if the store fails
        self._spawn(self._expire_stored(sid))

    async def _expire_stored(self, sid: Sid) -> None:
        snapshot = await self.env.store.load(sid)
        if self.directory.get(sid) is not None:
            return  # a tab came back: its cell has a deadline of its own
        if snapshot is not None:
            row, settings = snapshot.row, self.env.settings
            expires_at = max(row.last_active_at + settings.session_timeout_s, row.keep_until_at)
            left_s = expires_at - self.env.clock.now()
            if left_s > 0:
                self._reaper.schedule_at(sid, self.env.clock.mono() + left_s)
                return
        await self._end_stored(sid, "idle")

    def passivate(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        cell.transit(Event.IDLE)
        self._halt(cell, ReplyError(ErrorCode.CANCELLED, "The session was passivated."))
        self._spawn(self._save_passivated(cell))

    def evict(self, cell: Cell) -> None:
        """See `ReaperActions`."""
        self._spawn(self._save_passivated(cell))

    async def _save_passivated(self, cell: Cell) -> None:
        try:
            await self._save(cell)
        except StoreError as error:
            log.error("session.save_failed", sid=cell.sid, error=str(error))  # noqa: TRY400 - the store's words say it all
            if cell.state is State.PASSIVATING:
                # It stays in memory rather than being lost; tried again in a while.
                cell.transit(Event.WOKEN, "could not be saved")
                self._start(cell)
            self._reaper.schedule_at(cell.sid, self.env.clock.mono() + RETRY_SAVE_S)
            return
        if cell.state is State.PASSIVATING:
            cell.transit(Event.SAVED)
            self.metrics.passivations += 1
            log.debug("session.passivated", sid=cell.sid)
        if cell.state is not State.PASSIVATED:
            return
        if cell.pending:
            self._wanted(SessionWanted(cell))
            return
        if not cell.tabs:
            self.directory.evict(cell)
            self._reaper.schedule_expiry(cell)
        else:
            self._reaper.schedule(cell)

    def _wake_cell(self, cell: Cell) -> None:
        self.env.tell_supervisor(SessionWanted(cell))

    def _wanted(self, message: SessionWanted) -> None:
        cell = message.cell
        if cell.state is State.PASSIVATED:
            cell.transit(Event.WOKEN)
            # RACE: it may have been evicted between being found and being asked.
            self.directory.add(cell)
            self._start(cell)
            self.metrics.activations += 1
            self._reaper.schedule(cell)

    def _tabs_changed(self, message: TabsChanged) -> None:
        cell = message.cell
        if cell.state is not State.CLOSED and self.directory.get(cell.sid) is cell:
            self._reaper.schedule(cell)


def _refuse(reply: asyncio.Future[Any], error: BaseException) -> None:
    if not reply.done():
        reply.set_exception(error)
