"""Arrivals: how a session comes into the directory, new or from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.biography import Biography
from ecan.actors.cell import Cell
from ecan.actors.incarnations import FIRST
from ecan.actors.lifecycle import Event, State
from ecan.actors.messages import FindSession, Opened, OpenSession, refuse
from ecan.actors.refusals import closed_error
from ecan.actors.snapshots import cell_of
from ecan.actors.tokens import digest, new_session_id, sid_of
from ecan.errors import ReplyError, StoreError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Sid
from ecan.store import Ended

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ecan.actors.directory import Directory
    from ecan.actors.environment import Environment
    from ecan.actors.incarnations import Incarnations
    from ecan.actors.messages import Spawn
    from ecan.actors.reaper import Reaper
    from ecan.handlers.context import User
    from ecan.observability import Metrics

log = get_logger("ecan.supervisor")


class Arrivals:
    """Creates sessions and fetches those that rest in the store, for the supervisor."""

    def __init__(
        self,
        env: Environment,
        directory: Directory,
        incarnations: Incarnations,
        reaper: Reaper,
        spawn: Spawn,
        wake: Callable[[Cell], None],
        close: Callable[[Cell, str], object],
        metrics: Metrics,
    ) -> None:
        self._env = env
        self._directory = directory
        self._incarnations = incarnations
        self._reaper = reaper
        self._spawn = spawn
        self._wake = wake
        self._close = close
        self._metrics = metrics
        self._finding: dict[Sid, list[asyncio.Future[Cell | None]]] = {}

    def open(self, message: OpenSession) -> None:
        """Create a session, within the caps of server and user."""
        if not self._is_full(message):
            self._spawn(self._create(message), message.reply)

    def _is_full(self, message: OpenSession) -> bool:
        if self._directory.total < self._env.settings.max_sessions:
            return False
        self._refuse(message, "The server has as many sessions as it takes.")
        return True

    def _refuse(self, message: OpenSession, problem: str) -> None:
        self._metrics.rejected("session_limit")
        error = ReplyError(ErrorCode.SESSION_LIMIT, problem, retry_after_ms=60_000)
        refuse(message.reply, error)

    async def _create(self, message: OpenSession) -> None:
        limit = self._env.settings.max_sessions_per_user
        try:
            # RACE: no await between this and the cell in the directory.
            if message.capped and await self._count_of(message.user.user_id) >= limit:
                problem = f"You have {limit} sessions; log out of one of them first."
                self._refuse(message, problem)
                return
        except StoreError as error:
            refuse(message.reply, error)
            return
        if self._is_full(message):
            return  # RACE: others came while the user's sessions were counted
        opened = self._new(message.user)
        cell = opened.cell
        if message.origin is not None:
            cell.story = Biography(message.origin)
        self._directory.total += 1
        self._directory.add(cell)
        try:
            await self._env.store.create(cell.snapshot(incarnation=FIRST))
        except Exception as error:
            cell.transit(Event.CLOSED, "could not be stored")
            self._directory.forget(cell)
            refuse(message.reply, error)
            if isinstance(error, StoreError):
                log.warning("session.not_stored", sid=cell.sid, error=str(error))
                return
            raise
        if cell.state is not State.STARTING:
            refuse(message.reply, closed_error(cell.close_reason))
            return
        self._incarnations.start(cell)
        self._reaper.schedule(cell)
        self._metrics.sessions_opened += 1
        log.info(
            "session.created",
            sid=cell.sid,
            incarnation=cell.incarnation,
            user=cell.user.username,
        )
        self._env.events.emit("session.created", sid=cell.sid, user=cell.user.username)
        if message.reply.done():
            # RACE: the client left while its login was on its way; nobody has the secrets.
            self._close(cell, "abandoned")
            return
        message.reply.set_result(opened)

    async def _count_of(self, user_id: int) -> int:
        """Sessions of a user, wherever they are, without those that have just ended."""
        stored = {Sid(sid) for sid in await self._env.store.sids_of_user(user_id)}
        ended = {sid for sid in stored if self._directory.reason(sid) is not None}
        return len((stored - ended) | {cell.sid for cell in self._directory.of_user(user_id)})

    def _new(self, user: User) -> Opened:
        clock, settings = self._env.clock, self._env.settings
        session_id = new_session_id()
        key = digest(session_id)
        cell = Cell(
            sid_of(key),
            key,
            user,
            clock,
            mailbox_size=settings.mailbox_size,
            wake=self._wake,
            store=self._env.store,
            metrics=self._metrics,
            created_at=clock.now(),
        )
        token, record = cell.tokens.issue(clock.now(), settings.token_ttl_s)
        return Opened(cell, session_id, token, record)

    def find(self, message: FindSession) -> None:
        """Answer the cell of a session, loaded from the store if need be."""
        sid = message.sid
        cell = self._directory.get(sid)
        if cell is not None:
            # RACE: it must not be evicted between being found and being bound.
            cell.found_mono = self._env.clock.mono()
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
            snapshot = await self._env.store.load(sid)
            reason = self._directory.reason(sid)
            if reason is not None:
                # RACE: it was closed while it was being loaded.
                error = closed_error(reason)
            elif isinstance(snapshot, Ended):
                error = closed_error(snapshot.reason)
            elif snapshot is not None:
                cell = cell_of(
                    snapshot,
                    self._env.clock,
                    mailbox_size=self._env.settings.mailbox_size,
                    store=self._env.store,
                    metrics=self._metrics,
                    wake=self._wake,
                )
                cell.found_mono = self._env.clock.mono()
                self._directory.add(cell)
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

    def is_finding(self, sid: Sid) -> bool:
        """Whether somebody waits for this session."""
        return sid in self._finding

    def owed(self) -> list[asyncio.Future[Cell | None]]:
        """Who still waits for a session to be found."""
        return [reply for waiting in self._finding.values() for reply in waiting]
