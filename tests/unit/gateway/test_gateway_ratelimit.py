"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecan.gateway.ratelimit import TokenBucket

steps = st.lists(st.floats(0, 10), min_size=1, max_size=200)


@given(steps=steps, rate=st.floats(0.1, 100), burst=st.integers(1, 50))
def test_never_more_than_the_burst_and_the_rate(steps, rate, burst):
    """In any span of time: at most the burst, and the rate times the span."""
    bucket, now, allowed = TokenBucket(rate, burst, 0.0), 0.0, 0
    for step in steps:
        now += step
        allowed += bucket.take(now) == 0.0

    assert allowed <= burst + rate * now + 1e-6


@given(rate=st.floats(0.1, 100), burst=st.integers(1, 50), start=st.floats(0, 1e6))
def test_the_wait_it_tells_is_enough(rate, burst, start):
    """After the burst it says how long to wait; then there is one, and only one."""
    bucket = TokenBucket(rate, burst, start)
    assert [bucket.take(start) for _ in range(burst)] == [0.0] * burst
    wait = bucket.take(start)

    assert 0 < wait <= 1 / rate + 1e-6
    later = start + wait + 1e-6 / rate + 1e-6
    assert bucket.take(later) == 0.0
    assert bucket.take(later) > 0


def test_a_rate_of_zero_is_no_limit():
    """ECAN_RATE_LIMIT=0 switches it off."""
    bucket = TokenBucket(0.0, 0, 0.0)

    assert {bucket.take(0.0) for _ in range(1000)} == {0.0}
