"""The process that hashes: what it answers, how it ends, and what its death means."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import argon2
import pytest
from structlog.testing import capture_logs

from ecan.errors import ReplyError
from ecan.handlers.accounts import hashing
from ecan.handlers.accounts.hash_worker import SLICE_NS
from ecan.handlers.accounts.hashing import (
    NICE,
    SCRIPT,
    HashingError,
    HashingProcess,
    cpus,
    owasp_hasher,
)
from ecan.testing import running_app

PASSWORD = "correct horse \u00e4\n\u5bc6"


def state_of(pid):
    """The letter of /proc, or None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


async def ended(pid):
    async with asyncio.timeout(20):
        while state_of(pid) not in (None, "Z"):
            await asyncio.sleep(0.01)


@pytest.fixture
async def process():
    process = HashingProcess()
    await process.start()
    yield process
    pid = process.pid
    await process.close()
    assert process.pid is None
    assert pid is None or state_of(pid) is None, "reaped"


async def test_hashes_and_verifies(process):
    made = await process.hash(PASSWORD)
    assert owasp_hasher().verify(made, PASSWORD)
    assert await process.verify(made, PASSWORD) is True
    assert await process.verify(made, PASSWORD + "x") is False
    assert await process.verify("no hash", PASSWORD) is False
    old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=2).hash(PASSWORD)
    assert await process.verify(old, PASSWORD) is True


async def test_what_argon2_cannot_do_is_said_and_the_next_is_served(process):
    """A hash that asks for four terabytes; one that never answers would hold a turn for ever."""
    salt = "c29tZXNhbHRzb21l$YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"
    for _ in range(2 * process.threads):
        with pytest.raises(HashingError, match=r"(?i)memory"):
            await process.verify(f"$argon2id$v=19$m=4294967288,t=1,p=1${salt}", PASSWORD)
    assert await process.verify(await process.hash(PASSWORD), PASSWORD)


async def test_many_at_once_get_their_own_answers(process):
    passwords = [f"password {number}" for number in range(8)]
    made = await asyncio.gather(*map(process.hash, passwords))
    pairs = [(h, p) for h in made for p in passwords]
    fits = await asyncio.gather(*(process.verify(h, p) for h, p in pairs))
    assert [pair for pair, good in zip(pairs, fits, strict=True) if good] == list(
        zip(made, passwords, strict=True)
    )


async def test_it_gives_way_has_no_secret_and_is_small(process, monkeypatch):
    """Lowest priority, none of our environment, not a second server's memory."""
    await process.hash(PASSWORD)
    pid = process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == NICE
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C is not for it"
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {line.partition(b"=")[0] for line in environment} <= {b"", b"PATH", b"LD_LIBRARY_PATH"}
    assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    kib = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
    assert kib < 60_000  # 13 MB and two hashes of 19


async def test_after_a_while_it_is_small_again(process):
    """Five seconds after the last hash."""

    def mib():
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    await asyncio.gather(*(process.hash(PASSWORD) for _ in range(6)))
    assert mib() > 19
    async with asyncio.timeout(30):
        while mib() > 19:
            await asyncio.sleep(0.1)
    assert await process.hash(PASSWORD)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the call is this one's")
async def test_its_slice_is_short(process):
    """Of every thread: one that wakes need not wait until it is used up (Linux 6.12)."""
    await process.hash(PASSWORD)
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        attributes = ctypes.create_string_buffer(56)
        assert ctypes.CDLL(None).syscall(315, int(thread.name), attributes, 56, 0) == 0
        _, policy, _, nice, _, slice_ns = struct.unpack_from("IIQiIQ", attributes)
        assert (policy, nice) == (os.SCHED_BATCH, NICE)
        release = tuple(int(n) for n in platform.release().split(".")[:2])
        assert slice_ns == SLICE_NS or release < (6, 12)


async def test_killed_it_is_replaced_and_asked_again(process, caplog):
    """By the kernel for lack of memory, say, in the middle of hashes."""
    made = await process.hash(PASSWORD)
    first = process.pid
    asked = [asyncio.create_task(process.verify(made, PASSWORD)) for _ in range(10)]
    await asyncio.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    assert await asyncio.gather(*asked) == [True] * 10
    assert process.pid != first
    assert state_of(first) is None


async def test_killed_while_nobody_asks(process):
    first = process.pid
    os.kill(first, signal.SIGKILL)
    await ended(first)
    with capture_logs() as logs:
        made = await process.hash(PASSWORD)
    assert await process.verify(made, PASSWORD)
    assert process.pid != first
    # Before it, perhaps: that a request went to one whose end the loop had not seen yet.
    assert [log["exit_code"] for log in logs if log["event"] == "hashing.died"] == [-9]


async def test_one_that_dies_again_and_again_is_said(process, monkeypatch, tmp_path):
    """BUSY, which a client tries again; and when it works, it works."""
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(hashing, "SCRIPT", broken)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ReplyError) as told:
        await process.hash(PASSWORD)
    assert (told.value.code, told.value.retry_after_ms) == ("BUSY", 1000)
    monkeypatch.setattr(hashing, "SCRIPT", SCRIPT)
    assert await process.hash(PASSWORD)


async def test_one_that_cannot_be_started(process, monkeypatch):
    """For lack of memory or processes; nothing is left open."""
    pid = process.pid
    os.kill(pid, signal.SIGKILL)
    monkeypatch.setattr(hashing.sys, "executable", "/no/such/python")
    handles = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ReplyError) as told:
        await process.hash(PASSWORD)
    assert told.value.code == "BUSY"
    assert len(list(Path("/proc/self/fd").iterdir())) < handles
    with pytest.raises(FileNotFoundError):
        await HashingProcess().start()


async def test_after_the_end_it_is_not_started_again():
    process = HashingProcess()
    await process.start()
    hanging = asyncio.create_task(process.hash(PASSWORD))
    await asyncio.sleep(0)
    await process.close()
    await process.close()
    with pytest.raises(ReplyError):
        await hanging
    with pytest.raises(ReplyError):
        await process.hash(PASSWORD)
    assert process.pid is None


async def test_closed_while_it_starts_nothing_is_left():
    """A stop in the middle of a start."""
    process = HashingProcess()
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    await process.close()
    with pytest.raises(ConnectionError):
        await starting
    assert process.pid is None
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [
        pid for pid in children if b"hash_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def test_a_cancelled_request_does_not_disturb_the_others(process):
    made = await process.hash(PASSWORD)
    gone = asyncio.create_task(process.verify(made, "wrong"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    assert await process.verify(made, PASSWORD) is True
    assert await process.verify(made, "wrong") is False


async def test_it_does_not_hear_who_ends_the_group(process):
    """Ctrl-C and an init system's SIGTERM are for the server, which still drains."""
    made = await process.hash(PASSWORD)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    assert await process.verify(made, PASSWORD) is True


@pytest.mark.parametrize("moment", ["idle", "hashing"])
def test_it_ends_with_a_server_that_is_killed(moment):
    """kill -9 of the other end, whatever it does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT), "1", "0"], stdin=theirs.fileno()
        )
        theirs.close()
        ours.sendall(json.dumps([1, "hash", PASSWORD, 1, 1024, 1]).encode() + b"\n")
        assert ours.recv(4096)
        if moment == "hashing":
            for number in range(100):
                ours.sendall(json.dumps([number, "hash", PASSWORD, 200, 19456, 1]).encode() + b"\n")
            time.sleep(0.1)
    assert worker.wait(20) == 0


async def test_the_server_ends_it():
    """With the accounts."""
    async with running_app() as server:
        pid = server.app.accounts._passwords._hashes.pid
        assert state_of(pid) in ("S", "R")
    assert state_of(pid) is None


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ("max 100000", 64),
        ("150000 100000", 1),
        ("200000 100000", 2),
        ("25000 100000", 1),
        ("what 5", 64),
        ("1 0", 64),
        ("", 64),
        (None, 64),
    ],
)
def test_threads_are_those_of_the_cpus(monkeypatch, tmp_path, limit, most):
    """On one CPU, or a share of one, two hashes at a time would only be slower each."""
    file = tmp_path / "cpu.max"
    if limit is not None:
        file.write_text(limit)
    monkeypatch.setattr(hashing, "CPU_MAX", file)
    monkeypatch.setattr(hashing.os, "sched_getaffinity", lambda _: set(range(64)))
    assert cpus() == most
    monkeypatch.setattr(hashing.os, "sched_getaffinity", lambda _: {0})
    assert cpus() == 1
    monkeypatch.delattr(hashing.os, "sched_getaffinity")
    assert cpus() == min(most, os.cpu_count() or 1)
