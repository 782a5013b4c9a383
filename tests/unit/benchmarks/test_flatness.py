"""What a soak calls flat, and what it does not."""

from __future__ import annotations

import random

import pytest

from benchmarks.flatness import Bound, judge, theil_sen

TIMES = [10.0 * n for n in range(180)]
BOUND = Bound(name="memory", absolute=2.0, relative=0.02)


def noisy(seed: int, spread: float, slope: float = 0.0) -> list[float]:
    chance = random.Random(seed)
    return [100 + slope * t + chance.gauss(0, spread) for t in TIMES]


def test_warming_up_is_no_leak() -> None:
    """What grows to a bound in the first third is flat."""
    values = [100 - 50 * 0.5 ** (t / 120) for t in TIMES]
    assert judge(TIMES, values, BOUND).flat is True


def test_noise_is_no_leak() -> None:
    """Noise that is larger than the bound is told from growth; three errors: 1 run in 700."""
    grown = [seed for seed in range(300) if not judge(TIMES, noisy(seed, 20), BOUND).flat]
    assert len(grown) <= 3


def test_leak_shows_through_noise() -> None:
    """10 in ten minutes are found in noise of 5, and do not pass for noise themselves."""
    missed = [seed for seed in range(100) if judge(TIMES, noisy(seed, 5, 10 / 600), BOUND).flat]
    assert missed == []


def test_spikes_are_no_leak() -> None:
    """A quarter of the last third may be anything."""
    values = [100.0] * 180
    for n in range(120, 180, 4):
        values[n] = 5000.0
    assert judge(TIMES, values, BOUND).flat is True


def test_step_in_the_middle_is_growth() -> None:
    """What came once and stays is told, too: it came after the warm-up."""
    values = [100.0] * 100 + [110.0] * 80
    verdict = judge(TIMES, values, BOUND)
    assert (verdict.flat, verdict.growth, verdict.allowed) == (False, 10.0, 2.0)


def test_what_is_not_judged_is_shown() -> None:
    """No verdict, but the figures."""
    values = list(TIMES)
    verdict = judge(TIMES, values, Bound(name="disk", absolute=0, judged=False))
    assert (verdict.flat, verdict.growth, verdict.slope_h) == (None, 600.0, 3600.0)


def test_falling_is_flat() -> None:
    """Growth is what is looked for."""
    assert judge(TIMES, [1000 - t / 10 for t in TIMES], BOUND).flat is True


def test_too_few_samples_are_refused() -> None:
    """Eleven say nothing."""
    with pytest.raises(ValueError, match="11 samples of memory are too few"):
        judge(TIMES[:11], [0.0] * 11, BOUND)
    assert theil_sen([1.0], [1.0]) == 0.0
