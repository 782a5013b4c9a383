"""The `websockets` library as a transport.

Whole text frames go from the socket straight to the router (`ecan.gateway.framing`),
replies from the connection straight to the transport. Everything else is the
library's: the handshake, control frames, fragments, violations, keepalive and closing.
"""

from __future__ import annotations

import asyncio
from logging import getLogger
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from ecan.gateway.framing import CLOSE, PING, FrameReader, text_header
from ecan.gateway.transport import (
    BACKLOG,
    CLOSE_TIMEOUT_S,
    MAX_WAITING_BYTES,
    OPEN_TIMEOUT_S,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
)
from ecan.gateway.wire import WireBase

if TYPE_CHECKING:
    import ssl

    from websockets.asyncio.server import Server
    from websockets.http11 import Request, Response
    from websockets.server import ServerProtocol

    from ecan.config import Settings
    from ecan.gateway.router import Router
    from ecan.gateway.transport import Edge
    from ecan.gateway.turns import Doors

_tasks: set[asyncio.Task[None]] = set()


class WebsocketsListener:
    """See `Listener`."""

    def __init__(self, settings: Settings, edge: Edge) -> None:
        self._settings = settings
        self._edge = edge
        self._server: Server | None = None
        self._wires: WeakSet[WebSocket] = WeakSet()

    async def start(self, tls: ssl.SSLContext | None) -> None:
        """See `Listener.start`."""
        self._server = await serve(
            self._serve,
            self._settings.ws_host,
            self._settings.ws_port,
            create_connection=self._make,  # type: ignore[arg-type]  # any factory will do
            process_request=self._process_request,
            compression=None,  # 16 KiB a connection instead of 58
            max_size=self._settings.max_frame,
            max_queue=4,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            open_timeout=OPEN_TIMEOUT_S,
            server_header=None,
            ssl=tls,
            backlog=BACKLOG,
        )

    @property
    def port(self) -> int:
        """See `Listener.port`."""
        assert self._server is not None  # noqa: S101 - asked after start
        return int(self._server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """See `Listener.stop_listening`."""
        if self._server is not None:
            self._server.close(close_connections=False)

    async def cut(self) -> None:
        """See `Listener.cut`."""
        for wire in list(self._wires):
            wire.cut()
        if self._server is not None:
            await self._server.wait_closed()

    def _make(self, protocol: Any, server: Any, **options: Any) -> WebSocket:
        edge = self._edge
        wire = WebSocket(protocol, server, router=edge.router, doors=edge.doors, **options)
        self._wires.add(wire)
        return wire

    def _process_request(self, wire: Any, request: Request) -> Response | None:
        response = self._edge.answer(request)
        if response is None:
            remote = wire.remote_address
            wire.client = self._edge.connect(wire, remote[0] if remote else "", request)
        return response

    async def _serve(self, wire: Any) -> None:
        """Runs for as long as the WebSocket is open."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the library runs this in one
        task.add_done_callback(wire.forget)
        self._edge.opened(wire)
        wire.end_input()
        try:
            await wire.wait_closed()
        finally:
            self._edge.closed(wire, wire.close_code or 1006)


class WebSocket(WireBase, ServerConnection):
    """One WebSocket; also the `Wire` of its `Connection`.

    Args:
        router: gets every text frame.
        doors: see `WireBase`; the handshake waits there, too.
    """

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Any,
        *,
        router: Router,
        doors: Doors,
        **options: Any,
    ) -> None:
        super().__init__(protocol, server, **options)
        self.router = router
        self.doors = doors
        self.transport = None
        self._frames: FrameReader | None = None
        self._max_size = int(protocol.max_message_size or 0)
        self._clean = False
        self._come = b""
        self._input_ended = False

    # -- incoming --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came in: take whole text messages out, give the rest to the library."""
        frames = self._frames
        if frames is None:
            # The first bytes after the handshake, if nothing came before it was answered.
            if self._come or self.protocol.state is not OPEN or not self._clean:
                self._begin(data)
                return
            frames = self._frames = FrameReader(self._max_size)
        if self.protocol.state is not OPEN:
            super().data_received(frames.take_rest() + data)
            return
        whole = frames.whole(data)
        if whole is not None:
            self.take_text(whole)
            return
        for is_text, part in frames.feed(data):
            if is_text:
                self.take_text(part)
            elif part[0] != PING or frames.given_up or self.answers_pings():
                if part[0] == CLOSE:
                    self.take_kept()
                super().data_received(part)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The other end sends no more; what it has asked before that is answered still."""
        if self._come or (self.request is not None and self.response is None):
            self._input_ended = True
            return True
        return super().eof_received()

    def _begin(self, data: bytes) -> None:
        """A part of the handshake, which has to wait for its turn; or the library's."""
        if self.request is not None and not self._come:
            # Sent before we answered: the library may be left in the middle of a frame.
            self._clean = False
            super().data_received(data)
            return
        is_in_line, self._come = bool(self._come), self._come + data
        if len(self._come) > MAX_WAITING_BYTES:
            self._read_no_more()
        if not is_in_line:
            self.doors.newcomers.take(self._shake_hands)

    def _shake_hands(self) -> None:
        data, self._come = self._come, b""
        if self.connection_lost_waiter.done():
            return
        self._read_on()
        self._clean = data.endswith(b"\r\n\r\n")
        super().data_received(data)
        if self.request is None:
            self.end_input()

    def end_input(self) -> None:
        """Now the end of the input counts, if it has come."""
        if self._input_ended:
            super().eof_received()
            self.transport.close()

    def process_event(self, event: Any) -> None:
        """Take data frames; leave the handshake, pongs and the rest to the library.

        The library bounds the sum of fragments by ECAN_MAX_FRAME.
        """
        if type(event) is Frame and self.request is not None:
            opcode = event.opcode
            if opcode is Opcode.TEXT and event.fin:
                self.take_text(event.data)
                return
            if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self.take_part(opcode, event.data, fin=event.fin)
                return
        super().process_event(event)

    # -- outgoing: Wire --------------------------------------------------------------

    def write_text(self, frame: bytes) -> int:
        """See `Wire.write_text`."""
        data = text_header(len(frame)) + frame
        self.transport.write(data)
        return len(data)

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        return self.protocol.state is OPEN

    def start_close(self, code: int, reason: str) -> None:
        """See `Wire.start_close`."""
        task = self.loop.create_task(self._close(code, reason))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    def forget(self, _task: asyncio.Task[None]) -> None:
        """It has ended: loosen the cycles in which the library keeps a connection (ADR 17)."""
        self.logger = self.protocol.logger = getLogger("websockets.server")
        if self.connection_lost_waiter.done():  # else it is fed once more
            self.protocol.parser.close()
            if self.protocol.parser_exc is not None:
                self.protocol.parser_exc.__traceback__ = None

    async def _close(self, code: int, reason: str) -> None:
        # The library waits without limit for a peer that reads nothing to take what is
        # buffered, the close frame behind it; `close_timeout` only counts after that.
        try:
            async with asyncio.timeout(self.close_timeout):
                await self.close(code, reason)
        except TimeoutError:
            self.cut()
