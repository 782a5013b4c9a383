"""A small client for tests: one WebSocket, requests by id, pushes in a list."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import TYPE_CHECKING, Any, Self

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_S = 30.0
"""Generous: a test that waits for it has failed."""


class ReplyFailed(Exception):  # noqa: N818 - a reply, not a fault
    """An error reply; `error` is its error object."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply
        self.error: dict[str, Any] = reply["error"]
        self.code: str = self.error["code"]
        super().__init__(f"{self.code}: {self.error['message']}")


class Client:
    """One connection to a server.

    Attributes:
        pushes: every push received, in order.
        pending: every `pending` frame received, in order.
        strays: responses nobody waits for.
        session: credentials put into ``meta`` of every request.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.pushes: list[dict[str, Any]] = []
        self.pending: list[dict[str, Any]] = []
        self.strays: list[dict[str, Any]] = []
        self.session: dict[str, Any] = {}
        self.login_result: dict[str, Any] = {}
        self._options = options
        # Ids are unique per session (P10), and tabs share one: a counter alone is not enough.
        self._prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Event()
        self._ws: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect."""
        options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
        self._ws = await connect(self.url, **{**options, **self._options})
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Close the connection; twice is fine."""
        if self._ws is not None:
            await self._ws.close()
        if self._reader is not None:
            await self._reader

    def cut(self) -> None:
        """Drop the TCP connection without a closing handshake."""
        self.ws.transport.abort()

    @property
    def ws(self) -> ClientConnection:
        """The open connection."""
        assert self._ws is not None
        return self._ws

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closed the connection; code and reason."""
        async with asyncio.timeout(TIMEOUT_S):
            await self.ws.wait_closed()
        assert self._reader is not None
        await self._reader
        return self.ws.close_code or 1006, self.ws.close_reason or ""

    async def _read(self) -> None:
        try:
            async for data in self.ws:
                self._receive(orjson.loads(data))
        except ConnectionClosed:
            pass
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the connection was closed"))
                    future.exception()  # retrieved, or not: both are fine
            self._waiting.clear()
            self._changed.set()

    def _receive(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "request":
            self.pushes.append(frame)
        elif frame["status"] == "pending":
            self.pending.append(frame)
        else:
            future = self._waiting.pop(frame["id"], None)
            if future is None or future.done():
                self.strays.append(frame)
            else:
                future.set_result(frame)
        self._changed.set()

    # -- requests --------------------------------------------------------------------

    async def start(
        self,
        method: str,
        params: Any = None,
        *,
        id: str | None = None,
        **meta: Any,
    ) -> asyncio.Future[dict[str, Any]]:
        """Send a request; the future gets its final response frame."""
        request_id = id or f"{self._prefix}-{next(self._ids)}"
        frame: dict[str, Any] = {
            "id": request_id,
            "type": "request",
            "method": method,
            "meta": {**self.session, **meta},
        }
        if params is not None:
            frame["params"] = params
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        await self.ws.send(orjson.dumps(frame), text=True)
        return future

    async def request(
        self,
        method: str,
        params: Any = None,
        *,
        id: str | None = None,
        **meta: Any,
    ) -> dict[str, Any]:
        """Send a request and return its final response frame, error or not."""
        future = await self.start(method, params, id=id, **meta)
        async with asyncio.timeout(TIMEOUT_S):
            return await future

    async def call(
        self,
        method: str,
        params: Any = None,
        *,
        id: str | None = None,
        **meta: Any,
    ) -> Any:
        """Send a request and return its result.

        Raises:
            ReplyFailed: it was answered with an error.
        """
        reply = await self.request(method, params, id=id, **meta)
        if reply["status"] == "error":
            raise ReplyFailed(reply)
        return reply["result"]

    async def error(
        self,
        method: str,
        params: Any = None,
        *,
        id: str | None = None,
        **meta: Any,
    ) -> dict[str, Any]:
        """Send a request that must fail and return its error object."""
        reply = await self.request(method, params, id=id, **meta)
        assert reply["status"] == "error", reply
        error: dict[str, Any] = reply["error"]
        return error

    async def send_raw(self, data: str | bytes) -> None:
        """Send a text (str) or binary (bytes) frame as it is."""
        await self.ws.send(data)

    async def login(self, username: str, password: str, **params: Any) -> dict[str, Any]:
        """Log in and use the session from here on."""
        result: dict[str, Any] = await self.call(
            "login", {"username": username, "password": password, **params}
        )
        self.login_result = result
        self.session = {"session_id": result["session_id"], "token": result["token"]}
        return result

    async def resume(
        self, session: dict[str, Any], last_seq: int | None = None, epoch: str | None = None
    ) -> dict[str, Any]:
        """Resume a session with another client's credentials."""
        self.session = dict(session)
        params = {**session}
        if last_seq is not None:
            params["last_seq"] = last_seq
        if epoch is not None:
            params["epoch"] = epoch
        result: dict[str, Any] = await self.call("session.resume", params)
        return result

    async def push(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many pushes of a method have come, and return them."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = [push for push in self.pushes if push["method"] == method]
                if len(found) >= count:
                    return found
                self._changed.clear()
                await self._changed.wait()

    async def answer(self, push: dict[str, Any], result: Any) -> None:
        """Answer a push that asked."""
        frame = {"id": push["id"], "type": "response", "status": "success", "result": result}
        await self.ws.send(orjson.dumps(frame), text=True)
