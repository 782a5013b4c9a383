"""All sessions, for the gateway and for handlers: asks the supervisor, checks credentials."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ecan.actors.binding import Bindable, Bound, invalid_token, not_found
from ecan.actors.biography import Origin
from ecan.actors.describe import describe
from ecan.actors.lifecycle import State
from ecan.actors.messages import (
    CloseSession,
    FindSession,
    Opened,
    OpenSession,
    SteerSession,
    TabsChanged,
)
from ecan.actors.reaper import expires_at_mono
from ecan.actors.refusals import closed_error, failed_error, store_busy_error
from ecan.actors.replay import Replay, replay_in_session, replay_on_copy
from ecan.actors.supervisor import SupervisorActor
from ecan.actors.tokens import Token, digest, sid_of
from ecan.errors import ReplyError, StoreUnavailableError, SupervisionError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Sid
from ecan.runtime import Mailbox, MailboxFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ecan.actors.cell import Cell
    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.guard import PoisonGuard
    from ecan.handlers.context import ConnectionContext, User
    from ecan.observability import Metrics
    from ecan.protocol.frames import Peer

MAX_SUPERVISOR_MAIL = 200_000
"""Two messages for each of the most sessions a server takes; beyond, logins are BUSY."""

log = get_logger("ecan.sessions")


class SessionService:
    """What the gateway, the lobby's handlers and the admin socket ask for.

    Runs on: the loop.
    """

    def __init__(self, directory: Directory, guard: PoisonGuard, metrics: Metrics) -> None:
        self.directory = directory
        self.guard = guard
        self.supervisor_restarts = 0
        self._metrics = metrics
        self._mailbox = Mailbox(max_control=MAX_SUPERVISOR_MAIL)
        self._env: Environment
        self._supervisor: SupervisorActor | None = None

    # -- the supervisor --------------------------------------------------------------

    def start(self, env: Environment) -> None:
        """Start supervising."""
        self._env = env
        self._start_supervisor()

    def _start_supervisor(self) -> None:
        self._supervisor = SupervisorActor(
            self._env,
            self.directory,
            self.guard,
            self._metrics,
            self._mailbox,
            self._supervisor_failed,
        )
        self._supervisor.begin()

    def _supervisor_failed(self, error: BaseException) -> None:
        """A new supervisor takes over directory and mailbox; no session notices."""
        self.supervisor_restarts += 1
        self._metrics.supervisor_restarts += 1
        log.error("supervisor.restarted", restarts=self.supervisor_restarts, exc_info=error)
        self._env.loop.call_soon(self._start_supervisor)

    def stop(self) -> None:
        """Stop supervising and end every incarnation; the cells stay as they are."""
        for cell in self.directory:
            if cell.actor is not None:
                cell.actor.halt()
                cell.actor = None
            cell.write_last_activity()
        if self._supervisor is not None:
            self._supervisor.halt()
            self._supervisor = None

    def tell_supervisor(self, message: Any) -> None:
        """Put a message into the supervisor's mailbox. Runs on: the loop."""
        self._mailbox.offer_control(message)

    async def _ask(self, kind: Any, *args: Any) -> Any:
        reply = self._env.loop.create_future()
        try:
            self.tell_supervisor(kind(*args, reply))
        except MailboxFullError:
            raise ReplyError(
                ErrorCode.BUSY, "The supervisor has too much to do.", retry_after_ms=1000
            ) from None
        async with answering_for_the_store():
            return await reply

    # -- for the gateway -------------------------------------------------------------

    def lookup(self, session_id: str, token: str | None) -> Bound | None:
        """Check credentials against a session in memory; None: look into the store.

        Raises:
            ReplyError: TOKEN_REQUIRED, INVALID_TOKEN, SESSION_NOT_FOUND and its kin.
        """
        key = digest(session_id)
        sid = sid_of(key)
        cell = self.directory.get(sid)
        if cell is None:
            reason = self.directory.reason(sid)
            if reason is not None:
                raise closed_error(reason)
            return None
        return self._check(cell, key, token)

    async def authenticate(self, session_id: str | None, token: str | None) -> Bound:
        """Check credentials; the session may rest in the store.

        Raises:
            ReplyError: as `lookup`.
        """
        if not session_id:
            raise ReplyError(
                ErrorCode.TOKEN_REQUIRED, "Log in first: the request names no session."
            )
        bound = self.lookup(session_id, token)
        if bound is not None:
            return bound
        key = digest(session_id)
        cell = await self.find(sid_of(key))
        if cell is None:
            raise not_found()
        return self._check(cell, key, token)

    async def _of_request(self, ctx: ConnectionContext) -> Bound:
        """The session a lobby request is about: named by it, or its connection's own."""
        if ctx.session_id is None and ctx.connection is not None:
            own: Bound | None = ctx.connection.bound
            if own is not None:
                if own.cell.state is State.CLOSED:
                    raise closed_error(own.cell.close_reason)
                token: Token | None = own.token
                if ctx.token is not None:
                    token = own.cell.tokens.find(ctx.token, self._env.clock.now())
                if token is None or not token.is_valid(self._env.clock.now()):
                    raise invalid_token()
                return Bound(own.cell, token)
        return await self.authenticate(ctx.session_id, ctx.token)

    def _check(self, cell: Cell, key: bytes, token: str | None) -> Bound:
        if cell.key != key:
            raise not_found()
        if cell.state is State.CLOSED:
            raise closed_error(cell.close_reason)
        now = self._env.clock.now()
        if token is None:
            if self._env.settings.session_auth != "session_id":
                raise ReplyError(ErrorCode.TOKEN_REQUIRED, "The request carries no token.")
            record = cell.tokens.newest(now)
        else:
            record = cell.tokens.find(token, now)
        if record is None:
            raise invalid_token()
        return Bound(cell, record)

    def attach(self, cell: Cell, peer: Peer) -> None:
        """A tab came."""
        first = not cell.tabs
        cell.attach(peer)
        self._env.events.emit(
            "session.bound", sid=cell.sid, connection=peer.id, address=peer.address
        )
        if first:
            self.tell_supervisor(TabsChanged(cell))

    def detach(self, cell: Cell, peer: Peer) -> None:
        """A tab left."""
        cell.detach(peer)
        self._env.events.emit("session.detached", sid=cell.sid, connection=peer.id)
        if not cell.tabs:
            self.tell_supervisor(TabsChanged(cell))

    # -- for the lobby's handlers ----------------------------------------------------

    async def open(self, ctx: ConnectionContext, user: User) -> dict[str, Any]:
        """See `ecan.handlers.ports.Sessions`."""
        opened = await self.open_for(user, Origin(ctx.address, ctx.user_agent))
        cell = opened.cell
        bound = Bound(cell, opened.record)
        if ctx.connection is not None:
            ctx.after_reply.append(lambda: self._hand_over(ctx.connection, bound))
        return {
            "token": opened.token,
            "session_id": opened.session_id,
            "expires_at": opened.record.expires_at,
            "sid": cell.sid,
            "epoch": cell.outbox.epoch,
            "seq": cell.outbox.seq,
        }

    async def open_for(self, user: User, origin: Origin, *, capped: bool = True) -> Opened:
        """Create a session for whoever asks; see `OpenSession`.

        Raises:
            ReplyError: SESSION_LIMIT, DRAINING, BUSY.
        """
        if self._env.server.is_draining():
            raise ReplyError(ErrorCode.DRAINING, "The server is restarting.", retry_after_ms=5000)
        opened: Opened = await self._ask(partial(OpenSession, origin=origin, capped=capped), user)
        return opened

    def _hand_over(self, connection: Bindable, bound: Bound) -> None:
        if connection.peer.is_open:
            connection.bind(bound)
        else:
            # The client left before its login was answered: nobody has the secrets.
            reply = self._env.loop.create_future()
            reply.add_done_callback(lambda reply: reply.cancelled() or reply.exception())
            self.tell_supervisor(CloseSession(bound.cell.sid, "abandoned", reply))

    async def resume(
        self, ctx: ConnectionContext, last_seq: int | None, epoch: str | None
    ) -> dict[str, Any]:
        """See `ecan.handlers.ports.Sessions`."""
        bound = await self._of_request(ctx)
        cell = bound.cell
        if cell.state is State.FAILED:
            raise failed_error()
        missed = cell.outbox.missed(last_seq, epoch)

        def replay() -> None:
            ctx.connection.bind(bound)
            if last_seq is not None:
                cell.hand_out(ctx.connection.peer, missed.frames)

        ctx.after_reply.append(replay)
        answer: dict[str, Any] = {"status": "resumed"}
        if missed.gap is not None:
            first, last = missed.gap
            answer = {"status": "gap"}
            if first <= last:  # else what was missed had numbers that are void now
                answer |= {"from": first, "to": last}
        return {
            **answer,
            "sid": cell.sid,
            "incarnation": cell.incarnation,
            "epoch": cell.outbox.epoch,
            "seq": cell.outbox.seq,
        }

    async def logout(self, ctx: ConnectionContext) -> None:
        """See `ecan.handlers.ports.Sessions`."""
        bound = await self._of_request(ctx)
        await self.close(bound.cell.sid, "logout")

    async def refresh(self, ctx: ConnectionContext) -> dict[str, Any]:
        """See `ecan.handlers.ports.Sessions`."""
        bound = await self._of_request(ctx)
        cell = bound.cell
        secret, record = cell.refresh_token(
            bound.token, self._env.clock.now(), self._env.settings.token_ttl_s
        )
        async with answering_for_the_store():
            durable = cell.write(cell.commit_of())
            if durable is not None:
                await durable
        if ctx.connection is not None:
            renewed = Bound(bound.cell, record)
            ctx.after_reply.append(lambda: ctx.connection.bind(renewed))
        return {"token": secret, "expires_at": record.expires_at}

    async def of_user(self, user_id: int) -> list[dict[str, Any]]:
        """See `ecan.handlers.ports.Sessions`."""
        async with answering_for_the_store():
            rows = await self._env.store.of_user(user_id)
        now = self._env.clock.now()
        listed: dict[str, dict[str, Any]] = {}
        for row in rows:
            if self.directory.reason(Sid(row.sid)) is not None:
                continue
            facts = row.facts
            listed[row.sid] = {
                "sid": row.sid,
                "state": str(State.FAILED if facts.failed else State.PASSIVATED),
                "tabs": 0,
                "incarnation": row.incarnation,
                "created_at": row.created_at,
                "idle_s": round(max(0.0, now - facts.last_active_at), 1),
            }
        for cell in self.directory.of_user(user_id):
            listed[cell.sid] = {
                "sid": cell.sid,
                "state": str(cell.state),
                "tabs": len(cell.tabs),
                "incarnation": cell.incarnation,
                "created_at": cell.created_at,
                "idle_s": round(self._env.clock.mono() - cell.last_active_mono, 1),
            }
        return list(listed.values())

    async def close(self, sid: str, reason: str) -> bool:
        """See `ecan.handlers.ports.Sessions`."""
        return bool(await self._ask(CloseSession, Sid(sid), reason))

    async def close_user(self, user_id: int, reason: str, *, but: str | None = None) -> int:
        """See `ecan.handlers.ports.Sessions`."""
        sids = [row["sid"] for row in await self.of_user(user_id) if row["sid"] != but]
        return sum(await asyncio.gather(*(self.close(sid, reason) for sid in sids)))

    async def find(self, sid: str) -> Cell | None:
        """The cell of a session, loaded from the store if need be; None: there is none.

        Raises:
            ReplyError: SESSION_CLOSED and its kin: there was one; BUSY.
        """
        cell: Cell | None = await self._ask(FindSession, Sid(sid))
        return cell

    async def steer(self, sid: str, command: str) -> None:
        """An operator's ``revive``, ``reset``, ``restart``, ``passivate``, ``pause`` or ``resume``.

        Raises:
            SupervisionError: it does not fit the session's state.
        """
        in_memory = self.directory.get(Sid(sid)) is not None
        if not in_memory and await self.find(sid) is None:
            raise SupervisionError("there is no such session")
        await self._ask(SteerSession, Sid(sid), command)

    async def discard_letter(self, crash_id: str) -> bool:
        """Forget a dead letter; False if there is none."""
        async with answering_for_the_store():
            discarded = await self._env.store.discard_letter(crash_id)
        if discarded:
            self._metrics.dead_letters -= 1
        return discarded

    async def replay(self, crash_id: str, *, apply: bool = False) -> Replay:
        """Run a dead letter again: on a copy of its session, or (``apply``) in it.

        Raises:
            SupervisionError: there is no such letter, method or session.
            ReplyError: the params do not fit, or the session takes no requests.
        """
        letter = await self._env.store.letter(crash_id)
        if letter is None:
            raise SupervisionError("there is no such dead letter")
        if not apply:
            return await replay_on_copy(letter, self._env)
        cell = await self.find(letter.sid)
        if cell is None:
            raise SupervisionError("its session is no more")
        return await replay_in_session(letter, cell, self._env)

    def count(self) -> int:
        """See `ecan.handlers.ports.Sessions`."""
        return self.directory.total

    # -- facts -----------------------------------------------------------------------

    def expires_in_s(self, cell: Cell) -> float:
        """Seconds until the session is closed as idle."""
        at = expires_at_mono(cell, self._env.settings)
        return max(0.0, at - self._env.clock.mono())

    def by_state(self) -> dict[str, int]:
        """Sessions by state; those only in the store count as passivated."""
        counts = {str(state): count for state, count in self.directory.by_state.items()}
        counts[State.PASSIVATED] += max(0, self.directory.total - len(self.directory))
        return counts

    def describe(self, cell: Cell, origin: Peer | None) -> dict[str, Any]:
        """What `session.info` answers to a tab."""
        return describe(cell, self._env, origin)


@contextlib.asynccontextmanager
async def answering_for_the_store() -> AsyncIterator[None]:
    """A store that fails is an answer to the client, not a crash.

    Raises:
        ReplyError: BUSY.
    """
    try:
        yield
    except StoreUnavailableError:
        raise store_busy_error() from None
