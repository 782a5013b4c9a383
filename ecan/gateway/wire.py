"""What a wire does whatever library is behind it: messages for the router, buffer, pause, cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.gateway.connection import MAX_BACKLOG_BYTES
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode, ErrorCode

if TYPE_CHECKING:
    import asyncio

    from ecan.gateway.connection import Connection
    from ecan.gateway.router import Router

CONT, TEXT, BINARY = 0, 1, 2

log = get_logger("ecan.wire")


class WireBase:
    """Half of a `Wire`; a transport adds writing and closing.

    Attributes:
        client: the connection at its end.
        transport: asyncio's, None before there is one.
        loop: where it runs.
        router: gets every message.
    """

    client: Connection
    transport: Any
    loop: asyncio.AbstractEventLoop
    router: Router
    _parts: bytearray | None = None
    _binary = False
    _paused: asyncio.TimerHandle | None = None

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        raise NotImplementedError

    # -- incoming --------------------------------------------------------------------

    def take_text(self, data: Any) -> None:
        """A whole text message came."""
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
        """See `Wire.pause`."""
        if self._paused is None:
            self.transport.pause_reading()
            self._paused = self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
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
