"""The store is slow or down: what waits for it, what goes on without it, what is undone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sessions_kit import Tab, World, a_world
from stores_kit import Held, KitStore, everything

from ecan.errors import HandlerError, ReplyError, SupervisionError
from ecan.handlers.context import User, UserContext
from ecan.handlers.registry import handler
from ecan.store import Commit, Ended

looptime = pytest.mark.looptime(start=1000)


def begins(commit: Commit) -> bool:
    """Makes the number of an incarnation durable."""
    return commit.begins


async def held_one(world: World) -> Held:
    """The first commit that is on its way."""
    return (await world.until(lambda: world.store.held))[0]


# -- incarnations --------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("how", ["crash", "restart", "activation"])
async def test_p5_an_incarnation_serves_when_its_number_is_durable(how: str) -> None:
    """Not a request before, not even a control request; nobody is told the number."""
    async with a_world(store=KitStore(begins)) as world:
        tab = await world.open()
        if how == "crash":
            await tab.error("debug.crash")
        elif how == "restart":
            await world.sessions.steer(tab.cell.sid, "restart")
        else:
            await world.sessions.steer(tab.cell.sid, "passivate")
            await world.state(tab.cell, "passivated")
        ids = [tab.send("t.note", 1), tab.send("t.control", 2), tab.send("session.info")]
        held = await held_one(world)
        assert held.commit.incarnation == 2
        await asyncio.sleep(10)
        assert [tab.peer.finals(id_) for id_ in ids] == [[], [], []]
        assert tab.peer.pushes("session.restarted") == []
        assert (await world.store.load(tab.cell.sid)).row.incarnation == 1
        held.land()
        for id_ in ids:
            assert (await tab.reply(id_))["meta"]["incarnation"] == 2
        assert (await world.store.load(tab.cell.sid)).row.incarnation == 2
        assert len(tab.peer.pushes("session.restarted")) == (how != "activation")


@looptime
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_p5_when_the_store_fails_an_incarnation_serves_readers(when: str) -> None:
    """Its number goes with the next commit that lands."""
    async with a_world(store=KitStore(begins if when == "later" else None)) as world:
        tab = await world.open()
        await tab.call("debug.incr", {"key": "n"})
        crash = await tab.request("debug.crash")
        assert crash["error"]["code"] == "HANDLER_CRASHED"
        world.store.fail.add("commit")
        if when == "later":
            world.store.fail.clear()
            (await held_one(world)).fail()
            world.store.holds = None
            world.store.fail.add("commit")
        await world.state(tab.cell, "active")
        frame = await tab.request("debug.state_get", {"key": "n"})
        assert (frame["result"], frame["meta"]["incarnation"]) == (1, 2)
        assert (await tab.error("debug.incr", {"key": "n"}))["code"] == "BUSY"
        assert (await world.store.load(tab.cell.sid)).row.incarnation == 1

        world.store.fail.clear()
        assert await tab.call("debug.incr", {"key": "n"}) == 2
        row = (await world.store.load(tab.cell.sid)).row
        assert (row.incarnation, row.facts.restarts) == (2, 1)


@looptime
async def test_p5_closed_before_its_number_is_durable(world: World) -> None:
    """No actor begins in a session that has ended meanwhile."""
    world.store.holds = begins
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "restart")
    waiting = tab.send("t.note", 1)
    held = await held_one(world)
    closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout"))
    assert (await tab.reply(waiting))["error"]["code"] == "SESSION_CLOSED"
    held.land()
    assert await closing
    await asyncio.sleep(1)
    assert (tab.cell.state, tab.cell.actor, world.ran) == ("closed", None, [])


# -- tokens --------------------------------------------------------------------------------


async def refresh(world: World, tab: Tab) -> dict[str, Any]:
    return await world.sessions.refresh(
        world.lobby(tab, session_id=tab.session_id, token=tab.token)
    )


@looptime
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_p15_a_refresh_that_cannot_be_stored_changes_no_token(when: str) -> None:
    """BUSY; the old token lives for as long as before, and another try works."""
    async with a_world(store=KitStore(everything if when == "later" else None)) as world:
        tab = await world.open()
        before = tab.cell.tokens.rows()
        if when == "at once":
            world.store.fail.add("commit")
        refreshing = asyncio.ensure_future(refresh(world, tab))
        if when == "later":
            (await held_one(world)).fail()
            world.store.release()
        with pytest.raises(ReplyError) as refused:
            await refreshing
        assert (refused.value.code, refused.value.details) == ("BUSY", {"reason": "store"})
        assert tab.cell.tokens.rows() == before
        await asyncio.sleep(70)  # past the grace that a refreshed token has
        world.sessions.lookup(tab.session_id, tab.token)
        world.store.fail.clear()
        renewed = await refresh(world, tab)
        world.sessions.lookup(tab.session_id, renewed["token"])
        assert (await world.store.load(tab.cell.sid)).tokens == tab.cell.tokens.rows()


@looptime
async def test_p15_tokens_live_on_when_the_commit_that_renews_them_fails() -> None:
    """They were revoked on every tab; with the roll-back they are good again, the new one is not."""
    async with a_world(store=KitStore(everything)) as world:
        tab = await world.open()
        record = world.sessions.lookup(tab.session_id, tab.token).token
        request = tab.send("t.renew")
        held = await held_one(world)
        assert not record.is_valid(world.clock.now())
        held.fail()
        world.store.release()
        assert (await tab.reply(request))["error"]["code"] == "BUSY"
        assert record.is_valid(world.clock.now())
        world.sessions.lookup(tab.session_id, tab.token)
        assert len(tab.cell.tokens) == 1

        renewed = await tab.call("t.renew")
        assert not record.is_valid(world.clock.now())
        world.sessions.lookup(tab.session_id, renewed["token"])
        stored = (await world.store.load(tab.cell.sid)).tokens
        assert stored == tab.cell.tokens.rows()


@looptime
@pytest.mark.parametrize("ending", ["declared", "crash", "timeout"])
async def test_p4_tokens_live_on_when_the_request_that_renewed_them_fails(ending: str) -> None:
    """Renewing is rolled back with the rest: nobody has been told the new token."""

    @handler("t.renew_and_fail")
    async def renew_and_fail(ctx: UserContext) -> None:
        ctx.session.renew_token(ctx)
        if ending == "declared":
            raise HandlerError("NOPE", "declared")
        if ending == "crash":
            raise ValueError("crash")
        await asyncio.sleep(100)

    async with a_world(renew_and_fail) as world:
        tab = await world.open()
        before = tab.cell.tokens.rows()
        await tab.error("t.renew_and_fail", deadline_s=3)
        world.sessions.lookup(tab.session_id, tab.token)
        assert tab.cell.tokens.rows() == before
        assert (await world.store.load(tab.cell.sid)).tokens == before


# -- the end -------------------------------------------------------------------------------


@looptime
async def test_p11_closing_the_own_session_is_answered_when_its_end_is_durable() -> None:
    """Not before; the tabs are told at once, and a restart would not find it again."""
    async with a_world() as world:
        tab = await world.open()
        world.store.wait["delete"] = asyncio.Event()
        request = tab.send("session.close", {"sid": tab.cell.sid})
        await tab.push("session.closed")
        await asyncio.sleep(10)
        assert tab.peer.finals(request) == []
        world.store.wait["delete"].set()
        assert (await tab.reply(request))["result"] == {"closed": tab.cell.sid}
        assert await world.store.load(tab.cell.sid) == Ended(reason="logout")
        assert world.sessions.count() == 0


@looptime
@pytest.mark.parametrize("how", ["session.close", "logout", "of another"])
async def test_p15_an_end_that_cannot_be_stored_is_busy_and_tried_until_it_is(how: str) -> None:
    """The session is over at once, for every tab; the store learns of it when it can."""
    async with a_world() as world:
        tab = await world.open()
        tab.connection.bound = world.sessions.lookup(tab.session_id, tab.token)
        world.store.fail.add("delete")
        if how == "session.close":
            error = await tab.error("session.close", {"sid": tab.cell.sid})
        elif how == "of another":
            error = await (await world.open()).error("session.close", {"sid": tab.cell.sid})
        else:
            with pytest.raises(ReplyError) as refused:
                await world.sessions.logout(world.lobby(tab))
            error = {"code": refused.value.code, "details": refused.value.details}
        assert (error["code"], error["details"]) == ("BUSY", {"reason": "store"})

        assert tab.cell.state == "closed"
        with pytest.raises(ReplyError, match="SESSION_CLOSED"):
            await world.sessions.authenticate(tab.session_id, tab.token)
        assert tab.cell.sid not in {row["sid"] for row in await world.sessions.of_user(1)}
        await asyncio.sleep(500)
        assert [(sid, e.reason) for sid, e in world.directory.ending.items()] == [
            (tab.cell.sid, "logout")
        ]
        world.store.fail.clear()
        await asyncio.sleep(61)
        assert world.directory.ending == {}
        assert await world.store.load(tab.cell.sid) == Ended(reason="logout")


@looptime
async def test_p6_an_end_the_store_does_not_know_outlives_the_supervisor() -> None:
    """Its successor goes on trying."""
    async with a_world() as world:
        tab = await world.open()
        world.store.fail.add("delete")
        with pytest.raises(ReplyError, match="BUSY"):
            await world.sessions.close(tab.cell.sid, "killed")
        world.sessions.tell_supervisor("nonsense")
        await world.until(lambda: world.sessions.supervisor_restarts)
        world.store.fail.clear()
        await asyncio.sleep(61)
        assert await world.store.load(tab.cell.sid) == Ended(reason="killed")


@looptime
async def test_p11_a_session_that_was_closed_makes_room_although_the_store_does_not_know() -> None:
    """The caps count what is, not what the store still has."""
    async with a_world(max_sessions=2, max_sessions_per_user=2) as world:
        first, _ = await world.open(), await world.open()
        world.store.fail.add("delete")
        with pytest.raises(ReplyError, match="BUSY"):
            await world.sessions.close(first.cell.sid, "logout")
        assert await (await world.open()).call("t.note", 1) == 1


@looptime
@pytest.mark.parametrize("method", ["sids_of_user", "create"])
async def test_a_login_while_the_store_is_down_is_busy(world: World, method: str) -> None:
    """With the time to come back; nothing is left of it, and later it works."""
    world.store.fail.add(method)
    user = User(user_id=1, username="ann")
    with pytest.raises(ReplyError) as refused:
        await world.sessions.open(world.lobby(), user)
    error = refused.value
    assert (error.code, error.details, error.retry_after_ms) == ("BUSY", {"reason": "store"}, 1000)
    assert world.sessions.count() == len(world.directory) == 0
    world.store.fail.clear()
    await world.sessions.open(world.lobby(), user)
    assert world.sessions.count() == await world.store.count() == 1


@looptime
async def test_a_list_of_sessions_while_the_store_is_down_is_busy(world: World) -> None:
    """session.list asks the store; the session itself goes on."""
    tab = await world.open()
    world.store.fail.add("of_user")
    assert (await tab.error("session.list"))["code"] == "BUSY"
    assert tab.cell.incarnation == 1


# -- reset ---------------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_p6_a_reset_that_cannot_be_stored_changes_nothing(when: str) -> None:
    """The operator is told; the session goes on with the state it had."""
    async with a_world() as world:
        tab = await world.open()
        await tab.call("debug.incr", {"key": "n"})
        await tab.call("debug.incr", {"key": "m"})
        if when == "at once":
            world.store.fail.add("commit")
        else:
            world.store.holds = lambda commit: None in commit.slots.values()
        resetting = asyncio.ensure_future(world.sessions.steer(tab.cell.sid, "reset"))
        if when == "later":
            (await held_one(world)).fail()
        with pytest.raises(SupervisionError, match="nothing was reset"):
            await resetting
        world.store.fail.clear()
        world.store.release()
        assert await tab.call("debug.incr", {"key": "n"}) == 2
        assert (await world.store.load(tab.cell.sid)).slots == {"n": b"2", "m": b"1"}
        assert await tab.call("debug.state_get", {"key": "m"}) == 1


@looptime
async def test_p6_a_reset_is_done_when_it_is_durable(world: World) -> None:
    """Until then the operator waits and no request sees either state."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"})
    world.store.holds = lambda commit: None in commit.slots.values()
    resetting = asyncio.ensure_future(world.sessions.steer(tab.cell.sid, "reset"))
    held = await held_one(world)
    after = tab.send("debug.incr", {"key": "n"})
    await asyncio.sleep(5)
    assert not resetting.done()
    assert tab.peer.finals(after) == []
    held.land()
    await resetting
    assert (await tab.reply(after))["result"] == 1
