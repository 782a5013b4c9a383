"""Password hashes by a process of their own (ADR 19).

A hash costs 20 ms and 19 MiB on purpose. In a thread of the server it gets in the loop's
way even at a low priority: whenever it ends it needs Python's lock for a moment, and keeps
it for as long as the system gives the CPU to somebody else. A process has a lock of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import argon2
import orjson

from ecan.errors import ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode

TIME_COST, MEMORY_KIB, PARALLELISM = 2, 19456, 1
"""OWASP Password Storage Cheat Sheet, Argon2id (P16)."""

MAX_THREADS = 2
NICE = 19
"""Whoever works in a session goes before whoever logs in; 1.5 % of a CPU that is fully in use."""

SCRIPT = Path(__file__).with_name("hash_worker.py")
PASSED_ON = ("LD_LIBRARY_PATH", "PATH")
"""Of the environment: nothing that is a secret, only what an interpreter may need to start."""

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""``quota period`` of a container, or ``max period`` (cgroup v2)."""

LEAVE_S = 2.0
TRIES = 2
RETRY_MS = 1000

_log = get_logger(__name__)


def owasp_hasher() -> argon2.PasswordHasher:
    """argon2id as P16 promises it."""
    return argon2.PasswordHasher(
        time_cost=TIME_COST,
        memory_cost=MEMORY_KIB,
        parallelism=PARALLELISM,
        type=argon2.Type.ID,
    )


def cpus() -> int:
    """How many this process may use; of a share of one, and of none, one."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    # Two hashes beside the loop would use up a container's share, and then all must wait.
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = CPU_MAX.read_text().split()
        if quota != "max":
            allowed = min(allowed, int(quota) // int(period))
    return max(1, allowed)


class HashingError(Exception):
    """Argon2 could not do it, for lack of memory for one; a bug or a broken hash otherwise."""


class Hashes(Protocol):
    """Who makes and checks hashes, off the loop.

    Attributes:
        threads: how many at one time; more than these wait for each other.
    """

    threads: int

    async def start(self) -> None:
        """Be ready."""

    async def close(self) -> None:
        """Let go of everything; what is under way fails. Twice is fine."""

    async def hash(self, text: str) -> str:
        """A new hash of a normalised password."""

    async def verify(self, password_hash: str, text: str) -> bool:
        """Whether it fits; a hash that cannot be read fits nothing."""


class HashingProcess:
    """See `Hashes`. A process that dies is replaced, and asked again once.

    Args:
        threads: None takes the CPUs, two at most.

    Attributes:
        pid: of the process, None while there is none.

    Runs on: the loop.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or min(MAX_THREADS, cpus())
        self._link: _Link | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """See the class."""
        return None if self._link is None else self._link.process.pid

    async def start(self) -> None:
        """See `Hashes.start`.

        Raises:
            OSError: no process can be started.
        """
        await self._linked()

    async def close(self) -> None:
        """See `Hashes.close`."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.end()

    async def hash(self, text: str) -> str:
        """See `Hashes.hash`.

        Raises:
            ReplyError: BUSY, the process dies again and again.
            HashingError: argon2 failed.
        """
        made: str = await self._ask("hash", text, TIME_COST, MEMORY_KIB, PARALLELISM)
        return made

    async def verify(self, password_hash: str, text: str) -> bool:
        """See `Hashes.verify`.

        Raises:
            ReplyError: as `hash`.
        """
        fits: bool = await self._ask("verify", password_hash, text)
        return fits

    async def _ask(self, *request: Any) -> Any:
        for _ in range(TRIES):
            try:
                return await (await self._linked()).ask(request)
            except OSError as error:
                if self._closed:
                    break
                _log.warning("hashing.failed", error=str(error))
        raise ReplyError(
            ErrorCode.BUSY, "Passwords cannot be checked now. Try again.", retry_after_ms=RETRY_MS
        )

    async def _linked(self) -> _Link:
        async with self._starting:  # else each of those who wait would start one
            link = self._link
            if link is not None and not link.lost:
                return link
            if link is not None:
                self._link = None
                await link.end()
                _log.warning("hashing.died", exit_code=link.process.returncode)
            if self._closed:
                raise ConnectionError("closed")
            link = await _Link.open(self.threads)
            if self._closed:  # RACE: meanwhile
                await link.end()
                raise ConnectionError("closed")
            self._link = link
            return link


class _Link(asyncio.Protocol):
    """A process, and the requests it has."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lost = False
        self._transport: Any = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._rest = b""

    @classmethod
    async def open(cls, threads: int) -> _Link:
        """Start a process."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # Not on the loop: a process with gigabytes may need a while for it.
                process = await loop.run_in_executor(None, _spawn, threads, theirs)
        except BaseException:
            ours.close()
            raise
        link = cls(process)
        link._transport, _ = await loop.create_connection(lambda: link, sock=ours)
        return link

    async def ask(self, request: tuple[Any, ...]) -> Any:
        """Have it answered.

        Raises:
            OSError: the process is gone.
            HashingError: argon2 failed.
        """
        if self.lost:
            raise ConnectionError("the process is gone")
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._transport.write(orjson.dumps([number, *request]) + b"\n")
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def end(self) -> None:
        """Close the socket, which the process leaves at, and wait for its end."""
        if self._transport is not None:
            self._transport.abort()
        await asyncio.get_running_loop().run_in_executor(None, _reap, self.process)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, value, problem = orjson.loads(line)
            answer = self._waiting.get(number)
            if answer is None or answer.done():
                continue
            if problem is None:
                answer.set_result(value)
            else:
                answer.set_exception(HashingError(problem))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`."""
        self.lost = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the process died"))


def _spawn(threads: int, connection: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-I", str(SCRIPT), str(threads), str(NICE)],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        process_group=0,  # Ctrl-C is not for it, from its first moment
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LEAVE_S)
        return
    process.kill()
    process.wait()
