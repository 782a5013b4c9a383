"""Does a figure stay where it is? What a soak is judged by. Pure.

A run's first third is for warming up: caches, arenas and histories fill to their bounds.
Compared are the **medians of the last third and of the middle third**. A leak that goes on
raises the second by its slope times a third of the run; a single spike moves no median.

The growth may be as large as what is allowed (an absolute or a relative bound, the larger
one) plus three standard errors of the difference of two medians, 1.2533 s sqrt(1/n + 1/m).
s, the noise, is 1.4826 times the median absolute deviation from the Theil-Sen line (the
median of the slopes between all pairs), so that a leak does not count as noise and hides
itself. Theil-Sen bears 29 % of outliers (Sen 1968), medians half of them.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import attrs

STANDARD_ERRORS = 3.0
LEAST_SAMPLES = 12
"""Fewer say nothing: four in each third."""


@attrs.frozen(kw_only=True)
class Bound:
    """What a figure may grow by, from one third of a run to the next.

    Attributes:
        name: of the figure.
        absolute: in its unit.
        relative: share of its level.
        unit: in words.
        judged: False: is shown only.
    """

    name: str
    absolute: float
    relative: float = 0.0
    unit: str = ""
    judged: bool = True

    def times(self, factor: float) -> Bound:
        """So many times as much."""
        return attrs.evolve(self, absolute=self.absolute * factor, relative=self.relative * factor)


@attrs.frozen(kw_only=True)
class Verdict:
    """How a figure behaved.

    Attributes:
        name, unit: of the figure.
        middle, last: medians of the two thirds.
        growth: from one to the other.
        allowed: bound and noise.
        slope_h: Theil-Sen over both thirds, a hour.
        flat: it grew no more than allowed; None: it is not judged.
    """

    name: str
    unit: str
    middle: float
    last: float
    growth: float
    allowed: float
    slope_h: float
    flat: bool | None


def theil_sen(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The median of the slopes between all pairs.

    >>> theil_sen([0, 1, 2, 3, 4], [0, 2, 4, 600, 8])
    2.0
    """
    pairs = itertools.combinations(zip(xs, ys, strict=True), 2)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x1 != x2]
    return statistics.median(slopes) if slopes else 0.0


def judge(xs: Sequence[float], ys: Sequence[float], bound: Bound) -> Verdict:
    """Compare the last third with the middle one.

    Args:
        xs: when, in seconds; rising, evenly.
        ys: the figure.
        bound: what it may grow by.

    Raises:
        ValueError: too few samples.

    >>> times = list(range(30))
    >>> judge(times, [50 - 40 / (1 + t) for t in times], Bound(name="warms up", absolute=2)).flat
    True
    >>> judge(times, [50 + t for t in times], Bound(name="leaks", absolute=2)).flat
    False
    """
    count = len(xs)
    if count < LEAST_SAMPLES:
        raise ValueError(f"{count} samples of {bound.name} are too few; {LEAST_SAMPLES} are needed")
    one, two = count // 3, count * 2 // 3
    middle, last = statistics.median(ys[one:two]), statistics.median(ys[two:])
    slope = theil_sen(xs[one:], ys[one:])
    left = [y - slope * x for x, y in zip(xs[one:], ys[one:], strict=True)]
    centre = statistics.median(left)
    noise = 1.4826 * statistics.median(abs(value - centre) for value in left)
    error = 1.2533 * noise * math.sqrt(1 / (two - one) + 1 / (count - two))
    allowed = max(bound.absolute, bound.relative * abs(middle)) + STANDARD_ERRORS * error
    growth = last - middle
    return Verdict(
        name=bound.name,
        unit=bound.unit,
        middle=middle,
        last=last,
        growth=growth,
        allowed=allowed,
        slope_h=slope * 3600,
        flat=growth <= allowed if bound.judged else None,
    )
