"""The process that makes and checks password hashes (ADR 19).

A script, run isolated by `ecan.handlers.accounts.hashing`: it needs argon2 and nothing of
ecan, so it has 14 MB and is there after 40 ms. JSON lines come and go on a socket, which is
its standard input:

    [number, "hash", password, time cost, memory in KiB, parallelism]
    [number, "verify", hash, password]

Answers come in any order: ``[number, hash, null]``, ``[number, true or false, null]``, or
``[number, null, problem]`` with the words of argon2, which never name a password. It leaves
when the other end closes, even by ``kill -9``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
from typing import Any

import argon2

IDLE_S = 5.0
"""After which the memory of the last hashes, 19 MiB each, is given back."""

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1
KEEP = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**28}
"""mallopt(3). Of other arenas than the first one `malloc_trim` gives nothing back."""

SLICE_NS = 100_000
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Of the system call, on Linux."""


class _Memory:
    """A hash's memory is kept for the next one, which takes a sixth less time then.

    By glibc; with another library it is as that does it.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        with contextlib.suppress(AttributeError):
            for option, value in KEEP.items():
                self._libc.mallopt(option, value)

    def give_back(self) -> None:
        """To the system."""
        with contextlib.suppress(AttributeError):
            self._libc.malloc_trim(0)


def _give_way(nice: int) -> None:
    """Let everybody go first, from now on and in all threads that are started."""
    with contextlib.suppress(OSError):
        os.nice(nice)
    number = SCHED_SETATTR.get(os.uname().machine)
    if sys.platform == "linux" and number is not None:
        # Linux 6.12: a task may use its slice up before one that wakes gets the CPU, 4 ms if
        # it is as usual. Older ones ignore it. But who has a short slice is also let in at
        # once when it wakes, before the server that just wrote to it, whatever their
        # priorities; a batch task is not. struct sched_attr, sched_setattr(2).
        words = struct.pack("IIQiIQQQII", 56, os.SCHED_BATCH, 0, nice, 0, SLICE_NS, 0, 0, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, words, 0)


def _answer(operation: str, *arguments: Any) -> str | bool:
    if operation == "hash":
        password, time_cost, memory_kib, parallelism = arguments
        return argon2.PasswordHasher(
            time_cost=time_cost,
            memory_cost=memory_kib,
            parallelism=parallelism,
            type=argon2.Type.ID,
        ).hash(password)
    password_hash, password = arguments
    try:
        return argon2.PasswordHasher().verify(password_hash, password)
    except (argon2.exceptions.VerifyMismatchError, argon2.exceptions.InvalidHashError):
        return False


def _work(requests: queue.SimpleQueue[bytes], connection: socket.socket, memory: _Memory) -> None:
    """Answer what comes. Runs in a few threads; argon2 computes without Python's lock."""
    while True:
        try:
            line = requests.get(timeout=IDLE_S)
        except queue.Empty:
            memory.give_back()
            line = requests.get()
        number, *request = json.loads(line)
        try:
            answer = [number, _answer(*request), None]
        except Exception as error:  # noqa: BLE001 - of one request; it must be answered
            answer = [number, None, f"{type(error).__name__}: {error}"]
        with contextlib.suppress(OSError):  # it has gone; so shall we, by the reader
            # One call, far below the socket's buffer.
            connection.sendall(json.dumps(answer).encode() + b"\n")


def main(threads: int, nice: int) -> None:
    """Serve the socket on standard input until its end."""
    # Ctrl-C and an init system mean the whole group; the server says when it needs us no more.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _give_way(nice)
    connection = socket.socket(fileno=os.dup(0))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    memory = _Memory()
    for _ in range(threads):
        threading.Thread(target=_work, args=(requests, connection, memory), daemon=True).start()
    with contextlib.suppress(OSError):
        for line in connection.makefile("rb"):
            requests.put(line)
    os._exit(0)  # nobody waits for what is still being hashed


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
