"""Clients of the admin socket: JSON-RPC 2.0, one object a line; one that blocks, one for asyncio.

::

    ClientError
    ├─ NoServerError      nobody answers at that path, or no longer
    └─ RefusedError       the server answered with an error
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MAX_ANSWER_BYTES = 256 << 20
"""A line of the server: ten thousand sessions made at once take some megabytes."""

CONNECT_TIMEOUT_S = 5.0

_UCRED = struct.Struct("iII")
"""pid, uid, gid: struct ucred, unix(7)."""


class ClientError(Exception):
    """No result; ``str`` is a line for people."""


class NoServerError(ClientError):
    """Nobody answers at that path, or no longer."""


class RefusedError(ClientError):
    """The server answered with an error.

    Attributes:
        error: the error object of JSON-RPC.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message", error)))
        self.error = error


class Client:
    """One connection that blocks; a context manager.

    Args:
        path: of the socket.
        timeout_s: for each answer; None waits for ever.

    Raises:
        NoServerError: when entered, or from any call: it is not there, or gone.
    """

    def __init__(self, path: Path, timeout_s: float | None = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise _unreachable(self._path, error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """The result of a command.

        Raises:
            RefusedError: the server answered with an error.
            NoServerError: no answer in time, or the server is gone.
        """
        request_id = self._send(method, params)
        end = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while True:
            message = self._receive(end)
            if "method" not in message and message.get("id") in {request_id, None}:
                return _result(message)

    def watch(self, method: str, params: dict[str, Any] | None = None) -> Iterator[Any]:
        """The params of the notifications of a command that streams, until the server ends."""
        request_id = self._send(method, params)
        while True:
            message = self._receive(None)
            if "method" in message:
                yield message.get("params")
            elif message.get("id") in {request_id, None}:
                _result(message)

    def _send(self, method: str, params: dict[str, Any] | None) -> int:
        request_id = next(self._ids)
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(_line(request_id, method, params))
        except TimeoutError:
            raise _too_slow(self._timeout_s) from None
        except BrokenPipeError:
            # RACE: a server that refuses a connection says why before it hangs up.
            pass
        except OSError as error:
            raise _gone(error) from None
        return request_id

    def _receive(self, end: float | None) -> dict[str, Any]:
        searched = 0
        while (stop := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_ANSWER_BYTES:
                raise ClientError("the answer is too big")
            self._fill(end)
        line = bytes(self._buffer[:stop])
        del self._buffer[: stop + 1]
        return _message(line)

    def _fill(self, end: float | None) -> None:
        try:
            # 0 would mean: do not block.
            self._socket.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise _too_slow(self._timeout_s) from None
        except OSError as error:
            raise _gone(error) from None
        if not data:
            raise _gone()
        self._buffer += data


class AsyncClient:
    """One connection for asyncio; an asynchronous context manager.

    Calls go one after the other. Cancelling one is safe: its late answer is skipped.

    Args:
        path: of the socket.
        timeout_s: for each answer.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._reader, self._writer = await asyncio.open_unix_connection(
                    self._path, limit=MAX_ANSWER_BYTES
                )
        except OSError as error:
            raise _unreachable(self._path, error) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    @property
    def server_pid(self) -> int | None:
        """Of the server, as this process sees it, also in another container; None: it cannot.

        By the system (SO_PEERCRED, Linux): the server itself only knows its own container's.
        """
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        peer = self._writer.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return _UCRED.unpack(credentials)[0] or None

    async def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """As `Client.call`."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._call(method, params)
            except TimeoutError:
                raise _too_slow(self._timeout_s) from None
            except OSError as error:
                raise _gone(error) from None

    async def watch(self, method: str, params: dict[str, Any] | None = None) -> AsyncIterator[Any]:
        """As `Client.watch`."""
        request_id = next(self._ids)
        self._writer.write(_line(request_id, method, params))
        while True:
            try:
                message = await self._receive()
            except OSError as error:
                raise _gone(error) from None
            if "method" in message:
                yield message.get("params")
            elif message.get("id") in {request_id, None}:
                _result(message)

    async def _call(self, method: str, params: dict[str, Any] | None) -> Any:
        request_id = next(self._ids)
        self._writer.write(_line(request_id, method, params))
        while True:
            message = await self._receive()
            if "method" not in message and message.get("id") in {request_id, None}:
                return _result(message)

    async def _receive(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise ClientError("the answer is too big") from None
        if not line.endswith(b"\n"):
            raise _gone()
        return _message(line)


def _line(request_id: int, method: str, params: dict[str, Any] | None) -> bytes:
    request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}
    return json.dumps(request, ensure_ascii=False).encode() + b"\n"


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise ClientError("what answers there is not an eCan server")
    return message


def _result(message: dict[str, Any]) -> Any:
    if (error := message.get("error")) is not None:
        raise RefusedError(error if isinstance(error, dict) else {"message": str(error)})
    return message.get("result")


def _unreachable(path: Path, error: OSError) -> NoServerError:
    if isinstance(error, PermissionError):
        return NoServerError(
            f"no permission for {path}: only root and the user the server runs as may use it"
        )
    if isinstance(error, TimeoutError):
        return NoServerError(f"no answer at {path} within {CONNECT_TIMEOUT_S:g} s")
    if "too long" in str(error):
        return NoServerError(f"the path {path} is too long for a Unix socket")
    return NoServerError(
        f"no server answers at {path}; is it running with the same"
        " ECAN_DATA_DIR / ECAN_ADMIN_SOCKET?"
    )


def _gone(error: OSError | None = None) -> NoServerError:
    why = f": {error.strerror or error}" if error is not None else ""
    return NoServerError(f"the server hung up{why}")


def _too_slow(timeout_s: float | None) -> NoServerError:
    return NoServerError(f"no answer within {timeout_s:g} s")
