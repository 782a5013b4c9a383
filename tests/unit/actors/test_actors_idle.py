"""P13: what counts as activity, passivation, waking, expiry; and how the supervisor survives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sessions_kit import Tab, World, a_world

from ecan.actors.messages import CloseSession, DeadlinesDue, FindSession, OpenSession
from ecan.errors import ReplyError, StoreError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler
from ecan.store import MemoryStore

looptime = pytest.mark.looptime(start=1000)


@handler("t.ping", inline=True, concurrent=True, activity=False)
def ping(ctx: UserContext) -> str:
    return "pong"


class GatedStore(MemoryStore):
    """Fails or waits when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: set[str] = set()
        self.wait: dict[str, asyncio.Event] = {}

    async def _pass(self, name: str) -> None:
        if name in self.wait:
            await self.wait[name].wait()
        if name in self.fail:
            raise StoreError(f"{name} refused")

    async def create(self, snapshot: Any) -> None:
        await self._pass("create")
        await super().create(snapshot)

    async def save(self, snapshot: Any) -> None:
        await self._pass("save")
        await super().save(snapshot)

    async def load(self, sid: str) -> Any:
        snapshot = await super().load(sid)
        await self._pass("load")
        return snapshot

    async def delete(self, sid: str) -> None:
        await self._pass("delete")
        await super().delete(sid)


async def come_back(world: World, tab: Tab) -> Tab:
    """A new connection with the session's credentials."""
    bound = await world.sessions.authenticate(tab.session_id, tab.token)
    return Tab(world, bound.cell, tab.session_id, tab.token)


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
    assert world.sessions.of_user(1) == [{"sid": tab.cell.sid, "state": "passivated", "tabs": 0}]

    back = await come_back(world, tab)
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
        back = await come_back(world, tab)  # from the store, which knows of it
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
    store = GatedStore()
    async with a_world(store=store, session_timeout_s=600.0) as world:
        tab = await world.open()
        tab.leave()
        await asyncio.sleep(500)
        store.fail.add("load")
        await asyncio.sleep(500)
        assert world.sessions.count() == 1
        store.fail.clear()
        await asyncio.sleep(61)
        assert world.sessions.count() == 0


@looptime
@pytest.mark.parametrize("method", ["t.note", "t.control"])
async def test_p13_a_frame_that_arrives_while_passivating(method: str) -> None:
    """It waits for the save, then wakes the session; a control frame too."""
    store = GatedStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        store.wait["save"] = asyncio.Event()
        await world.sessions.steer(tab.cell.sid, "passivate")
        assert tab.cell.state == "passivating"
        request = tab.send(method, 1)
        tab.leave()
        await asyncio.sleep(1)
        assert tab.cell.state == "passivating"
        store.wait["save"].set()
        await world.until(lambda: not tab.cell.pending)
        assert world.ran == [1]
        assert tab.cell.incarnation == 2
        assert len(tab.cell.take_undelivered()) == 1
        assert tab.cell.ledger.get(request, world.clock.now()) is not None


@looptime
async def test_p13_closed_while_passivating() -> None:
    """A logout that meets the save: closed, not passivated."""
    store = GatedStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        store.wait["save"] = asyncio.Event()
        await world.sessions.steer(tab.cell.sid, "passivate")
        await world.sessions.close(tab.cell.sid, "logout")
        store.wait["save"].set()
        await asyncio.sleep(1)
        assert tab.cell.state == "closed"
        assert world.sessions.count() == 0


@looptime
async def test_p13_a_session_that_cannot_be_saved_stays() -> None:
    """The store refuses: the session goes on in memory, and passivation is tried again."""
    store = GatedStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        await tab.call("debug.incr", {"key": "n"})
        store.fail.add("save")
        await asyncio.sleep(901)
        assert tab.cell.state == "active"
        assert await tab.call("debug.incr", {"key": "n"}) == 2
        store.fail.clear()
        await asyncio.sleep(1000)
        assert tab.cell.state == "passivated"
        store.fail.add("save")
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


# -- creation and the end ------------------------------------------------------------------


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
    store = GatedStore()
    async with a_world(store=store) as world:
        store.fail.add("create")
        with pytest.raises(StoreError):
            await world.open()
        assert world.sessions.count() == 0
        store.fail.clear()
        assert await (await world.open()).call("t.note", 1) == 1


@looptime
async def test_a_session_closed_while_it_is_created() -> None:
    """All sessions of a user are closed while one is being stored: its login is refused."""
    store = GatedStore()
    async with a_world(store=store) as world:
        store.wait["create"] = asyncio.Event()
        login = asyncio.ensure_future(world.open(1))
        await world.until(lambda: len(world.directory) == 1)
        assert await world.sessions.close_user(1, "disabled") == 1
        store.wait["create"].set()
        with pytest.raises(ReplyError, match="SESSION_CLOSED"):
            await login


@looptime
async def test_p15_closed_while_it_is_being_loaded() -> None:
    """Logout and resume of a stored session meet: whoever is first, it ends closed."""
    store = GatedStore()
    async with a_world(store=store) as world:
        for order in ("load first", "close first"):
            tab = await world.open()
            tab.leave()
            await asyncio.sleep(200)
            store.wait["load"] = asyncio.Event()
            actions = [
                lambda tab=tab: come_back(world, tab),
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
    tabs = await asyncio.gather(*(come_back(world, tab) for _ in range(1000)))
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
        await come_back(world, tab)
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
    store = GatedStore()
    async with a_world(store=store) as world:
        tab = await world.open()
        tab.leave()
        await asyncio.sleep(200)
        store.fail.add("load")
        with pytest.raises(StoreError):
            await come_back(world, tab)
        with pytest.raises(StoreError):
            await world.sessions.close(tab.cell.sid, "logout")
        store.fail.clear()
        await come_back(world, tab)


# -- the supervisor's own crash ------------------------------------------------------------


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
    store = GatedStore()
    async with a_world(store=store) as world:
        tab = await world.open(1)
        tab.leave()
        await asyncio.sleep(200)
        for name in ("create", "load", "save"):
            store.wait[name] = asyncio.Event()
        other = await asyncio.wait_for(_open_despite(world, store), 10)
        await world.sessions.steer(other.cell.sid, "passivate")
        late = other.send("t.note", 7)
        asked = [
            asyncio.ensure_future(world.open(2)),
            asyncio.ensure_future(come_back(world, tab)),
            asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout")),
        ]
        await asyncio.sleep(1)
        await crash_supervisor(world)
        for future in asked:
            with pytest.raises(ReplyError, match="BUSY"):
                await future
        for event in store.wait.values():
            event.set()
        assert (await other.reply(late))["result"] == 7
        assert world.sessions.count() == 2
        assert await (await world.open(2)).call("t.note", 1) == 1
        assert await (await come_back(world, tab)).call("t.note", 1) == 1


async def _open_despite(world: World, store: GatedStore) -> Tab:
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
