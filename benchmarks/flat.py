"""Is a series flat? Pure.

The first third of a run is for warming up: pools fill, caches and ledgers reach their
bounds. Of the second and the last third the medians are compared. A median does not care
for spikes (up to half of the samples may be anything), and what grows steadily by ``s`` a
second moves it by ``s`` times a third of the run. A series grows if the last median is
above the middle one by more than

- its bound: what the eye would not call growth (an absolute amount or a share, whichever
  is more), and
- its noise: three standard errors of the difference, from the median absolute deviation
  of each third. Samples of a normal distribution exceed that once in 700 runs.

Theil and Sen's slope (the median of the slopes of all pairs of points) of both thirds is
given besides, for people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import attrs

MAD_TO_SIGMA = 1.4826
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, of normal samples."""

SIGMAS = 3.0


@attrs.frozen
class Bound:
    """How much more is still flat: the larger of the two."""

    amount: float
    share: float


@attrs.frozen
class Verdict:
    """What was found of a series.

    Attributes:
        middle: median of the middle third.
        late: median of the last one.
        allowed: growth that is not called one.
        per_hour: slope of both thirds.
        flat: it did not grow.
    """

    middle: float
    late: float
    allowed: float
    per_hour: float
    flat: bool


def judge(seconds: Sequence[float], values: Sequence[float], bound: Bound) -> Verdict:
    """Whether a series is flat.

    >>> steps = list(range(90))
    >>> judge(steps, [100.0] * 90, Bound(1, 0.01)).flat
    True
    >>> judge(steps, [100.0 + step for step in steps], Bound(1, 0.01)).flat
    False
    >>> judge(steps, [100.0 + (900 if step % 5 == 0 else 0) for step in steps], Bound(1, 0)).flat
    True
    """
    third = len(values) // 3
    if third < 3:
        raise ValueError(f"{len(values)} samples are too few")
    middle, late = values[third : 2 * third], values[2 * third :]
    allowed = max(bound.amount, bound.share * abs(median(middle)))
    noise = SIGMAS * math.hypot(_error(middle), _error(late))
    growth = median(late) - median(middle)
    return Verdict(
        middle=median(middle),
        late=median(late),
        allowed=max(allowed, noise),
        per_hour=slope(seconds[third:], values[third:]) * 3600,
        flat=growth <= max(allowed, noise),
    )


def _error(values: Sequence[float]) -> float:
    """Standard error of the median."""
    centre = median(values)
    spread = MAD_TO_SIGMA * median(abs(value - centre) for value in values)
    return MEDIAN_ERROR * spread / math.sqrt(len(values))


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Theil and Sen's.

    >>> slope([0, 1, 2, 3], [5, 7, 900, 11])
    2.0
    """
    slopes = [
        (ys[j] - ys[i]) / (xs[j] - xs[i]) for i in range(len(xs)) for j in range(i + 1, len(xs))
    ]
    return float(median(slopes))
