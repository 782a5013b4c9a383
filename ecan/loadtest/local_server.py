"""A server of our own for a load test: started in a temporary folder, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from typing import Self

from ecan.loadtest.processes import end

_READY = re.compile(rb"ecan: ready on https?://\S+:(?P<port>\d+) ")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
TAIL_BYTES = 2000

SETTINGS = {
    "ECAN_MODE": "web",
    "ECAN_WS_HOST": "127.0.0.1",
    "ECAN_ADMIN_USER": "load",
    "ECAN_DEBUG_METHODS": "1",
    "ECAN_SIGNUP": "open",
    "ECAN_RATE_LIMIT": "0",
    "ECAN_LOGIN_RATE_LIMIT": "0",
    "ECAN_MAX_SESSIONS": "1000000",
    "ECAN_MAX_SESSIONS_PER_USER": "1000000",
    "ECAN_MAX_CONNECTIONS": "1000000",
    "ECAN_LOG_LEVEL": "WARNING",
    "ECAN_LOG_FORMAT": "json",
    "ECAN_DRAIN_TIMEOUT": "10",
}
"""Of a server that is there to be loaded; the environment wins, so that any can be changed."""

_OURS = ("ECAN_DATA_DIR", "ECAN_ADMIN_SOCKET", "ECAN_WS_PORT", "ECAN_WS_HOST", "ECAN_ADMIN_USER")
"""Not for the environment to choose: it is probably that of a real server."""


class StartError(Exception):
    """It did not start; ``str`` has the end of its log."""


class LocalServer:
    """``ecan serve`` in a folder that is deleted afterwards; an asynchronous context manager.

    Attributes:
        folder: its data directory, once it is started.
        port: where it listens, the same after a restart.
        password: of the user ``load``.
        starts: how often it was started.
    """

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self.port = 0
        self.password = secrets.token_urlsafe(16)
        self.starts = 0
        self._environ = dict(os.environ if environ is None else environ)
        self.folder = Path()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="ecan-loadtest-")
        self.folder = Path(self._temporary.name)
        try:
            await self.start()
        except BaseException:  # an interrupted start must not leave a server behind
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @property
    def admin_socket(self) -> Path:
        """Where operators are heard."""
        return self.folder / "admin.sock"

    @property
    def url(self) -> str:
        """Of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def durable(self) -> bool:
        """A kill must lose nothing that was acknowledged."""
        env = self.environment()
        return (
            env.get("ECAN_STORE", "sqlite") != "memory"
            and env.get("ECAN_DURABILITY", "commit") == "commit"
        )

    def environment(self) -> dict[str, str]:
        """What it is started with."""
        given = {key: value for key, value in self._environ.items() if key not in _OURS}
        return {
            **SETTINGS,
            **given,
            "ECAN_WS_HOST": "127.0.0.1",
            "ECAN_WS_PORT": str(self.port),
            "ECAN_ADMIN_USER": "load",
            "ECAN_ADMIN_PASSWORD": self.password,
            "ECAN_DATA_DIR": str(self.folder),
            "PYTHONUNBUFFERED": "1",
        }

    async def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            StartError: it ended before that.
        """
        self.starts += 1
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ecan",
                "serve",
                env=self.environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C ends the load test, which needs the server to its end.
                start_new_session=True,
            )
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while line := await stdout.readline():
                    if match := _READY.match(line):
                        self.port = int(match["port"])
                        return
        except TimeoutError:
            pass
        await self.kill()
        tail = self._log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
        raise StartError(f"the server did not start:\n{tail}")

    async def kill(self) -> None:
        """Kill -9."""
        await self._end(signal.SIGKILL)

    async def drain(self) -> None:
        """SIGTERM, and wait for its end."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
        await end(process)

    def log_tail(self, lines: int = 20) -> str:
        """The end of what it logged."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-lines:])
        return ""
