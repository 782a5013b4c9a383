"""P3, P5: concurrent requests, and those of the control lane, beside others."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import Tab, World

looptime = pytest.mark.looptime(start=1000)


def codes(tab: Tab, ids: list[str]) -> list[str]:
    """How each request ended: its error's code, or "ok"."""
    frames = [tab.peer.finals(id_)[-1] for id_ in ids]
    return [f["error"]["code"] if f["status"] == "error" else "ok" for f in frames]


@looptime
async def test_p3_two_overlapping_crashes_at_once(world: World) -> None:
    """Two concurrent requests crash in one instant: both answered, one incarnation lost."""
    tab = await world.open()
    ids = [tab.send("t.overlap", {"n": name, "crash": True}) for name in "ab"]
    queued = tab.send("t.wait", {"n": "w"})
    await world.has_started("w").wait()
    world.async_gate("a").set()
    world.async_gate("b").set()
    for id_ in ids:
        await tab.reply(id_)
    (restarted,) = await tab.push("session.restarted")

    assert codes(tab, ids) == ["HANDLER_CRASHED"] * 2
    assert restarted["params"]["incarnation"] == 2
    assert (await tab.reply(queued))["error"]["code"] == "HANDLER_CRASHED"
    assert await tab.call("t.note", 1) == 1
    assert tab.cell.incarnation == 2
    assert {letter.method for letter in await world.letters()} == {"t.overlap"}
    world.check_one_answer_each()


@looptime
async def test_p3_a_crash_beside_a_running_request_names_the_culprit(world: World) -> None:
    """A control handler crashes while another runs: both answered, the letter names the first."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    error = await tab.error("t.control", "crash")
    await tab.reply(running)

    assert codes(tab, [running]) == ["HANDLER_CRASHED"]
    assert error["code"] == "HANDLER_CRASHED"
    assert [letter.method for letter in await world.letters()] == ["t.control"]
    world.check_one_answer_each()


@looptime
async def test_p3_an_overlapping_crash_while_a_deaf_handler_runs(world: World) -> None:
    """The crash is answered although the running handler does not unwind."""
    tab = await world.open()
    deaf = tab.send("t.deaf", {"n": "d"})
    await world.has_started("d").wait()
    # A concurrent request behind a running one waits for it; so the crash is a control one.
    crash = tab.send("t.control", "crash")
    await tab.reply(crash)
    await tab.reply(deaf)
    assert await tab.call("t.note", 1) == 1
    world.async_gate("d").set()
    assert await tab.call("debug.state_get", {"key": "deaf"}) is None
    world.check_one_answer_each()


@looptime
async def test_p3_more_overlapping_requests_than_allowed_are_busy(world: World) -> None:
    """The 33rd overlapping request is answered BUSY, not_run, with a time to come back."""
    tab = await world.open()
    ids = [tab.send("t.overlap", {"n": "o"}) for _ in range(33)]
    error = (await tab.reply(ids[-1]))["error"]
    assert (error["code"], error["outcome"], error["retry_after_ms"]) == ("BUSY", "not_run", 1000)
    world.async_gate("o").set()
    await tab.reply(ids[0])
    await world.until(lambda: not tab.cell.pending)
    world.check_one_answer_each()


@looptime
async def test_p3_an_overlapping_request_times_out_or_is_cancelled_alone(world: World) -> None:
    """A concurrent request over its deadline is answered; the session and the others go on."""
    tab = await world.open()
    late = tab.send("t.overlap", {"n": "late"}, deadline_s=1)
    other = tab.send("t.overlap", {"n": "other"}, deadline_s=10)
    assert (await tab.reply(late))["error"]["code"] == "TIMEOUT"
    assert await tab.call("t.note", 1) == 1
    tab.cell.cancel(other)
    assert (await tab.reply(other))["error"]["code"] == "CANCELLED"
    await asyncio.sleep(5)
    assert tab.cell.incarnation == 1
    world.check_one_answer_each()


@looptime
async def test_p3_an_overlapping_request_ends_with_the_incarnation(world: World) -> None:
    """When another request crashes the session, what overlaps is answered and let go."""
    tab = await world.open()
    overlapping = tab.send("t.overlap", {"n": "o"})
    await world.has_started("o").wait()
    crash = tab.send("debug.crash")
    await tab.reply(crash)
    assert (await tab.reply(overlapping))["error"]["code"] == "HANDLER_CRASHED"
    world.check_one_answer_each()


@looptime
async def test_p3_an_overlapping_request_that_has_not_begun_ends_with_its_session(
    world: World,
) -> None:
    """Taken from the queue, its task not yet begun: answered not_run, and it does not run."""
    tab = await world.open()
    request = tab.send("t.overlap", {"n": "o"})
    while tab.cell.pending[request].started_mono == 0.0:
        await asyncio.sleep(0)
    assert not world.has_started("o").is_set()
    world.sessions._supervisor._end_session(tab.cell, "logout")
    await asyncio.sleep(1)
    assert not world.has_started("o").is_set()
    assert codes(tab, [request]) == ["SESSION_CLOSED"]
    assert tab.peer.finals(request)[0]["error"]["outcome"] == "not_run"
