"""The listening socket, its limits, and its orderly end."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from websockets.asyncio.server import serve

from ecan.actors.idle import DeadlineHeap
from ecan.errors import ConfigError
from ecan.gateway.connection import Connection
from ecan.gateway.http import client_address, header
from ecan.gateway.websocket import WebSocket
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode

if TYPE_CHECKING:
    from websockets.asyncio.server import Server
    from websockets.http11 import Request, Response

    from ecan.actors.sessions import SessionService
    from ecan.config import Settings
    from ecan.gateway.http import HttpAnswers
    from ecan.gateway.router import Router
    from ecan.observability import Metrics
    from ecan.runtime import Clock

CLOSE_TIMEOUT_S = 2.0
"""A frozen peer holds its own closing for this long, not the library's ten seconds."""

UNBOUND_IDLE_S = 600.0
"""A connection without a session and without a frame for this long is closed with 4002."""

CLOSE_SLICE = 200
"""Connections closed in one slice of a drain; slices are spread with jitter."""

log = get_logger("ecan.gateway")


class Gateway:
    """Accepts connections and hands their frames to the router."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        sessions: SessionService,
        answers: HttpAnswers,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._router = router
        self._sessions = sessions
        self._answers = answers
        self._clock = clock
        self._metrics = metrics
        self._server: Server | None = None
        self._open: dict[str, WebSocket] = {}
        self._wires: WeakSet[WebSocket] = WeakSet()
        self._idle = DeadlineHeap()
        self._idle_timer: Any = None

    # -- life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
            ConfigError: certificate or key cannot.
        """
        settings = self._settings
        tls: ssl.SSLContext | None = None
        if settings.tls_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            try:
                tls.load_cert_chain(settings.tls_cert, settings.tls_key)
            except OSError as error:  # ssl.SSLError is one
                raise ConfigError(
                    "ECAN_TLS_CERT",
                    str(settings.tls_cert),
                    f"cannot be used with ECAN_TLS_KEY={str(settings.tls_key)!r}: "
                    f"{error.strerror or error}",
                ) from error
        self._server = await serve(
            self._serve,
            settings.ws_host,
            settings.ws_port,
            create_connection=self._make,  # type: ignore[arg-type]  # any factory will do
            process_request=self._process_request,
            compression=None,  # 16 KiB a connection instead of 58
            max_size=settings.max_frame,
            max_queue=4,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=CLOSE_TIMEOUT_S,
            open_timeout=10,
            server_header=None,
            ssl=tls,
            backlog=1024,
        )
        self._arm_idle()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 - asked after start
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connection_count(self) -> int:
        """Open WebSockets."""
        return len(self._open)

    def _make(self, protocol: Any, server: Any, **options: Any) -> WebSocket:
        wire = WebSocket(protocol, server, connect=self._connect, router=self._router, **options)
        self._wires.add(wire)
        return wire

    def _connect(self, wire: WebSocket) -> Connection:
        return Connection(
            wire, self._sessions, self._clock, self._metrics, self._router.new_bucket()
        )

    def _process_request(self, wire: Any, request: Request) -> Response | None:
        client = wire.client
        remote = wire.remote_address
        client.address = client_address(
            remote[0] if remote else "",
            request.headers.get_all("X-Forwarded-For"),
            self._settings,
        )
        client.user_agent = header(request, "User-Agent")[:200]
        return self._answers.answer(request)

    async def _serve(self, wire: Any) -> None:
        """Runs for as long as the WebSocket is open."""
        client: Connection = wire.client
        key = str(client.id)
        self._open[key] = wire
        self._metrics.connections_opened += 1
        self._idle.schedule(key, self._clock.mono() + UNBOUND_IDLE_S)
        self._arm_idle()
        try:
            await wire.wait_closed()
        finally:
            del self._open[key]
            self._idle.cancel(key)
            if not client.ended:
                self._metrics.connection_closed(wire.close_code or 1006)
            client.lost()

    # -- idle connections ------------------------------------------------------------

    def _arm_idle(self) -> None:
        next_at = self._idle.next_at()
        if next_at is not None and self._idle_timer is None:
            self._idle_timer = self._clock.call_at(next_at, self._look_for_idle)

    def _look_for_idle(self) -> None:
        self._idle_timer = None
        now = self._clock.mono()
        for key in self._idle.due(now, CLOSE_SLICE):
            wire = self._open.get(key)
            if wire is None:
                continue
            client = wire.client
            due = client.last_frame_mono + UNBOUND_IDLE_S
            if client.bound is None and now >= due:
                client.close(CloseCode.IDLE_UNAUTHENTICATED, "No login for ten minutes.")
            else:
                self._idle.schedule(key, max(due, now + UNBOUND_IDLE_S / 2))
        self._arm_idle()

    # -- the end ---------------------------------------------------------------------

    def announce_drain(self, within_ms: int) -> None:
        """Tell every client to reconnect, at different times (P14)."""
        for cell in self._sessions.directory:
            if cell.tabs:
                cell.notify(
                    "server.draining",
                    {"reconnect_in_ms": random.randint(500, max(501, within_ms))},  # noqa: S311
                )

    async def close(self) -> None:
        """Close every connection with 1012, in slices, and stop listening."""
        if self._server is None:
            return
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._server.close(close_connections=False)
        wires = list(self._open.values())
        for start in range(0, len(wires), CLOSE_SLICE):
            for wire in wires[start : start + CLOSE_SLICE]:
                wire.client.close(CloseCode.SERVICE_RESTART, "The server is restarting.")
            await asyncio.sleep(random.uniform(0.0, 0.02))  # noqa: S311
        if wires:
            await asyncio.wait(
                [asyncio.ensure_future(wire.wait_closed()) for wire in wires],
                timeout=CLOSE_TIMEOUT_S + 1,
            )
        for wire in list(self._wires):
            wire.cut()  # who is still in the middle of a handshake
        await self._server.wait_closed()
