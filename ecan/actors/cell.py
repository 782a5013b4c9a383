"""A session's place in the directory: all of it that outlives an incarnation of its actor.

The mailbox, the tabs, the committed slots, the ledger and the outbox belong to the
cell; the actor is a guest. So a crash loses nothing but the live objects of one
request. Everything here runs on the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from ecan.actors.call import Call
from ecan.actors.ledger import Ledger, replayed
from ecan.actors.lifecycle import Event, State, next_state
from ecan.actors.outbox import Outbox
from ecan.actors.refusals import closed_error, failed_error, stopped_error
from ecan.actors.tokens import TokenTable
from ecan.errors import ReplyError, StoreError
from ecan.handlers.registry import Kind
from ecan.observability import get_logger
from ecan.protocol.codec import encode_error, encode_push
from ecan.protocol.codes import ErrorCode
from ecan.runtime import Mailbox, MailboxFullError
from ecan.store import Commit, PushRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ecan.actors.restart import RestartBudget
    from ecan.actors.session import SessionActor
    from ecan.handlers.context import User
    from ecan.observability import Metrics
    from ecan.protocol.frames import ConnectionId, Peer, Sid
    from ecan.runtime import Clock
    from ecan.store import LedgerRow, SessionStore

log = get_logger("ecan.session")

MAX_TRANSITIONS = 50
MAX_UNDELIVERED = 256
MAX_UNDELIVERED_BYTES = 2**20
TICK_S = 0.001
"""A timer may fire a tick of the clock early; re-armed for the same time, it would spin."""

MAX_CONCURRENT = 32
"""Overlapping calls of one session; more are BUSY."""


@attrs.frozen
class Transition:
    """One line of a session's biography."""

    at: float
    event: Event
    state: State
    note: str


@attrs.define(eq=False)
class Ask:
    """A push that waits for the browser's answer (`UserContext.call`).

    Attributes:
        frame: the push.
        future: gets the answer.
        peer: the tab that was asked; None: every tab, those that come too.
    """

    frame: bytes
    future: asyncio.Future[Any]
    peer: Peer | None


class Cell:
    """One session. See the module's docstring for what it owns.

    Attributes:
        sid: public id.
        key: digest of the secret session id.
        user: who is logged in.
        state: changed by `transit` only.
        incarnation: of the current or last actor.
        landing: the commit on its way to the store, which outlives its incarnation.
        notice: the server's own push on its way to the store.
        actor: the current actor; the one strong reference to it.
        tabs: open connections bound to this session, by connection id.
        slots: committed state.
        pending: accepted requests without an answer, by request id.
        bucket: the gateway's rate limit of this session.
    """

    __slots__ = (
        "_clock",
        "_deadline_at",
        "_deadline_timer",
        "_metrics",
        "_store",
        "_undelivered_bytes",
        "_wake",
        "actor",
        "asks",
        "bucket",
        "budget",
        "close_reason",
        "concurrent",
        "created_at",
        "detached_mono",
        "expiring_told",
        "incarnation",
        "keep_until_mono",
        "key",
        "landing",
        "last_active_mono",
        "ledger",
        "mailbox",
        "notice",
        "outbox",
        "pending",
        "restarts",
        "sid",
        "sid_ascii",
        "slots",
        "state",
        "tabs",
        "timer",
        "tokens",
        "tokens_changed",
        "transitions",
        "undelivered",
        "user",
        "zombies",
    )

    def __init__(
        self,
        sid: Sid,
        key: bytes,
        user: User,
        clock: Clock,
        *,
        mailbox_size: int,
        store: SessionStore,
        metrics: Metrics,
        wake: Callable[[Cell], None],
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
        self.state = state
        self.incarnation = incarnation
        self.restarts = restarts
        self.created_at = created_at
        self.actor: SessionActor | None = None
        self.landing: asyncio.Task[None] | None = None
        self.notice: asyncio.Task[None] | None = None
        self.mailbox = Mailbox(max_items=mailbox_size)
        self.tabs: dict[ConnectionId, Peer] = {}
        self.slots: dict[str, bytes] = slots if slots is not None else {}
        self.tokens = tokens if tokens is not None else TokenTable()
        self.ledger = ledger if ledger is not None else Ledger()
        self.outbox = outbox if outbox is not None else Outbox()
        self.pending: dict[str, Call] = {}
        self.asks: dict[str, Ask] | None = None
        self.undelivered: deque[bytes] | None = None
        self._undelivered_bytes = 0
        self.budget: RestartBudget | None = None
        self.transitions: deque[Transition] | None = None
        self.close_reason = ""
        self.concurrent = 0
        self.zombies = 0
        self.bucket: Any = None
        self.timer: Any = None
        self.last_active_mono = clock.mono()
        self.detached_mono = self.last_active_mono
        self.keep_until_mono = 0.0
        self.expiring_told = False
        self._clock = clock
        self._store = store
        self._metrics = metrics
        self._wake = wake
        self.tokens_changed = False
        self._deadline_at = 0.0
        self._deadline_timer: Any = None

    def __repr__(self) -> str:
        return f"Cell({self.sid}, {self.state}, incarnation={self.incarnation})"

    # -- life ------------------------------------------------------------------------

    def transit(self, event: Event, note: str = "") -> None:
        """Change the state as the table says, and note it for the biography.

        Raises:
            SupervisionError: the event does not fit.
        """
        self.state = next_state(self.state, event)
        if self.transitions is None:
            self.transitions = deque(maxlen=MAX_TRANSITIONS)
        self.transitions.append(Transition(self._clock.now(), event, self.state, note))

    def touch(self) -> None:
        """Activity: a request, a running handler or session.keep (P13)."""
        self.last_active_mono = self._clock.mono()
        self.expiring_told = False

    def timestamp(self) -> int:
        """Now, as frames say it: UTC epoch milliseconds."""
        return int(self._clock.now() * 1000)

    # -- requests --------------------------------------------------------------------

    def accept(self, call: Call) -> None:
        """Take a request, attach it to the same one still pending, or answer it again.

        Raises:
            ReplyError: BUSY, ID_REUSED, ID_EXPIRED or a state that takes no requests;
                nothing was enqueued.
        """
        if self._is_known(call):
            return
        state = self.state
        if state is State.FAILED:
            raise failed_error()
        if state is State.CLOSED:
            raise closed_error(self.close_reason)
        spec = call.spec
        actor = self.actor
        self.pending[call.id] = call
        if spec.activity:
            self.last_active_mono = call.accepted_mono
            self.expiring_told = False
        if spec.kind is Kind.INLINE and actor is not None and actor.handle_now(call):
            return
        busy = actor is None or actor.busy or actor.held or len(self.mailbox) > 0
        try:
            if spec.control:
                self.mailbox.offer_control(call)
            else:
                self.mailbox.offer(call)
        except MailboxFullError as full:
            del self.pending[call.id]
            raise ReplyError(
                ErrorCode.BUSY,
                f"{full.depth} requests of this session are waiting; slow down.",
                details={"queued": full.depth, "queued_bytes": full.nbytes},
                retry_after_ms=1000,
            ) from None
        self._metrics.mailbox_depth.observe(len(self.mailbox))
        if busy:
            self.arm(call.deadline_mono)
        if actor is None and state in (State.PASSIVATED, State.PASSIVATING):
            # RACE: a frame that arrives while the actor stops waits in the mailbox for
            # the next incarnation; the supervisor looks when the save is done.
            self._wake(self)

    def _is_known(self, call: Call) -> bool:
        """Whether this id was accepted before; then it is attached or answered again (P10)."""
        known = self.pending.get(call.id)
        if known is not None:
            _check_same(known.fingerprint, call)
            if known.waiters is None:
                known.waiters = []
            if call.origin is not known.origin and call.origin not in known.waiters:
                known.waiters.append(call.origin)
            return True
        entry = self.ledger.get(call.id, self._clock.now())
        if entry is not None:
            _check_same(entry.fingerprint, call)
            self._metrics.replays += 1
            call.origin.send(replayed(entry.frame))
            return True
        if self.ledger.is_forgotten(call.id):
            raise ReplyError(ErrorCode.ID_EXPIRED, "This request id was answered too long ago.")
        return False

    def answer(self, call: Call, frame: bytes, *, remember: bool) -> None:
        """Give a request its one final response.

        Args:
            call: whose answer it is; a second answer is dropped (P3).
            frame: the encoded response.
            remember: keep it in the ledger: the request took effect, or may have.
        """
        if call.answered:
            return
        call.answered = True
        if self.pending.get(call.id) is call:
            del self.pending[call.id]
        if remember:
            self.ledger.add(call.id, call.fingerprint, frame, self._clock.now())
        delivered = False
        for peer in (call.origin, *(call.waiters or ())):
            if peer.is_open:
                peer.send(frame)
                delivered = True
        if not delivered:
            self._keep_undelivered(frame)

    def refuse(self, call: Call, error: ReplyError) -> None:
        """Answer a request with an error; remembered unless it surely did not run."""
        if call.answered:
            return
        outcome = error.outcome
        frame = encode_error(
            call.id, call.spec.name, error, self.reply_meta(call), self.timestamp()
        )
        not_run = outcome == "not_run" or call.started_mono == 0.0
        self.answer(call, frame, remember=not not_run)

    def refuse_all(self, error: ReplyError) -> None:
        """Answer everything that is queued in either lane; what runs is told separately."""
        mailbox = self.mailbox
        for call in mailbox.remove_control(lambda item: type(item) is Call) + mailbox.clear():
            self.refuse(call, error)

    def cancel(self, request_id: str) -> str:
        """Cancel a request: see `SessionPort.cancel`."""
        call = self.pending.get(request_id)
        if call is None:
            return "unknown"
        if call.started_mono:
            if self.actor is not None and not call.committing:
                self.actor.stop_call(call, ErrorCode.CANCELLED)
                return "cancelling"
            return "unknown"
        self._drop(call, ErrorCode.CANCELLED)
        return "cancelled"

    def _drop(self, call: Call, code: ErrorCode) -> None:
        self.mailbox.remove(lambda item: item is call)
        self.refuse(call, stopped_error(code, ran=False))

    def reply_meta(self, call: Call) -> dict[str, Any]:
        """`meta` of a response (CONTRACT §2)."""
        now = self._clock.mono()
        started = call.started_mono
        return {
            "sid": self.sid,
            "incarnation": self.incarnation,
            "replayed": False,
            "queue_ms": round(((started or now) - call.accepted_mono) * 1000, 3),
            "run_ms": round((now - started) * 1000, 3) if started else 0.0,
        }

    # -- deadlines -------------------------------------------------------------------

    def arm(self, deadline_mono: float) -> None:
        """Look at the deadlines of pending requests at that time, or before."""
        if self._deadline_timer is not None:
            if self._deadline_at <= deadline_mono:
                return
            self._deadline_timer.cancel()
        self._deadline_at = deadline_mono
        self._deadline_timer = self._clock.call_at(deadline_mono, self._sweep)

    def _sweep(self) -> None:
        self._deadline_timer = None
        now = self._clock.mono() + TICK_S
        earliest = 0.0
        for call in list(self.pending.values()):
            if call.stop_reason is not None or call.committing:
                continue
            if call.deadline_mono <= now:
                if not call.started_mono:
                    self._drop(call, ErrorCode.TIMEOUT)
                elif self.actor is not None:
                    self.actor.stop_call(call, ErrorCode.TIMEOUT)
            elif not earliest or call.deadline_mono < earliest:
                earliest = call.deadline_mono
        if earliest:
            self.arm(earliest)

    # -- tabs ------------------------------------------------------------------------

    def attach(self, peer: Peer) -> None:
        """Bind a connection; asks whose tab is gone go to it."""
        self.tabs[peer.id] = peer
        for ask in (self.asks or {}).values():
            if ask.peer is None:
                peer.send(ask.frame)

    def detach(self, peer: Peer) -> None:
        """Unbind a connection; names it, so a late close cannot detach its successor."""
        if self.tabs.pop(peer.id, None) is None:
            return
        if not self.tabs:
            self.detached_mono = self._clock.mono()
        for ask in (self.asks or {}).values():
            if ask.peer is peer:
                ask.peer = None
                for tab in self.tabs.values():
                    tab.send(ask.frame)
        for call in [c for c in self.pending.values() if c.origin is peer]:
            if call.request.cancel_on_disconnect and not call.waiters:
                self.cancel(call.id)

    def _keep_undelivered(self, frame: bytes) -> None:
        if self.undelivered is None:
            self.undelivered = deque()
        self.undelivered.append(frame)
        self._undelivered_bytes += len(frame)
        while (
            len(self.undelivered) > MAX_UNDELIVERED
            or self._undelivered_bytes > MAX_UNDELIVERED_BYTES
        ):
            self._undelivered_bytes -= len(self.undelivered.popleft())

    def take_undelivered(self) -> list[bytes]:
        """The replies whose tab was gone; they are handed out once."""
        frames = list(self.undelivered or ())
        self.undelivered = None
        self._undelivered_bytes = 0
        return frames

    # -- pushes ----------------------------------------------------------------------

    def encode_push(self, method: str, params: Any, seq: int) -> bytes:
        """A push frame with its sequence number."""
        meta = {"seq": seq, "epoch": self.outbox.epoch, "sid": self.sid}
        return encode_push(f"p-{self.sid}-{seq}", method, params, meta, self.timestamp())

    def send_pushes(self, frames: list[bytes]) -> None:
        """Keep committed pushes for resume and send them to every tab."""
        self._metrics.pushes += len(frames)
        for frame in frames:
            self.outbox.add(frame)
        for peer in self.tabs.values():
            for frame in frames:
                peer.send(frame)

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """A push of the server's own, outside of any request.

        It leaves when it is as durable as any other push; the last one, of a session that
        ends, leaves at once.
        """
        before = self.on_its_way()
        if before is not None and self.state is not State.CLOSED:
            # RACE: its number follows on from the pushes of the commit on its way.
            before.add_done_callback(lambda _: self.notify(method, params))
            return
        seq = self.outbox.seq + 1
        frame = self.encode_push(method, params, seq)
        durable = None
        if self.state is not State.CLOSED:
            durable = self.write(self.commit_of(pushes=(PushRow(seq=seq, frame=frame),)))
        if durable is None:
            self.send_pushes([frame])
        else:
            loop = asyncio.get_running_loop()
            self.notice = loop.create_task(self._notify_when(durable, frame))

    async def _notify_when(self, durable: Awaitable[None], frame: bytes) -> None:
        try:
            await durable
        except StoreError as error:
            # The tabs miss a notice; no number was used up, so no gap is told of.
            log.warning("push.lost", sid=self.sid, error=str(error))
        else:
            self.send_pushes([frame])

    def on_its_way(self) -> asyncio.Task[None] | None:
        """The commit that is on its way to the store; sequence numbers are given after it."""
        for task in (self.landing, self.notice):
            if task is not None and not task.done():
                return task
        return None

    def commit_of(
        self,
        *,
        slots: dict[str, bytes | None] | None = None,
        answer: LedgerRow | None = None,
        pushes: tuple[PushRow, ...] = (),
    ) -> Commit:
        """A commit of this session; tokens that changed go with it."""
        tokens = None
        if self.tokens_changed:
            self.tokens_changed = False
            tokens = self.tokens.rows()
        return Commit(
            sid=self.sid,
            incarnation=self.incarnation,
            slots=slots or {},
            answer=answer,
            pushes=pushes,
            tokens=tokens,
        )

    def commit_tokens(self) -> Awaitable[None] | None:
        """Write changed tokens now; None if that is done, else an awaitable for it."""
        self.tokens_changed = True
        return self.write(self.commit_of())

    def write(self, commit: Commit) -> Awaitable[None] | None:
        """Hand a commit to the store: see `SessionStore.commit`."""
        self._metrics.commits += 1
        return self._store.commit(commit)


def _check_same(known: bytes, call: Call) -> None:
    if known != call.fingerprint:
        raise ReplyError(
            ErrorCode.ID_REUSED, "This request id was already used for another request."
        )
