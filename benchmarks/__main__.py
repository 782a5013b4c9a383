"""``python -m benchmarks [--quick] [NAME ...]``: measure, print tables, keep the figures."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks import (
    at_rest,
    broadcast,
    durability,
    isolation,
    restart,
    round_trip,
    scale,
    scale_sockets,
    sessions,
    storms,
)
from benchmarks.harness import CLIENT_CPU, CPUS, machine, pin

BENCHMARKS = {
    "round_trip": round_trip.run,
    "isolation": isolation.run,
    "sessions": sessions.run,
    "durability": durability.run,
    "at_rest": at_rest.run,
    "storms": storms.run,
    "restart": restart.run,
    "scale": scale.run,
    "scale_sockets": scale_sockets.run,
    "broadcast": broadcast.run,
}
RESULTS = Path(__file__).parent / "results"


async def _run(names: list[str], quick: bool) -> dict[str, Any]:
    found = {}
    for name in names:
        started = time.perf_counter()
        found[name] = await BENCHMARKS[name](quick)
        print(f"{name}: {time.perf_counter() - started:.0f} s")
    return found


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="only prove that they run")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if len(CPUS) == 1:
        print("Only one CPU: server and client share it, throughput means little here.")
    if options.quick:
        print("--quick: these figures prove that the benchmarks run and nothing else.")
    pin(0, CLIENT_CPU)
    started = time.perf_counter()
    result = asyncio.run(_run(options.names or list(BENCHMARKS), options.quick))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{about['date'].replace(' ', 'T').replace(':', '')}.json"
    path.write_bytes(orjson.dumps({"machine": about, **result}, option=orjson.OPT_INDENT_2))
    print(f"\n{time.perf_counter() - started:.0f} s; {path}")


if __name__ == "__main__":
    main()
