"""The check that a request does not cost more instructions than before."""

from __future__ import annotations

from benchmarks import instructions

FOUND = {"reference": 1000.0, "ping": 2000.0, "debug.incr": 3000.0}


def baselines(**ratios: float) -> dict:
    return {instructions._version(): {"ratios": {"reference": 1.0, **ratios}}}


def test_same_counts_pass() -> None:
    """What costs as much as the baseline, or up to 5 % more, is no complaint."""
    _, worse = instructions.check(FOUND, baselines(ping=2.0, **{"debug.incr": 2.9}))
    assert worse == []


def test_more_instructions_fail() -> None:
    """More than 5 % above the baseline is named."""
    _, worse = instructions.check(FOUND, baselines(ping=1.9, **{"debug.incr": 3.0}))
    assert worse == ["ping costs 5.3 % more instructions than the baseline"]


def test_another_build_is_compared_by_ratio() -> None:
    """Twice as many instructions of everything, the reference included, is another build."""
    doubled = {name: 2 * n for name, n in FOUND.items()}
    _, worse = instructions.check(doubled, baselines(ping=2.0, **{"debug.incr": 3.0}))
    assert worse == []


def test_cheaper_is_told() -> None:
    """An improvement is worth a new baseline, or the next regression hides in it."""
    text, worse = instructions.check(FOUND, baselines(ping=2.5, **{"debug.incr": 3.0}))
    assert worse == []
    assert "perf-baseline" in text


def test_unknown_python_is_not_compared() -> None:
    """Without a baseline for this Python nothing fails, and that is said."""
    text, worse = instructions.check(FOUND, {"2.7": {"ratios": {"ping": 1.0}}})
    assert worse == []
    assert "nothing is compared" in text


def test_there_is_a_baseline_for_everything_counted() -> None:
    """A new kind of work needs its line in the file that is kept in git."""
    for name, kept in instructions.read_baselines().items():
        assert set(kept["ratios"]) == set(instructions.SECTIONS), name
