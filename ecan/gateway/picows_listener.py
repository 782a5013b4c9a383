"""Listening for picows: our own handshake first, then its frames (docs/adr/0014-picows.md)."""

from __future__ import annotations

import asyncio
import http
from typing import TYPE_CHECKING, Any

import aiofastnet
from picows import WSAutoPingStrategy, WSUpgradeResponseWithListener

from ecan.gateway.handshake import Handshake
from ecan.gateway.picows_wire import Frames, Log, Outgoing, PicowsWire
from ecan.gateway.transport import BACKLOG

if TYPE_CHECKING:
    import ssl

    from websockets.http11 import Request

    from ecan.config import Settings
    from ecan.gateway.transport import Edge

READ_BUFFER_BYTES = 4096
"""To begin with; it doubles when it is full, and stays so."""

UPGRADE = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
"""What picows reads instead of the client's request, which was checked and answered."""


class PicowsListener:
    """See `Listener`."""

    def __init__(self, settings: Settings, edge: Edge) -> None:
        self._settings = settings
        self._edge = edge
        self._server: Any = None
        self._there: set[Handshake | PicowsWire] = set()
        self._nobody_there: asyncio.Event | None = None
        self._outgoing = Outgoing(asyncio.get_running_loop())

    async def start(self, tls: ssl.SSLContext | None) -> None:
        """See `Listener.start`."""
        self._server = await aiofastnet.create_server(
            asyncio.get_running_loop(),
            self._make,
            self._settings.ws_host,
            self._settings.ws_port,
            ssl=tls,
            backlog=BACKLOG,
        )

    @property
    def port(self) -> int:
        """See `Listener.port`."""
        return int(self._server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """See `Listener.stop_listening`."""
        if self._server is not None:
            self._server.close()

    async def cut(self) -> None:
        """See `Listener.cut`."""
        for one in list(self._there):
            one.cut()
        self._nobody_there = asyncio.Event()
        if self._there:
            await self._nobody_there.wait()
        if self._server is not None:
            await self._server.wait_closed()

    def _make(self) -> Handshake:
        edge = self._edge
        made = Handshake(
            edge.doors.newcomers, edge.answer, self._server.is_serving, self._upgrade, self._gone
        )
        self._there.add(made)
        return made

    def _gone(self, one: Handshake | PicowsWire) -> None:
        self._there.discard(one)
        if self._nobody_there is not None and not self._there:
            self._nobody_there.set()

    def _upgrade(self, transport: Any, request: Request, head: bytes, rest: bytes) -> None:
        loop = asyncio.get_running_loop()
        max_size = self._settings.max_frame
        wire = PicowsWire(self._edge, transport, max_size, loop, self._gone, self._outgoing)
        self._there.add(wire)
        remote = transport.get_extra_info("peername")
        wire.client = self._edge.connect(wire, remote[0] if remote else "", request)
        answer = WSUpgradeResponseWithListener(Answered(head), wire)  # type: ignore[arg-type]
        frames = Frames(
            None,  # host and port, of clients
            None,  # path, of clients
            False,  # is_client_side
            lambda _: answer,
            Log(wire),
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout
            False,  # enable_auto_ping
            0,
            0,
            WSAutoPingStrategy.PING_PERIODICALLY,
            False,  # enable_auto_pong
            max_size,
            None,  # extra_headers, of clients
            READ_BUFFER_BYTES,
        )
        wire.take_over(frames)
        feed(frames, UPGRADE + rest)


class Answered:
    """The response that `websockets` made, as picows wants one."""

    __slots__ = ("_head", "headers", "status")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.headers: dict[str, str] = {}
        self.status = http.HTTPStatus.SWITCHING_PROTOCOLS

    def to_bytes(self) -> bytearray:
        """The head of the response."""
        return bytearray(self._head)


def feed(protocol: Any, data: bytes) -> None:
    """Give bytes to a buffered protocol, as a transport does."""
    at = 0
    while at < len(data):
        buffer = protocol.get_buffer(-1)
        part = data[at : at + len(buffer)]
        buffer[: len(part)] = part
        protocol.buffer_updated(len(part))
        at += len(part)
