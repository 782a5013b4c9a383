"""Command line: ``python -m ecan.testing.simulator``."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from ecan.testing.simulator.runner import STEPS, Report, run_job, run_seed, shrink
from ecan.testing.simulator.wishes import FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROGRESS_S = 10.0
MAX_SHOWN = 10
"""Failures told in full; of more, one would read none."""

SOAK_STEPS = (30, 90, 90, 250)
"""Short runs find more a second, long ones find other things."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments say.

    Returns:
        1 if a promise was broken, else 0.
    """
    options = _parser().parse_args(arguments)
    features = tuple(name for name in FEATURES if name not in options.without)
    if options.seed is not None:
        report = run_seed(options.seed, options.steps, features, verbose=options.verbose)
        _say(f"{report}\ntrace {report.digest}")
        return int(report.failure is not None)
    if options.soak:
        first = int(time.time()) * 1000
        _say(f"soaking from seed {first} on; Ctrl-C ends it")
        jobs = ((seed, SOAK_STEPS[seed % len(SOAK_STEPS)]) for seed in itertools.count(first))
        return _run_many(jobs, options.jobs, stop_at_first=False)
    jobs = ((seed, options.steps) for seed in options.seeds)
    return _run_many(jobs, options.jobs, stop_at_first=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ecan.testing.simulator",
        description="Runs the server's core under simulated time; a seed decides all that happens.",
    )
    parser.add_argument("--seed", type=int, help="replay one seed")
    parser.add_argument("--seeds", type=_seeds, default=range(1, 201), help="as 1-200")
    parser.add_argument("--soak", action="store_true", help="new seeds until stopped")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each run; {STEPS}")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--verbose", action="store_true", help="print the trace of --seed")
    parser.add_argument(
        "--without",
        type=lambda text: text.split(","),
        default=[],
        help="features to leave out: " + ",".join(FEATURES),
    )
    return parser


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _reports(jobs: Iterable[tuple[int, int]], processes: int) -> Iterator[Report]:
    if processes == 1:
        yield from map(run_job, jobs)
        return
    # Not all at once: `imap` would take all seeds that there are.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        while chunk := list(itertools.islice(jobs, 4 * processes)):
            yield from pool.imap_unordered(run_job, chunk)


def _run_many(jobs: Iterator[tuple[int, int]], processes: int, *, stop_at_first: bool) -> int:
    counts: Counter[str] = Counter()
    seeds = steps = failures = 0
    started_s = shown_s = time.monotonic()
    try:
        for report in _reports(jobs, processes):
            seeds += 1
            steps += report.steps
            counts.update(report.counts)
            if report.failure is not None:
                failures += 1
                if failures <= MAX_SHOWN:
                    _say(f"\n{report}\nsmaller: {shrink(report).command}\n")
                if stop_at_first:
                    break
            now_s = time.monotonic()
            if now_s - shown_s > PROGRESS_S:
                shown_s = now_s
                _say(_progress(seeds, steps, failures, now_s - started_s))
    except KeyboardInterrupt:
        pass
    _say(_progress(seeds, steps, failures, time.monotonic() - started_s))
    _say("\n".join(f"{count:9} {kind}" for kind, count in sorted(counts.items())))
    return int(failures > 0)


def _progress(seeds: int, steps: int, failures: int, seconds: float) -> str:
    rate = seeds / max(seconds, 0.001)
    return f"{seeds} seeds, {steps} steps, {failures} failures, {rate:.1f} seeds/s"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
