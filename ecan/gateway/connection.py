"""One client, whatever library carries its frames: outbox, binding, limits.

A transport (`ecan.gateway.websocket`) calls `Router.receive` with each text frame
and gives a `Wire` to write to. An actor never waits for a socket: `send` hands the
frame to the transport's buffer, whose size is bounded here (P8).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

from ecan.protocol.codes import CloseCode
from ecan.protocol.frames import ConnectionId

if TYPE_CHECKING:
    import asyncio

    from ecan.actors.binding import Bound
    from ecan.actors.sessions import SessionService
    from ecan.gateway.ratelimit import TokenBucket
    from ecan.observability import Metrics
    from ecan.protocol.frames import Request
    from ecan.runtime import Clock

MAX_BACKLOG_BYTES = 2**20
MAX_BEHIND_S = 5.0
"""A connection that is 1 MiB or 5 s behind is closed with 1013; its session stays (P8)."""

LOOK_BYTES = 2**16
"""Sent since the last look before it is looked again how far behind a connection is."""

MAX_REFUSED = 50
PAUSE_S = 0.25
"""After so many refusals for speed a connection is not read for so long: 200 a second at most."""

SEND_LOOK_S = 0.001
"""After writing until the first look whether the system took it; twice as long each time."""

_ids = itertools.count(1)


class Wire(Protocol):
    """What a transport gives a connection to write to."""

    def write_text(self, frame: bytes) -> int:
        """Buffer one text frame; never waits. Returns the bytes written, header included."""

    def pause(self, seconds: float) -> None:
        """Read nothing more from the client for a while."""

    def takes_frames(self) -> bool:
        """Whether the other end still listens: neither side has begun to close."""

    def buffered_bytes(self) -> int:
        """Bytes the operating system has not taken yet."""

    def start_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; never waits."""


class _Gone:
    """The wire of a transport that is gone: takes nothing."""

    def write_text(self, frame: bytes) -> int:  # noqa: ARG002 - the protocol's
        """See `Wire.write_text`."""
        return 0

    def pause(self, seconds: float) -> None:
        """See `Wire.pause`."""

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        return False

    def buffered_bytes(self) -> int:
        """See `Wire.buffered_bytes`."""
        return 0

    def start_close(self, code: int, reason: str) -> None:
        """See `Wire.start_close`."""


_GONE = _Gone()


class Connection:
    """One connection; a `Peer` for the session and a `Bindable` for the lobby.

    Attributes:
        ended: we have closed it, or the transport is gone.
        bound: the session and the token it was checked with, or None.
        session_id: the secret as last sent, so that a repeated one costs a comparison.
        token: as above.
        backlog: frames that wait while the session is fetched from the store.
    """

    __slots__ = (
        "__weakref__",
        "_behind_timer",
        "_clock",
        "_look_timer",
        "_metrics",
        "_refused",
        "_sent",
        "_taken",
        "_wire",
        "address",
        "backlog",
        "bound",
        "bucket",
        "connected_at",
        "ended",
        "id",
        "last_frame_mono",
        "lobby",
        "session_id",
        "sessions",
        "token",
        "user_agent",
    )

    def __init__(
        self,
        wire: Wire,
        sessions: SessionService,
        clock: Clock,
        metrics: Metrics,
        bucket: TokenBucket,
    ) -> None:
        self.id = ConnectionId(next(_ids))
        self.address = ""
        self.user_agent = ""
        self.connected_at = clock.now()
        self.last_frame_mono = clock.mono()
        self.ended = False
        self.bound: Bound | None = None
        self.session_id: str | None = None
        self.token: str | None = None
        self.backlog: list[Request] | None = None
        self.lobby: set[asyncio.Task[None]] | None = None
        self.bucket = bucket
        self.sessions = sessions
        self._wire = wire
        self._clock = clock
        self._metrics = metrics
        self._refused = 0
        self._sent = self._taken = 0
        self._behind_timer: Any = None
        self._look_timer: Any = None

    def __repr__(self) -> str:
        return f"Connection({self.id}, {self.address})"

    # -- Peer ------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """See `Peer.is_open`; false as soon as a reply would be lost, so that it is kept (P3)."""
        return not self.ended and self._wire.takes_frames()

    def send(self, frame: bytes) -> bool:
        """See `Peer.send`."""
        wire = self._wire
        if self.ended or not wire.takes_frames():
            return False
        if (
            self._sent - self._taken > LOOK_BYTES
            and self._behind_timer is not None
            and self._is_far_behind()
        ):
            # Looked at before writing: one large reply to a reader that keeps up is fine.
            self._too_slow()
            return False
        # `_write`, without the call: this runs for every reply.
        self._sent += wire.write_text(frame)
        metrics = self._metrics
        metrics.frames_out += 1
        metrics.bytes_out += len(frame)
        if self._behind_timer is None and wire.buffered_bytes():
            self._watch()
        return True

    def _is_far_behind(self) -> bool:
        backlog = self._wire.buffered_bytes()
        self._taken = self._sent - backlog
        return backlog > MAX_BACKLOG_BYTES

    def send_all(self, frames: list[bytes]) -> None:
        """See `Peer.send_all`."""
        if not self.is_open:
            return
        for frame in frames:
            self._write(frame)
        if self._behind_timer is None and self._wire.buffered_bytes():
            self._watch()

    def _write(self, frame: bytes) -> None:
        self._sent += self._wire.write_text(frame)
        metrics = self._metrics
        metrics.frames_out += 1
        metrics.bytes_out += len(frame)

    @property
    def backlog_bytes(self) -> int:
        """See `Peer.backlog_bytes`."""
        return self._wire.buffered_bytes() if self.is_open else 0

    @property
    def sent_bytes(self) -> int:
        """See `Peer.sent_bytes`."""
        return self._sent

    def close(self, code: CloseCode, reason: str) -> None:
        """See `Peer.close`."""
        if not self.ended:
            self.ended = True
            self._metrics.connection_closed(int(code))
            self._wire.start_close(int(code), reason)

    def refused(self) -> None:
        """A frame came too fast. A client that goes on so is not read for a while (P1).

        Each refusal costs as much as a request; unread, the client's own TCP holds it back.
        """
        self._refused += 1
        if self._refused >= MAX_REFUSED:
            self._refused = 0
            self._wire.pause(PAUSE_S)

    def _watch(self) -> None:
        """What is sent now must be taken in five seconds; how long it takes is measured."""
        self._behind_timer = self._clock.call_later(MAX_BEHIND_S, self._check_behind, self._sent)
        # Not by the transport's pause_writing: to be told of every byte that waits, each
        # frame would cost a system call of its own.
        if self._look_timer is None:
            self._look(SEND_LOOK_S, self._sent, self._clock.mono())

    def _look(self, wait_s: float, sent: int, since_mono: float) -> None:
        self._look_timer = self._clock.call_later(
            wait_s, self._look_taken, wait_s, sent, since_mono
        )

    def _look_taken(self, wait_s: float, sent: int, since_mono: float) -> None:
        self._look_timer = None
        if not self.is_open:
            return
        if self._sent - self._wire.buffered_bytes() >= sent:
            # Taken at the first look: it never waited, the loop had only not written it yet.
            first = wait_s == SEND_LOOK_S
            self._metrics.send.observe(0.0 if first else self._clock.mono() - since_mono)
            return
        self._look(wait_s * 2, sent, since_mono)

    def _check_behind(self, sent_before: int) -> None:
        self._behind_timer = None
        if not self.is_open:
            return
        backlog = self._wire.buffered_bytes()
        if not backlog:
            return
        if self._sent - backlog < sent_before:
            self._too_slow()
        else:
            self._watch()

    def _too_slow(self) -> None:
        self.close(CloseCode.TRY_AGAIN_LATER, "You read too slowly; reconnect.")

    # -- Bindable --------------------------------------------------------------------

    @property
    def peer(self) -> Connection:
        """See `Bindable.peer`."""
        return self

    def bind(self, bound: Bound) -> None:
        """See `Bindable.bind`."""
        before = self.bound
        self.bound = bound
        # INVARIANT: `token` is the text of `bound.token`; a remembered text must never
        # stand for a newer token than its own (P15).
        if before is None or before.token is not bound.token:
            self.token = None
        if before is None or before.cell is not bound.cell:
            if before is not None:
                self.sessions.detach(before.cell, self)
            self.session_id = None
            if self.is_open:
                self.sessions.attach(bound.cell, self)

    def lost(self) -> None:
        """The transport is gone."""
        self.ended = True
        self._wire = _GONE  # which has us (ADR 17)
        for timer in (self._behind_timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        self._behind_timer = self._look_timer = None  # their context may have us, too
        bound, self.bound = self.bound, None
        if bound is not None:
            self.sessions.detach(bound.cell, self)
        for task in self.lobby or ():
            task.cancel()
        self.backlog = None
