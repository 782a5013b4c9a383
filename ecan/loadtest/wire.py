"""A WebSocket client for many connections: text frames in, text frames out, nothing more.

Written by hand because the generator must cost less than what it measures; see ADR 13.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_FIN, _OPCODE = 0x80, 0x0F
_MASKED = 0x80
_MEDIUM, _LARGE = 126, 127
_HEAD_BYTES = {_MEDIUM: 4, _LARGE: 10}
_NO_MASK = bytes(4)
_NO_CLOSE_FRAME = 1006  # RFC 6455 §7.4.1

OPEN_TIMEOUT_S = 10.0
MAX_HANDSHAKE_BYTES = 16384


class WireError(ConnectionError):
    """The connection could not be made; ``str`` says why."""


@attrs.frozen
class Address:
    """Where a server listens.

    Attributes:
        tls: a context for wss, else None.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a ws:// or wss:// URL.

        Raises:
            ValueError: it is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"ws", "wss"} or not parts.hostname:
            raise ValueError(f"{url!r} is not a ws:// or wss:// address")
        tls = ssl.create_default_context() if parts.scheme == "wss" else None
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, parts.path or "/ws", tls)


def frame(first_byte: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeroes."""
    length = len(payload)
    if length < _MEDIUM:
        head = struct.pack("!BB", first_byte, _MASKED | length)
    elif length <= 0xFFFF:  # noqa: PLR2004 - two bytes
        head = struct.pack("!BBH", first_byte, _MASKED | _MEDIUM, length)
    else:
        head = struct.pack("!BBQ", first_byte, _MASKED | _LARGE, length)
    return head + _NO_MASK + payload


def text_frame(payload: bytes) -> bytes:
    """A text frame, ready for `Wire.write`."""
    return frame(_TEXT, payload)


class Wire(asyncio.Protocol):
    """One connection.

    Args:
        address: of the server.
        on_text: gets each text frame.
        on_lost: called once an opened connection has ended, with the close code.
    """

    def __init__(
        self,
        address: Address,
        on_text: Callable[[bytes], None],
        on_lost: Callable[[Wire, int], None],
    ) -> None:
        self._address = address
        self._on_text, self._on_lost = on_text, on_lost
        self._key = base64.b64encode(os.urandom(16))
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Any = None
        self._buffer = b""
        self._parts: list[bytes] = []
        self._code = _NO_CLOSE_FRAME
        self.open = False

    @classmethod
    async def connect(
        cls,
        address: Address,
        on_text: Callable[[bytes], None],
        on_lost: Callable[[Wire, int], None],
    ) -> Wire:
        """Connect and shake hands.

        Raises:
            WireError: nobody listens, it answers no WebSocket, or not in time.
        """
        loop = asyncio.get_running_loop()
        wire = cls(address, on_text, on_lost)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await loop.create_connection(
                    lambda: wire, address.host, address.port, ssl=address.tls
                )
                await wire._opened
        except TimeoutError:
            raise WireError(f"no answer within {OPEN_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise WireError(str(error)) from None
        finally:
            if not wire.open:
                wire.abort()
        return wire

    # -- asyncio -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Send the handshake."""
        self._transport = transport
        host = f"{self._address.host}:{self._address.port}"
        transport.write(
            f"GET {self._address.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {self._key.decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\nUser-Agent: ecan-loadtest\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the owner, once."""
        if not self._opened.done():
            self._opened.set_exception(WireError(f"hung up: {error or 'before the handshake'}"))
            self._opened.exception()  # retrieved, or not: both are fine
        if self.open:
            self.open = False
            self._on_lost(self, self._code)

    def data_received(self, data: bytes) -> None:
        """Cut the stream into frames."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self.open:
            data = self._handshake(data)
            if not self.open:
                return
        at, size = 0, len(data)
        while size - at >= 2:  # noqa: PLR2004 - the least head
            first, length = data[at], data[at + 1]
            start = at + 2
            if length >= _MEDIUM:
                start = at + _HEAD_BYTES.get(length, 2)
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            end = start + length
            if end > size:
                break
            at = end
            if first == _TEXT:
                self._on_text(data[start:end])
            else:
                self._other(first, data[start:end])
        if at < size:
            self._buffer = data[at:]

    def _handshake(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self._buffer = data
            if len(data) > MAX_HANDSHAKE_BYTES:
                self.abort()
            return b""
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID).digest())  # noqa: S324 - RFC 6455
        if not head.startswith(b"HTTP/1.1 101") or accept not in head:
            status = head.split(b"\r\n", 1)[0].decode("latin1")
            if not self._opened.done():
                self._opened.set_exception(WireError(f"no WebSocket there: {status}"))
            self.abort()
            return b""
        if not self._opened.done():
            self.open = True
            self._opened.set_result(None)
        return rest

    def _other(self, first: int, payload: bytes) -> None:
        """Anything but a whole text frame."""
        opcode = first & _OPCODE
        if opcode == _PING & _OPCODE:
            self._transport.write(frame(_PONG, payload))
        elif opcode == _CLOSE & _OPCODE:
            self._code = int.from_bytes(payload[:2], "big") if payload else 1005
            self._transport.write(frame(_CLOSE, payload[:2]))
            self._transport.close()
        elif opcode in {0, _TEXT & _OPCODE}:
            self._parts.append(payload)
            if first & _FIN:
                whole = b"".join(self._parts)
                self._parts.clear()
                self._on_text(whole)

    # -- for the owner -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send a frame made by `text_frame`."""
        self._transport.write(data)

    def abort(self) -> None:
        """Cut the connection, without a closing handshake."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Part as a browser does: a close frame, then the end of the stream."""
        if self.open:
            self._transport.write(frame(_CLOSE, (1000).to_bytes(2, "big")))
        if self._transport is not None:
            self._transport.close()

    def freeze(self) -> None:
        """Read nothing any more."""
        if self.open:
            self._transport.pause_reading()

    def thaw(self) -> None:
        """Read on."""
        if self.open:
            self._transport.resume_reading()
