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

    from ecan.actors.sessions import Bound, SessionService
    from ecan.gateway.ratelimit import TokenBucket
    from ecan.observability import Metrics
    from ecan.protocol.frames import Request
    from ecan.runtime import Clock

MAX_BACKLOG_BYTES = 2**20
MAX_BEHIND_S = 5.0
"""A connection that is 1 MiB or 5 s behind is closed with 1013; its session stays (P8)."""

_ids = itertools.count(1)


class Wire(Protocol):
    """What a transport gives a connection to write to."""

    def write_text(self, frame: bytes) -> None:
        """Buffer one text frame; never waits."""

    def takes_frames(self) -> bool:
        """Whether the other end still listens: neither side has begun to close."""

    def buffered_bytes(self) -> int:
        """Bytes the operating system has not taken yet."""

    def start_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; never waits."""


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
        "_flushed",
        "_metrics",
        "_sent",
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
        self._sent = 0
        self._flushed = 0
        self._behind_timer: Any = None

    def __repr__(self) -> str:
        return f"Connection({self.id}, {self.address})"

    # -- Peer ------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """See `Peer.is_open`; false as soon as a reply would be lost, so that it is kept (P3)."""
        return not self.ended and self._wire.takes_frames()

    def send(self, frame: bytes) -> None:
        """See `Peer.send`."""
        if not self.is_open:
            return
        self._wire.write_text(frame)
        self._sent += len(frame)
        metrics = self._metrics
        metrics.frames_out += 1
        metrics.bytes_out += len(frame)
        backlog = self._wire.buffered_bytes()
        if backlog and self._behind_timer is None:
            self._watch(backlog)
        if backlog > MAX_BACKLOG_BYTES:
            self._too_slow()

    @property
    def backlog_bytes(self) -> int:
        """See `Peer.backlog_bytes`."""
        return self._wire.buffered_bytes() if self.is_open else 0

    def close(self, code: CloseCode, reason: str) -> None:
        """See `Peer.close`."""
        if not self.ended:
            self.ended = True
            self._metrics.connection_closed(int(code))
            self._wire.start_close(int(code), reason)

    def _watch(self, backlog: int) -> None:
        """What is buffered now must be gone in five seconds."""
        self._behind_timer = self._clock.call_later(
            MAX_BEHIND_S, self._check_behind, self._sent - backlog
        )

    def _check_behind(self, flushed_before: int) -> None:
        self._behind_timer = None
        if not self.is_open:
            return
        backlog = self._wire.buffered_bytes()
        if not backlog:
            return
        # Frame headers make `_sent` a little less than what was written: harmless, the
        # question is only whether anything moved at all.
        if self._sent - backlog <= flushed_before:
            self._too_slow()
        else:
            self._watch(backlog)

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
        if self._behind_timer is not None:
            self._behind_timer.cancel()
        bound, self.bound = self.bound, None
        if bound is not None:
            self.sessions.detach(bound.cell, self)
        for task in self.lobby or ():
            task.cancel()
        self.backlog = None
