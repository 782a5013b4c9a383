"""Runs seeds: one after the other, in several processes, and smaller ones of those that fail."""

from __future__ import annotations

import contextlib
import gc
import logging
import traceback
from typing import TYPE_CHECKING

import attrs
import structlog

from ecan.observability import logs
from ecan.testing.simulator.chance import Chance, seeded
from ecan.testing.simulator.ending import Ending
from ecan.testing.simulator.plan import Plan
from ecan.testing.simulator.trace import Trace, Violation
from ecan.testing.simulator.wishes import FEATURES
from ecan.testing.simulator.world import T0, World

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

STEPS = 90
"""Things that happen in a run, unless told otherwise."""

SHOWN_LINES = 60


@attrs.frozen(kw_only=True)
class Failure:
    """A promise that was broken.

    Attributes:
        promise: its number in CONTRACT.md; ``bug``: the simulation itself failed.
        story: what was seen.
        step: at which of the run's steps; one more than all is the ending.
        lines: the end of the trace.
    """

    promise: str
    story: str
    step: int
    lines: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Report:
    """What a run was like.

    Attributes:
        digest: of the whole trace.
        counts: how often each kind of event happened.
    """

    seed: int
    steps: int
    features: tuple[str, ...]
    digest: str
    counts: Counter[str]
    failure: Failure | None

    @property
    def command(self) -> str:
        """Replays the run."""
        left_out = [name for name in FEATURES if name not in self.features]
        options = f" --without {','.join(left_out)}" if left_out else ""
        return (
            f"python -m ecan.testing.simulator --seed {self.seed} --steps {self.steps}"
            f"{options} --verbose"
        )

    def __str__(self) -> str:
        if self.failure is None:
            return f"seed {self.seed}: {self.steps} steps, all promises kept"
        lines = "\n".join(self.failure.lines[-SHOWN_LINES:])
        return (
            f"{lines}\n\nseed {self.seed} breaks {self.failure.promise} at step "
            f"{self.failure.step} of {self.steps}:\n{self.failure.story}\n\n"
            f"replay: {self.command}"
        )


def run_seed(
    seed: int,
    steps: int = STEPS,
    features: tuple[str, ...] = FEATURES,
    *,
    verbose: bool = False,
) -> Report:
    """Run one seed, from an empty disk to the last check."""
    trace = Trace(verbose=verbose)
    chance = Chance(seed)
    failure: Failure | None = None
    step = 0
    with quiet(), seeded(chance, lambda: T0 + trace.now_s):
        world: World | None = None
        try:
            world = World(chance, trace)
            world.faults.at_once = seed % 7 == 0
            with world.watch.at_the_cells():
                plan = Plan(world, features)
                plan.populate()
                for number in range(1, steps + 1):
                    step = number
                    plan.step()
                step = steps + 1
                Ending(world).run()
        except Violation as violation:
            failure = _failure(violation.promise, violation.story, step, trace)
        except Exception:  # noqa: BLE001 - told as what it is: a bug of the simulation
            failure = _failure("bug", traceback.format_exc(), step, trace)
        finally:
            if world is not None:
                world.end()
    return Report(
        seed=seed,
        steps=steps,
        features=features,
        digest=trace.digest,
        counts=trace.counts,
        failure=failure,
    )


def run_job(job: tuple[int, int]) -> Report:
    """`run_seed` for a pool of processes: of a seed and a number of steps."""
    return run_seed(*job)


def _failure(promise: str, story: str, step: int, trace: Trace) -> Failure:
    return Failure(promise=promise, story=story, step=step, lines=tuple(trace.lines))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines, and no garbage collection at times that no seed decides."""
    level, logs._level = logs._level, logging.CRITICAL  # noqa: SLF001 - it has no getter
    config, disabled = structlog.get_config(), logging.root.manager.disable
    collecting = gc.isenabled()
    logging.disable(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    gc.disable()
    try:
        yield
    finally:
        logs._level = level  # noqa: SLF001
        logging.disable(disabled)
        structlog.configure(**config)
        if collecting:
            gc.enable()


def shrink(report: Report) -> Report:
    """A smaller run that breaks the same promise, if one is found soon."""
    failure = report.failure
    assert failure is not None
    best = report
    for feature in FEATURES:
        fewer = tuple(name for name in best.features if name != feature)
        again = run_seed(best.seed, best.steps, fewer)
        if again.failure is not None and again.failure.promise == failure.promise:
            best = again
    for steps in sorted({1, 2, 3, 5, 8, 12, 20, 30, 45, 60} & set(range(best.steps))):
        again = run_seed(best.seed, steps, best.features)
        if again.failure is not None and again.failure.promise == failure.promise:
            return again
    return best
