"""How what a handler did becomes one commit and one answer. Half of `SessionActor`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ecan.actors.budgets import Usage
from ecan.actors.messages import CloseSession, SessionCrashed
from ecan.actors.refusals import refused_by_store, store_busy_error
from ecan.errors import ReplyError, StoreError
from ecan.protocol.codec import encode_success
from ecan.runtime import LoopActor
from ecan.store import PushRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from ecan.actors.call import Call
    from ecan.actors.cell import Cell
    from ecan.actors.environment import Environment
    from ecan.handlers.context import UserContext


class CommittingActor(LoopActor):
    """Completes calls; not to be subclassed by others than `SessionActor`.

    Attributes:
        cell: of the session.
        env: what all sessions share.
        incarnation: of this actor.
        usage: what the session uses up.
    """

    def __init__(self, cell: Cell, env: Environment) -> None:
        super().__init__(mailbox=cell.mailbox)
        self.cell = cell
        self.env = env
        self.incarnation = cell.incarnation
        if cell.usage is None:
            cell.usage = Usage(env.budgets, env.clock.mono())
        self.usage = cell.usage

    def _complete(self, call: Call, ctx: UserContext, result: Any) -> Awaitable[None] | None:
        """Commit and answer; None if that is done, else an awaitable for it."""
        cell, env, spec = self.cell, self.env, call.spec
        started = call.started_mono
        done_mono = call.done_mono = env.clock.mono()
        frame = encode_success(
            call.id,
            spec.name_json,
            result,
            cell.sid_ascii,
            cell.incarnation,
            (started - call.accepted_mono) * 1000,
            (done_mono - started) * 1000,
            int(env.clock.now() * 1000),  # `Cell.timestamp`, without the call
        )
        changes = ctx.used_state.changes() if ctx.used_state is not None else {}
        if changes:
            self.usage.check_state(cell, changes)
        work = ctx.used_documents
        if spec.reads and (work is None or not work.must_commit):
            if not call.answered:  # it may have cancelled itself
                call.answered = True
                cell.deliver(call, frame, remember=True)
            if spec.activity:
                cell.note_activity()
            env.observe(call, "success")
            return None
        before = cell.on_its_way()
        if before is not None:
            return _Later(partial(self._complete_later, before, call, ctx, result))
        if ctx.end_reason is not None:
            self._end_session(call, ctx.end_reason, frame)
            return None
        return self._commit(call, ctx, frame, changes)

    def _commit(
        self,
        call: Call,
        ctx: UserContext,
        frame: bytes,
        changes: dict[str, bytes | None],
    ) -> Awaitable[None] | None:
        cell = self.cell
        if ctx.renewed is not None:
            cell.replace_tokens(ctx.renewed)
        pushes: list[bytes] = []
        rows: tuple[PushRow, ...] = ()
        if ctx.pushes:
            seq = cell.outbox.seq
            pushes = [
                cell.encode_push(method, params, seq + number)
                for number, (method, params) in enumerate(ctx.pushes, 1)
            ]
            rows = tuple(PushRow(seq=seq + n, frame=push) for n, push in enumerate(pushes, 1))
        commit = cell.commit_of(
            slots=changes,
            answer=None if call.spec.reads else cell.ledger_row(call, frame),
            pushes=rows,
            replies=cell.kept_with(call, frame, len(pushes)),
            work=ctx.used_documents,
        )
        call.committing = True
        if call.trace is not None:
            call.trace.commit()
        try:
            durable = cell.write(commit)
        except StoreError:
            call.committing = False
            call.kept = None
            raise
        if durable is None:
            self._committed(call, cell.slots, changes, pushes, frame)
            return None
        landed = partial(self._committed, call, cell.slots, changes, pushes, frame)
        return self._land(durable, call, landed)

    async def _complete_later(
        self, before: asyncio.Task[None], call: Call, ctx: UserContext, result: Any
    ) -> None:
        """Another commit of this session is on its way (a notice's, an overlapping call's)."""
        await asyncio.wait([before])
        if call.answered:
            return
        done = self._complete(call, ctx, result)
        if done is not None:
            await done

    def _land(
        self, durable: Awaitable[None], call: Call, landed: Callable[[], None]
    ) -> Awaitable[None]:
        """Wait for a commit; it lands, and is answered, even if this incarnation ends before."""

        async def land() -> None:
            try:
                await durable
            except Exception as error:
                # RACE: from here on whoever ends this incarnation may answer the request.
                call.committing = False
                call.kept = None
                if self.actor_ref.is_alive():
                    raise
                if not self._refused_by_store(call, error):
                    self._tell_crashed(self.incarnation, call, error)
            else:
                landed()

        # RACE: a task at once, not at the first await of the result: the store has the
        # commit, and this incarnation may end before anybody awaits.
        landing = self.env.loop.create_task(land(), name=f"commit {call!r}")
        self.cell.land(landing)
        return asyncio.shield(landing)

    def _refused_by_store(self, call: Call, error: BaseException) -> bool:
        """Answer what the store did not take; False if the error is no such refusal."""
        reply = refused_by_store(error) if isinstance(error, StoreError) else None
        if reply is None:
            return False
        self._reply_error(call, reply)
        return True

    def _end_session(self, call: Call, reason: str, frame: bytes) -> None:
        """The session ends with this answer, which leaves when that is durable."""
        call.committing = True
        ended = self.env.loop.create_future()
        self.env.tell_supervisor(CloseSession(self.cell.sid, reason, ended))

        def answer(ended: asyncio.Future[bool]) -> None:
            if ended.cancelled() or ended.exception() is not None:
                self._reply_error(call, store_busy_error())
            else:
                self.cell.answer(call, frame, remember=False)
                self.env.observe(call, "success")

        ended.add_done_callback(answer)

    def _committed(
        self,
        call: Call,
        slots: dict[str, bytes],
        changes: dict[str, bytes | None],
        pushes: list[bytes],
        frame: bytes,
    ) -> None:
        cell = self.cell
        for name, data in changes.items():
            if data is None:
                slots.pop(name, None)
            else:
                slots[name] = data
        if pushes:
            cell.send_pushes(pushes)
        cell.answer(call, frame, remember=True, durable=True)
        self.env.observe(call, "success")

    def _reply_error(self, call: Call, error: ReplyError) -> None:
        """A declared error: the reply says so, the context is rolled back, the actor lives."""
        if call.answered:
            return
        self.env.observe(call, "error")
        self.cell.refuse(call, error)

    def _tell_crashed(self, incarnation: int, call: Call | None, error: BaseException) -> None:
        self.env.tell_supervisor(SessionCrashed(self.cell, incarnation, call, error))


class _Later:
    """An awaitable whose coroutine is made when it is awaited: its task may be cancelled before."""

    __slots__ = ("_start",)

    def __init__(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._start = start

    def __await__(self) -> Generator[Any, None, None]:
        return self._start().__await__()
