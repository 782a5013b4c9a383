"""The admin socket: who may connect, lines in and out, and what a client may cost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ecan.admin import socket_file as files
from ecan.admin.dispatch import Dispatcher, is_reading
from ecan.admin.jsonrpc import (
    INVALID_REQUEST,
    REFUSED,
    RpcError,
    failure,
    id_of,
    notification,
    parse_call,
    parse_line,
    success,
)
from ecan.observability import Watcher, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecan.admin.ports import AdminPort

MAX_LINE_BYTES = 2**20
MAX_CLIENTS = 32
IDLE_S = 60.0
"""A client that sends no line for so long and watches nothing is cut off."""

MAX_BUFFER_BYTES = 2**20
WRITE_TIMEOUT_S = 10.0
"""A client that is further behind than the buffer for so long is cut off."""

log = get_logger("ecan.admin")


class AdminServer:
    """Answers operators on a Unix socket (ADR 11).

    Args:
        port: the server to steer.
        path: of the socket.
        may: whether a user id may connect.
        idle_s: see `IDLE_S`.
        write_timeout_s: see `WRITE_TIMEOUT_S`.

    Runs on: the loop.
    """

    def __init__(
        self,
        port: AdminPort,
        path: Path,
        *,
        may: Callable[[int], bool] = files.is_allowed,
        idle_s: float = IDLE_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._port = port
        self._path = path
        self._may = may
        self._idle_s = idle_s
        self._write_timeout_s = write_timeout_s
        self._dispatcher = Dispatcher(port)
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: names ECAN_ADMIN_SOCKET.
        """
        if not files.AVAILABLE:  # pragma: no cover - Windows
            log.warning("admin.unavailable", reason="this system has no Unix sockets")
            return
        bound = files.bind(self._path)
        self._identity = files.identity(self._path)
        try:
            self._server = await asyncio.start_unix_server(
                self._connected, sock=bound, limit=MAX_LINE_BYTES
            )
        except BaseException:
            bound.close()
            self._unlink()
            raise

    async def close(self) -> None:
        """Stop listening, part from every client, remove the file; twice is fine."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        clients = list(self._clients)
        for task in clients:
            task.cancel()
        if clients:
            await asyncio.wait(clients)
        self._unlink()

    def _unlink(self) -> None:
        if self._identity is not None and files.identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)

    @property
    def client_count(self) -> int:
        """Connected operators."""
        return len(self._clients)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="admin")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(self, reader, writer, self._dispatcher)
        try:
            pid, uid = files.peer_of(writer.get_extra_info("socket"))
            if not self._may(uid):
                log.warning("admin.refused", uid=uid, pid=pid)
            elif len(self._clients) > MAX_CLIENTS:
                log.warning("admin.full", uid=uid, pid=pid)
                busy = {"code": "BUSY", "details": None}
                error = RpcError(REFUSED, f"{MAX_CLIENTS} operators are connected", busy)
                writer.write(failure(None, error) + b"\n")
            else:
                await client.run(pid, uid)
        except (ConnectionError, TimeoutError):
            writer.transport.abort()  # it is gone, or does not read
        except asyncio.CancelledError:
            pass  # the server stops
        except Exception as error:
            log.error("admin.client_failed", exc_info=error)  # noqa: TRY400 - the same
        finally:
            client.unwatch()
            writer.close()


class _Client:
    """One operator's connection."""

    def __init__(
        self,
        server: AdminServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dispatcher: Dispatcher,
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._dispatcher = dispatcher
        self._events = server._port.events  # noqa: SLF001 - one unit
        self._whole_line = asyncio.Lock()  # an event must not come between the parts of a batch
        self._watcher: Watcher | None = None
        self._stream: asyncio.Task[None] | None = None

    async def run(self, pid: int, uid: int) -> None:
        """Answer line by line until the client leaves, is idle, or sends what is no line."""
        self._writer.transport.set_write_buffer_limits(high=MAX_BUFFER_BYTES)
        self._who = {"uid": uid, "pid": pid}
        log.debug("admin.connected", **self._who)
        while (line := await self._line()) is not None:
            if line.strip():
                await self._answer(line)

    async def _line(self) -> bytes | None:
        limit_s = None if self._watcher is not None else self._server._idle_s  # noqa: SLF001
        try:
            async with asyncio.timeout(limit_s):
                return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            error = RpcError(INVALID_REQUEST, f"a line of more than {MAX_LINE_BYTES} bytes")
            await self._write(failure(None, error) + b"\n")
            return None
        except TimeoutError:
            log.info("admin.idle", **self._who)
            return None

    async def _answer(self, line: bytes) -> None:
        try:
            calls, is_batch = parse_line(line)
        except RpcError as error:
            await self._write(failure(None, error) + b"\n")
            return
        if is_batch:
            async with self._whole_line:
                await self._answer_batch(calls)
        elif (answer := await self._call(calls[0])) is not None:
            await self._write(answer + b"\n")

    async def _answer_batch(self, calls: list[Any]) -> None:
        """Element by element: the answers of a batch are never in memory together."""
        opening = b"["
        for call in calls:
            if (answer := await self._call(call)) is not None:
                await self._write(opening + answer)
                opening = b","
            await asyncio.sleep(0)
        if opening == b",":
            await self._write(b"]\n")

    async def _call(self, value: Any) -> bytes | None:
        try:
            call = parse_call(value)
        except RpcError as error:
            return failure(id_of(value), error)
        try:
            command, params = self._dispatcher.find(call)
            if not is_reading(command.name):
                # Never its params: there may be passwords among them (P16).
                log.info("admin.command", command=command.name, **self._who)
            result = await self._dispatcher.run(command, params)
            if command.stream:
                self._watch(params.kinds)
            # May raise too: what a command answers has to be JSON.
            answer = success(call.id, result)
        except RpcError as error:
            answer = failure(call.id, error)
        return None if call.is_notification else answer

    async def _write(self, data: bytes) -> None:
        """Write, and wait until the client is not too far behind.

        Raises:
            TimeoutError: it does not read.
        """
        self._writer.write(data)
        async with asyncio.timeout(self._server._write_timeout_s):  # noqa: SLF001
            await self._writer.drain()

    # -- events ------------------------------------------------------------------------

    def _watch(self, kinds: list[str] | None) -> None:
        self.unwatch()
        wake = asyncio.Event()
        self._watcher = Watcher(wake.set, None if kinds is None else tuple(kinds))
        self._events.add(self._watcher)
        self._stream = asyncio.get_running_loop().create_task(
            self._send_events(self._watcher, wake), name="admin events"
        )

    async def _send_events(self, watcher: Watcher, wake: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await wake.wait()
                wake.clear()
                lines = [notification("event", event) + b"\n" for event in watcher.take()]
                try:
                    async with self._whole_line:
                        await self._write(b"".join(lines))
                except TimeoutError:
                    self._writer.transport.abort()
                    return

    def unwatch(self) -> None:
        """Send no more events."""
        if self._watcher is not None:
            self._events.remove(self._watcher)
            self._watcher = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
