"""A server in the process that measures it, without sockets.

Frames go through the gateway's router as if a socket had delivered them; only the
WebSocket library is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import PASSWORD

BATCH = 100


class NoWire:
    """A socket that takes everything."""

    def __init__(self) -> None:
        self.frames = 0
        self.last = b""

    def write_text(self, frame: bytes) -> int:
        self.frames += 1
        self.last = frame
        return len(frame)

    def pause(self, seconds: float) -> None:
        raise RuntimeError("paused")

    def takes_frames(self) -> bool:
        return True

    def buffered_bytes(self) -> int:
        return 0

    def start_close(self, code: int, reason: str) -> None:
        raise RuntimeError(f"closed with {code}: {reason}")


class Bench:
    """A server in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.opened: list[dict[str, Any]] = []
        self.wire = NoWire()
        self._ids = 0

    async def create(self, count: int) -> None:
        """Open sessions, one user each, many at a time."""
        from ecan.handlers.context import ConnectionContext, User

        start = len(self.opened)
        for first in range(start, start + count, BATCH):
            numbers = range(first, min(first + BATCH, start + count))
            self.opened += await asyncio.gather(
                *(
                    self.app.sessions.open(
                        ConnectionContext(
                            self.app,
                            "login",
                            "1",
                            address="127.0.0.1",
                            user_agent="",
                            session_id=None,
                            token=None,
                        ),
                        User(user_id=number, username=f"user{number}"),
                    )
                    for number in numbers
                )
            )

    def connection(self) -> Any:
        """One that is not bound yet."""
        from ecan.gateway.connection import Connection

        app = self.app
        return Connection(self.wire, app.sessions, app.clock, app.metrics, app.router.new_bucket())

    def frame(self, session: dict[str, Any], method: str, params: Any = None) -> bytes:
        """A request of a session."""
        self._ids += 1
        return orjson.dumps(
            {
                "id": f"request-{self._ids:08d}",
                "type": "request",
                "method": method,
                **({"params": params} if params is not None else {}),
                "meta": {"session_id": session["session_id"], "token": session["token"]},
            }
        )

    async def answered(self, frames: int) -> None:
        """Until so many replies have come."""
        while self.wire.frames < frames:
            await asyncio.sleep(0)
        if b'"status":"success"' not in self.wire.last:
            raise RuntimeError(self.wire.last.decode())


async def watch_loop(done: Any) -> dict[str, float]:
    """Turn the loop until ``done()``, and find its longest turn.

    Returns:
        ``seconds``, ``cpu_s`` of the process; ``hold_ms`` by the clock; ``hold_cpu_ms`` of the
        loop's thread, which other processes and threads hardly move.
    """
    started = last = time.perf_counter()
    cpu, last_cpu = time.process_time(), time.thread_time()
    hold = hold_cpu = 0.0
    while not done():
        await asyncio.sleep(0)
        now, now_cpu = time.perf_counter(), time.thread_time()
        hold, hold_cpu = max(hold, now - last), max(hold_cpu, now_cpu - last_cpu)
        last, last_cpu = now, now_cpu
        if now - started > 60:
            raise RuntimeError("they are not reaped")
    return {
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "hold_ms": hold * 1000,
        "hold_cpu_ms": hold_cpu * 1000,
    }


def make_app(folder: str, log_level: str, **changes: Any) -> Any:
    """A server without limits that logs to nowhere.

    Args:
        folder: for its data.
        log_level: of what it would log.
        changes: fields of `Settings` that are not as here.
    """
    from ecan.app import App
    from ecan.config import Settings
    from ecan.config.parsers import LoginRateLimit, RateLimit
    from ecan.observability import configure

    configure(log_level, "json", open(os.devnull, "w"))
    settings: dict[str, Any] = {
        "mode": "web",
        "ws_host": "127.0.0.1",
        "ws_port": 0,
        "data_dir": Path(folder),
        "store": "memory",
        "debug_methods": True,
        "admin_password": PASSWORD,
        "rate_limit": RateLimit(0.0, 0),
        "login_rate_limit": LoginRateLimit(0, 60.0),
        "max_sessions": 1_000_000,
        "max_sessions_per_user": 1_000_000,
        **changes,
    }
    return App(Settings(**settings))


@contextlib.asynccontextmanager
async def bench(folder: str, **changes: Any) -> AsyncIterator[Bench]:
    """`make_app` with its garbage and its heap kept as in production."""
    app = make_app(folder, "INFO", **changes)
    await app.start()
    app.garbage.start()
    app.huge_pages.start()
    try:
        yield Bench(app)
    finally:
        app.huge_pages.stop()
        app.garbage.stop()
        await app.stop()
