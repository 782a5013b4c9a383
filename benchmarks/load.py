"""The load client: one process, many WebSockets, every reply verified.

Run as ``python -m benchmarks.load`` by `benchmarks.harness.LoadClient`, which talks to it
in JSON lines: one command on stdin, one result on stdout.

Every reply must be the next one this connection waits for (same id, in order), be a
``success``, and for counting methods carry the count of requests made so far.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import os
import resource
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from benchmarks.crowd import Crowds, spread_ms
from benchmarks.wire import ID_DIGITS, Socket, Template

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_REPLY_S = 30.0

TFD_TIMER_ABSTIME = 1
"""timerfd_create(2): the first tick is at a time of the clock, not after one."""


class Run:
    """What one slice measures."""

    def __init__(self) -> None:
        self.latencies_s = array("d")
        self.sent = 0
        self.failures: dict[str, int] = {}
        self.example = ""
        self.lost_connections = 0
        self.stopping = False

    def failed(self, why: str, payload: bytes = b"") -> None:
        """Count a reply that is not as it must be."""
        self.failures[why] = self.failures.get(why, 0) + 1
        self.example = self.example or payload[:300].decode("utf-8", "replace")

    def lost(self, socket: Socket) -> None:
        """A connection ended: what it waited for is lost."""
        self.lost_connections += 1
        if socket.waiting:
            self.failures["connection lost"] = self.failures.get("connection lost", 0) + len(
                socket.waiting
            )
            socket.waiting.clear()

    def answered(self, socket: Socket, since: float, template: Template) -> None:
        """A reply came."""
        self.latencies_s.append(time.perf_counter() - since)


class ClosedLoop(Run):
    """As many requests in flight as connections (times ``window``)."""

    def answered(self, socket: Socket, since: float, template: Template) -> None:
        now = time.perf_counter()
        self.latencies_s.append(now - since)
        if not self.stopping:
            self.sent += 1
            socket.send(template, now)


class Ticker:
    """A periodic timer with more than a millisecond's resolution (Linux timerfd).

    Attributes:
        began: when it ticks first, as `time.perf_counter` says it. A moment of its own, not
            when this was called: every tick would come late by what came between.
    """

    def __init__(self, period_s: float, tick: Any) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._tick = tick
        asyncio.get_running_loop().add_reader(self.fd, self._due)
        period_ns = max(100_000, int(period_s * 1e9))
        began_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 5_000_000
        spec = (ctypes.c_long * 4)(*divmod(period_ns, 10**9), *divmod(began_ns, 10**9))
        libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None)
        self.began = began_ns / 1e9

    def _due(self) -> None:
        os.read(self.fd, 8)
        self._tick()

    def close(self) -> None:
        """Stop ticking."""
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)


class Client(Crowds):
    """The process: groups of connections, workloads on them, slices."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, list[Socket]] = {}
        self.workloads: dict[str, list[tuple[Socket, Template]]] = {}

    async def connect(
        self, group: str, port: int, count: int, host: str = "127.0.0.1", path: str = "/ws"
    ) -> dict[str, Any]:
        """Open a group of connections, 16 at a time."""
        loop = asyncio.get_running_loop()
        sockets: list[Socket] = []
        started = time.perf_counter()

        async def one() -> None:
            _, socket = await loop.create_connection(lambda: Socket(host, path), host, port)
            await asyncio.wait_for(socket.opened, FIRST_REPLY_S)
            sockets.append(socket)

        for start in range(0, count, 16):
            await asyncio.gather(*(one() for _ in range(start, min(count, start + 16))))
        self.groups[group] = sockets
        return {"connections": len(sockets), "seconds": time.perf_counter() - started}

    async def workload(
        self,
        name: str,
        group: str,
        method: str,
        params: Any = None,
        metas: list[dict[str, Any]] | None = None,
        echo: bool = False,
        counting: bool = False,
    ) -> dict[str, Any]:
        """Define what the connections of a group send; ``metas`` one for each."""
        sockets = self.groups[group]
        self.workloads[name] = [
            (
                socket,
                Template(method, params, (metas or [{}])[i % len(metas or [{}])], echo, counting),
            )
            for i, socket in enumerate(sockets)
        ]
        socket, template = self.workloads[name][0]
        return {"request_bytes": len(template.head) + ID_DIGITS + len(template.tail)}

    async def closed(self, name: str, seconds: float, window: int = 1) -> dict[str, Any]:
        """A slice at saturation."""
        run = ClosedLoop()
        pairs = self._begin(name, run)
        started, cpu = time.perf_counter(), time.process_time()
        for socket, template in pairs:
            for _ in range(window):
                run.sent += 1
                socket.send(template, time.perf_counter())
        await asyncio.sleep(seconds)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        run.stopping = True
        answered = len(run.latencies_s)
        await self._finish(pairs, run)
        return self._result(run, answered, seconds, cpu)

    async def open(self, name: str, rate: float, seconds: float) -> dict[str, Any]:
        """A slice at a fixed rate; latency counts from when the request should have left."""
        run = Run()
        pairs = self._begin(name, run)
        turn = itertools.cycle(pairs)

        def send(moment: float) -> None:
            socket, template = next(turn)
            if socket.lost:
                run.failed("connection lost")
            else:
                socket.send(template, moment)
            run.sent += 1

        cpu = time.process_time()
        began = await self._at_rate(run, rate, seconds, send)
        await self._finish(pairs, run)
        cpu = time.process_time() - cpu
        return self._result(run, len(run.latencies_s), time.perf_counter() - began, cpu)

    @staticmethod
    async def _at_rate(
        run: Run, rate: float, seconds: float, send: Callable[[float], None]
    ) -> float:
        """Call ``send`` at every moment of a schedule, with the moment; returns the first one."""
        total = int(rate * seconds)
        done = asyncio.get_running_loop().create_future()

        def tick() -> None:
            due = min(total, int((time.perf_counter() - ticker.began) * rate) + 1)
            while run.sent < due:
                send(ticker.began + run.sent / rate)
            if run.sent >= total and not done.done():
                done.set_result(None)

        ticker = Ticker(1 / rate, tick)
        try:
            await done
        finally:
            ticker.close()
        return ticker.began

    def _begin(self, name: str, run: Run) -> list[tuple[Socket, Template]]:
        gc.collect()
        gc.disable()
        pairs = self.workloads[name]
        for socket, _ in pairs:
            socket.run = run
        return pairs

    async def _finish(self, pairs: list[tuple[Socket, Template]], run: Run) -> None:
        """Wait for what is still on its way; what does not come is lost."""
        until = time.perf_counter() + FIRST_REPLY_S
        while any(socket.waiting for socket, _ in pairs) and time.perf_counter() < until:
            await asyncio.sleep(0.005)
        for socket, _ in pairs:
            if socket.waiting:
                run.failures["no reply"] = run.failures.get("no reply", 0) + len(socket.waiting)
                socket.waiting.clear()
            socket.run = None
        gc.enable()

    @staticmethod
    def _result(run: Run, answered: int, seconds: float, cpu_s: float) -> dict[str, Any]:
        return {
            "requests": len(run.latencies_s),
            "sent": run.sent,
            "seconds": seconds,
            "rate": answered / seconds,
            **spread_ms(run.latencies_s),
            "failures": run.failures,
            "example": run.example,
            "lost_connections": run.lost_connections,
            "client_cpu": cpu_s / seconds,
        }

    async def disconnect(self, group: str) -> dict[str, Any]:
        """Close a group."""
        for socket in self.groups.pop(group):
            socket.run = None
            socket.transport.abort()
        return {}


async def main() -> None:
    """Read commands until stdin ends."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    client = Client()
    while line := await reader.readline():
        command, arguments = orjson.loads(line)
        try:
            answer = {"ok": await getattr(client, command)(**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
