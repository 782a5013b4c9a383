"""A server with known faults and known latencies, for the tests of the load harness."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

TOTALS = ("debug.state_get", "shop.total")
METHODS = ("ping", "echo", "debug.incr", *TOTALS, "session.info")


class FakeServer:
    """Answers everything; what it does besides is set by the test.

    Attributes:
        delay: seconds to wait before an answer.
        served: what each answer really took, from the frame's arrival to its write.
        gate: cleared, nothing is answered.
        twist: changes the frames of an answer, or adds some.
    """

    def __init__(self) -> None:
        self.url = ""
        self.delay: Callable[[], float] = lambda: 0.0
        self.served: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.twist: Callable[[dict[str, Any], dict[str, Any]], list[dict[str, Any]]] = (
            lambda _request, reply: [reply]
        )
        self.counts: dict[str, int] = {}
        self.requests: list[dict[str, Any]] = []
        self.connections: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, ws: ServerConnection) -> None:
        self.connections.add(ws)
        with contextlib.suppress(ConnectionClosed):
            async for data in ws:
                arrived = time.perf_counter()
                request = orjson.loads(data)
                self.requests.append(request)
                if request["method"] in {
                    "login",
                    "session.resume",
                    "rpc.discover",
                    *TOTALS,
                }:
                    await ws.send(orjson.dumps(self.answer(request)), text=True)
                    continue
                task = asyncio.create_task(self.later(ws, request, arrived))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self.connections.discard(ws)

    async def later(self, ws: ServerConnection, request: dict[str, Any], arrived: float) -> None:
        delay = self.delay()
        if delay:
            await asyncio.sleep(arrived + delay - time.perf_counter())
        await self.gate.wait()
        with contextlib.suppress(ConnectionClosed):
            for frame in self.twist(request, self.answer(request)):
                await ws.send(orjson.dumps(frame), text=True)
        self.served.append(time.perf_counter() - arrived)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, session = request["method"], (request.get("meta") or {}).get("session_id", "")
        result: Any = {"pong": True}
        if method == "login":
            result = {"session_id": f"s{len(self.requests)}", "token": "t", "epoch": "e", "seq": 0}
        elif method == "session.resume":
            result = {"status": "resumed", "epoch": "e", "seq": 0}
        elif method == "rpc.discover":
            facts = {"scope": "session", "concurrent": False, "control": False}
            result = {"methods": [{"name": name, "x-ecan": facts} for name in METHODS]}
        elif method == "debug.incr":
            result = self.counts[session] = self.counts.get(session, 0) + 1
        elif method in TOTALS:
            result = self.counts.get(session)
        return {
            "id": request["id"],
            "type": "response",
            "method": method,
            "status": "success",
            "result": result,
            "meta": {"incarnation": 1, "replayed": False, "queue_ms": 0.0, "run_ms": 0.0},
        }

    def lognormal(self, seed: int) -> None:
        """Delays of a fifth of a second to three, most of them short."""
        chance = random.Random(seed)
        self.delay = lambda: min(3.0, 0.2 + chance.lognormvariate(-1.8, 0.9))

    async def freeze(self, after_s: float, seconds: float) -> float:
        """Answer nothing for a while; how long that really was."""
        await asyncio.sleep(after_s)
        self.gate.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        self.gate.set()
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    async with serve(fake.handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        fake.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        yield fake
        for task in list(fake._tasks):
            task.cancel()
        await asyncio.gather(*fake._tasks, return_exceptions=True)
