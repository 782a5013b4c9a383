"""The admin socket without a server behind it, and a client that sends bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from types import SimpleNamespace

from ecan.admin.server import AdminServer
from ecan.observability import EventBus

TIMEOUT_S = 10.0


class Line:
    """A client that sends lines as they are."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path):
        return cls(*await asyncio.open_unix_connection(path, limit=2**26))

    def send(self, data):
        self.writer.write(data if isinstance(data, bytes) else json.dumps(data).encode() + b"\n")

    async def line(self):
        """The next line; None at the end."""
        async with asyncio.timeout(TIMEOUT_S):
            data = await self.reader.readline()
        return json.loads(data) if data else None

    async def call(self, method, params=None, **call):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        self.send({**body, **call})
        return await self.line()

    async def ended(self):
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass

    def close(self):
        self.writer.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def a_server(path, **options):
    port = SimpleNamespace(events=EventBus(time.time))
    server = AdminServer(port, path, **options)
    await server.start()
    try:
        yield SimpleNamespace(
            server=server, path=path, events=port.events, connect=lambda: connecting(path)
        )
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connecting(path):
    async with await Line.connect(path) as line:
        yield line
