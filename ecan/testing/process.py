"""A real server process, started, signalled and killed as an operator would."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parent.parent.parent
READY = re.compile(r"^ecan: ready on (?P<url>https?://\S+) \(mode=(?P<mode>\w+), ")
START_TIMEOUT_S = 60.0


def free_port() -> int:
    """A port that was free a moment ago, for a server that is to come back on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """``python web_server.py`` with an environment and a data directory.

    Args:
        folder: working directory; the data directory is below it.
        env: ``ECAN_...`` settings, beside those of this process.
        command: what to run.
    """

    def __init__(
        self, folder: Path, env: dict[str, str] | None = None, command: list[str] | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.command = command or [sys.executable, str(ROOT / "web_server.py")]
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ECAN_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PYTHONUNBUFFERED": "1",
            "ECAN_WS_HOST": "127.0.0.1",
            "ECAN_WS_PORT": str(self.port),
            "ECAN_DATA_DIR": str(folder / "data"),
            **(env or {}),
        }
        self.output: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def http(self) -> str:
        """Base address for a browser."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Address for a WebSocket client."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def start(self) -> Self:
        """Start it and wait for its ready line.

        Raises:
            RuntimeError: it ended before; the message has its output.
        """
        self._ready.clear()
        self.process = subprocess.Popen(  # noqa: S603 - our own server
            self.command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_TIMEOUT_S) or self.process.poll() is not None:
            self.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.output))
        return self

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if READY.match(line):
                self._ready.set()
        self._ready.set()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, return the exit code."""
        assert self.process is not None
        code = self.process.wait(START_TIMEOUT_S)
        if self._reader is not None:
            self._reader.join(START_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.wait()

    def wait_for_output(self, text: str, timeout_s: float = 30.0) -> str:
        """Wait for a line with this text and return it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in list(self.output):
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no {text!r} in:\n" + "".join(self.output))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
