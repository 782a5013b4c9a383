"""Crowds of connections that come, go and come back at once: part of the load client.

A member of a crowd has a session and one socket. Times are those of ``time.perf_counter``,
which all processes of a Linux machine share.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from typing import Any

import orjson

from benchmarks.wire import FIN_TEXT, Socket, client_frame

HOST, PATH = "127.0.0.1", "/ws"
ANSWER_S = 60.0
PATIENCE_S = 180.0
FIRST_RETRY_S, MAX_RETRY_S = 0.05, 1.0
"""Before connecting again after a failure; doubling, jittered."""

CONNECTING_AT_ONCE = 64
PUSH = b'{"id":"p-'


class Member(Socket):
    """One connection; one request under way at most."""

    def __init__(self) -> None:
        super().__init__(HOST, PATH)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pushed_at = 0.0
        self._waiter: asyncio.Future[dict[str, Any]] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.gone.done():
            self.gone.set_result(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("connection lost"))

    def _reply(self, payload: bytes) -> None:
        if payload.startswith(PUSH):
            self.pushes += 1
            if not self.pushed_at:
                self.pushed_at = time.perf_counter()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(orjson.loads(payload))

    async def ask(self, method: str, params: Any, request_id: str) -> dict[str, Any]:
        """The response to a request."""
        body = {"id": request_id, "type": "request", "method": method, "params": params}
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(client_frame(FIN_TEXT, orjson.dumps(body)))
        return await asyncio.wait_for(self._waiter, ANSWER_S)

    @classmethod
    async def connect(cls, port: int, source: str | None = None) -> Member:
        """An open WebSocket, from an address of this machine."""
        _, member = await asyncio.get_running_loop().create_connection(
            cls, HOST, port, local_addr=(source, 0) if source else None
        )
        await asyncio.wait_for(member.opened, ANSWER_S)
        return member


class Refused(Exception):
    """An error reply."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("code")))
        self.error = error


def spread_ms(values_s: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    ordered = sorted(values_s)

    def quantile(q: float) -> float:
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else 0.0

    return {
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
        "p999_ms": quantile(0.999),
        "max_ms": quantile(1.0),
    }


class Crowds:
    """The commands of the load client that are about crowds."""

    def __init__(self) -> None:
        self._crowds: dict[str, list[tuple[Member, dict[str, Any]]]] = {}

    async def crowd_connect(
        self, name: str, port: int, sessions: list[dict[str, Any]] | None = None, count: int = 0
    ) -> dict[str, Any]:
        """Connect a crowd; each member resumes its session, if there are sessions."""
        gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        started = time.perf_counter()

        async def one(session: dict[str, Any]) -> tuple[Member, dict[str, Any]]:
            async with gate:
                return await _arrive(port, session), session

        self._crowds[name] = await asyncio.gather(*map(one, sessions or [{}] * count))
        return {"seconds": time.perf_counter() - started}

    async def crowd_cut(self, name: str, port: int) -> dict[str, Any]:
        """Lose all connections at once without a closing handshake; all come back at once."""
        gc.collect()
        gc.disable()
        cut_at, cpu = time.perf_counter(), time.process_time()
        for member, _ in self._crowds[name]:
            member.transport.abort()
        return await self._come_back(name, port, cut_at, cpu)

    async def crowd_return(self, name: str, port: int) -> dict[str, Any]:
        """Wait until the server has parted from them; each comes back when it can."""
        cpu = time.process_time()
        return await self._come_back(name, port, None, cpu)

    async def _come_back(
        self, name: str, port: int, cut_at: float | None, cpu: float
    ) -> dict[str, Any]:
        lost: list[float] = []
        back: list[float] = []
        took: list[float] = []
        handshakes: list[float] = []
        troubles: Counter[str] = Counter()

        async def one(member: Member, session: dict[str, Any]) -> tuple[Member, dict[str, Any]]:
            await member.gone
            since = cut_at if cut_at is not None else time.perf_counter()
            lost.append(since)
            wait_s = FIRST_RETRY_S
            while True:
                try:
                    began = time.perf_counter()
                    fresh = await Member.connect(port)
                    handshakes.append(time.perf_counter() - began)
                    if session:
                        await _resume(fresh, session)
                except (OSError, TimeoutError, Refused) as error:
                    troubles[f"{type(error).__name__}: {error}"[:80]] += 1
                    if time.perf_counter() - since > PATIENCE_S:
                        raise
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
                    wait_s = min(MAX_RETRY_S, 2 * wait_s)
                    continue
                now = time.perf_counter()
                back.append(now)
                took.append(now - since)
                return fresh, session

        try:
            self._crowds[name] = await asyncio.gather(*(one(*pair) for pair in self._crowds[name]))
        finally:
            gc.enable()
        return {
            "resumed": len(took),
            "troubles": dict(troubles),
            "lost_first": min(lost),
            "lost_last": max(lost),
            "back_first": min(back),
            "back_last": max(back),
            "seconds": max(back) - min(lost),
            "client_cpu_s": time.process_time() - cpu,
            "handshake": spread_ms(handshakes),
            **spread_ms(took),
        }

    async def crowd_await_push(self, name: str, within_s: float) -> dict[str, Any]:
        """When each got its first push since the last call, as points in time."""
        members = [member for member, _ in self._crowds[name]]
        until = time.perf_counter() + within_s
        while time.perf_counter() < until and not all(m.pushed_at for m in members):
            await asyncio.sleep(0.005)
        at = sorted(m.pushed_at for m in members if m.pushed_at)
        pushes = sum(m.pushes for m in members)
        for member in members:
            member.pushed_at, member.pushes = 0.0, 0
        if not at:
            return {"got": 0, "pushes": 0}
        return {
            "got": len(at),
            "pushes": pushes,
            "first": at[0],
            "middle": at[len(at) // 2],
            "last": at[-1],
        }

    async def crowd_tell(self, name: str, method: str) -> dict[str, Any]:
        """The first member sends a request; the response."""
        return await self._crowds[name][0][0].ask(method, None, f"tell-{random.random()}")

    async def crowd_leave(self, name: str) -> dict[str, Any]:
        """Drop the connections."""
        for member, _ in self._crowds.pop(name):
            member.transport.abort()
        return {}

    async def login_storm(self, port: int, users: list[str], password: str) -> dict[str, Any]:
        """All log in at once, each from an address of its own, and come again when told when."""
        took: list[float] = []
        refusals: Counter[str] = Counter()
        gc.collect()
        began = time.perf_counter()

        async def one(number: int, user: str) -> None:
            source = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
            member = await Member.connect(port, source)
            while True:
                params = {"username": user, "password": password}
                reply = await member.ask("login", params, f"login-{number}")
                if reply["status"] == "success":
                    break
                error = reply["error"]
                refusals[error["code"]] += 1
                if "retry_after_ms" not in error or time.perf_counter() - began > PATIENCE_S:
                    raise Refused(error)
                await asyncio.sleep(error["retry_after_ms"] / 1000 * random.uniform(1.0, 1.2))
            took.append(time.perf_counter() - began)
            member.transport.abort()

        outcomes = await asyncio.gather(
            *(one(number, user) for number, user in enumerate(users)), return_exceptions=True
        )
        failures = Counter(f"{type(e).__name__}: {e}" for e in outcomes if e is not None)
        return {
            "logged_in": len(took),
            "failures": dict(failures),
            "refusals": dict(refusals),
            "seconds": time.perf_counter() - began,
            **spread_ms(took),
        }


async def _arrive(port: int, session: dict[str, Any]) -> Member:
    member = await Member.connect(port)
    if session:
        await _resume(member, session)
    return member


async def _resume(member: Member, session: dict[str, Any]) -> None:
    """Bind the connection; ask for what was missed as a browser does."""
    reply = await member.ask("session.resume", dict(session), "resume")
    if reply["status"] != "success":
        member.transport.abort()
        raise Refused(reply["error"])
    result = reply["result"]
    session["epoch"], session["last_seq"] = result["epoch"], result["seq"]
