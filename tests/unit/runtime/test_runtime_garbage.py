"""The collector's pauses: what is looked at, when, and what is set aside."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from ecan.runtime import GarbageKeeper, garbage
from ecan.testing.clock import FakeClock

pytestmark = pytest.mark.skipif(
    garbage.COLLECTS_IN_STEPS, reason="this Python collects in small steps by itself"
)


class Node:
    """May be in a cycle."""

    def __init__(self) -> None:
        self.itself: Node | None = None


def cycle() -> weakref.ref[Node]:
    """Garbage that only the collector frees."""
    node = Node()
    node.itself = node
    return weakref.ref(node)


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def keeper(clock, pauses):
    before = gc.get_threshold()
    keeper = GarbageKeeper(clock, pauses.append)
    keeper.start()
    yield keeper
    keeper.stop()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_start_up_made_is_set_aside(keeper):
    """And never looked at in a small look."""
    assert gc.get_freeze_count() > 1000
    assert len(gc.get_objects()) < 1000


def test_young_garbage_is_freed(keeper):
    """By the collector itself, after a portion."""
    dead = cycle()
    kept = [[] for _ in range(3 * garbage.PORTION)]
    assert dead() is None
    del kept


def test_what_survives_two_looks_is_set_aside(keeper, pauses):
    """So a look stays small however much there is."""
    pauses.clear()
    kept = [[] for _ in range(50 * garbage.PORTION)]
    assert len(gc.get_objects()) < 5 * garbage.PORTION
    assert len(pauses) >= 40
    assert all(pause >= 0 for pause in pauses)
    del kept


def young():
    return len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1))


def test_what_replaces_other_objects_is_looked_at_in_time(keeper, clock, monkeypatch):
    """Where as many die as are made, Python's own count never says that it is time."""
    monkeypatch.setattr(garbage, "GOOD_PAUSE_S", 1e-5)  # these objects are quickly looked at
    ring = [[] for _ in range(20_000)]
    gc.collect(1)
    most = 0
    for turn in range(600):
        for number in range(100):
            ring[(turn * 100 + number) % 20_000] = []
        clock.advance(0.002)
        if turn > 200:
            most = max(most, young())
    assert most < 10_000
    ring.clear()


def test_looks_are_as_often_as_it_takes_for_a_short_one(keeper, clock, monkeypatch):
    """Often when much is made, seldom when nothing is."""
    monkeypatch.setattr(garbage, "GOOD_PAUSE_S", 1e-5)
    kept = []
    for _ in range(50):
        kept += [[] for _ in range(3000)]
        clock.advance(0.004)
    assert keeper._every_s < garbage.MAX_EVERY_S / 2
    clock.advance(10.0)
    assert keeper._every_s == garbage.MAX_EVERY_S
    kept.clear()


def test_what_a_timed_look_sees_twice_is_set_aside(keeper, clock):
    """As by Python's own: a cycle may die between two looks, and is freed."""
    before = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    node = Node()
    node.itself = node
    dead = weakref.ref(node)
    clock.advance(garbage.MAX_EVERY_S + 0.001)
    del node
    clock.advance(garbage.MAX_EVERY_S + 0.001)
    assert dead() is None
    assert gc.get_freeze_count() >= before + 1000
    kept.clear()


def test_after_the_stop_no_look_is_taken(clock, pauses):
    """The timers end with the rest."""
    keeper = GarbageKeeper(clock, pauses.append)
    keeper.start()
    keeper.stop()
    pauses.clear()
    clock.advance(2 * garbage.LOOK_EVERY_S)
    assert not pauses


def test_what_was_set_aside_dies_by_reference_counting(keeper):
    """It is only not looked at."""
    node = Node()
    gone = weakref.ref(node)
    gc.collect(1)
    del node
    assert gone() is None


def test_a_full_look_frees_an_old_cycle_and_says_so(keeper):
    """The one thing that small looks miss."""
    node = Node()
    node.itself = node
    dead = weakref.ref(node)
    gc.collect(1)
    del node
    gc.collect(1)
    assert dead() is not None
    look = keeper.look()
    assert dead() is None
    assert look.found >= 1
    assert look.seconds > 0
    assert gc.get_freeze_count() > 1000


@pytest.mark.parametrize(("quick", "freed"), [(True, True), (False, False)])
def test_every_ten_minutes_if_it_is_quick(keeper, clock, monkeypatch, quick, freed):
    """A look that would take too long is not taken by itself."""
    monkeypatch.setattr(garbage, "MAX_PAUSE_S", 1e9 if quick else 0.0)
    node = Node()
    node.itself = node
    dead = weakref.ref(node)
    gc.collect(1)
    del node
    clock.advance(garbage.LOOK_EVERY_S - 1)
    assert dead() is not None
    clock.advance(2)
    assert (dead() is None) is freed
    clock.advance(garbage.LOOK_EVERY_S)  # and again


def test_the_expectation_grows_with_what_there_is(keeper):
    """By the memory's blocks, which is quick to ask."""
    before = keeper.expected_s
    kept = [[] for _ in range(sys.getallocatedblocks())]
    assert keeper.expected_s > before * 1.5
    del kept


def test_not_started_it_changes_nothing(clock, pauses):
    """In a process whose garbage is somebody else's."""
    before = gc.get_threshold()
    dead = cycle()
    look = GarbageKeeper(clock, pauses.append).look()
    assert dead() is None
    assert look.found >= 1
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before
    assert not pauses


def test_stopping_twice(clock, pauses):
    """Or without a start."""
    keeper = GarbageKeeper(clock, pauses.append)
    keeper.stop()
    keeper.start()
    keeper.stop()
    keeper.stop()
