"""The listening socket, its limits, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from ecan.actors.idle import DeadlineHeap
from ecan.gateway.connection import Connection
from ecan.gateway.http import client_address, header
from ecan.gateway.tls import Certificate
from ecan.gateway.transport import CLOSE_TIMEOUT_S, make_listener
from ecan.gateway.turns import Doors
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode

if TYPE_CHECKING:
    from websockets.http11 import Request, Response

    from ecan.actors.sessions import SessionService
    from ecan.config import Settings
    from ecan.gateway.http import HttpAnswers
    from ecan.gateway.router import Router
    from ecan.gateway.transport import ClientWire
    from ecan.observability import Metrics
    from ecan.runtime import Clock

UNBOUND_IDLE_S = 600.0
"""A connection without a session and without a frame for this long is closed with 4002."""

CLOSE_SLICE = 200
"""Connections closed in one slice of a drain; slices are spread with jitter."""

log = get_logger("ecan.gateway")


class Gateway:
    """Accepts connections and hands their frames to the router; an `Edge` to its transport.

    Attributes:
        router: gets every frame.
        doors: where crowds wait for their turn.
        certificate: of TLS without a proxy; None before `start` and without one.

    Raises:
        ConfigError: the transport that is asked for is not installed.
    """

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
        self.router = router
        self.doors = Doors(asyncio.get_running_loop())
        self._sessions = sessions
        self._answers = answers
        self._clock = clock
        self._metrics = metrics
        self.certificate: Certificate | None = None
        self._listener = make_listener(settings, self)
        self._open: dict[str, ClientWire] = {}
        self._emptied: asyncio.Event | None = None
        self._idle = DeadlineHeap()
        self._idle_timer: Any = None
        self._started = False

    # -- life ------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
            ConfigError: certificate or key cannot.
        """
        settings = self._settings
        if settings.tls_cert is not None:
            self.certificate = Certificate(settings.tls_cert, settings.tls_key)
        tls = self.certificate.context if self.certificate is not None else None
        await self._listener.start(tls)
        self._started = True
        self._arm_idle()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    @property
    def connection_count(self) -> int:
        """Open WebSockets."""
        return len(self._open)

    # -- what the transport asks: Edge -------------------------------------------------

    def answer(self, request: Request) -> Response | None:
        """See `Edge.answer`."""
        return self._answers.answer(request)

    def connect(self, wire: ClientWire, remote: str, request: Request) -> Connection:
        """See `Edge.connect`."""
        client = Connection(
            wire, self._sessions, self._clock, self._metrics, self.router.new_bucket()
        )
        forwarded_for = request.headers.get_all("X-Forwarded-For")
        client.address = client_address(remote, forwarded_for, self._settings)
        client.user_agent = header(request, "User-Agent")[:200]
        return client

    def opened(self, wire: ClientWire) -> None:
        """See `Edge.opened`."""
        key = str(wire.client.id)
        self._open[key] = wire
        self._metrics.connections_opened += 1
        self._idle.schedule(key, self._clock.mono() + UNBOUND_IDLE_S)
        self._arm_idle()

    def closed(self, wire: ClientWire, code: int) -> None:
        """See `Edge.closed`."""
        client = wire.client
        key = str(client.id)
        del self._open[key]
        self._idle.cancel(key)
        if not client.ended:
            self._metrics.connection_closed(code)
        client.lost()
        if self._emptied is not None and not self._open:
            self._emptied.set()

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
        if not self._started:
            return
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._listener.stop_listening()
        wires = list(self._open.values())
        for start in range(0, len(wires), CLOSE_SLICE):
            for wire in wires[start : start + CLOSE_SLICE]:
                wire.client.close(CloseCode.SERVICE_RESTART, "The server is restarting.")
            await asyncio.sleep(random.uniform(0.0, 0.02))  # noqa: S311
        self._emptied = asyncio.Event()
        if self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S + 1):
                    await self._emptied.wait()
        await self._listener.cut()  # who is still in the middle of a handshake
