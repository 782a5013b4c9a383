"""What a wire does whatever library is behind it: messages for the router, buffer, pause, cut."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ecan.gateway.connection import MAX_BACKLOG_BYTES
from ecan.gateway.turns import PORTION_S
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode, ErrorCode

if TYPE_CHECKING:
    import asyncio

    from ecan.gateway.connection import Connection
    from ecan.gateway.router import Router
    from ecan.gateway.turns import Doors, Turns

CONT, TEXT, BINARY = 0, 1, 2

PORTION = 4
"""So many messages in `PORTION_S` pass at once; a client that sends more waits for itself,
not the others for it (P6)."""

log = get_logger("ecan.wire")


class WireBase:
    """Half of a `Wire`; a transport adds writing and closing.

    Attributes:
        client: the connection at its end.
        transport: asyncio's, None before there is one.
        loop: where it runs.
        router: gets every message.
        doors: where it waits for its turn with a first message, or with too many.
    """

    client: Connection
    transport: Any
    loop: asyncio.AbstractEventLoop
    router: Router
    doors: Doors
    _parts: bytearray | None = None
    _binary = False
    _paused: asyncio.TimerHandle | None = None
    _left = 0
    _portion_ends = 0.0
    _kept: deque[Any] | None = None
    _is_new = True
    _in_line = False
    _unread = False

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        raise NotImplementedError

    # -- incoming --------------------------------------------------------------------

    def take_text(self, data: Any) -> None:
        """A whole text message came."""
        left = self._left
        if left:
            self._left = left - 1
        elif not self._passes(data):
            return
        if not self.takes_frames():  # first: before the handshake there is no client
            return
        client = self.client
        if client.ended:
            return
        try:
            self.router.receive(client, data)
        except Exception:
            log.exception("router.failed", connection=client.id)
            client.close(CloseCode.INTERNAL_ERROR, "Internal error.")

    def _passes(self, data: Any) -> bool:
        """The connection had its portion, or this is its first message: now, or kept for later."""
        now = self.loop.time()
        is_new, self._is_new = self._is_new, False
        if not self._in_line and self._paused is None:
            if now >= self._portion_ends and not is_new:
                self._portion_ends = now + PORTION_S
                self._left = PORTION - 1
                return True
            line = self.doors.newcomers if is_new else self.doors.greedy
            if line.enter():
                return True
            self._stand_in_line(line)
        if self._kept is None:
            self._kept = deque()
        self._kept.append(data)
        if len(self._kept) > PORTION:
            self._read_no_more()  # what is kept is what was read at once, no more (P8)
        return False

    def _stand_in_line(self, line: Turns) -> None:
        self._in_line = True
        line.take(self._take_turn)

    def _take_turn(self) -> None:
        """The next message that is kept, and more while there is room in this turn."""
        self._in_line = False
        kept, line = self._kept, self.doors.greedy
        # INVARIANT: `_left` is 0 while something is kept, so that messages stay in order.
        has_room = True  # for one, as it is our turn
        while kept and self._paused is None and (has_room or line.enter()):
            has_room = False
            self._left = 1
            self.take_text(kept.popleft())
        if self._paused is not None:
            return
        if kept:
            self._stand_in_line(line)
        else:
            self._kept = None
            self._read_on()

    def take_kept(self) -> None:
        """The other end closes: what it sent before that counts."""
        kept, self._kept = self._kept, None
        for data in kept or ():
            self._left = 1
            self.take_text(data)

    def take_part(self, opcode: int, data: Any, *, fin: bool) -> None:
        """A fragment came, or a whole binary message; the transport has checked their order."""
        if opcode != CONT:
            self._binary = opcode == BINARY
            self._parts = bytearray()
        if self._parts is None:
            return
        # Not a list of parts: empty fragments would make it grow for ever (P8).
        self._parts += data
        if not fin:
            return
        whole, self._parts = bytes(self._parts), None
        if not self._binary:
            self.take_text(whole)
        elif self.takes_frames() and not self.client.ended:
            self.router.reject(
                self.client,
                "",
                ErrorCode.PARSE_ERROR,
                "Frames are JSON in text messages; this one was binary.",
                self.loop.time(),
            )

    # -- Wire ------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """See `Wire.pause`; nothing that was read already is taken meanwhile."""
        if self._paused is None:
            self._left = 0
            self._read_no_more()
            self._paused = self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if not self._in_line:
            self._stand_in_line(self.doors.greedy)

    def _read_no_more(self) -> None:
        if not self._unread:
            self._unread = True
            self.transport.pause_reading()

    def _read_on(self) -> None:
        if self._unread:
            self._unread = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def buffered_bytes(self) -> int:
        """See `Wire.buffered_bytes`."""
        size: int = self.transport.get_write_buffer_size()
        return size

    def answers_pings(self) -> bool:
        """Whether the client reads: a pong to one that does not would only be kept (P8)."""
        return self.buffered_bytes() <= MAX_BACKLOG_BYTES

    def cut(self) -> None:
        """Drop the TCP connection, if it has come so far."""
        if self.transport is not None:
            self.transport.abort()
