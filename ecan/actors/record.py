"""What is durable of a session, and its one door to the store.

A `Cell` is a record and what lives in memory only. Everything here runs on the loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ecan.actors.ledger import Ledger
from ecan.actors.lifecycle import State
from ecan.actors.outbox import Outbox
from ecan.actors.tokens import TokenTable
from ecan.errors import StoreError
from ecan.observability import get_logger
from ecan.store import Commit, Facts, SessionRow, Snapshot

if TYPE_CHECKING:
    from ecan.actors.tokens import SavedTokens, Token
    from ecan.handlers.context import User
    from ecan.handlers.documents import Work
    from ecan.observability import Metrics
    from ecan.protocol.frames import Sid
    from ecan.runtime import Clock
    from ecan.store import LedgerRow, LetterRow, PushRow, ReplyRow, SessionStore

log = get_logger("ecan.session")

ACTIVITY_EVERY_S = 60.0
"""`last_active_at` is written at most this often: an index on it must not cost every commit."""


class Record:
    """A session as the store knows it, or is about to.

    Attributes:
        sid: public id.
        key: digest of the secret session id.
        user: who is logged in.
        incarnation: of the current or last actor.
        slots: committed state.
        landing: the commit on its way to the store, which outlives its incarnation.
        notice: the server's own push on its way to the store.
        facts_changed: `Facts` go with the next commit.
    """

    __slots__ = (
        "_activity_written_mono",
        "_clock",
        "_metrics",
        "_store",
        "_tokens_before",
        "created_at",
        "facts_changed",
        "incarnation",
        "keep_until_mono",
        "key",
        "landing",
        "last_active_mono",
        "ledger",
        "notice",
        "outbox",
        "restarts",
        "sid",
        "sid_ascii",
        "slots",
        "state",
        "tokens",
        "tokens_changed",
        "user",
    )

    def __init__(
        self,
        sid: Sid,
        key: bytes,
        user: User,
        clock: Clock,
        *,
        store: SessionStore,
        metrics: Metrics,
        created_at: float,
        incarnation: int = 0,
        restarts: int = 0,
        state: State = State.STARTING,
        slots: dict[str, bytes] | None = None,
        tokens: TokenTable | None = None,
        ledger: Ledger | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.sid = sid
        self.sid_ascii = sid.encode()
        self.key = key
        self.user = user
        self.created_at = created_at
        self.incarnation = incarnation
        self.restarts = restarts
        self.state = state
        self.slots: dict[str, bytes] = slots if slots is not None else {}
        self.tokens = tokens if tokens is not None else TokenTable()
        self.ledger = ledger if ledger is not None else Ledger()
        self.outbox = outbox if outbox is not None else Outbox()
        self.landing: asyncio.Task[None] | None = None
        self.notice: asyncio.Task[None] | None = None
        self.last_active_mono = clock.mono()
        self.keep_until_mono = 0.0
        self.tokens_changed = False
        self.facts_changed = False
        self._tokens_before: SavedTokens | None = None
        self._activity_written_mono = self.last_active_mono
        self._clock = clock
        self._store = store
        self._metrics = metrics

    def set_last_active(self, mono: float) -> None:
        """As the store has it."""
        self.last_active_mono = self._activity_written_mono = mono

    # -- what goes to the store --------------------------------------------------------

    def facts(self) -> Facts:
        """As they are now; monotonic times become dates."""
        now, mono = self._clock.now(), self._clock.mono()
        kept_s = self.keep_until_mono - mono
        return Facts(
            last_active_at=now - (mono - self.last_active_mono),
            keep_until_at=now + kept_s if kept_s > 0 else 0.0,
            restarts=self.restarts,
            failed=self.state is State.FAILED,
        )

    def snapshot(self, *, incarnation: int) -> Snapshot:
        """A new session, about to begin that incarnation."""
        return Snapshot(
            row=SessionRow(
                sid=self.sid,
                key=self.key,
                user=self.user.as_row(),
                created_at=self.created_at,
                incarnation=incarnation,
                epoch=self.outbox.epoch,
                facts=self.facts(),
            ),
            tokens=self.tokens.rows(),
        )

    def commit_of(
        self,
        *,
        slots: dict[str, bytes | None] | None = None,
        answer: LedgerRow | None = None,
        pushes: tuple[PushRow, ...] = (),
        replies: tuple[ReplyRow, ...] = (),
        handed_out: bool = False,
        letter: LetterRow | None = None,
        work: Work | None = None,
    ) -> Commit:
        """A commit of this session; tokens and facts that changed go with it."""
        active = self.last_active_mono
        facts = None
        if self.facts_changed or active - self._activity_written_mono >= ACTIVITY_EVERY_S:
            facts = self.facts()
        return Commit(
            sid=self.sid,
            incarnation=self.incarnation,
            slots=slots if slots is not None else {},
            answer=answer,
            pushes=pushes,
            tokens=self.tokens.rows() if self.tokens_changed else None,
            facts=facts,
            replies=replies,
            handed_out=handed_out,
            letter=letter,
            user_id=self.user.user_id,
            checks=work.as_checks() if work is not None else (),
            documents=work.as_writes() if work is not None else (),
        )

    def write(self, commit: Commit) -> asyncio.Future[None] | None:
        """Hand a commit to the store.

        Returns:
            None if it is as durable as it gets, else a future for that.

        Raises:
            StoreError: (or out of the future) nothing was changed; see `SessionStore.commit`.
        """
        self._metrics.commits += 1
        tokens_before = None
        if commit.tokens is not None:
            self.tokens_changed = False
            tokens_before, self._tokens_before = self._tokens_before, None
        if commit.facts is not None:
            self.facts_changed = False
            self._activity_written_mono = self.last_active_mono
        try:
            landing = self._store.commit(commit)
        except StoreError:
            self._not_written(commit, tokens_before)
            raise
        if landing is None:
            return None
        durable = asyncio.ensure_future(landing)
        if commit.tokens is not None or commit.facts is not None:
            durable.add_done_callback(partial(self._look_at, commit, tokens_before))
        return durable

    def write_quietly(self, commit: Commit) -> asyncio.Future[None] | None:
        """As `write`, for what nobody waits for: a failure is logged."""
        try:
            durable = self.write(commit)
        except StoreError as error:
            self._log_failure(error)
            return None
        if durable is not None:
            durable.add_done_callback(self._log_outcome)
        return durable

    def write_facts(self) -> asyncio.Future[None] | None:
        """Write the facts, and all else that changed, now. Raises as `write`."""
        self.facts_changed = True
        return self.write(self.commit_of())

    def write_facts_quietly(self) -> None:
        """As `write_facts`, for what nobody waits for."""
        self.facts_changed = True
        self.write_quietly(self.commit_of())

    def note_activity(self) -> None:
        """After a request that wrote nothing: let the store know now and then (P13)."""
        if self.last_active_mono - self._activity_written_mono >= ACTIVITY_EVERY_S:
            self.write_quietly(self.commit_of())

    def write_last_activity(self) -> None:
        """The server stops: let the store know what it does not."""
        if self.facts_changed or self.last_active_mono > self._activity_written_mono:
            self.write_facts_quietly()

    def _look_at(
        self, commit: Commit, before: SavedTokens | None, durable: asyncio.Future[None]
    ) -> None:
        if durable.cancelled() or durable.exception() is not None:
            self._not_written(commit, before)

    def _not_written(self, commit: Commit, tokens_before: SavedTokens | None) -> None:
        if commit.facts is not None:
            self.facts_changed = True
        if tokens_before is not None and self.state is not State.CLOSED:
            self.tokens.restore(tokens_before)

    def _log_outcome(self, durable: asyncio.Future[None]) -> None:
        if not durable.cancelled() and (error := durable.exception()) is not None:
            self._log_failure(error)

    def _log_failure(self, error: BaseException) -> None:
        log.warning(
            "session.not_written",
            sid=self.sid,
            incarnation=self.incarnation,
            error=str(error),
        )

    def note_budget(self, what: str) -> None:
        """A budget was exceeded."""
        self._metrics.budget_exceeded(what)

    def note_conflict(self) -> None:
        """A handler runs again: another session of the user had changed what it read."""
        self._metrics.conflicts += 1

    def land(self, landing: asyncio.Task[None]) -> None:
        """A commit is on its way."""
        self.landing = landing
        landing.add_done_callback(self._landed)

    def tell_of(self, notice: asyncio.Task[None]) -> None:
        """A push of the server's own is on its way."""
        self.notice = notice
        notice.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        """Let go of it: its context has the request's, and that leads back here (ADR 17)."""
        if self.landing is task:
            self.landing = None
        if self.notice is task:
            self.notice = None

    def on_its_way(self) -> asyncio.Task[None] | None:
        """The commit that is on its way to the store; sequence numbers are given after it."""
        for task in (self.landing, self.notice):
            if task is not None and not task.done():
                return task
        return None

    # -- tokens ------------------------------------------------------------------------

    def replace_tokens(self, token: Token) -> None:
        """Revoke every token but a new one; written with the next commit, undone if it fails."""
        self._save_tokens()
        self.tokens.revoke_all()
        self.tokens.add(token)
        self.tokens_changed = True

    def refresh_token(self, old: Token, now: float, ttl_s: float) -> tuple[str, Token]:
        """As `TokenTable.refresh`; written with the next commit, undone if it fails."""
        self._save_tokens()
        self.tokens_changed = True
        return self.tokens.refresh(old, now, ttl_s)

    def _save_tokens(self) -> None:
        if self._tokens_before is None:
            self._tokens_before = self.tokens.saved()
