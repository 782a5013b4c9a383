"""HTTP before a transport that has none of its own: read with the parser of `websockets`.

Plain requests are answered here and end here; of a good upgrade the open TCP
connection is handed on, with what the client sent behind its request.
"""

from __future__ import annotations

import asyncio
import http
from typing import TYPE_CHECKING, Any

from websockets.http11 import Request
from websockets.server import ServerProtocol

from ecan.gateway.transport import CLOSE_TIMEOUT_S, MAX_WAITING_BYTES, OPEN_TIMEOUT_S
from ecan.observability import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Response

    from ecan.gateway.turns import Turns

END_OF_HEAD = b"\r\n\r\n"

log = get_logger("ecan.handshake")


class Handshake(asyncio.Protocol):
    """One TCP connection until it is upgraded, answered, or late.

    Args:
        newcomers: where it waits for its turn.
        answer: the response to plain HTTP, or None; see `Edge.answer`.
        serving: whether upgrades are still taken.
        upgrade: takes the connection over: request, head of the answer, and the bytes
            behind the request. It gives the transport another protocol.
        ended: called once when it is upgraded or gone.
    """

    def __init__(
        self,
        newcomers: Turns,
        answer: Callable[[Request], Response | None],
        serving: Callable[[], bool],
        upgrade: Callable[[Any, Request, bytes, bytes], None],
        ended: Callable[[Handshake], None],
    ) -> None:
        self._newcomers = newcomers
        self._answer = answer
        self._serving = serving
        self._upgrade = upgrade
        self._ended = ended
        self._protocol = ServerProtocol()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._come = b""
        self._ended_input = False
        self._tail = b""
        self._done = False

    # -- asyncio.Protocol --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = transport
        self._cut_after(OPEN_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        is_in_line, self._come = bool(self._come), self._come + data
        if len(self._come) > MAX_WAITING_BYTES:
            self._transport.pause_reading()
        if not is_in_line:
            self._newcomers.take(self._let_in)

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`; what came before the end is answered still."""
        self._ended_input = True
        return bool(self._come)

    def _let_in(self) -> None:
        data, self._come = self._come, b""
        if self._transport.is_closing():
            return
        if len(data) > MAX_WAITING_BYTES:
            self._transport.resume_reading()
        self._take(data)
        if self._ended_input and not self._transport.is_closing():
            self._transport.close()

    def _take(self, data: bytes) -> None:
        """The parser bounds the lines and their number."""
        if self._done:
            return
        # The parser would take frames behind the head for its own: it gets no more than that.
        end = (self._tail + data).find(END_OF_HEAD)
        size = len(data) if end < 0 else end + len(END_OF_HEAD) - len(self._tail)
        self._tail = (self._tail + data)[1 - len(END_OF_HEAD) :]
        self._protocol.receive_data(data[:size])
        for request in self._protocol.events_received():
            assert isinstance(request, Request)  # noqa: S101 - there is nothing else yet
            response = self._respond(request)
            self._protocol.send_response(response)
            if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self._leave()
                head = b"".join(self._protocol.data_to_send())
                self._upgrade(self._transport, request, head, data[size:])
                return
        out = self._protocol.data_to_send()
        if out:  # an answer, or only the end: what came is no HTTP
            self._finish(b"".join(out))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """See `asyncio.BaseProtocol`."""
        self._leave()

    # ----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Drop the TCP connection."""
        self._transport.abort()

    def _respond(self, request: Request) -> Response:
        try:
            response = self._answer(request)
        except Exception:
            log.exception("http.failed")
            return self._protocol.reject(
                http.HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed.\n"
            )
        if response is not None:
            return response
        if not self._serving():
            return self._protocol.reject(
                http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n"
            )
        return self._protocol.accept(request)

    def _finish(self, answer: bytes) -> None:
        """Send it, say that it is all, and wait a moment for the other end to close."""
        self._done = True
        self._cut_after(CLOSE_TIMEOUT_S)
        self._transport.write(answer)
        if self._transport.can_write_eof():
            # Not close: with a body unread the system would reset the connection, and the
            # client might never see the answer.
            self._transport.write_eof()
        else:
            self._transport.close()

    def _cut_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cut)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended(self)
