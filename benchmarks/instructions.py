"""How many CPU instructions a request costs, and a check that it did not become more.

    python -m benchmarks.instructions [--check | --baseline]

Wall clock and CPU time on a shared machine move by tens of percent; the number of
instructions does not. One server in one process runs under valgrind's callgrind, which
executes and counts every instruction. Each kind of work is done `COUNT` times between two
marks (`os.ctermid`, which nobody else calls: callgrind dumps its counters where the C
function of that name begins), and only the loop's thread counts. Frames come as bytes
from a socket that is none. Collections of garbage are off: when they come is chance.

Another build of Python has other counts, so what is compared is the ratio to a reference
(`reference`: calls, attributes, dicts, orjson, SHA-256; no line of ours), which is counted
in the same run. `benchmarks/instructions.json` has the ratios for a minor version of Python.
Two runs differ by less than 0.5 %; the check fails above `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import ROOT, table
from benchmarks.in_process import make_app

BASELINE = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.05
COUNT = 400
WARM_UP = 60
SESSIONS = 100
MARK = "ctermid"

REFERENCE = "reference"
REQUESTS: dict[str, tuple[str, Any]] = {
    "ping": ("ping", None),
    "echo": ("echo", {"text": "x" * 100}),
    "debug.state_get": ("debug.state_get", {"key": "n"}),
    "debug.incr": ("debug.incr", {"key": "n"}),
}
SECTIONS = (REFERENCE, *REQUESTS, "resume", "open session")


# -- the process that is counted -----------------------------------------------------------


class NoTransport(asyncio.Transport):
    """A socket whose other end takes everything."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes = 0
        self.last = b""

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.last = data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _Point:
    __slots__ = ("tag", "value")

    def __init__(self, tag: str, value: int) -> None:
        self.tag, self.value = tag, value

    def moved(self, by: int) -> _Point:
        return _Point(self.tag, self.value + by)


def reference(count: int) -> None:
    """Work of the kind a request is made of."""
    seen: dict[str, Any] = {}
    for number in range(count):
        frame = orjson.dumps({"id": f"r{number:06d}", "method": "ping", "params": {"n": number}})
        request = orjson.loads(frame)
        point = _Point(request["id"], request["params"]["n"])
        for step in range(30):
            point = point.moved(step)
            seen[point.tag] = (point.value, step)
        seen["digest"] = hashlib.sha256(frame).digest()
        orjson.dumps({"id": point.tag, "result": point.value, "meta": {"sid": "s" * 12}})


class Counted:
    """A server, and connections to it that are no sockets."""

    def __init__(self, app: Any) -> None:
        from benchmarks.in_process import Bench

        self._bench = Bench(app)
        self._app = app
        self.wires: list[Any] = []

    async def connect(self) -> Any:
        """An open WebSocket."""
        from websockets.server import ServerProtocol

        listener = self._app.gateway._listener
        wire = listener._make(
            ServerProtocol(max_size=2**20), listener._server, ping_interval=None, max_queue=4
        )
        wire.connection_made(NoTransport())
        wire.data_received(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        while wire.transport.writes < 1 or not hasattr(wire, "client"):
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        return wire

    async def open_sessions(self, count: int) -> None:
        """Without a password."""
        await self._bench.create(count)

    def frames(self, method: str, params: Any, count: int) -> list[tuple[Any, bytes]]:
        """Requests, with the connection each comes from."""
        from benchmarks.wire import FIN_TEXT, client_frame

        sessions = self._bench.opened
        return [
            (
                self.wires[n % SESSIONS],
                client_frame(FIN_TEXT, self._bench.frame(sessions[n % SESSIONS], method, params)),
            )
            for n in range(count)
        ]

    def resumes(self, count: int) -> list[bytes]:
        """Requests to resume."""
        from benchmarks.wire import FIN_TEXT, client_frame

        return [
            client_frame(
                FIN_TEXT,
                orjson.dumps(
                    {
                        "id": f"resume-{n}",
                        "type": "request",
                        "method": "session.resume",
                        "params": {
                            key: self._bench.opened[n % SESSIONS][key]
                            for key in ("session_id", "token")
                        },
                    }
                ),
            )
            for n in range(count)
        ]

    async def answer(self, frames: list[tuple[Any, bytes]]) -> None:
        """Every one of them; some are under way at once."""
        for first in range(0, len(frames), SESSIONS):
            some = frames[first : first + SESSIONS]
            before = [wire.transport.writes for wire, _ in some]
            for wire, frame in some:
                wire.data_received(frame)
            while some[-1][0].transport.writes == before[-1]:
                await asyncio.sleep(0)
        for wire, _ in frames[-SESSIONS:]:
            if b'"status":"success"' not in wire.transport.last:
                raise RuntimeError(wire.transport.last.decode("utf-8", "replace"))

    async def sections(self, others: int) -> None:
        """Everything that is counted, each between two marks."""
        await self.open_sessions(SESSIONS)
        await self.open_sessions(others)
        self.wires = [await self.connect() for _ in range(SESSIONS)]
        reference(WARM_UP)
        gc.collect()
        gc.freeze()
        gc.disable()
        os.ctermid()
        reference(COUNT)
        os.ctermid()
        for method, params in REQUESTS.values():
            await self.answer(self.frames(method, params, SESSIONS + WARM_UP))
            frames = self.frames(method, params, COUNT)
            os.ctermid()
            await self.answer(frames)
            os.ctermid()
        fresh = [await self.connect() for _ in range(SESSIONS + COUNT)]
        resumes = list(zip(fresh, self.resumes(SESSIONS + COUNT), strict=True))
        await self.answer(resumes[:SESSIONS])
        os.ctermid()
        await self.answer(resumes[SESSIONS:])
        os.ctermid()
        await self.open_sessions(WARM_UP)
        os.ctermid()
        await self.open_sessions(COUNT)
        os.ctermid()


async def _workload(folder: str, others: int) -> None:
    app = make_app(folder, "WARNING")
    await app.start()
    await Counted(app).sections(others)
    os._exit(0)  # the end of the server is nobody's business here, and slow under valgrind


# -- outside -------------------------------------------------------------------------------


def count(others: int = 0) -> dict[str, float]:
    """Instructions of one of each, in the order of `SECTIONS`.

    Args:
        others: sessions that are in memory besides.
    """
    with tempfile.TemporaryDirectory(prefix="ecan-bench-") as folder:
        out = Path(folder) / "out"
        process = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--separate-threads=yes",
                f"--dump-before={MARK}",
                f"--callgrind-out-file={out}",
                sys.executable,
                "-m",
                "benchmarks.instructions",
                "--workload",
                folder,
                "--others",
                str(others),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(f"instructions:\n{process.stderr[-3000:]}")
        # Dump n is what happened since dump n - 1, which a mark made.
        totals = [_total(out.with_name(f"out.{n}-01")) for n in range(2, 2 * len(SECTIONS) + 1, 2)]
    return {name: total / COUNT for name, total in zip(SECTIONS, totals, strict=True)}


def _total(path: Path) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise RuntimeError(f"no total in {path.name}")


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def check(found: dict[str, float], baselines: dict[str, Any]) -> tuple[str, list[str]]:
    """A table, and what became worse.

    >>> check({"reference": 10.0, "ping": 21.0}, {})[1]
    []
    """
    base = baselines.get(_version(), {}).get("ratios", {})
    rows, worse, better = [], [], False
    for name, instructions in found.items():
        ratio = instructions / found[REFERENCE]
        change = ratio / base[name] - 1 if name in base else None
        rows.append(
            [
                name,
                f"{instructions:,.0f}",
                f"{ratio:.3f}",
                f"{base[name]:.3f}" if name in base else "-",
                "-" if change is None else f"{change:+.1%}",
            ]
        )
        if change is not None and change > TOLERANCE:
            worse.append(f"{name} costs {change * 100:.1f} % more instructions than the baseline")
        better |= change is not None and change < -TOLERANCE
    text = table(["work", "instructions", "x reference", "baseline", "change"], rows)
    if not base:
        text += f"\nNo baseline for Python {_version()}: nothing is compared (make perf-baseline)."
    elif better:
        text += "\nSome of it became cheaper. `make perf-baseline` makes that the new baseline."
    return text, worse


def read_baselines() -> dict[str, Any]:
    """By minor version of Python."""
    result: dict[str, Any] = orjson.loads(BASELINE.read_bytes()) if BASELINE.exists() else {}
    return result


def write_baseline(found: dict[str, float]) -> None:
    """Make this the baseline of this minor version of Python."""
    baselines = read_baselines()
    baselines[_version()] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "reference": round(found[REFERENCE]),
        "ratios": {name: round(n / found[REFERENCE], 4) for name, n in found.items()},
    }
    BASELINE.write_bytes(orjson.dumps(baselines, option=orjson.OPT_INDENT_2) + b"\n")


def main() -> None:
    """Count, and compare or keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if something became worse")
    parser.add_argument("--baseline", action="store_true", help="keep the counts as the baseline")
    parser.add_argument("--others", type=int, default=0, help="more sessions in memory")
    parser.add_argument("--workload", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workload:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_workload(options.workload, options.others))
        return
    found = count(options.others)
    text, worse = check(found, read_baselines())
    print(text)
    if options.baseline:
        write_baseline(found)
        print(f"{BASELINE.relative_to(ROOT)} is written; commit it with the change it is due to.")
    elif worse and options.check:
        print("\n".join(worse))
        print(
            'Find out why (docs/developers/benchmarks.md, "Instructions"). If it is what the'
            " change is worth: make perf-baseline, and commit benchmarks/instructions.json with it."
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
