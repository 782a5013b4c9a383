"""A session's place in the directory: all of it that outlives an incarnation of its actor.

The mailbox, the tabs, the committed slots, the ledger and the outbox belong to the
cell; the actor is a guest. So a crash loses nothing but the live objects of one
request. Everything here runs on the loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from ecan.actors.answers import Answering
from ecan.actors.call import Call
from ecan.actors.lifecycle import Event, State, next_state
from ecan.actors.refusals import (
    closed_error,
    failed_error,
    stopped_error,
)
from ecan.errors import ReplyError, StoreError
from ecan.handlers.registry import Kind
from ecan.observability import get_logger
from ecan.protocol.codec import encode_push
from ecan.protocol.codes import ErrorCode
from ecan.runtime import Mailbox, MailboxFullError
from ecan.store import PushRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ecan.actors.budgets import Usage
    from ecan.actors.restart import RestartBudget
    from ecan.actors.session import SessionActor
    from ecan.handlers.context import User
    from ecan.protocol.frames import ConnectionId, Peer, Sid
    from ecan.runtime import Clock

log = get_logger("ecan.session")

# Looked up once: the attribute of an enum costs four times a global.
_FAILED, _CLOSED, _INLINE = State.FAILED, State.CLOSED, Kind.INLINE

MAX_TRANSITIONS = 50
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


class Cell(Answering):
    """One session: see the module's docstring for what it owns.

    `Answering` has its answers, `Record` what is durable.

    Attributes:
        state: changed by `transit` only.
        actor: the current actor; the one strong reference to it.
        tabs: open connections bound to this session, by connection id.
        found_mono: when it was last looked for; it is not evicted right after.
        bucket: the gateway's rate limit of this session.
        usage: what it uses up; None: it never had an actor.
        tally: how many sessions the directory has in each state; None: this one is not in it.
        sent_gone_bytes: sent by connections that are bound no more, less what those that
            are had sent before.
    """

    __slots__ = (
        "_deadline_at",
        "_deadline_timer",
        "_wake",
        "actor",
        "asks",
        "bucket",
        "budget",
        "close_reason",
        "detached_mono",
        "expiring_told",
        "found_mono",
        "mailbox",
        "sent_gone_bytes",
        "tabs",
        "tally",
        "timer",
        "transitions",
        "usage",
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
        wake: Callable[[Cell], None],
        **record: Any,
    ) -> None:
        super().__init__(sid, key, user, clock, **record)
        self.actor: SessionActor | None = None
        self.mailbox = Mailbox(max_items=mailbox_size)
        self.tabs: dict[ConnectionId, Peer] = {}
        self.asks: dict[str, Ask] | None = None
        self.budget: RestartBudget | None = None
        self.transitions: list[Transition] | None = None  # an empty deque is 630 bytes
        self.usage: Usage | None = None
        self.sent_gone_bytes = 0
        self.tally: dict[State, int] | None = None
        self.close_reason = ""
        self.zombies = 0
        self.bucket: Any = None
        self.timer: Any = None
        self.detached_mono = self.last_active_mono
        self.found_mono = 0.0
        self.expiring_told = False
        self._wake = wake
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
        before, self.state = self.state, next_state(self.state, event)
        if self.tally is not None:
            self.tally[before] -= 1
            self.tally[self.state] += 1
        if self.transitions is None:
            self.transitions = []
        elif len(self.transitions) >= MAX_TRANSITIONS:
            del self.transitions[0]
        self.transitions.append(Transition(self._clock.now(), event, self.state, note))

    def touch(self) -> None:
        """Activity: a request, a running handler or session.keep (P13)."""
        self.last_active_mono = self._clock.mono()
        self.expiring_told = False

    # -- requests --------------------------------------------------------------------

    def accept(self, call: Call) -> None:
        """Take a request, attach it to the same one still pending, or answer it again.

        Raises:
            ReplyError: BUSY, ID_REUSED, ID_EXPIRED or a state that takes no requests;
                nothing was enqueued.
        """
        # `is_known` knows by itself; nearly every id is new, which is told without the call.
        if (call.id in self.pending or not self.ledger.is_new(call.id)) and self.is_known(call):
            return
        state = self.state
        if state is _FAILED or state is _CLOSED:
            failed = state is _FAILED
            raise failed_error() if failed else closed_error(self.close_reason)
        spec = call.spec
        usage = self.usage
        if usage is not None and call.accepted_mono >= usage.look_mono and not spec.control:
            usage.admit(self, call.size_bytes, call.accepted_mono)
        actor = self.actor
        self.pending[call.id] = call
        (self.story or self.biography).count_request(call.accepted_mono)
        if spec.activity:
            self.last_active_mono = call.accepted_mono
            self.expiring_told = False
        if spec.kind is _INLINE and actor is not None and actor.handle_now(call):
            return
        mailbox = self.mailbox
        busy = actor is None or actor.busy or actor.held or mailbox.paused or len(mailbox) > 0
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

    def refuse_all(self, error: ReplyError) -> None:
        """Answer everything that is queued in either lane; what runs is told separately."""
        mailbox = self.mailbox
        for call in mailbox.remove_control(lambda item: type(item) is Call) + mailbox.clear():
            self.refuse(call, error)

    def cancel(self, request_id: str) -> str:
        """Cancel a request: see `SessionPort.cancel`."""
        call = self.pending.get(request_id)
        if call is None or call.answered:
            return "unknown"
        if call.started_mono:
            if self.actor is not None and not call.committing:
                self.actor.stop_call(call, ErrorCode.CANCELLED)
                return "cancelling"
            return "unknown"
        self._drop(call, ErrorCode.CANCELLED)
        return "cancelled"

    def drop_queued(self, request_id: str | None = None) -> int:
        """Answer queued requests CANCELLED without running them, on an operator's word (P3).

        Args:
            request_id: only this one; None: all.

        Returns:
            How many there were; what runs is not among them.
        """
        dropped = self.mailbox.remove(
            lambda item: type(item) is Call and request_id in {None, item.id}
        )
        for call in dropped:
            self.refuse(call, stopped_error(ErrorCode.CANCELLED, ran=False))
        return len(dropped)

    def _drop(self, call: Call, code: ErrorCode) -> None:
        self.mailbox.remove(lambda item: item is call)
        self.refuse(call, stopped_error(code, ran=False))

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
            if call.stop_reason is not None or call.committing or call.answered:
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
        if peer.id not in self.tabs:
            self.sent_gone_bytes -= peer.sent_bytes
        self.tabs[peer.id] = peer
        for ask in (self.asks or {}).values():
            if ask.peer is None:
                peer.send(ask.frame)

    def detach(self, peer: Peer) -> None:
        """Unbind a connection; names it, so a late close cannot detach its successor."""
        if self.tabs.pop(peer.id, None) is None:
            return
        self.sent_gone_bytes += peer.sent_bytes
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

    @property
    def sent_bytes(self) -> int:
        """All that its connections were sent."""
        return self.sent_gone_bytes + sum(peer.sent_bytes for peer in self.tabs.values())

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
            try:
                durable = self.write(self.commit_of(pushes=(PushRow(seq=seq, frame=frame),)))
            except StoreError as error:
                self._notice_lost(error)
                return
        if durable is None:
            self.send_pushes([frame])
        else:
            loop = asyncio.get_running_loop()
            self.tell_of(loop.create_task(self._notify_when(durable, frame)))

    async def _notify_when(self, durable: asyncio.Future[None], frame: bytes) -> None:
        try:
            await durable
        except StoreError as error:
            self._notice_lost(error)
        else:
            self.send_pushes([frame])

    def _notice_lost(self, error: StoreError) -> None:
        # The tabs miss a notice; no number was used up, so no gap is told of.
        log.warning("push.lost", sid=self.sid, incarnation=self.incarnation, error=str(error))
