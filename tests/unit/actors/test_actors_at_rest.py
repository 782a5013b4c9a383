"""P13: what the store knows of a session's activity, and how sessions at rest end."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import T0, Tab, World, a_world
from stores_kit import KitStore

from ecan.actors.rest import EXPIRE_SLICE
from ecan.errors import ReplyError
from ecan.store import Ended, Snapshot

looptime = pytest.mark.looptime(start=1000)


async def last_active_s(world: World, tab: Tab) -> float:
    """How long ago the session was active, as the store has it."""
    snapshot = await world.store.load(tab.cell.sid)
    return world.clock.now() - snapshot.row.facts.last_active_at


def facts_written(world: World) -> list[float]:
    """`last_active_at` of every commit that carried facts."""
    return [c.facts.last_active_at - T0 - 1000 for c in world.store.committed if c.facts]


# -- activity ------------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("method", ["debug.state_get", "debug.incr", "t.refuse"])
async def test_p13_activity_is_written_at_most_once_a_minute(world: World, method: str) -> None:
    """With a commit that is made anyway, or alone for a session that is only read."""
    tab = await world.open()
    params = None if method == "t.refuse" else {"key": "n"}
    for _ in range(60):
        await asyncio.sleep(10)
        await tab.request(method, params)
    assert facts_written(world) == [pytest.approx(60.0 * n, abs=1) for n in range(1, 11)]
    alone = [c for c in world.store.committed if c.facts and c.answer is None]
    assert len(alone) == (10 if method == "debug.state_get" else 0)
    await asyncio.sleep(30)
    await tab.call("debug.state_get", {"key": "n"})
    assert await last_active_s(world, tab) <= 60.0


@looptime
async def test_p13_pings_are_no_activity_for_the_store_either(world: World) -> None:
    """Looking at settings is none: the client polls them."""
    tab = await world.open()
    for _ in range(10):
        await asyncio.sleep(30)
        await tab.call("get_settings")
    assert facts_written(world) == []
    assert await last_active_s(world, tab) == pytest.approx(300, abs=1)


@looptime
async def test_p13_activity_that_could_not_be_written_goes_with_a_later_commit(
    world: World,
) -> None:
    """A store that was down for a while does not make the session look older for ever."""
    tab = await world.open()
    world.store.fail.add("commit")
    await asyncio.sleep(120)
    await tab.call("debug.state_get", {"key": "n"})
    assert facts_written(world) == []
    world.store.fail.clear()
    await tab.call("debug.incr", {"key": "n"})
    assert await last_active_s(world, tab) == pytest.approx(0, abs=1)


@looptime
async def test_p13_at_rest_the_store_knows_the_last_activity(world: World) -> None:
    """To the second, and until when the session is kept, how often it was restarted."""
    tab = await world.open()
    await asyncio.sleep(20)
    await tab.call("session.keep", {"seconds": 5000})
    await asyncio.sleep(20)
    await tab.error("debug.crash")
    await world.state(tab.cell, "active")
    await tab.call("debug.state_get", {"key": "n"})
    await world.at_rest(tab)
    facts = (await world.store.load(tab.cell.sid)).row.facts
    assert facts.last_active_at == pytest.approx(T0 + 1040, abs=1)
    assert facts.keep_until_at == pytest.approx(T0 + 6020, abs=1)
    assert (facts.restarts, facts.failed) == (1, False)

    back = await world.come_back(tab)
    assert world.sessions.expires_in_s(back.cell) == pytest.approx(86400 - 200, abs=5)
    assert back.cell.restarts == 1


@looptime
async def test_p6_a_failed_session_is_failed_after_a_rest_too(world: World) -> None:
    """Only an operator revives it, wherever it is."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"})
    for _ in range(4):
        await tab.error("debug.crash")
    await world.state(tab.cell, "failed")
    rows = await world.sessions.of_user(1)
    assert [row["state"] for row in rows] == ["failed"]
    snapshot = await world.store.load(tab.cell.sid)
    assert snapshot.row.facts.failed
    assert snapshot.pushes[-1].seq == tab.cell.outbox.seq  # session.failed is kept for resume


# -- the end of sessions at rest -----------------------------------------------------------


@looptime
async def test_p13_the_store_says_which_sessions_at_rest_are_over() -> None:
    """Each at its time; the index forgets nobody and ends nobody early."""
    async with a_world(session_timeout_s=1000.0) as world:
        tabs = []
        for user_id in range(1, 5):
            tabs.append(await world.open(user_id))
            tabs[-1].leave()
            await asyncio.sleep(100)
        await asyncio.sleep(500)
        assert len(world.directory) == 0
        ends = []
        for tab in tabs:
            await world.until_gone(tab)
            ends.append(world.clock.mono() - 1000)
        assert ends == [pytest.approx(1000 + 100 * n, abs=2) for n in range(4)]
        assert world.sessions.count() == 0


@looptime
async def test_p13_many_sessions_at_rest_end_in_slices() -> None:
    """More than are ended in one turn; all of them, and their reasons are known."""
    count = 2 * EXPIRE_SLICE + 50
    async with a_world(session_timeout_s=1000.0) as world:
        tabs = [await world.open(user_id) for user_id in range(count)]
        for tab in tabs:
            tab.leave()
        await asyncio.sleep(500)
        assert (len(world.directory), world.sessions.count()) == (0, count)
        await asyncio.sleep(510)
        assert (world.sessions.count(), await world.store.count()) == (0, 0)
        assert await world.store.load(tabs[0].cell.sid) == Ended(reason="idle")
        with pytest.raises(ReplyError, match="SESSION_EXPIRED"):
            await world.sessions.authenticate(tabs[-1].session_id, tabs[-1].token)


@looptime
async def test_p13_a_session_in_memory_does_not_end_by_what_the_store_has() -> None:
    """It runs for longer than the time-out; the store knew of old activity, and is told."""
    async with a_world(session_timeout_s=1000.0) as world:
        busy, idle = await world.open(1), await world.open(2)
        world.store.fail.add("commit")  # so that the busy one's activity is not written
        busy.send("t.wait", {"n": "a"}, deadline_s=100_000)
        idle.leave()
        await asyncio.sleep(990)
        world.store.fail.clear()
        await asyncio.sleep(1000)
        assert isinstance(await world.store.load(busy.cell.sid), Snapshot)
        assert await last_active_s(world, busy) <= 1000
        assert (world.sessions.count(), busy.cell.state) == (1, "active")
        assert await world.store.load(idle.cell.sid) == Ended(reason="idle")
        await asyncio.sleep(3000)
        assert world.sessions.count() == 1


@looptime
async def test_p13_a_session_that_comes_back_in_the_moment_it_expires() -> None:
    """It is being loaded while the store says that it is over: one of both, and consistent."""
    store = KitStore()
    async with a_world(store=store, session_timeout_s=1000.0) as world:
        tab = await world.open()
        await world.at_rest(tab)
        store.wait["load"] = asyncio.Event()
        await asyncio.sleep(790)
        coming = asyncio.ensure_future(world.come_back(tab))
        await asyncio.sleep(20)
        assert world.sessions.count() == 1  # somebody looks for it: not ended under their hands
        store.wait["load"].set()
        back = await coming
        await asyncio.sleep(70)
        assert back.cell.state == "closed"  # it had been idle for too long all the same
        assert world.sessions.count() == await store.count() == 0
        with pytest.raises(ReplyError, match="SESSION_EXPIRED"):
            await world.sessions.authenticate(tab.session_id, tab.token)


@looptime
async def test_p13_the_end_of_a_session_at_rest_is_tried_until_the_store_knows() -> None:
    """For clients it is over at once."""
    async with a_world(session_timeout_s=1000.0) as world:
        tab = await world.open()
        await world.at_rest(tab)
        world.store.fail.add("delete")
        await asyncio.sleep(900)
        with pytest.raises(ReplyError, match="SESSION_EXPIRED"):
            await world.sessions.authenticate(tab.session_id, tab.token)
        assert (world.sessions.count(), await world.store.count()) == (0, 1)
        world.store.fail.clear()
        await asyncio.sleep(61)
        assert await world.store.load(tab.cell.sid) == Ended(reason="idle")


@looptime
async def test_p15_a_session_at_rest_can_be_closed_and_says_why() -> None:
    """By its user from another session, and by an operator; its reason is the store's."""
    async with a_world() as world:
        first, second, third = [await world.open() for _ in range(3)]
        for tab in (first, second):
            tab.leave()
        await asyncio.sleep(200)
        assert await third.call("session.close", {"sid": first.cell.sid}) == {
            "closed": first.cell.sid
        }
        assert await world.sessions.close(second.cell.sid, "killed")
        assert await world.sessions.close(second.cell.sid, "killed") is False
        for tab, reason in ((first, "logout"), (second, "killed")):
            assert await world.store.load(tab.cell.sid) == Ended(reason=reason)
            with pytest.raises(ReplyError) as refused:
                await world.sessions.authenticate(tab.session_id, tab.token)
            assert refused.value.details == {"reason": reason}
        rows = (await third.call("session.list"))["sessions"]
        assert [row["sid"] for row in rows] == [third.cell.sid]


@looptime
async def test_sessions_are_listed_wherever_they_are(world: World) -> None:
    """In memory and at rest, each once, with the same facts."""
    resting, here = await world.open(), await world.open()
    await resting.error("debug.crash")
    await world.state(resting.cell, "active")
    await world.at_rest(resting)
    rows = {row["sid"]: row for row in await world.sessions.of_user(1)}
    assert set(rows) == {resting.cell.sid, here.cell.sid}
    assert rows[resting.cell.sid]["state"] == "passivated"
    assert rows[here.cell.sid]["state"] in ("active", "passivated")
    assert [rows[tab.cell.sid]["incarnation"] for tab in (resting, here)] == [2, 1]
    assert all(row.keys() == rows[here.cell.sid].keys() for row in rows.values())
    assert await world.sessions.of_user(2) == []
