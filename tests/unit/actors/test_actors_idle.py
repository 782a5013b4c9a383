"""P13: what counts as activity, passivation, waking, expiry."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World, a_world
from stores_kit import KitStore, everything

from ecan.errors import ReplyError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

looptime = pytest.mark.looptime(start=1000)


@handler("t.ping", inline=True, concurrent=True, activity=False)
def ping(ctx: UserContext) -> str:
    return "pong"


@looptime
async def test_p13_passivated_when_idle_and_woken_by_a_frame(world: World) -> None:
    """With a tab after 900 s; a frame wakes it, with its state, as the next incarnation."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"})
    await asyncio.sleep(899)
    assert tab.cell.state == "active"
    await asyncio.sleep(2)
    assert tab.cell.state == "passivated"
    assert tab.cell.actor is None
    frame = await tab.request("debug.incr", {"key": "n"})
    assert (frame["result"], frame["meta"]["incarnation"]) == (2, 2)
    await asyncio.sleep(901)
    assert tab.cell.state == "passivated"
    assert world.metrics.passivations == 2


@looptime
async def test_p13_woken_with_a_store_that_takes_its_time_is_passivated_again() -> None:
    """Its next incarnation begins when its number has landed; idle again, it leaves memory again."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        await asyncio.sleep(901)
        assert tab.cell.state == "passivated"
        store.holds = lambda commit: commit.begins
        request = tab.send("debug.incr", {"key": "n"})
        await asyncio.sleep(1)
        assert tab.cell.state == "starting"
        store.release()
        await tab.peer.until(lambda: tab.peer.finals(request))
        await asyncio.sleep(902)
        assert tab.cell.state == "passivated"


@looptime
async def test_p13_idle_while_it_waits_for_its_restart_is_passivated_after_it() -> None:
    """Its time to leave memory comes during the back-off: it leaves soon after."""
    async with a_world(passivate_after_s=0.5) as world:
        tab = await world.open()
        for _ in range(3):  # the third back-off is longer than a session stays
            await tab.request("debug.crash")
            await world.until(lambda: tab.cell.state == "active")
        assert tab.cell.restarts == 3
        await asyncio.sleep(3)
        assert tab.cell.state == "passivated"


@looptime
async def test_p13_sooner_without_a_tab_and_out_of_memory(world: World) -> None:
    """Without a tab after 180 s; only the store has it; it comes back with state and ledger."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"}, id="once")
    tab.leave()
    await asyncio.sleep(179)
    assert tab.cell.state == "active"
    await asyncio.sleep(2)
    assert world.directory.get(tab.cell.sid) is None
    assert (world.sessions.count(), world.sessions.by_state()["passivated"]) == (1, 1)
    assert await world.sessions.of_user(1) == [
        {
            "sid": tab.cell.sid,
            "state": "passivated",
            "tabs": 0,
            "incarnation": 1,
            "created_at": tab.cell.created_at,
            "idle_s": pytest.approx(181, abs=1),
        }
    ]

    back = await world.come_back(tab)
    assert back.cell is not tab.cell
    frame = await back.request("debug.incr", {"key": "n"}, id="once")
    assert (frame["result"], frame["meta"]["replayed"]) == (1, True)
    frame = await back.request("debug.incr", {"key": "n"})
    assert (frame["result"], frame["meta"]["incarnation"]) == (2, 2)


@looptime
async def test_p13_a_passivated_session_whose_tab_leaves_is_evicted(world: World) -> None:
    """A minute after the last tab left; a tab that comes before keeps it in memory."""
    tab = await world.open()
    await asyncio.sleep(901)
    tab.leave()
    await asyncio.sleep(30)
    other = tab.another()
    await asyncio.sleep(100)
    assert world.directory.get(tab.cell.sid) is tab.cell
    other.leave()
    await asyncio.sleep(61)
    assert world.directory.get(tab.cell.sid) is None


@looptime
async def test_p13_pings_and_pushes_are_no_activity() -> None:
    """A session that is only pinged and pushed to is idle."""
    async with a_world(ping) as world:
        tab = await world.open()
        for _ in range(30):
            await asyncio.sleep(30)
            assert await tab.call("t.ping") == "pong"
            tab.cell.notify("ops.note", {})
        await asyncio.sleep(1)
        assert tab.cell.state == "passivated"
        assert await tab.call("t.ping") == "pong"  # woken, and still idle
        await asyncio.sleep(1)
        assert tab.cell.state == "passivated"


@looptime
async def test_p13_a_busy_session_is_never_reaped() -> None:
    """A handler that runs for longer than every limit is activity until it ends."""
    async with a_world(session_timeout_s=1000.0) as world:
        tab = await world.open()
        request = tab.send("t.wait", {"n": "a"}, deadline_s=10_000)
        tab.leave()
        await asyncio.sleep(5000)
        assert tab.cell.state == "active"
        world.async_gate("a").set()
        await world.until(lambda: not tab.cell.pending)
        tab.cell.accept  # noqa: B018 - the cell still lives
        assert world.sessions.expires_in_s(tab.cell) == pytest.approx(1000, abs=1)
        back = tab.another()
        frame = await back.request("t.wait", {"n": "a"}, id=request)
        assert frame["meta"]["replayed"] is True


@looptime
async def test_p13_session_keep_is_activity_and_can_last() -> None:
    """session.keep counts once; with seconds it holds the session past every time-out."""
    async with a_world(session_timeout_s=1000.0) as world:
        tab = await world.open()
        await asyncio.sleep(999)
        assert await tab.call("session.keep", {}) == {"kept": True, "expires_in_s": 1000.0}
        await asyncio.sleep(999)
        answer = await tab.call("session.keep", {"seconds": 5000})
        assert answer == {"kept": True, "expires_in_s": 5000.0}
        tab.leave()
        await asyncio.sleep(4000)
        back = await world.come_back(tab)  # from the store, which knows of it
        assert world.sessions.expires_in_s(back.cell) == pytest.approx(1000, abs=5)
        await asyncio.sleep(990)
        assert world.sessions.count() == 1
        await asyncio.sleep(20)
        assert world.sessions.count() == 0


@looptime
async def test_p13_warned_then_closed_as_idle() -> None:
    """session.expiring one minute before, then session.closed; afterwards SESSION_EXPIRED."""
    async with a_world(session_timeout_s=600.0) as world:
        tab = await world.open()
        begun = world.clock.mono()
        (warning,) = await tab.push("session.expiring")
        assert warning["params"] == {"in_s": 60}
        assert world.clock.mono() - begun == pytest.approx(540, abs=1)
        await tab.call("t.note", 1)  # activity: it starts over
        (_, second) = await tab.push("session.expiring", 2)
        assert second["params"] == {"in_s": 60}
        (closed,) = await tab.push("session.closed")
        assert closed["params"] == {"reason": "idle"}
        assert world.clock.mono() - begun == pytest.approx(1140, abs=1)
        for attempt in (
            lambda: tab.send("t.note", 1),
            lambda: world.sessions.lookup(tab.session_id, tab.token),
        ):
            with pytest.raises(ReplyError) as refused:
                attempt()
            assert refused.value.code == "SESSION_EXPIRED"
            assert refused.value.details == {"reason": "idle"}
        await asyncio.sleep(1)
        assert await world.store.count() == 0


@looptime
async def test_p13_a_stored_session_expires_too() -> None:
    """A session that rests in the store is closed at its time."""
    async with a_world(session_timeout_s=600.0) as world:
        tab = await world.open()
        tab.leave()
        await asyncio.sleep(599)
        assert await world.store.count() == world.sessions.count() == 1
        await asyncio.sleep(2)
        assert await world.store.count() == world.sessions.count() == 0
        with pytest.raises(ReplyError, match="SESSION_EXPIRED"):
            await world.sessions.authenticate(tab.session_id, tab.token)


@looptime
async def test_p13_a_stored_session_expires_when_the_store_answers_again() -> None:
    """The store fails when a session is to be expired: tried again."""
    store = KitStore()
    async with a_world(store=store, session_timeout_s=600.0) as world:
        tab = await world.open()
        tab.leave()
        await asyncio.sleep(500)
        store.fail.add("expiring")
        await asyncio.sleep(500)
        assert world.sessions.count() == 1
        store.fail.clear()
        await asyncio.sleep(61)
        assert world.sessions.count() == 0


@looptime
@pytest.mark.parametrize("method", ["t.note", "t.control"])
async def test_p13_a_frame_that_arrives_while_passivating(method: str) -> None:
    """It waits for the last commit, then wakes the session; a control frame too."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        store.holds = everything
        await world.sessions.steer(tab.cell.sid, "passivate")
        assert tab.cell.state == "passivating"
        request = tab.send(method, 1)
        tab.leave()
        await asyncio.sleep(1)
        assert tab.cell.state == "passivating"
        store.release()
        await world.until(lambda: not tab.cell.pending)
        assert world.ran == [1]
        assert tab.cell.incarnation == 2
        assert [reply.request_id for reply in tab.cell.outbox.replies] == [request]
        assert tab.cell.ledger.get(request, world.clock.now()) is not None


@looptime
async def test_p13_closed_while_passivating() -> None:
    """A logout that meets the last commit: closed, not passivated."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        store.holds = everything
        await world.sessions.steer(tab.cell.sid, "passivate")
        closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout"))
        await asyncio.sleep(1)
        store.release()
        assert await closing
        assert tab.cell.state == "closed"
        assert world.sessions.count() == 0


@looptime
async def test_p13_a_session_that_cannot_be_saved_stays() -> None:
    """The store refuses: the session goes on in memory, and passivation is tried again."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        await tab.call("debug.incr", {"key": "n"})
        store.fail.add("commit")
        await asyncio.sleep(901)
        assert tab.cell.state == "active"
        assert await tab.call("debug.state_get", {"key": "n"}) == 1
        store.fail.clear()
        assert await tab.call("debug.incr", {"key": "n"}) == 2
        await asyncio.sleep(1000)
        assert tab.cell.state == "passivated"
        store.fail.add("commit")
        tab.leave()
        await asyncio.sleep(100)
        assert world.directory.get(tab.cell.sid) is tab.cell  # not lost: not evicted either
        store.fail.clear()
        await asyncio.sleep(61)
        assert world.directory.get(tab.cell.sid) is None


@looptime
async def test_p13_a_push_to_a_passivated_session_is_kept(world: World) -> None:
    """It reaches its tab and wakes nobody."""
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "passivate")
    await world.state(tab.cell, "passivated")
    tab.cell.notify("ops.note", {"n": 1})
    assert tab.peer.pushes("ops.note")[0]["meta"]["seq"] == 1
    assert tab.cell.state == "passivated"


@looptime
async def test_reset_of_a_passivated_session(world: World) -> None:
    """An operator's reset wakes it with an empty state."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"})
    await world.sessions.steer(tab.cell.sid, "passivate")
    await world.state(tab.cell, "passivated")
    await world.sessions.steer(tab.cell.sid, "reset")
    assert await tab.call("debug.incr", {"key": "n"}) == 1
