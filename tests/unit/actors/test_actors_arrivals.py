"""How sessions come and end: caps, logins, races with the store."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World, a_world
from stores_kit import KitStore

from ecan.actors.messages import CloseSession, FindSession, OpenSession
from ecan.errors import ReplyError, StoreError
from ecan.handlers.context import User

looptime = pytest.mark.looptime(start=1000)


@looptime
async def test_session_limit_of_the_server_and_of_a_user() -> None:
    """Stored sessions count too; SESSION_LIMIT says when to come back; a logout makes room."""
    async with a_world(max_sessions=3, max_sessions_per_user=2) as world:
        first = await world.open(1)
        await world.open(1)
        with pytest.raises(ReplyError) as refused:
            await world.open(1)
        assert (refused.value.code, refused.value.retry_after_ms) == ("SESSION_LIMIT", 60_000)
        await world.open(2)
        with pytest.raises(ReplyError, match=r"SESSION_LIMIT.*server"):
            await world.open(3)
        first.leave()
        await asyncio.sleep(200)
        assert world.directory.get(first.cell.sid) is None
        with pytest.raises(ReplyError, match="SESSION_LIMIT"):
            await world.open(3)
        assert await world.sessions.close(first.cell.sid, "logout")
        await world.open(3)
        assert await world.sessions.close("nobody", "logout") is False


@looptime
async def test_a_login_the_store_refuses_leaves_nothing() -> None:
    """The error reaches the login; no session counts."""
    store = KitStore()
    async with a_world(store=store) as world:
        store.fail.add("create")
        with pytest.raises(StoreError):
            await world.open()
        with pytest.raises(ReplyError) as refused:
            await world.sessions.open(world.lobby(), User(user_id=1, username="ann"))
        assert (refused.value.code, refused.value.details) == ("BUSY", {"reason": "store"})
        assert world.sessions.count() == len(world.directory) == await store.count() == 0
        store.fail.clear()
        assert await (await world.open()).call("t.note", 1) == 1


@looptime
async def test_a_session_closed_while_it_is_created() -> None:
    """All sessions of a user are closed while one is being stored: its login is refused."""
    store = KitStore()
    async with a_world(store=store) as world:
        store.wait["create"] = asyncio.Event()
        login = asyncio.ensure_future(world.open(1))
        await world.until(lambda: len(world.directory) == 1)
        closing = asyncio.ensure_future(world.sessions.close_user(1, "disabled"))
        await asyncio.sleep(1)
        store.wait["create"].set()
        assert await closing == 1
        with pytest.raises(ReplyError, match="SESSION_CLOSED"):
            await login
        assert world.sessions.count() == await store.count() == 0


@looptime
async def test_p15_closed_while_it_is_being_loaded() -> None:
    """Logout and resume of a stored session meet: whoever is first, it ends closed."""
    store = KitStore()
    async with a_world(store=store) as world:
        for order in ("load first", "close first"):
            tab = await world.open()
            tab.leave()
            await asyncio.sleep(200)
            store.wait["load"] = asyncio.Event()
            actions = [
                lambda tab=tab: world.come_back(tab),
                lambda tab=tab: world.sessions.close(tab.cell.sid, "logout"),
            ]
            if order == "close first":
                actions.reverse()
            tasks = []
            for action in actions:
                tasks.append(asyncio.ensure_future(action()))
                await asyncio.sleep(0.1)
            store.wait.pop("load").set()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert world.sessions.count() == 0
            assert len(world.directory) == 0
            assert world.directory.reason(tab.cell.sid) == "logout"
            with pytest.raises(ReplyError, match="SESSION_CLOSED"):
                world.sessions.lookup(tab.session_id, tab.token)


@looptime
async def test_a_thousand_tabs_of_one_stored_session_load_it_once(world: World) -> None:
    """Reconnecting in one moment, they all get the one cell."""
    tab = await world.open()
    tab.leave()
    await asyncio.sleep(200)
    tabs = await asyncio.gather(*(world.come_back(tab) for _ in range(1000)))
    assert len({id(t.cell) for t in tabs}) == 1
    assert len(tabs[0].cell.tabs) == 1000


@looptime
async def test_asking_for_a_session_and_leaving(world: World) -> None:
    """A connection that is lost while its session is looked for disturbs nobody."""
    tab = await world.open()
    for loaded in (True, False):
        if not loaded:
            tab.leave()
            await asyncio.sleep(200)
        gone = world.env.loop.create_future()
        world.sessions.tell_supervisor(FindSession(tab.cell.sid, gone))
        gone.cancel()
        await world.come_back(tab)
        assert world.sessions.supervisor_restarts == 0
    for message in (
        CloseSession(tab.cell.sid, "logout", gone),
        OpenSession(tab.cell.user, gone),
        CloseSession("nobody", "logout", gone),
    ):
        world.sessions.tell_supervisor(message)
    await asyncio.sleep(1)
    assert world.sessions.supervisor_restarts == 0


@looptime
async def test_a_store_that_cannot_load_says_so() -> None:
    """The error reaches whoever looks for the session, or wants it closed."""
    store = KitStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        tab.leave()
        await asyncio.sleep(200)
        store.fail.add("load")
        with pytest.raises(ReplyError, match="BUSY"):
            await world.come_back(tab)
        with pytest.raises(ReplyError, match="BUSY"):
            await world.sessions.close(tab.cell.sid, "logout")
        store.fail.clear()
        await world.come_back(tab)


@looptime
async def test_p15_why_a_session_ended_is_known_in_the_next_life(world: World) -> None:
    """The process that ended it is gone; the store says why, to its tabs and to operators."""
    tab = await world.open()
    await world.sessions.close(tab.cell.sid, "killed")
    world.directory._tombstones.clear()
    with pytest.raises(ReplyError) as refused:
        await world.sessions.authenticate(tab.session_id, tab.token)
    assert (refused.value.code, refused.value.details) == ("SESSION_CLOSED", {"reason": "killed"})
    assert await world.sessions.close(tab.cell.sid, "logout") is False
    assert world.sessions.count() == 0


@looptime
async def test_a_bug_of_the_store_at_a_login_is_told_and_leaves_nothing(world: World) -> None:
    """No StoreError, so it is logged as ours; the login gets it, the supervisor goes on."""
    world.store.error = RuntimeError
    world.store.fail.add("create")
    with pytest.raises(RuntimeError):
        await world.open()
    world.store.fail.clear()
    assert world.sessions.count() == len(world.directory) == 0
    assert await (await world.open()).call("t.note", 1) == 1
    assert world.sessions.supervisor_restarts == 0


@looptime
async def test_a_client_that_left_before_its_login_was_answered_leaves_no_session(
    world: World,
) -> None:
    """Nobody has the secrets: it is ended, here and in the store."""
    tab = await world.open()
    ctx = world.lobby(tab)
    answer = await world.sessions.open(ctx, tab.cell.user)
    tab.peer.is_open = False
    for follow_up in ctx.after_reply:
        follow_up()
    await asyncio.sleep(1)
    assert world.directory.reason(answer["sid"]) == "abandoned"
    assert await world.store.count() == 1
