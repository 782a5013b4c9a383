"""The actor of one session: runs its requests, one at a time, and commits what they did."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from copy import copy
from typing import TYPE_CHECKING, Any

from ecan.actors.call import Call
from ecan.actors.cell import MAX_CONCURRENT
from ecan.actors.committing import CommittingActor
from ecan.actors.messages import (
    ConcurrentFailed,
    HandlerAbandoned,
)
from ecan.actors.refusals import stopped_error
from ecan.actors.runner import STOP_GRACE_S, Stopper, run_handler
from ecan.actors.view import SessionView
from ecan.errors import ConflictError, ReplyError
from ecan.handlers.context import UserContext, current_context
from ecan.handlers.registry import Kind
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from ecan.actors.cell import Cell
    from ecan.actors.environment import Environment


MAX_RUNS = 5
"""Of one request, when other sessions of the user change what it read; then CONFLICT (ADR 10)."""

_INLINE = Kind.INLINE


class SessionActor(CommittingActor):
    """One incarnation of a session.

    State owned: the running request and its live context. Everything that outlives it
    is in the `Cell`.

    Messages in: `Call` (from the gateway, user or control lane), `ConcurrentFailed`.
    Messages out, to the supervisor: `SessionCrashed`, `HandlerAbandoned`.

    A crash: the live context is thrown away, the supervisor answers the request that
    did it, the queue stays in the cell for the next incarnation.
    """

    registered = False  # the directory finds sessions; pykka's registry is O(n)
    logs_failures = False  # the supervisor does, with the request and the session

    def __init__(self, cell: Cell, env: Environment) -> None:
        super().__init__(cell, env)
        self._current: Call | None = None
        self._contexts: dict[Call, UserContext] = {}
        self._stoppers: dict[Call, Stopper] = {}
        self._crashed_call: Call | None = None
        self._overlapping: dict[asyncio.Task[None], Call] = {}
        self._view = SessionView(cell, env)

    # -- messages --------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        """Run a request; anything but a `Call` is a note from ourselves."""
        if type(message) is not Call:
            return self._on_note(message)
        call = message
        if call.answered:
            return None
        spec = call.spec
        started = self.env.clock.mono()
        if started >= call.deadline_mono:
            self.cell.refuse(call, stopped_error(ErrorCode.TIMEOUT, ran=False))
            return None
        if spec.kind is _INLINE:
            call.started_mono = started
            return self._run_inline(call)
        if spec.concurrent:
            self._overlap(call)
            return None
        call.started_mono = started
        self.cell.arm(call.deadline_mono)
        self._current = call
        return self._run_call(call)

    def _on_note(self, message: Any) -> Any:
        if type(message) is not ConcurrentFailed:
            return super().on_receive(message)
        if message.incarnation != self.incarnation:
            # RACE: two failed at once; the first ended the incarnation of both.
            self._tell_crashed(message.incarnation, message.call, message.error)
            return None
        self._crashed_call = message.call
        raise message.error

    def _run_inline(self, call: Call) -> Awaitable[None] | None:
        spec = call.spec
        ctx = self._context_for(call)
        self.env.watchdog.current = call
        trace = call.trace
        entered = trace.enter(self.incarnation) if trace is not None else None
        reset = current_context.set(ctx)
        try:
            result = (
                spec.function(ctx) if spec.params_type is None else spec.function(ctx, call.params)
            )
            done = self._complete(call, ctx, result)
        except ReplyError as error:
            self._reply_error(call, error)
            return None
        except BaseException as error:
            if self._refused_by_store(call, error):
                return None
            self._crashed_call = call
            raise
        finally:
            now = self.env.clock.mono()
            self.usage.charge(now, now - call.started_mono, now - call.started_mono)
            current_context.reset(reset)
            self.env.watchdog.current = None
            if entered is not None:
                trace.leave(entered)  # type: ignore[union-attr]  # it was entered
        if done is None:
            return None
        self._contexts[call] = ctx  # so that `end_running` finds it
        if not spec.concurrent:  # else another request may have the user lane
            self._current = call
        return self._await_commit(call, done)

    async def _await_commit(self, call: Call, done: Awaitable[None]) -> None:
        try:
            await done
        except Exception as error:
            if not self._refused_by_store(call, error):
                self._crashed_call = call
                raise
        finally:
            self._free_lane(call)

    def _free_lane(self, call: Call) -> None:
        if call.answered:
            self._contexts.pop(call, None)  # else a crash, its own or another's: `end_running`
        if self._current is call:
            self._current = None

    async def _run_call(self, call: Call) -> None:
        """A request that takes its time: coroutine, stream, thread or process."""
        try:
            runs = 1
            # RACE: it may be stopped between being taken from the queue and the first step here.
            while not call.answered and not await self._run_once(call, last=runs == MAX_RUNS):
                runs += 1
        except ReplyError as error:
            self._reply_error(call, error)
        except BaseException as error:
            if call.answered or self._refused_by_store(call, error):
                # Answered: it was told to stop and failed on its way out; nobody's crash.
                return
            self._blame(call, error)
            raise
        finally:
            self._stoppers.pop(call, None)
            self._free_lane(call)
            if call.spec.activity:
                self.cell.touch()

    async def _run_once(self, call: Call, *, last: bool) -> bool:
        """Run the handler and commit; False if it has to run again (ADR 10)."""
        ctx = self._context_for(call)
        self._contexts[call] = ctx
        trace = call.trace
        entered = trace.enter(self.incarnation) if trace is not None else None
        reset = current_context.set(ctx)
        try:
            result = await run_handler(self, call, ctx)
            if call.answered:
                return True
            done = self._complete(call, ctx, result)
            if done is not None:
                await done
        except ConflictError:
            ctx.mark_cancelled()
            if last or call.answered:
                raise
            call.done_mono = 0.0
            self.cell.note_conflict()
            if trace is not None:
                trace.rolled_back()
            return False
        finally:
            current_context.reset(reset)
            if entered is not None:
                trace.leave(entered)  # type: ignore[union-attr]  # it was entered
        return True

    def _blame(self, call: Call, error: BaseException) -> None:
        """Note which call crashed, unless it only ends because another one did."""
        landing = call.committing and isinstance(error, asyncio.CancelledError)
        if self._crashed_call is None and not landing:
            self._crashed_call = call

    def _overlap(self, call: Call) -> None:
        cell = self.cell
        if len(self._overlapping) >= MAX_CONCURRENT:
            cell.refuse(
                call,
                ReplyError(
                    ErrorCode.BUSY,
                    f"{MAX_CONCURRENT} overlapping requests of this session are running.",
                    outcome="not_run",
                    retry_after_ms=1000,
                ),
            )
            return
        call.started_mono = self.env.clock.mono()
        cell.arm(call.deadline_mono)
        task = self.env.loop.create_task(
            self._run_overlapping(call), context=copy_context(), name=repr(call)
        )
        self._overlapping[task] = call
        task.add_done_callback(self._overlapping.pop)

    async def _run_overlapping(self, call: Call) -> None:
        try:
            await self._run_call(call)
        except BaseException as error:  # noqa: BLE001 - handed to the actor, which fails of it
            if call.answered or call.committing:  # the landing answers it
                return
            if self.actor_ref.is_alive():
                self.cell.mailbox.offer_control(ConcurrentFailed(self.incarnation, call, error))
            else:
                self._tell_crashed(self.incarnation, call, error)

    def _context_for(self, call: Call) -> UserContext:
        return UserContext(
            self.env.server,
            call.spec,
            call.id,
            session=self._view,
            slots=self.cell.slots,
            incarnation=self.incarnation,
            deadline_mono=call.deadline_mono,
        )

    def stop_call(self, call: Call, code: ErrorCode) -> None:
        """Answer a running request TIMEOUT or CANCELLED and make its handler stop (P7)."""
        if call.answered or call.committing:
            return
        call.stop_reason = code
        ctx = self._contexts.get(call)
        if ctx is not None:
            ctx.mark_cancelled()
        stop = self._stoppers.get(call)
        ran = stop is not None and stop.started
        if ran:
            self.env.observe(call, code.value.lower())
        else:
            call.started_mono = 0.0  # `refuse` counts it
        self.cell.refuse(call, stopped_error(code, ran=ran))
        grace_s = stop.stop() if stop is not None else STOP_GRACE_S
        if call is not self._current:
            return
        if grace_s == 0.0:
            # RACE: the next request must not begin in this incarnation.
            self.hold()
            self._abandon(call, code)
        else:
            self.env.clock.call_later(grace_s, self._abandon_if_stuck, call, code)

    def _abandon_if_stuck(self, call: Call, code: ErrorCode) -> None:
        if self._current is call and self.actor_ref.is_alive():
            self._abandon(call, code)

    def _abandon(self, call: Call, code: ErrorCode) -> None:
        self.env.tell_supervisor(
            HandlerAbandoned(self.cell, self.incarnation, call.spec.name, code)
        )

    def end_running(self, error: ReplyError) -> None:
        """Answer what runs because the session ends or crashed, and let it go."""
        calls = dict.fromkeys(self._contexts)
        if self._current is not None:
            calls.setdefault(self._current)
        for call in calls:
            if call.committing:
                continue
            ctx = self._contexts.get(call)
            if ctx is not None:
                ctx.mark_cancelled()
            if not call.answered and call.started_mono:
                self.env.observe(call, error.code.lower())
            self.cell.refuse(call, error)
            stop = self._stoppers.get(call)
            if stop is not None:
                stop.stop()
        for task, call in list(self._overlapping.items()):
            if call not in calls:
                # RACE: taken from the queue, and its task has not had its first step.
                call.started_mono = 0.0
                not_begun = copy(error)
                not_begun.outcome = "not_run"
                self.cell.refuse(call, not_begun)
            task.cancel()

    @property
    def running(self) -> Call | None:
        """The request that holds the user lane."""
        return self._current

    def stack_of(self, call: Call) -> str:
        """Where the handler of a call is right now, as a traceback shows it."""
        stop = self._stoppers.get(call)
        return "" if stop is None else stop.stack()

    @property
    def overlapping(self) -> list[Call]:
        """Concurrent requests that run beside the one of the user lane."""
        return [call for call in self._contexts if call is not self._current]

    def set_stopper(self, call: Call, stopper: Stopper) -> None:
        """How to stop the handler of a call."""
        self._stoppers[call] = stopper

    # -- pykka's hooks ---------------------------------------------------------------

    def on_start(self) -> None:
        """Begin from the last commit: wait for one that is still on its way."""
        landing = self.cell.landing
        if landing is not None and not landing.done():
            self.hold()
            landing.add_done_callback(lambda _: self.release())

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002 - pykka's signature
        exception_value: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Tell the supervisor; it answers the request and decides about a restart."""
        call, self._crashed_call = self._crashed_call, None
        error = exception_value if exception_value is not None else RuntimeError("unknown")
        self._tell_crashed(self.incarnation, call, error)
