"""When each arrival is due: a closed formula of its number. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecan.loadtest.plan import Phase


class Schedule:
    """Arrivals of a list of phases; process ``k`` of ``of`` has every one with n mod of = k.

    Times are seconds after the start. Phases in a closed loop have no arrivals.

    Args:
        phases: one after the other.
        k: which process.
        of: how many there are.
    """

    def __init__(self, phases: Sequence[Phase], k: int = 0, of: int = 1) -> None:
        self.phases = tuple(phases)
        self._k, self._of = k, of
        self._starts: list[float] = []
        start = 0.0
        for phase in self.phases:
            self._starts.append(start)
            start += phase.seconds
        self.seconds = start

    def phase_at(self, second: float) -> int:
        """Number of the phase at this time; the last one afterwards.

        >>> from ecan.loadtest.plan import make_phases
        >>> [Schedule(make_phases(10, 20, ramp_s=5)).phase_at(t) for t in (0, 4.9, 5, 99)]
        [0, 0, 1, 1]
        """
        found = 0
        for index, start in enumerate(self._starts):
            if second >= start:
                found = index
        return found

    def start_of(self, phase: int) -> float:
        """When a phase begins."""
        return self._starts[phase]

    def arrivals(self) -> Iterator[tuple[float, int]]:
        """(due, phase) of the arrivals of this process, in order.

        >>> from ecan.loadtest.plan import make_phases
        >>> [t for t, _ in Schedule(make_phases(4, 1), k=1, of=2).arrivals()]
        [0.25, 0.75]
        """
        first = 0.0  # arrivals of the phases before, a real number
        number = self._k
        for index, phase in enumerate(self.phases):
            if phase.rate is None:
                continue
            total = (phase.rate + phase.last_rate) / 2 * phase.seconds
            while number < first + total - 1e-9:
                due = min(due_after(phase, number - first), phase.seconds)
                yield self._starts[index] + due, index
                number += self._of
            first += total


def due_after(phase: Phase, arrivals: float) -> float:
    """Seconds into a phase until it has had so many arrivals.

    The inverse of a·t + (b - a)·t²/2d, in the form that does not cancel.

    >>> from ecan.loadtest.plan import Phase
    >>> due_after(Phase(name="ramp", seconds=10, rate=0, end_rate=100), 500)
    10.0
    """
    first = phase.rate or 0.0
    slope = (phase.last_rate - first) / phase.seconds
    if arrivals <= 0:
        return 0.0
    return 2 * arrivals / (first + math.sqrt(max(0.0, first * first + 2 * slope * arrivals)))
