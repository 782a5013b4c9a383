"""P3, P10: commits on their way meet crashes, restarts and the end of a session."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World, a_world
from stores_kit import Held, KitStore, everything, has_answer

from ecan.errors import ReplyError, StoreUnavailableError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

looptime = pytest.mark.looptime(start=1000)


@handler("t.overlapping", concurrent=True)
async def overlapping(ctx: UserContext) -> str:
    """Answers at once; its commit takes as long as the store does."""
    ctx.user.collection("notes").put("a", ctx.request_id)
    return ctx.request_id


async def held_at(world: World, number: int) -> Held:
    """The commit of that number is on its way."""
    return (await world.until(lambda: world.store.held[number - 1 :]))[0]


@looptime
@pytest.mark.parametrize("end", ["crash", "restart", "reset", "logout"])
async def test_p3_an_inline_request_that_waits_to_commit_is_answered(end: str) -> None:
    """A notice is on its way; the session crashes, is restarted or ends before its turn."""
    async with a_world(store=KitStore(lambda commit: bool(commit.pushes))) as world:
        tab = await world.open()
        overlap = tab.send("t.overlap", {"n": "o", "crash": True})
        await world.has_started("o").wait()
        tab.cell.notify("ops.note", {})
        notice = await held_at(world, 1)
        waiting = tab.send("debug.incr", {"key": "n"}, id="waits")
        await asyncio.sleep(0 if end == "restart" else 1)
        closing = None
        if end == "crash":
            world.async_gate("o").set()
        elif end == "logout":
            closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout"))
        else:
            closing = asyncio.ensure_future(world.sessions.steer(tab.cell.sid, end))
        await asyncio.sleep(5)
        notice.land()
        world.store.release()
        frame = await tab.reply(waiting)
        await tab.reply(overlap)
        assert closing is None or await closing in (True, None)
        expected = {"crash": "HANDLER_CRASHED", "logout": "SESSION_CLOSED"}.get(end, "CANCELLED")
        assert frame["error"]["code"] == expected
        assert not tab.cell.waits
        if end != "logout":
            await world.state(tab.cell, "active")
            assert await tab.call("debug.incr", {"key": "n"}) == 1
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("end", ["crash", "restart"])
async def test_p10_a_concurrent_request_whose_commit_is_landing_is_left_alone(
    end: str, lands: bool
) -> None:
    """Its incarnation ends: it is answered by its commit, once, and never runs again."""
    async with a_world(overlapping, store=KitStore(has_answer)) as world:
        tab = await world.open()
        tab.send("t.overlapping", id="lands")
        held = await held_at(world, 1)
        if end == "crash":
            tab.send("t.control", "crash", id="crash")
        else:
            await world.sessions.steer(tab.cell.sid, "restart")
        await asyncio.sleep(5)
        assert tab.peer.finals("lands") == []
        if lands:
            held.land()
        else:
            held.fail()
        world.store.release()
        frame = await tab.reply("lands")
        assert frame.get("result") == ("lands" if lands else None)
        assert frame.get("error", {}).get("code") == (None if lands else "BUSY")
        await world.until(lambda: tab.cell.state == "active" and not tab.cell.waits)
        again = await tab.request("t.overlapping", id="lands")
        assert (again["result"], again["meta"]["replayed"]) == ("lands", lands)
        assert {letter.method for letter in await world.letters()} <= {"t.control"}
        assert world.store.answers().count("lands") == 1


@looptime
async def test_p2_overlapping_requests_commit_one_after_the_other() -> None:
    """Ten at once with commits that take their time: each is answered, in one order."""
    async with a_world(overlapping, store=KitStore(has_answer)) as world:
        tab = await world.open()
        ids = [tab.send("t.overlapping") for _ in range(10)]
        for number in range(1, 11):
            (await held_at(world, number)).land()
        for id_ in ids:
            assert (await tab.reply(id_))["result"] == id_
        assert sorted(world.store.answers()) == sorted(ids)
        world.check_one_answer_each()


@looptime
async def test_p11_a_second_logout_waits_for_the_first_to_be_durable(world: World) -> None:
    """Whoever is told that the session is over can rely on it."""
    tab = await world.open()
    world.store.wait["delete"] = asyncio.Event()
    world.store.fail.add("delete")
    closing = []
    for _ in range(2):
        closing.append(asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout")))
        await asyncio.sleep(1)
    told = [one.done() for one in closing]
    world.store.wait.pop("delete").set()
    outcomes = await asyncio.gather(*closing, return_exceptions=True)
    assert told == [False, False]
    assert [error.code for error in outcomes if isinstance(error, ReplyError)] == ["BUSY", "BUSY"]
    world.store.fail.clear()
    await asyncio.sleep(61)
    assert await world.sessions.close(tab.cell.sid, "logout") is False


@looptime
@pytest.mark.parametrize("lands", [True, False])
async def test_p4_the_supervisor_crashes_in_the_middle_of_a_reset(lands: bool) -> None:
    """Memory and store agree afterwards: both empty, or both as before."""
    async with a_world() as world:
        tab = await world.open()
        await tab.call("debug.incr", {"key": "n"})
        world.store.holds = lambda commit: None in commit.slots.values()
        resetting = asyncio.ensure_future(world.sessions.steer(tab.cell.sid, "reset"))
        held = await held_at(world, 1)
        world.sessions.tell_supervisor("nonsense")
        await world.until(lambda: world.sessions.supervisor_restarts)
        if lands:
            held.land()
        else:
            held.fail()
        world.store.release()
        await asyncio.gather(resetting, return_exceptions=True)
        stored = (await world.store.load(tab.cell.sid)).slots
        assert stored == ({} if lands else {"n": b"1"})
        assert await tab.call("debug.state_get", {"key": "n"}) == (None if lands else 1)
        assert (await world.store.load(tab.cell.sid)).slots == tab.cell.slots


@looptime
async def test_p12_a_notice_that_cannot_be_stored_uses_no_number(world: World) -> None:
    """The tabs miss it, and there is no gap: the next push has its number."""
    tab = await world.open()
    world.store.fail.add("commit")
    tab.cell.notify("ops.note", {"n": 1})
    world.store.fail.clear()
    tab.cell.notify("ops.note", {"n": 2})
    (push,) = await tab.push("ops.note")
    assert (push["params"], push["meta"]["seq"]) == ({"n": 2}, 1)


@looptime
async def test_p11_commits_behind_one_that_failed_are_not_taken_with_it() -> None:
    """A commit fails, the next one of the session lands: each gets its own answer."""
    async with a_world(store=KitStore(everything)) as world:
        tab = await world.open()
        first = tab.send("debug.incr", {"key": "n"})
        second = tab.send("debug.incr", {"key": "n"})
        (await held_at(world, 1)).fail(StoreUnavailableError("disk full"))
        assert (await tab.reply(first))["error"]["code"] == "BUSY"
        (await held_at(world, 2)).land()
        assert (await tab.reply(second))["result"] == 1
        assert (await world.store.load(tab.cell.sid)).slots == {"n": b"1"}
