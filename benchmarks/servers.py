"""Reference servers: ``python -m benchmarks.servers NAME`` prints its port and serves.

All have the options of our own gateway (no compression, same frame limit) and answer
the same request with a reply of the same shape; `echo` sends the request back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import orjson
import pykka
import uvloop
from picows import WSListener, WSMsgType, ws_create_server
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

META = {"sid": "abcdefghijkl", "incarnation": 1, "replayed": False, "queue_ms": 0.0, "run_ms": 0.0}


def reply_to(request: dict[str, Any], result: Any) -> dict[str, Any]:
    """A reply of our shape."""
    return {
        "id": request["id"],
        "type": "response",
        "method": request["method"],
        "status": "success",
        "meta": META,
        "result": result,
        "timestamp": int(time.time() * 1000),
    }


class Counter:
    """The session of one connection."""

    def __init__(self) -> None:
        self.count = 0

    def incr(self, params: Any) -> int:
        """What is measured."""
        self.count += 1
        return self.count

    def methods(self) -> dict[str, Any]:
        """It, and what misbehaves."""
        return {"counter.incr": self.incr, "debug.block": _block, "debug.spin": _spin}


def _block(params: Any) -> int:
    time.sleep(params["seconds"])
    return 0


def _spin(params: Any) -> int:
    turns, end = 0, time.perf_counter() + params["seconds"]
    while time.perf_counter() < end:
        turns += 1
    return turns


async def echo(ws: Any) -> None:
    """Nothing but `websockets`: no JSON, no session."""
    async for message in ws:
        await ws.send(message)


async def inline(ws: Any) -> None:
    """orjson, a table of methods and a counter, right in the connection's task."""
    methods = Counter().methods()
    async for message in ws:
        request = orjson.loads(message)
        result = methods[request["method"]](request.get("params"))
        await ws.send(orjson.dumps(reply_to(request, result)), text=True)


async def executor(ws: Any) -> None:
    """The shape of eCan.ai's ws_server.py: every request through the default executor."""
    loop = asyncio.get_running_loop()
    methods = Counter().methods()
    async for message in ws:
        request = json.loads(message)
        method = methods[request["method"]]
        result = await loop.run_in_executor(None, method, request.get("params"))
        await ws.send(json.dumps(reply_to(request, result), separators=(",", ":")))


async def executor_fast(ws: Any) -> None:
    """The same on the loop and with the JSON library that we use."""
    loop = asyncio.get_running_loop()
    methods = Counter().methods()
    async for message in ws:
        request = orjson.loads(message)
        method = methods[request["method"]]
        result = await loop.run_in_executor(None, method, request.get("params"))
        await ws.send(orjson.dumps(reply_to(request, result)), text=True)


class CounterActor(pykka.ThreadingActor):
    """A thread of its own for each connection; a crash starts another with the same messages."""

    use_daemon_thread = True

    def __init__(self, ws: Any, loop: asyncio.AbstractEventLoop, home: list[Any]) -> None:
        super().__init__()
        self.ws, self.loop, self.home = ws, loop, home
        self.session = Counter()

    def on_receive(self, message: Any) -> None:
        """One request, as bytes."""
        request = orjson.loads(message)
        if request["method"] == "debug.crash":
            reply = {"id": request["id"], "type": "response", "status": "error", "error": {}}
            self.loop.call_soon_threadsafe(self._send, orjson.dumps(reply))
            raise RuntimeError("a crash was asked for")
        result = self.session.incr(request.get("params"))
        data = orjson.dumps(reply_to(request, result))
        self.loop.call_soon_threadsafe(self._send, data)

    def on_failure(self, *_: Any) -> None:
        """What the crash left unread is for the next one."""
        following = CounterActor.start(self.ws, self.loop, self.home)
        while not self.actor_inbox.empty():
            following.tell(self.actor_inbox.get().message)
        self.home[0] = following

    def _send(self, data: bytes) -> None:
        self.loop.create_task(self.ws.send(data, text=True))


async def pykka_threads(ws: Any) -> None:
    """The mailbox and the thread of `pykka.ThreadingActor`."""
    home: list[Any] = [None]
    home[0] = CounterActor.start(ws, asyncio.get_running_loop(), home)
    try:
        async for message in ws:
            while True:
                try:
                    home[0].tell(message)
                    break
                except pykka.ActorDeadError:  # it crashes in this moment
                    await asyncio.sleep(0.0001)
    finally:
        home[0].stop(block=False)


_everybody: set[Any] = set()
PUSH = {
    "id": "p-1",
    "type": "request",
    "method": "news",
    "params": {"text": "x" * 100},
    "meta": META,
    "timestamp": 1_700_000_000_000,
}


async def broadcasting(ws: Any) -> None:
    """Whatever one says, all get the same push; the answer says how long that held the loop."""
    _everybody.add(ws)
    try:
        async for message in ws:
            request = orjson.loads(message)
            started = time.perf_counter()
            broadcast(_everybody, orjson.dumps(PUSH).decode())
            held_ms = (time.perf_counter() - started) * 1000
            await ws.send(orjson.dumps(reply_to(request, held_ms)), text=True)
    finally:
        _everybody.discard(ws)


class PicowsEcho(WSListener):
    """Nothing but picows' native listener."""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Send it back."""
        transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())


class PicowsInline(WSListener):
    """`inline` over picows."""

    def __init__(self) -> None:
        super().__init__()
        self.methods = Counter().methods()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """One request."""
        request = orjson.loads(frame.get_payload_as_memoryview())
        result = self.methods[request["method"]](request.get("params"))
        transport.send(WSMsgType.TEXT, orjson.dumps(reply_to(request, result)))


SERVERS = {
    "echo": (echo, True),
    "inline": (inline, True),
    "executor": (executor, False),
    "executor-uvloop": (executor_fast, True),
    "pykka": (pykka_threads, True),
    "broadcast": (broadcasting, True),
    "picows-echo": (PicowsEcho, True),
    "picows-inline": (PicowsInline, True),
}
"""Handler, and whether it runs on uvloop (the original eCan.ai did not)."""


async def _run_picows(listener: Any) -> None:
    logging.getLogger("picows").setLevel(logging.CRITICAL)
    server = await ws_create_server(
        lambda _: listener(), "127.0.0.1", 0, max_frame_size=2**20, backlog=1024
    )
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().create_future()


async def _run(handler: Any) -> None:
    if isinstance(handler, type):
        await _run_picows(handler)
        return

    async def quietly(ws: Any) -> None:
        try:
            await handler(ws)
        except ConnectionClosed:
            pass

    async with serve(
        quietly,
        "127.0.0.1",
        0,
        compression=None,
        max_size=2**20,
        ping_interval=20,
        ping_timeout=20,
        backlog=1024,
    ) as server:
        print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.get_running_loop().create_future()


def main(name: str) -> None:
    """Serve until the process is ended."""
    handler, on_uvloop = SERVERS[name]
    factory = uvloop.new_event_loop if on_uvloop else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_run(handler))


if __name__ == "__main__":
    main(sys.argv[1])
