"""The shell blocks of README.md and deploy.md, run by tests as they stand; and a reader's shell.

A block's key is ``PAGE/HEADING/NUMBER``, the number counted below that heading. A test takes the
block by its key and replaces what is the reader's own (a port, a name, a folder); what it
replaces must be there, so the page cannot drift away from its test. `test_guide.py` fails when a
block is neither in a test nor in `NOT_RUN`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import subprocess
import termios
import time
from pathlib import Path
from typing import Self

from ecan.testing.process import ROOT

PAGES = {"README": ROOT / "README.md", "deploy": ROOT / "docs" / "operators" / "deploy.md"}

NOT_RUN: dict[str, str] = {}
"""Block → why no test runs it. Lines of a block that a test leaves out are in `LEFT_OUT`."""

LEFT_OUT: dict[str, str] = {
    "aws ecs execute-command": "the emulator has no shell in a task; `docker exec` is tried instead",
}
"""Beginning of a line → why the test of its block does not run it."""


def blocks() -> dict[str, str]:
    """Every fenced sh block of the pages, by its key."""
    found: dict[str, str] = {}
    for page, path in PAGES.items():
        heading = ""
        pattern = r"^#+ (?P<heading>[^\n]+)$|^```(?P<kind>\w*)\n(?P<code>.*?)^```$"
        for part in re.finditer(pattern, path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
            # A line that begins with # inside a block is part of the block's match.
            if part["heading"]:
                heading = part["heading"]
            elif part["kind"] == "sh":
                number = 1 + sum(key.startswith(f"{page}/{heading}/") for key in found)
                found[f"{page}/{heading}/{number}"] = part["code"]
    return found


def block(key: str, replacements: dict[str, str] | None = None) -> str:
    """One block, with what is the reader's own filled in.

    Raises:
        KeyError, AssertionError: the page has no such block, or the block no such text.
    """
    text = blocks()[key]
    ours = replacements or {}
    for old in ours:
        assert old in text, f"{key} has no {old!r} any more:\n{text}"
    if not ours:
        return text
    # All at once: what is filled in is not looked at again.
    return re.sub("|".join(map(re.escape, ours)), lambda found: ours[found[0]], text)


def commands(key: str, replacements: dict[str, str] | None = None) -> list[str]:
    """The commands of a block, each whole; those of `LEFT_OUT` are not among them."""
    joined = re.sub(r"\\\n\s*", "", block(key, replacements))
    return [line for line in joined.splitlines() if line and not line.startswith(tuple(LEFT_OUT))]


def committed_files(folder: Path, *under: str) -> None:
    """A clone, with what has changed since the last commit; all of it, or what is below some paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard", "--", *under],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


class Shell:
    """A reader's shell: a working directory, an environment, and ``sh -euc``."""

    def __init__(self, cwd: Path, env: dict[str, str]) -> None:
        self.cwd = cwd
        self.env = dict(env)

    def with_tools(self, folder: Path, **scripts: str) -> Self:
        """Programs this machine lacks, as shell scripts: what `docker` does is podman's."""
        folder.mkdir(parents=True)
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        self.env["PATH"] = f"{folder}:{self.env['PATH']}"
        return self

    def __call__(self, script: str, *, timeout_s: float = 120.0, check: bool = True) -> str:
        """Run it to its end; what it printed, errors too."""
        done = subprocess.run(
            ["sh", "-euc", script],
            check=False,
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        if check:
            assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def start(self, script: str) -> Running:
        """Run it until it is stopped, as in a terminal of its own."""
        return Running(self, script)


class Running:
    """A command on a pseudo terminal: what it has printed, and keys for it."""

    def __init__(self, shell: Shell, script: str) -> None:
        self.master, slave = pty.openpty()
        self.popen = subprocess.Popen(
            ["sh", "-euc", script],
            cwd=shell.cwd,
            env={"TERM": "xterm-256color", **shell.env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # The terminal is theirs: Ctrl-C reaches them, and passwords are asked for on it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self._raw = b""

    def text(self) -> str:
        """All it has printed, without control sequences."""
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self._raw += data
        text = self._raw.decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|[()][A-Z0-9]|[=>])", "", text)

    def until(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Wait until it has printed this."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.text(), flags=re.MULTILINE)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text()}"
            assert self.popen.poll() is None or re.search(pattern, self.text(), re.MULTILINE), (
                f"ended without {pattern!r}:\n{self.text()}"
            )
            time.sleep(0.05)
        return found

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def ended(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; the exit code."""
        deadline = time.monotonic() + timeout_s
        while self.popen.poll() is None:
            self.text()  # or it could wait for its output to be taken
            assert time.monotonic() < deadline, f"still running:\n{self.text()}"
            time.sleep(0.02)
        self.text()
        return self.popen.returncode

    def stop(self) -> None:
        """Kill it and what it started."""
        if self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, 9)
        self.popen.wait()
        with contextlib.suppress(OSError):
            os.close(self.master)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
