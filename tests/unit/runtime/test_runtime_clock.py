"""Clocks: the loop's, and the one that tests move."""

import asyncio
import doctest
import time

import pytest

import ecan.testing.clock
from ecan.runtime.clock import LoopClock
from ecan.testing.clock import FakeClock


async def test_loop_clock_is_the_loops_time():
    """mono is loop.time, now is the wall's."""
    clock = LoopClock(wall=lambda: 12.5)
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert before <= clock.mono() <= loop.time()
    assert clock.now() == 12.5
    assert abs(LoopClock(loop).now() - time.time()) < 60


async def test_loop_clock_calls_back_and_can_be_cancelled():
    """call_at, call_later and sleep are the loop's."""
    clock = LoopClock()
    seen = []
    clock.call_later(0, seen.append, "later")
    clock.call_at(clock.mono(), seen.append, "at")
    clock.call_later(0, seen.append, "never").cancel()
    await clock.sleep(0.001)
    await clock.sleep(0)
    assert sorted(seen) == ["at", "later"]


def test_fake_clock_doctest():
    """The example in its docstring runs."""
    assert doctest.testmod(ecan.testing.clock).failed == 0


def test_fake_clock_runs_what_callbacks_schedule_within_the_span():
    """A periodic timer ticks as often as it would."""
    clock = FakeClock(mono=0.0)
    ticks = []

    def tick():
        ticks.append(clock.mono())
        clock.call_later(1, tick)

    clock.call_later(1, tick)
    clock.call_later(2, ticks.append, "cancelled").cancel()
    clock.advance(3.5)
    assert ticks == [1.0, 2.0, 3.0]
    assert clock.mono() == 3.5
    assert clock.next_due_mono == 4.0


def test_fake_clock_fires_equal_times_in_order_and_past_ones_at_once():
    """First scheduled, first called; a time in the past does not turn the clock back."""
    clock = FakeClock(mono=10.0)
    seen = []
    clock.call_at(5.0, lambda: seen.append(clock.mono()))
    clock.call_later(1, seen.append, "a")
    clock.call_later(1, seen.append, "b")
    clock.advance(1)
    assert seen == [10.0, "a", "b"]


def test_fake_wall_clock_jumps_alone():
    """A date set back does not touch deadlines."""
    clock = FakeClock(mono=1.0, at=100.0)
    clock.advance(1)
    clock.jump_wall(-50)
    assert (clock.mono(), clock.now()) == (2.0, 51.0)
    assert clock.next_due_mono is None


async def test_fake_sleep_wakes_when_the_clock_is_moved():
    """A sleeper sleeps until then, and may be cancelled."""
    clock = FakeClock()
    sleeper, cancelled = (asyncio.create_task(clock.sleep(5)) for _ in range(2))
    await clock.sleep(0)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert not sleeper.done()
    cancelled.cancel()
    clock.advance(1)
    await sleeper
    with pytest.raises(asyncio.CancelledError):
        await cancelled


def test_mono_is_fine_grained_on_uvloop() -> None:
    """On uvloop time goes on within a turn, and timers set by it fire."""
    import uvloop

    async def story() -> bool:
        clock = LoopClock()
        first = clock.mono()
        fired = asyncio.Event()
        clock.call_at(clock.mono() + 0.001, fired.set)
        await fired.wait()
        return clock.mono() > first and clock.mono is time.monotonic

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story())
