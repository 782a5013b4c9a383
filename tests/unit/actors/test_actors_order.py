"""P2: requests of one session run one at a time, first in first out."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World


@pytest.mark.looptime(start=1000)
async def test_p2_pipelined_requests_run_in_order(world: World) -> None:
    """A hundred requests sent at once are run and answered in the order sent."""
    tab = await world.open()

    ids = [tab.send("t.note", n) for n in range(100)]
    await tab.reply(ids[-1])

    assert world.ran == list(range(100))
    assert [f["id"] for f in tab.peer.frames if f["type"] == "response"] == ids


@pytest.mark.looptime(start=1000)
async def test_p2_the_queue_keeps_its_order_across_a_crash_and_restart(world: World) -> None:
    """What waits behind a crashing request runs after the restart, in order, once."""
    tab = await world.open()

    first = tab.send("t.note", "before")
    crashing = tab.send("debug.crash")
    behind = [tab.send("t.note", n) for n in range(20)]
    last = await tab.reply(behind[-1])

    assert world.ran == ["before", *range(20)]
    assert (await tab.reply(first))["meta"]["incarnation"] == 1
    assert (await tab.reply(crashing))["error"]["code"] == "HANDLER_CRASHED"
    assert last["meta"]["incarnation"] == 2
    world.check_one_answer_each()


@pytest.mark.looptime(start=1000)
async def test_p2_a_slow_handler_keeps_the_next_waiting(world: World) -> None:
    """The second request does not begin before the first has ended."""
    tab = await world.open()
    first = tab.send("t.wait", {"n": "a"})
    second = tab.send("t.wait", {"n": "b"})
    await world.has_started("a").wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.ran == ["a"]

    world.async_gate("a").set()
    await tab.reply(first)
    await world.has_started("b").wait()
    world.async_gate("b").set()
    await tab.reply(second)
    assert world.ran == ["a", "b"]


@pytest.mark.looptime(start=1000)
async def test_p2_concurrent_methods_overlap_everything(world: World) -> None:
    """A concurrent method runs beside an ordinary one and beside another of its kind."""
    tab = await world.open()
    slow = tab.send("t.overlap", {"n": "slow"})
    ordinary = tab.send("t.wait", {"n": "ordinary"})
    other = tab.send("t.overlap", {"n": "other"})
    await world.has_started("slow").wait()
    await world.has_started("ordinary").wait()
    assert not world.has_started("other").is_set()  # FIFO: it begins after what is before it

    world.async_gate("ordinary").set()
    await tab.reply(ordinary)
    await world.has_started("other").wait()
    world.async_gate("other").set()
    await tab.reply(other)
    assert not tab.peer.finals(slow)
    world.async_gate("slow").set()
    assert (await tab.reply(slow))["result"] == "slow"


@pytest.mark.looptime(start=1000)
async def test_p2_the_control_lane_passes_the_queue(world: World) -> None:
    """A control request is answered while a handler runs and others wait."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    queued = [tab.send("t.note", n) for n in range(5)]
    await world.has_started("a").wait()

    assert await tab.call("t.control", "now") == "now"

    assert not tab.peer.finals(running)
    assert not any(tab.peer.finals(id_) for id_ in queued)
    world.async_gate("a").set()
    await tab.reply(queued[-1])
    assert world.ran == ["a", "now", 0, 1, 2, 3, 4]
