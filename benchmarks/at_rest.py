"""Many sessions at rest in the store: what do those cost that nobody uses?

Stores with 1000, 10 000 and 100 000 passivated sessions are filled by the store's own
API (``python -m benchmarks.at_rest fill``), a real server is started over each, and all
of them take turns: start-up and memory, requests of sessions in use, activation of
sessions at rest, and 2000 sessions that all expire at once. If the columns are alike,
a session at rest costs disk and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import (
    PASSWORD,
    ROOT,
    LoadClient,
    Server,
    load_client,
    log_in,
    measured,
    median,
    ours,
    table,
)
from ecan.testing.client import Client

COUNTS = (1_000, 10_000, 100_000)
IN_USE = 50
"""Sessions that are in use beside those at rest."""

BATCH = 1000
USERS = 50
TIMEOUT_S = 86_400.0
"""ECAN_SESSION_TIMEOUT, its default."""

PING_RATE = 1000
"""Pings a second while sessions expire: the slowest one shows how long the loop stood still."""


# -- filling a store ---------------------------------------------------------------------


def session_at_rest(number: int, now: float, last_active_at: float) -> tuple[Any, dict[str, str]]:
    """A session as a day's use leaves it, some 6 KB, and its credentials."""
    import attrs

    from ecan.actors.tokens import digest, new_session_id, sid_of
    from ecan.handlers.context import User
    from ecan.store.rows import Facts, LedgerRow, PushRow, SessionRow, Snapshot, TokenRow

    session_id, token = new_session_id(), new_session_id()
    key = digest(session_id)
    sid = sid_of(key)
    user = User(user_id=10_000 + number % USERS, username=f"rest{number % USERS}")
    answers = tuple(
        LedgerRow(
            request_id=f"request-{number:08d}-{n:04d}",
            fingerprint=os.urandom(8),
            frame=b'{"id":"request","replayed":false,"result":"' + b"x" * 200 + b'"}',
            at=now,
        )
        for n in range(12)
    )
    pushes = tuple(
        PushRow(
            seq=seq,
            frame=b'{"id":"p","type":"request","params":"'
            + b"y" * 150
            + b'","meta":{"seq":%d,"epoch":"e","sid":"s"}}' % seq,
        )
        for seq in range(1, 6)
    )
    slots = {"prefs": b'{"theme":"dark"}', "cart": b'"' + b"z" * 600 + b'"', "n": b"7"}
    snapshot = Snapshot(
        row=SessionRow(
            sid=sid,
            key=key,
            user=attrs.asdict(user),
            created_at=now - 3600,
            incarnation=3,
            epoch=os.urandom(4).hex(),
            facts=Facts(last_active_at=last_active_at, restarts=1),
        ),
        seq=5,
        slots=slots,
        tokens=(TokenRow(digest=digest(token), expires_at=now + 86_400.0),),
        ledger=answers,
        pushes=pushes,
    )
    return snapshot, {"session_id": session_id, "token": token}


async def fill(path: Path, count: int, expire_at: float, kept: int) -> dict[str, Any]:
    """Add sessions to a store; answers the credentials of some of them.

    Args:
        expire_at: UTC time at which they become idle for too long; 0: none does.
        kept: how many credentials to answer.
    """
    from ecan.store.sqlite import SqliteStore

    now = time.time()
    last_active_at = expire_at - TIMEOUT_S if expire_at else now
    store = SqliteStore(path, durability="off")
    await store.open()
    credentials = []
    started = time.perf_counter()
    for first in range(0, count, BATCH):
        made = [
            session_at_rest(number, now, last_active_at)
            for number in range(first, min(first + BATCH, count))
        ]
        await asyncio.gather(*(store.create(snapshot) for snapshot, _ in made))
        credentials += [secret for _, secret in made]
    await store.close()
    return {
        "seconds": time.perf_counter() - started,
        "credentials": random.sample(credentials, min(kept, count)),
    }


def filled(data_dir: Path, count: int, *, expire_at: float = 0.0, kept: int = 0) -> dict[str, Any]:
    """As `fill`, in a process of its own."""
    words = ["fill", str(data_dir / "sessions.sqlite3"), str(count), str(expire_at), str(kept)]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.at_rest", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(f"at_rest, {words}:\n{process.stderr[-3000:]}")
    result: dict[str, Any] = orjson.loads(process.stdout.splitlines()[-1])
    return result


# -- the servers -------------------------------------------------------------------------


@contextlib.contextmanager
def serving(data_dir: Path, times: list[float] | None = None) -> Any:
    """A server over the folder; its start is timed."""
    started = time.perf_counter()
    with ours(
        ECAN_STORE="sqlite",
        ECAN_DATA_DIR=str(data_dir),
        ECAN_SESSION_TIMEOUT=str(int(TIMEOUT_S)),
        ECAN_MAX_SESSIONS="1000000",
        ECAN_MAX_SESSIONS_PER_USER="1000000",
    ) as server:
        if times is not None:
            times.append(time.perf_counter() - started)
        yield server


async def quiet(server: Server, within_s: float) -> None:
    """Wait until it has nothing more to do: a start looks the whole file through beside its work.

    Raises:
        RuntimeError: it has, all the time.
    """
    until, calm = time.perf_counter() + within_s, 0
    while calm < 4:
        before = server.cpu_us()
        await asyncio.sleep(0.1)
        calm = calm + 1 if server.cpu_us() - before < 5000 else 0
        if time.perf_counter() > until:
            raise RuntimeError(f"the server is not idle after {within_s:g} s")


def stored_bytes(data_dir: Path) -> int:
    """Size of the store's files."""
    return sum(path.stat().st_size for path in data_dir.glob("sessions.sqlite3*"))


class TooLate(Exception):
    """The machine is too busy for the time allowed."""


# -- the parts ---------------------------------------------------------------------------


async def starts(folders: dict[int, Path], rounds: int) -> dict[int, dict[str, Any]]:
    """Seconds to the ready line; then memory and seconds when the file has been looked through."""
    names = ("start_s", "rss_bytes", "checked_s")
    found: dict[int, dict[str, Any]] = {count: {name: [] for name in names} for count in folders}
    for _ in range(rounds):
        for count, folder in folders.items():
            one = found[count]
            with serving(folder, one["start_s"]) as server:
                ready = time.perf_counter()
                await quiet(server, 60.0)
                one["checked_s"].append(time.perf_counter() - ready - 0.4)
                one["rss_bytes"].append(server.rss_bytes())
    return {
        count: {name: median(values) for name, values in one.items()}
        for count, one in found.items()
    }


async def in_use(
    load: LoadClient, servers: dict[int, Server], seconds: float, rounds: int
) -> dict[int, dict[str, Any]]:
    """CPU of a request of sessions that are awake, in turns."""
    requests = {"look": ("debug.state_get", False), "change": ("debug.incr", True)}
    for count, server in servers.items():
        sessions, _ = await log_in(server, IN_USE)
        await load("connect", group=str(count), port=server.port, count=IN_USE)
        for name, (method, counting) in requests.items():
            await load(
                "workload",
                name=f"{count} {name}",
                group=str(count),
                method=method,
                params={"key": "n"},
                metas=sessions,
                counting=counting,
            )
    slices: dict[int, dict[str, list[dict[str, Any]]]] = {
        count: {name: [] for name in requests} for count in servers
    }
    for number in range(rounds + 1):
        for count, server in servers.items():
            for name in requests:
                one = await measured(load, server, "closed", f"{count} {name}", seconds=seconds)
                if one["failures"]:
                    raise RuntimeError(f"{count} {name}: {one['failures']} {one['example']}")
                if number:  # the first warms up
                    slices[count][name].append(one)
    return {
        count: {f"{name}_cpu_us": median([s["cpu_us"] for s in of]) for name, of in kinds.items()}
        for count, kinds in slices.items()
    }


async def activation(
    servers: dict[int, Server], secrets: dict[int, list[dict[str, str]]], rounds: int
) -> dict[int, dict[str, Any]]:
    """Resume sessions at rest one after another, and wake them with their first request."""
    resumes: dict[int, list[float]] = {count: [] for count in servers}
    wakes: dict[int, list[float]] = {count: [] for count in servers}
    cpu = dict.fromkeys(servers, 0.0)
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            count: await stack.enter_async_context(Client(f"ws://127.0.0.1:{server.port}/ws"))
            for count, server in servers.items()
        }
        for number in range(rounds):
            for count, server in servers.items():
                client, before = clients[count], server.cpu_us()
                for secret in secrets[count][number::rounds]:
                    started = time.perf_counter()
                    await client.resume(secret)
                    resumed = time.perf_counter()
                    if await client.call("debug.incr", {"key": "n"}) != 8:
                        raise RuntimeError("a session at rest came back with another state")
                    wakes[count].append((time.perf_counter() - resumed) * 1000)
                    resumes[count].append((resumed - started) * 1000)
                cpu[count] += server.cpu_us() - before
    return {
        count: {
            "activation_cpu_us": cpu[count] / len(secrets[count]),
            "resume_p50_ms": median(resumes[count]),
            "resume_p99_ms": sorted(resumes[count])[int(0.99 * len(resumes[count]))],
            "wake_p50_ms": median(wakes[count]),
        }
        for count in servers
    }


async def expiry(
    load: LoadClient, data_dir: Path, expiring: int, delay_s: float, watch_s: float
) -> dict[str, Any]:
    """So many sessions at rest become idle for too long at the same moment.

    Raises:
        TooLate: they did before the server was up and measured without that.
    """
    expire_at = time.time() + delay_s
    filled(data_dir, expiring, expire_at=expire_at)
    with serving(data_dir) as server:
        await quiet(server, 60.0)
        group = f"expiry {server.port}"
        async with Client(f"ws://127.0.0.1:{server.port}/ws") as client:
            await client.login("admin", PASSWORD)
            sessions = [client.session]
        await load("connect", group=group, port=server.port, count=1)
        await load("workload", name=group, group=group, method="ping", metas=sessions)
        await load("open", name=group, rate=PING_RATE, seconds=0.1)
        quiet_s = expire_at - time.time() - 0.3
        if quiet_s < 0.2:
            await load("disconnect", group=group)
            raise TooLate
        before = server.cpu_us()
        calm = await load("open", name=group, rate=PING_RATE, seconds=quiet_s)
        idle_cpu = (server.cpu_us() - before) / calm["seconds"]
        had = await _sessions(server)
        before, started = server.cpu_us(), time.perf_counter()
        pings = asyncio.create_task(load("open", name=group, rate=PING_RATE, seconds=watch_s))
        ended_s = float("nan")
        while not pings.done():
            await asyncio.sleep(0.02)
            if ended_s != ended_s and await _sessions(server) <= had - expiring:
                ended_s = time.time() - expire_at
        meanwhile = await pings
        spent = server.cpu_us() - before - idle_cpu * (time.perf_counter() - started)
        left = had - await _sessions(server)
    await load("disconnect", group=group)
    return {
        "expired": left,
        "reaped_s": ended_s,
        "reaping_cpu_us": spent / max(1, left),
        "quiet_max_ms": calm["max_ms"],
        "reaping_max_ms": meanwhile["max_ms"],
        "reaping_p99_ms": meanwhile["p99_ms"],
    }


async def _sessions(server: Server) -> int:
    """How many there are, as /health says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return int(orjson.loads(body)["sessions"])


async def run(quick: bool = False) -> dict[str, Any]:
    """Measure, print, return."""
    counts = (100, 400) if quick else COUNTS
    activations, expiring, start_rounds = (20, 50, 1) if quick else (1000, 2000, 5)
    slice_s, rounds = (0.2, 1) if quick else (1.0, 7)
    rows: dict[int, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        folders, secrets = {}, {}
        for count in counts:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecan-bench-"))
            folders[count] = data_dir = Path(folder) / "data"
            with serving(data_dir):  # makes accounts and files
                pass
            made = filled(data_dir, count, kept=activations)
            secrets[count] = made["credentials"]
            rows[count] = {
                "fill_us": made["seconds"] / count * 1e6,
                "stored_bytes": stored_bytes(data_dir) / count,
            }
        for count, row in (await starts(folders, start_rounds)).items():
            rows[count] |= row
        async with load_client() as load:
            with contextlib.ExitStack() as running:
                servers = {
                    count: running.enter_context(serving(folder))
                    for count, folder in folders.items()
                }
                for server in servers.values():
                    await quiet(server, 60.0)
                for found in (
                    await in_use(load, servers, slice_s, rounds),
                    await activation(servers, secrets, 1 if quick else 10),
                ):
                    for count, row in found.items():
                        rows[count] |= row
            for count, folder in folders.items():
                delay_s, watch_s = (3.0, 1.0) if quick else (15.0, 5.0)
                while True:
                    try:
                        rows[count] |= await expiry(load, folder, expiring, delay_s, watch_s)
                        break
                    except TooLate:
                        delay_s *= 2
    few, many = rows[counts[0]], rows[counts[-1]]
    result = {
        "rows": rows,
        "rss_bytes_each": (many["rss_bytes"] - few["rss_bytes"]) / (counts[-1] - counts[0]),
        "expiring": expiring,
        "activations": activations,
    }
    _print(result)
    return {**result, "rows": {str(count): row for count, row in rows.items()}}


def _print(result: dict[str, Any]) -> None:
    rows = result["rows"]
    counts = list(rows)
    few, many = rows[counts[0]], rows[counts[-1]]
    lines: list[tuple[str, str, float]] = [
        ("start to the ready line, s", "start_s", 1),
        ("whole file looked through after, s", "checked_s", 1),
        ("resident memory, MB", "rss_bytes", 1e-6),
        ("on disk, bytes per session", "stored_bytes", 1),
        ("look, session in use, CPU us", "look_cpu_us", 1),
        ("change, session in use, CPU us", "change_cpu_us", 1),
        ("resume of a session at rest, p50 ms", "resume_p50_ms", 1),
        ("resume of a session at rest, p99 ms", "resume_p99_ms", 1),
        ("its first change, p50 ms", "wake_p50_ms", 1),
        ("resume and first change, CPU us", "activation_cpu_us", 1),
        (f"{result['expiring']} expire at once: gone after, s", "reaped_s", 1),
        ("reaping, CPU us per session", "reaping_cpu_us", 1),
        ("slowest of 1000 pings/s meanwhile, ms", "reaping_max_ms", 1),
        ("slowest of 1000 pings/s before, ms", "quiet_max_ms", 1),
    ]
    print(f"\nSessions at rest in SQLite, {result['activations']} of them activated")
    print(
        table(
            ["", *(f"{count:,}".replace(",", " ") for count in counts), "last / first"],
            [
                [
                    name,
                    *(float(rows[count][key] * scale) for count in counts),
                    f"{many[key] / few[key]:.2f}" if few[key] else "-",
                ]
                for name, key, scale in lines
            ],
        )
    )
    print(f"Memory of one more session at rest: {result['rss_bytes_each']:.1f} bytes.")


def main(words: list[str]) -> None:
    """``fill PATH COUNT EXPIRE_AT KEPT``."""
    path, count, expire_at, kept = words
    result = asyncio.run(fill(Path(path), int(count), float(expire_at), int(kept)))
    print(orjson.dumps(result).decode())


if __name__ == "__main__":
    main(sys.argv[2:])
