"""`ecan top` on a real terminal, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

from edge_kit import Process, environment, eventually, free_port

PASSWORD = "correct horse battery"


class Screen:
    """A pseudo terminal of 80x24; what was ever written on it, without control sequences."""

    def __init__(self, folder) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "ecan", "top", "--every", "0.5"],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=folder,
            env={**environment(folder), "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)
        self._raw = b""

    @property
    def text(self) -> str:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self._raw += data
        return re.sub(
            r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|[()][A-Z0-9]|[=>])", "", self._raw.decode(errors="replace")
        )

    def forget(self) -> None:
        """Look only at what comes from now on."""
        _ = self.text
        self._raw = b""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self.master)


async def test_a_stuck_session_is_seen_within_two_seconds_and_killed_from_there(tmp_path):
    """With method and stack; then the server restarts and the screen comes back; q ends it."""
    settings = {
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "ECAN_DEBUG_METHODS": 1,
        "ECAN_WS_PORT": free_port(),
    }
    async with Process(tmp_path, **settings) as server:
        screen = Screen(tmp_path)
        try:
            await eventually(lambda: "healthy" in screen.text, "the screen")
            async with server.client() as client:
                sid = (await client.login("admin", PASSWORD))["sid"]
                await eventually(lambda: sid in screen.text, "the session")
                stuck = asyncio.create_task(client.error("debug.block", {"seconds": 25}))
                began = time.monotonic()
                await eventually(
                    lambda: "STUCK" in screen.text and "time.sleep" in screen.text, "STUCK"
                )
                took_s = time.monotonic() - began
                assert "debug.block" in screen.text
                screen.type("k")
                await eventually(
                    lambda: f"Kill session {sid} of admin?" in screen.text, "the question"
                )
                screen.type("y")
                async with asyncio.timeout(10):
                    assert (await stuck)["code"] in {"SESSION_CLOSED", "CANCELLED"}
            assert took_s < 2.5, "2 s, and what this machine is late"
            server.signal()
            assert await server.ended() == 0
            await eventually(lambda: "no server" in screen.text, "no server")
            screen.forget()
            async with Process(tmp_path, **settings):
                await eventually(lambda: "healthy" in screen.text, "the screen again")
                screen.type("q")
                await eventually(lambda: screen.popen.poll() is not None, "the end")
                assert screen.popen.returncode == 0
                assert "Traceback" not in screen.text
        finally:
            screen.close()
