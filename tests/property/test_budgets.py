"""The rolling window of a budget, against a list of everything that came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecan.actors.rolling import WINDOW_S, Rolling

events = st.lists(
    st.tuples(st.floats(0, 200), st.floats(0, 100)), max_size=30
)  # seconds passed, amount


def played(story):
    rolling, now, log = Rolling(0.0), 0.0, []
    for passed_s, amount in story:
        now += passed_s
        rolling.add(amount, now)
        log.append((now, amount))
    return rolling, now, log


def came(log, since, until):
    return sum(amount for at, amount in log if since < at <= until)


@given(story=events, later_s=st.floats(0, 200))
def test_it_is_never_more_than_came_in_two_windows_and_never_negative(story, later_s):
    rolling, now, log = played(story)
    at = now + later_s
    used = rolling.at(at)
    assert 0.0 <= used <= came(log, at - 2 * WINDOW_S - 1e-6, at) * (1 + 1e-9) + 1e-6


@given(story=events)
def test_what_came_in_a_burst_is_all_there_at_once(story):
    """Nothing that came right now is missing: a flood is seen when it happens."""
    rolling, now, _ = played(story)
    before = rolling.at(now)
    rolling.add(5.0, now)
    assert abs(rolling.at(now) - before - 5.0) < 1e-6


@given(story=events, steps=st.lists(st.floats(0, 50), max_size=10))
def test_it_only_shrinks_while_nothing_comes(story, steps):
    rolling, now, _ = played(story)
    used = rolling.at(now)
    for passed_s in steps:
        now += passed_s
        assert rolling.at(now) <= used + 1e-6
        used = rolling.at(now)
    assert rolling.at(now + 2 * WINDOW_S) == 0.0


@given(story=events, limit=st.floats(0.01, 500))
def test_it_is_below_a_limit_when_it_said(story, limit):
    """And not long before."""
    rolling, now, _ = played(story)
    wait_s = rolling.below_in_s(limit, now)
    used = rolling.at(now)
    if used < limit:
        assert wait_s == 0.0
        return
    assert 0.0 <= wait_s <= 2 * WINDOW_S + 1e-6
    if wait_s > 1.0:
        probe, _, _ = played(story)
        assert probe.at(now + wait_s - 0.5) >= limit - 1e-6
    assert rolling.at(now + wait_s + 1e-3) <= limit + 1e-6


@given(rate=st.floats(0.1, 10), seconds=st.integers(120, 400))
def test_a_steady_stream_is_counted_as_it_is(rate, seconds):
    rolling = Rolling(0.0)
    for second in range(seconds):
        rolling.add(rate, float(second))
    assert abs(rolling.at(float(seconds)) - rate * WINDOW_S) <= 2 * rate
