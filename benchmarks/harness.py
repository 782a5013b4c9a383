"""Processes, their CPU time, the machine's noise, and tables."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson

from ecan.admin.client import AsyncClient
from ecan.testing.client import Client

ROOT = Path(__file__).parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PASSWORD = "correct horse battery"
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = CPUS[0]
CLIENT_CPU = CPUS[-1]
"""The same one where there is only one; then the figures are of little use."""


MADE_AT_ONCE = 1000
"""Sessions that the admin socket is asked for in one command."""

AS_DEFAULT = {
    "ECAN_RATE_LIMIT": "100/200",
    "ECAN_LOGIN_RATE_LIMIT": "5/min",
    "ECAN_MAX_SESSIONS_PER_USER": "20",
    "ECAN_SIGNUP": "closed",
    "ECAN_DRAIN_TIMEOUT": "25",
}
"""Takes back what `ours` makes easier."""


def more_files() -> None:
    """As many open files as are allowed."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pin(pid: int, cpu: int) -> None:
    """Bind a process, before it has threads, to one CPU."""
    os.sched_setaffinity(pid, {cpu})


class Server:
    """A server process and its CPU time."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], port: int, data_dir: Path
    ) -> None:
        self.name, self.process, self.port, self.data_dir = name, process, port, data_dir

    @property
    def url(self) -> str:
        """Of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def admin(self) -> AsyncClient:
        """An operator of ours, to be entered."""
        return AsyncClient(self.data_dir / "admin.sock", timeout_s=300.0)

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def cpu_us(self) -> float:
        """CPU time of all threads that live, finer than the clock ticks of `cpu_s`."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def rss_bytes(self) -> int:
        """Resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _server(
    name: str, command: list[str], env: dict[str, str], log: Path, data_dir: Path
) -> Iterator[Server]:
    def prepare() -> None:
        pin(0, SERVER_CPU)
        more_files()

    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=prepare,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.search(rb"ready (?:on )?https?://[^ ]*:(\d+)", line):
                    break
            else:
                raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            yield Server(name, process, int(match[1]), data_dir)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def reference(name: str) -> Iterator[Server]:
    """One of `benchmarks.servers`."""
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.servers", name]
        with _server(name, command, {}, Path(folder) / "log", Path(folder)) as server:
            yield server


@contextlib.contextmanager
def ours(**settings: str) -> Iterator[Server]:
    """Our server as it is started in production, with debug methods."""
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        env = {
            "ECAN_WS_HOST": "127.0.0.1",
            "ECAN_WS_PORT": "0",
            "ECAN_DATA_DIR": folder,
            "ECAN_ADMIN_PASSWORD": PASSWORD,
            "ECAN_DEBUG_METHODS": "1",
            "ECAN_RATE_LIMIT": "0",
            "ECAN_LOGIN_RATE_LIMIT": "0",
            "ECAN_MAX_SESSIONS_PER_USER": "10000",
            "ECAN_LOG_FORMAT": "json",
            "ECAN_SIGNUP": "open",
            "ECAN_DRAIN_TIMEOUT": "1",
            **settings,
        }
        command = [sys.executable, str(ROOT / "web_server.py")]
        data_dir = Path(env["ECAN_DATA_DIR"])
        with _server("ecan", command, env, Path(folder) / "log", data_dir) as server:
            yield server


async def make_sessions(server: Server, count: int) -> list[dict[str, str]]:
    """Credentials of new sessions, made over the admin socket."""
    made: list[dict[str, str]] = []
    async with server.admin() as operator:
        while len(made) < count:
            some = {"user": "admin", "count": min(MADE_AT_ONCE, count - len(made))}
            answer = await operator.call("sessions.create", some)
            made += [{k: one[k] for k in ("session_id", "token")} for one in answer["sessions"]]
    return made


async def log_in(server: Server, count: int, users: int = 4) -> tuple[list[dict[str, str]], float]:
    """Sessions by real logins of a few users; their credentials and the seconds it took."""
    url = server.url
    names = [f"bench{number}" for number in range(users)]
    sessions: list[dict[str, str]] = []
    async with Client(url) as client:
        for name in names:
            await client.call("signup", {"username": name, "password": PASSWORD})
    started = time.perf_counter()
    # A connection holds one session; nothing keeps it from asking for the next.
    async with Client(url) as client:
        for number in range(count):
            client.session = {}
            await client.login(names[number % users], PASSWORD)
            sessions.append(dict(client.session))
    return sessions, time.perf_counter() - started


class LoadClient:
    """The load process (`benchmarks.load`) from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps([command, arguments]) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load client ended")
        answer = orjson.loads(line)
        if "error" in answer:
            raise RuntimeError(f"load client, {command}: {answer['error']}")
        result: dict[str, Any] = answer["ok"]
        return result


@contextlib.asynccontextmanager
async def load_client(*, is_crowd: bool = False) -> AsyncIterator[LoadClient]:
    """Start a load process, bound to its CPU.

    Args:
        is_crowd: it only makes trouble, and lets the one that measures have the CPU at once:
            Linux 6.6 and newer let a task use up its slice, 3 ms, before one that wakes gets
            it, whatever their priorities. Only `SCHED_IDLE` gives way.
    """

    def prepare() -> None:
        pin(0, CLIENT_CPU)
        if is_crowd:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.load",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
        preexec_fn=prepare,
    )
    try:
        yield LoadClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Noise:
    """What else the server's CPU did while something was measured."""

    def __init__(self) -> None:
        self._before = self._read()
        self._started = time.perf_counter()

    @staticmethod
    def _read() -> tuple[int, int]:
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith(f"cpu{SERVER_CPU} "):
                user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
                return user + nice + system + irq + softirq, steal
        return 0, 0

    def shares(self, own_cpu_s: float) -> tuple[float, float]:
        """Shares of foreign processes and of the hypervisor (steal)."""
        seconds = time.perf_counter() - self._started
        busy, steal = self._read()
        foreign = (busy - self._before[0]) / TICKS_PER_S - own_cpu_s
        return max(0.0, foreign / seconds), (steal - self._before[1]) / TICKS_PER_S / seconds


async def measured(
    load: LoadClient, server: Server, command: str, workload: str, **arguments: Any
) -> dict[str, Any]:
    """Run a slice and add the server's CPU time and the noise."""
    noise, cpu = Noise(), server.cpu_s()
    result = await load(command, name=workload, **arguments)
    cpu = server.cpu_s() - cpu
    result["foreign"], result["steal"] = noise.shares(cpu)
    result["server_cpu"] = cpu / result["seconds"]
    result["cpu_us"] = cpu / max(1, result["requests"]) * 1e6
    return result


def median(values: list[float]) -> float:
    """The middle one, the lower of two."""
    return sorted(values)[(len(values) - 1) // 2] if values else float("nan")


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    model = "?"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cpu": model,
        "cpus": len(CPUS),
        "system": platform.platform(terse=True),
        "load": round(os.getloadavg()[0], 2),
        "revision": revision,
        "python": platform.python_version(),
        **{
            name: importlib.metadata.version(name)
            for name in ("websockets", "uvloop", "orjson", "pykka", "attrs", "cattrs")
        },
    }


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table, aligned for the terminal too."""
    cells = [head, *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if value != value:
            return "-"
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
