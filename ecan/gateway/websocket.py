"""The `websockets` library as a transport.

Whole text frames go from the socket straight to the router (`ecan.gateway.framing`),
replies from the connection straight to the transport. Everything else is the
library's: the handshake, control frames, fragments, violations, keepalive and closing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from ecan.gateway.framing import FrameReader, text_header
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.server import ServerProtocol

    from ecan.gateway.connection import Connection
    from ecan.gateway.router import Router

log = get_logger("ecan.websocket")

_tasks: set[asyncio.Task[None]] = set()


class WebSocket(ServerConnection):
    """One WebSocket; also the `Wire` of its `Connection`.

    Args:
        connect: makes the `Connection` for this wire.
        router: gets every text frame.
    """

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Any,
        *,
        connect: Callable[[WebSocket], Connection],
        router: Router,
        **options: Any,
    ) -> None:
        super().__init__(protocol, server, **options)
        self._router = router
        self._parts: bytearray | None = None
        self._binary = False
        self._paused: asyncio.TimerHandle | None = None
        self._frames: FrameReader | None = None
        self._max_size = int(protocol.max_message_size or 0)
        self._clean = False
        self.client = connect(self)

    # -- incoming --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came in: take whole text messages out, give the rest to the library."""
        frames = self._frames
        if frames is None:
            # The first bytes after the handshake. If the client sent frames before it was
            # answered, the library may be in the middle of one: then it keeps them all.
            if self.protocol.state is not OPEN or not self._clean:
                self._clean = data.endswith(b"\r\n\r\n")
                super().data_received(data)
                return
            frames = self._frames = FrameReader(self._max_size)
        if self.protocol.state is not OPEN:
            super().data_received(frames.take_rest() + data)
            return
        for is_text, part in frames.feed(data):
            if is_text:
                self._receive(part)
            else:
                super().data_received(part)

    def process_event(self, event: Any) -> None:
        """Take data frames; leave the handshake, pongs and the rest to the library."""
        if type(event) is Frame and self.request is not None:
            opcode = event.opcode
            if opcode is Opcode.TEXT and event.fin:
                self._receive(event.data)
                return
            if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragment(event)
                return
        super().process_event(event)

    def _receive(self, data: Any) -> None:
        if self.client.ended or self.protocol.state is not OPEN:
            return
        try:
            self._router.receive(self.client, data)
        except Exception:
            log.exception("router.failed", connection=self.client.id)
            self.client.close(CloseCode.INTERNAL_ERROR, "Internal error.")

    def _fragment(self, frame: Frame) -> None:
        """Put fragments together; the library bounds their sum by ECAN_MAX_FRAME."""
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
            self._parts = bytearray()
        if self._parts is None:
            return
        # Not a list of parts: empty fragments would make it grow for ever (P8).
        self._parts += frame.data
        if not frame.fin:
            return
        data, self._parts = bytes(self._parts), None
        if self._binary:
            if not self.client.ended:
                self._router.reject(
                    self.client,
                    "",
                    ErrorCode.PARSE_ERROR,
                    "Frames are JSON in text messages; this one was binary.",
                    self.loop.time(),
                )
            return
        self._receive(data)

    # -- outgoing: Wire --------------------------------------------------------------

    def write_text(self, frame: bytes) -> int:
        """See `Wire.write_text`."""
        data = text_header(len(frame)) + frame
        self.transport.write(data)
        return len(data)

    def pause(self, seconds: float) -> None:
        """See `Wire.pause`."""
        if self._paused is None:
            self.transport.pause_reading()
            self._paused = self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        return self.protocol.state is OPEN

    def buffered_bytes(self) -> int:
        """See `Wire.buffered_bytes`."""
        return self.transport.get_write_buffer_size()

    def start_close(self, code: int, reason: str) -> None:
        """See `Wire.start_close`."""
        task = self.loop.create_task(self._close(code, reason))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    def cut(self) -> None:
        """Drop the TCP connection, if it has come so far."""
        transport = getattr(self, "transport", None)
        if transport is not None:
            transport.abort()

    async def _close(self, code: int, reason: str) -> None:
        # The library waits without limit for a peer that reads nothing to take what is
        # buffered, the close frame behind it; `close_timeout` only counts after that.
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.close(code, reason)
        except TimeoutError:
            self.cut()
