"""One WebSocket whose frames picows reads and writes. What picows leaves open is closed here.

docs/adr/0014-picows.md lists rule by rule who keeps it.

on_ws_frame ─┬─ whole text ──────────────▶ router
             ├─ fragment, binary ─ order, size ─▶ router
             ├─ ping ─▶ pong   pong ─▶ keep-alive
             └─ close ─▶ echo ─▶ finish: end of output, input thrown away, cut after 2 s
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from picows import WSListener, WSMsgType, WSProtocolError
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in its stubs
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from ecan.gateway.framing import header_size, text_header
from ecan.gateway.transport import CLOSE_TIMEOUT_S, PING_INTERVAL_S, PING_TIMEOUT_S
from ecan.gateway.wire import CONT, TEXT, WireBase
from ecan.observability import get_logger
from ecan.protocol.codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from picows import WSFrame, WSTransport

    from ecan.gateway.transport import Edge

PROTOCOL_ERROR = 1002
NO_CODE, NO_CLOSE = 1005, 1006
"""Never sent: a close frame without a code, and none at all (RFC 6455 §7.4.1)."""

COPIED_BYTES = 8192
"""Above this picows hands its header on without owning it; those frames are written here."""

_TEXT, _PING, _PONG, _CLOSE = WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE

log = get_logger("ecan.picows")


class PicowsWire(WireBase, WSListener):
    """One WebSocket; also the `Wire` of its `Connection`.

    Args:
        edge: the gateway.
        transport: asyncio's.
        max_size: of a message in bytes.
        loop: where it runs.
        gone: called when it has ended, last.
        outgoing: has it flushed.
    """

    def __init__(
        self,
        edge: Edge,
        transport: Any,
        max_size: int,
        loop: asyncio.AbstractEventLoop,
        gone: Callable[[PicowsWire], None],
        outgoing: Outgoing,
    ) -> None:
        super().__init__()
        self.router = edge.router
        self.doors = edge.doors
        self.transport = transport
        self.loop = loop
        self._edge = edge
        self._gone = gone
        self._max_size = max_size
        self._add_outgoing = outgoing.add
        self._unsent: list[bytes] | None = None
        self._unsent_bytes = 0
        self._ws: Any = None
        self._send: Any = None
        self._open = False
        self._code = NO_CLOSE
        self._ping: bytes | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._cut_timer: asyncio.TimerHandle | None = None
        self._protocol: Any = None

    # -- WSListener --------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._ws = transport
        self._send = transport.send
        self._open = True
        self._edge.opened(self)
        self._ping_timer = self.loop.call_later(PING_INTERVAL_S, self._send_ping)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002
        """A frame came; INVARIANT: it is unmasked, its opcode known, its size within bounds."""
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._violated("reserved bits must be 0")
        elif kind is _TEXT and frame.fin and self._parts is None:
            if self._open:
                self.take_text(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            self.take_kept()
            self._close_received(frame.get_payload_as_bytes())
        elif not self._open:
            return
        elif kind is _PING:
            if self.answers_pings():
                self._ws.send_pong(frame.get_payload_as_bytes())
        elif kind is _PONG:
            self._pong_received(frame.get_payload_as_bytes())
        else:
            self._check_part(int(kind), frame.payload_size)  # type: ignore[call-overload]
            self.take_part(int(kind), frame.get_payload_as_bytes(), fin=bool(frame.fin))  # type: ignore[call-overload]

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        """The TCP connection is gone."""
        self._open = False
        self._unsent = None
        for timer in (self._ping_timer, self._cut_timer, self._paused):
            if timer is not None:
                timer.cancel()
        self._edge.closed(self, self._code)
        self._gone(self)
        # Picows has us, and we have it (ADR 17).
        self._ws = self._send = self._protocol = None

    def pause_writing(self) -> None:
        """Nothing: what is buffered is looked at when something is written (P8)."""

    def resume_writing(self) -> None:
        """As `pause_writing`."""

    # -- what picows does not look at ----------------------------------------------------

    def _check_part(self, opcode: int, size: int) -> None:
        if (opcode == CONT) is (self._parts is None):
            self._violated("fragments must be in order")
        if self._parts is not None and len(self._parts) + size > self._max_size:
            raise WSProtocolError(CloseCode.MESSAGE_TOO_BIG, f"more than {self._max_size} bytes")

    @staticmethod
    def _violated(reason: str) -> None:
        raise WSProtocolError(PROTOCOL_ERROR, reason)

    def _close_received(self, data: bytes) -> None:
        try:
            self._code = Close.parse(data).code
        except UnicodeDecodeError:
            raise WSProtocolError(CloseCode.INVALID_DATA, "a reason must be UTF-8") from None
        except ProtocolError as error:
            raise WSProtocolError(PROTOCOL_ERROR, str(error)) from None
        if self._open:
            self.flush()
            if self._code == NO_CODE:
                self._ws.send(_CLOSE, None)
            else:
                self._ws.send_close(self._code, data[2:])
        self.finish()

    # -- keep-alive ----------------------------------------------------------------------

    def _send_ping(self) -> None:
        if self._open:
            self._ping = os.urandom(4)
            self._ws.send_ping(self._ping)
            self._ping_timer = self.loop.call_later(PING_TIMEOUT_S, self._no_pong)

    def _pong_received(self, data: bytes) -> None:
        if self._ping is not None and data == self._ping:
            self._ping = None
            if self._ping_timer is not None:
                self._ping_timer.cancel()
            self._ping_timer = self.loop.call_later(PING_INTERVAL_S, self._send_ping)

    def _no_pong(self) -> None:
        if self._open:
            self.flush()
            self._ws.send_close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self.finish()

    # -- Wire ------------------------------------------------------------------------

    def write_text(self, frame: bytes) -> int:
        """See `Wire.write_text`."""
        unsent = self._unsent
        if unsent is None:
            self._unsent = [frame]
            self._add_outgoing(self)
        else:
            unsent.append(frame)
        size = len(frame)
        size += header_size(size)
        self._unsent_bytes += size
        return size

    def flush(self) -> None:
        """Give the system what was written."""
        unsent = self._unsent
        if unsent is None:
            return
        self._unsent = None
        self._unsent_bytes = 0
        if len(unsent) == 1 and len(unsent[0]) <= COPIED_BYTES:
            self._send(TEXT, unsent[0])
        else:
            self.transport.write(b"".join([text_header(len(f)) + f for f in unsent]))

    def buffered_bytes(self) -> int:
        """See `Wire.buffered_bytes`."""
        size: int = self.transport.get_write_buffer_size()
        return size + self._unsent_bytes

    def takes_frames(self) -> bool:
        """See `Wire.takes_frames`."""
        return self._open

    def start_close(self, code: int, reason: str) -> None:
        """See `Wire.start_close`."""
        if self._open:
            self.flush()
            self._open = False
            self._ws.send_close(code, reason)
            self._cut_soon()

    # -- the end -----------------------------------------------------------------------

    def violation_found(self) -> None:
        """Picows is about to send a close frame of its own, because of an illegal one."""
        self.flush()
        self._open = False
        self.loop.call_soon(self.finish)

    def input_ended(self) -> None:
        """The other end sends no more; the transport closes when its buffer is empty."""
        self.flush()
        self._open = False
        self._cut_soon()

    def finish(self) -> None:
        """Say that nothing more comes, and wait a moment for the other end to say so too."""
        self._open = False
        protocol, self._protocol = self._protocol, None
        if protocol is None or self.transport.is_closing():
            return
        self._cut_soon()
        # Not by picows: after a violation it would keep all that still comes. And not
        # unread: the system would reset the connection before the close frame is seen.
        read_on(self.transport, Rest(protocol))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _cut_soon(self) -> None:
        if self._cut_timer is None:
            self._cut_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.cut)

    # -- the beginning -----------------------------------------------------------------

    def take_over(self, protocol: WSProtocol) -> None:
        """Read the transport by picows from now on."""
        self._protocol = protocol
        read_on(self.transport, protocol)
        protocol.connection_made(Closeless(self.transport, self))


class Outgoing:
    """Wires that were written to in this turn of the loop: sent at its end, one after another.

    A system call each at once would wake the client up for every reply (2 µs more).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wires: list[PicowsWire] = []

    def add(self, wire: PicowsWire) -> None:
        """It has something to send."""
        if not self._wires:
            self._loop.call_soon(self._flush)
        self._wires.append(wire)

    def _flush(self) -> None:
        wires, self._wires = self._wires, []
        for wire in wires:
            wire.flush()


def read_on(transport: Any, protocol: Any) -> None:
    """Have a transport give what it reads to another protocol."""
    # uvloop looks at the kind of protocol only when it begins to read.
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()


class Frames(WSProtocol):  # type: ignore[misc]  # not in its stubs
    """Picows' protocol; tells its wire when the input ends."""

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`."""
        if self.listener is not None:
            self.listener.input_ended()
        return False


class Rest(asyncio.Protocol):
    """Throws input away; the end still comes to picows."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: WSProtocol) -> None:
        self._protocol = protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._protocol.connection_lost(exc)


class Closeless:
    """A transport as picows sees it: its closing, which waits without limit, is ours."""

    __slots__ = ("_transport", "close")

    def __init__(self, transport: Any, wire: PicowsWire) -> None:
        self._transport = transport
        self.close = wire.finish

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Log:
    """The logger of one connection: picows tells nobody else of a violation."""

    __slots__ = ("_wire",)

    def __init__(self, wire: PicowsWire) -> None:
        self._wire = wire

    def isEnabledFor(self, level: int) -> bool:  # noqa: ARG002, N802 - the standard library's
        """Nothing is."""
        return False

    def debug(self, *words: Any) -> None:
        """Drop it: clients make these lines."""

    info = warning = log = debug

    def error(self, *words: Any) -> None:  # noqa: ARG002
        """A frame was illegal."""
        self._wire.violation_found()

    def exception(self, *words: Any) -> None:
        """A fault of ours, or of picows."""
        log.error("picows.failed", what=str(words[0]), exc_info=True)  # noqa: LOG014 - it is one
        self._wire.violation_found()
