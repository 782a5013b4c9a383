"""A client's WebSocket with its own framing, and requests of which only the id changes.

The `websockets` client would be the bottleneck (it costs more than the server), so frames
are written by hand: a request is ``prefix + id + suffix`` behind a constant header. The
masking key is four zero bytes, which RFC 6455 allows and which leaves the payload as it
is; the server still unmasks it, so nothing is saved on its side.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import struct
from collections import deque
from typing import Any

import orjson

FIN_TEXT, FIN_CLOSE, FIN_PING, FIN_PONG = 0x81, 0x88, 0x89, 0x8A
MASKED = 0x80
MIN_MEDIUM, MIN_LARGE = 126, 127
NO_MASK = bytes(4)
ID_DIGITS = 10


def client_frame(first_byte: int, payload: bytes) -> bytes:
    """A masked frame with the masking key 0."""
    length = len(payload)
    if length < MIN_MEDIUM:
        head = struct.pack("!BB", first_byte, MASKED | length)
    elif length < 65536:
        head = struct.pack("!BBH", first_byte, MASKED | MIN_MEDIUM, length)
    else:
        head = struct.pack("!BBQ", first_byte, MASKED | MIN_LARGE, length)
    return head + NO_MASK + payload


class Template:
    """A request whose id alone changes.

    Args:
        method, params, meta: of the request.
        echo: the reply is the request itself.
        counting: the result must be the number of this request.
        prefix: of the ids; ids are unique per session, whoever connects to it.
    """

    def __init__(
        self, method: str, params: Any, meta: dict[str, Any], echo: bool, counting: bool
    ) -> None:
        mark = b"#" * ID_DIGITS
        self.prefix = secrets.token_hex(3).encode()
        body = orjson.dumps(
            {
                "id": (self.prefix + mark).decode(),
                "type": "request",
                "method": method,
                **({"params": params} if params is not None else {}),
                "meta": meta,
                "timestamp": 1_700_000_000_000,
            }
        )
        frame = client_frame(FIN_TEXT, body)
        self.head, self.tail = frame.split(mark, 1)
        self.reply_head = b'{"id":"' + self.prefix
        self.counting = counting
        self.echo = echo
        self.count = 0

    def next(self) -> tuple[bytes, bytes, int]:
        """The next frame, how its reply begins, and its number."""
        self.count += 1
        digits = b"%010d" % self.count
        return (
            self.head + digits + self.tail,
            self.reply_head + digits + b'"',
            self.count,
        )


class Socket(asyncio.Protocol):
    """One WebSocket. ``run`` decides what happens when a reply has come."""

    def __init__(self, host: str, path: str) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.run: Any = None
        self.number = 0
        self.templates: list[Template] = []
        self.waiting: deque[tuple[bytes, int, float, Template]] = deque()
        self.lost = False
        self.pushes = 0
        self._buffer = b""
        self._host, self._path = host, path

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"connection lost: {error}"))
        if self.run is not None:
            self.run.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self.opened.done():
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(data[:200].decode("latin1")))
                return
            data = data[end + 4 :]
            self.opened.set_result(None)
        at, size = 0, len(data)
        while size - at >= 2:
            opcode, length = data[at], data[at + 1]
            start = at + 2
            if length == MIN_MEDIUM:
                if size - at < 4:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                start = at + 4
            elif length == MIN_LARGE:
                if size - at < 10:
                    break
                (length,) = struct.unpack_from("!Q", data, at + 2)
                start = at + 10
            end = start + length
            if end > size:
                break
            at = end
            if opcode == FIN_TEXT:
                self._reply(data[start:end])
            elif opcode == FIN_PING:
                self.transport.write(client_frame(FIN_PONG, data[start:end]))
            elif opcode == FIN_CLOSE:
                self.transport.close()
                return
        if at < size:
            self._buffer = data[at:]

    def send(self, template: Template, since: float) -> None:
        """Send the next request; its latency counts from ``since``."""
        frame, expected, count = template.next()
        self.waiting.append((expected, count, since, template))
        self.transport.write(frame)

    def _reply(self, payload: bytes) -> None:
        run = self.run
        if not self.waiting or not payload.startswith(self.waiting[0][0]):
            if payload.startswith(b'{"id":"p-'):
                self.pushes += 1
            elif b'"status":"error"' in payload:
                self._refused(payload)
            elif run is not None:
                run.failed("wrong id or order", payload)
            return
        _, count, since, template = self.waiting.popleft()
        if not template.echo:
            if b'"status":"success"' not in payload:
                if b'"status":"pending"' in payload:
                    return
                if run is not None:
                    run.failed(code_of(payload), payload)
                    run.answered(self, since, template)
                return
            if template.counting and b'"result":%d,' % count not in payload:
                if run is not None:
                    run.failed("wrong count", payload)
        if run is not None:
            run.answered(self, since, template)

    def _refused(self, payload: bytes) -> None:
        """A refusal (BUSY, RATE_LIMITED) may overtake what is queued."""
        for entry in self.waiting:
            if payload.startswith(entry[0]):
                self.waiting.remove(entry)
                if self.run is not None:
                    self.run.failed(code_of(payload), payload)
                    self.run.answered(self, entry[2], entry[3])
                return
        if self.run is not None:
            self.run.failed("wrong id", payload)


def code_of(payload: bytes) -> str:
    try:
        return str(orjson.loads(payload)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "no success"
