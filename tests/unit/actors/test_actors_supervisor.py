"""P6: the supervisor's own crash leaves the sessions alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sessions_kit import Tab, World, a_world
from stores_kit import KitStore, everything

from ecan.actors.messages import CloseSession, DeadlinesDue
from ecan.errors import ReplyError

looptime = pytest.mark.looptime(start=1000)


async def crash_supervisor(world: World) -> None:
    """A message it has no handler for."""
    before = world.sessions.supervisor_restarts
    world.sessions.tell_supervisor("nonsense")
    await world.until(lambda: world.sessions.supervisor_restarts > before)


@looptime
async def test_p6_the_supervisors_crash_leaves_the_sessions_alone(world: World) -> None:
    """Sessions in every state go on; a new supervisor takes over their deadlines and restarts."""
    active = await world.open(1)
    running = active.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    restarting, failed, passivated, stored = [await world.open(n) for n in range(2, 6)]
    stored.leave()
    await asyncio.sleep(181)
    for _ in range(4):
        await failed.error("debug.crash")
    await world.sessions.steer(passivated.cell.sid, "passivate")
    await world.state(passivated.cell, "passivated")
    await restarting.error("debug.crash")
    waiting = restarting.send("t.note", 1)

    await crash_supervisor(world)

    assert (await restarting.reply(waiting))["result"] == 1
    world.async_gate("a").set()
    assert (await active.reply(running))["meta"]["incarnation"] == 1
    assert failed.cell.state == "failed"
    assert await passivated.call("t.note", 1) == 1
    assert await (await world.open(9)).call("t.note", 1) == 1
    await asyncio.sleep(901)
    assert active.cell.state == "passivated"
    await asyncio.sleep(2 * 86400)
    assert world.sessions.count() == 0  # all expired, the stored one too


@looptime
async def test_p6_what_the_crashed_supervisor_owed_is_answered() -> None:
    """Whoever waits for it is told BUSY; a session in creation is not left half made."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open(1)
        tab.leave()
        await asyncio.sleep(200)
        for name in ("create", "load"):
            store.wait[name] = asyncio.Event()
        other = await asyncio.wait_for(_open_despite(world, store), 10)
        store.holds = everything
        await world.sessions.steer(other.cell.sid, "passivate")
        late = other.send("t.note", 7)
        asked = [
            asyncio.ensure_future(world.open(2)),
            asyncio.ensure_future(world.come_back(tab)),
            asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout")),
        ]
        await asyncio.sleep(1)
        await crash_supervisor(world)
        for future in asked:
            with pytest.raises(ReplyError, match="BUSY"):
                await future
        for event in store.wait.values():
            event.set()
        store.release()
        assert (await other.reply(late))["result"] == 7
        assert world.sessions.count() == 2
        assert await (await world.open(2)).call("t.note", 1) == 1
        assert await (await world.come_back(tab)).call("t.note", 1) == 1


async def _open_despite(world: World, store: KitStore) -> Tab:
    wait = store.wait.pop("create")
    tab = await world.open(5)
    store.wait["create"] = wait
    return tab


@looptime
async def test_p6_the_message_that_crashes_the_supervisor_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a handler of its messages: the asker is told BUSY, all go on."""
    tab = await world.open()

    def broken(*args: Any) -> None:
        raise RuntimeError("a bug of ours")

    world.sessions._supervisor._handlers[CloseSession] = broken
    with pytest.raises(ReplyError, match="BUSY"):
        await world.sessions.close(tab.cell.sid, "logout")
    assert await tab.call("t.note", 1) == 1
    assert await world.sessions.close(tab.cell.sid, "logout")


@looptime
async def test_p6_a_crash_lost_with_the_supervisor_is_found(world: World) -> None:
    """A session crashed and the news died with the supervisor: found dead, restarted."""
    tab = await world.open()
    del world.sessions._supervisor._handlers[type(DeadlinesDue())]
    actor = tab.cell.actor
    actor.env.tell_supervisor = lambda message: None
    crashed = tab.send("debug.crash")
    await world.until(lambda: not actor.actor_ref.is_alive())
    actor.env.tell_supervisor = world.sessions.tell_supervisor
    await crash_supervisor(world)
    await tab.push("session.restarted")
    assert await tab.call("t.note", 1) == 1
    assert (await tab.reply(crashed))["error"]["code"] == "HANDLER_CRASHED"
    world.check_one_answer_each()


@looptime
async def test_p6_a_passivated_session_that_was_wanted_is_woken_by_the_successor(
    world: World,
) -> None:
    """The wish died with the supervisor; the request in the mailbox did not."""
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "passivate")
    await world.state(tab.cell, "passivated")
    tab.cell._wake = lambda cell: None
    request = tab.send("t.note", 1)
    await crash_supervisor(world)
    assert (await tab.reply(request))["result"] == 1


@looptime
async def test_a_supervisor_with_too_much_to_do_is_busy(world: World) -> None:
    """Its mailbox is bounded: logins are BUSY at once."""
    world.sessions._mailbox.max_control = 0
    with pytest.raises(ReplyError, match="BUSY"):
        await world.sessions.close("s", "logout")


@looptime
async def test_stopping_twice_is_fine(world: World) -> None:
    """stop ends every incarnation and the supervisor."""
    tab = await world.open()
    actor = tab.cell.actor
    world.sessions.stop()
    world.sessions.stop()
    assert not actor.actor_ref.is_alive()


@looptime
async def test_p6_an_incarnation_that_was_to_begin_begins_with_the_successor() -> None:
    """Its number was on its way to the store when the supervisor crashed: begun once."""
    async with a_world(store=KitStore(lambda commit: commit.begins)) as world:
        tab = await world.open()
        await world.sessions.steer(tab.cell.sid, "restart")
        waiting = tab.send("t.note", 1)
        await world.until(lambda: world.store.held)
        await crash_supervisor(world)
        await asyncio.sleep(1)
        world.store.release()
        frame = await tab.reply(waiting)
        assert frame["result"] == 1
        await asyncio.sleep(1)
        assert tab.cell.incarnation == frame["meta"]["incarnation"]
        assert tab.cell.state == "active"
        assert (await world.store.load(tab.cell.sid)).row.incarnation == tab.cell.incarnation
        assert len(tab.peer.pushes("session.restarted")) <= 1
        world.check_one_answer_each()


@looptime
async def test_p6_a_passivation_is_finished_by_the_successor() -> None:
    """Its last commit was on its way when the supervisor crashed."""
    async with a_world() as world:
        tab = await world.open()
        world.store.holds = everything
        await world.sessions.steer(tab.cell.sid, "passivate")
        await crash_supervisor(world)
        assert tab.cell.state == "passivating"
        world.store.release()
        await world.state(tab.cell, "passivated")
        assert (await tab.request("t.note", 1))["meta"]["incarnation"] == 2
