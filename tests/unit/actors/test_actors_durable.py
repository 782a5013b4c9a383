"""P3, P11: a reply leaves when the store has its commit, and what if it cannot have it."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World, a_world
from stores_kit import Held, KitStore, everything, has_answer

from ecan.errors import StoreError

looptime = pytest.mark.looptime(start=1000)


async def _commit_begun(world: World, count: int = 1) -> Held:
    """The commit of that number is on its way."""
    await world.until(lambda: len(world.store.held) == count)
    return world.store.held[-1]


@looptime
@pytest.mark.parametrize("method", ["debug.incr", "t.wait"])
async def test_p11_the_reply_waits_for_the_commit(method: str) -> None:
    """The reply and the pushes leave when the change is durable, not before; too late to cancel."""
    async with a_world(store=KitStore(has_answer)) as world:
        world.async_gate("a").set()
        tab = await world.open()
        request = tab.send(method, {"key": "n", "n": "a"} if method == "t.wait" else {"key": "n"})
        queued = tab.send("t.note", 1)
        commit = await _commit_begun(world)
        assert await tab.call("session.cancel", {"request_id": request}) == {"status": "unknown"}
        await asyncio.sleep(100)  # past the deadline: what is being committed is not stopped
        assert not tab.peer.finals(request)
        assert tab.peer.pushes() == []
        commit.land()
        assert (await tab.reply(request))["status"] == "success"
        assert (await tab.reply(queued))["error"]["code"] == "TIMEOUT"
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("method", ["debug.incr", "t.wait"])
async def test_p11_a_commit_that_is_wrong_is_a_crash(method: str) -> None:
    """Our bug, not the disk's: the request is answered HANDLER_CRASHED and nothing changed."""
    async with a_world(store=KitStore(has_answer)) as world:
        world.async_gate("a").set()
        tab = await world.open()
        request = tab.send(method, {"key": "n", "n": "a"} if method == "t.wait" else {"key": "n"})
        (await _commit_begun(world)).fail(StoreError("no such thing"))
        world.store.release()
        assert (await tab.reply(request))["error"]["code"] == "HANDLER_CRASHED"
        assert await tab.call("debug.state_get", {"key": "n"}) is None
        assert tab.cell.incarnation == 2
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("how", ["at once", "later"])
@pytest.mark.parametrize("method", ["debug.incr", "t.wait"])
async def test_p11_a_store_that_cannot_write_is_busy(method: str, how: str) -> None:
    """BUSY, retryable, unknown, rolled back; the actor lives, and the same id works later."""
    async with a_world(store=KitStore(has_answer)) as world:
        world.async_gate("a").set()
        tab = await world.open()
        params = {"key": "n", "n": "a"} if method == "t.wait" else {"key": "n"}
        if how == "at once":
            world.store.fail.add("commit")
        request = tab.send(method, params, id="once")
        if how == "later":
            (await _commit_begun(world)).fail()
        error = (await tab.reply(request))["error"]
        assert error.pop("message")
        assert error == {
            "code": "BUSY",
            "details": {"reason": "store"},
            "retryable": True,
            "outcome": "unknown",
            "retry_after_ms": 1000,
        }
        assert tab.peer.pushes() == []
        assert await tab.call("debug.state_get", {"key": "n"}) is None
        world.store.fail.clear()
        world.store.release()
        again = await tab.request(method, params, id="once")
        assert (again["status"], again["meta"]["replayed"]) == ("success", False)
        assert await tab.call("debug.state_get", {"key": "n"}) in (1, "a")
        assert (tab.cell.incarnation, await world.letters()) == (1, [])


@looptime
@pytest.mark.parametrize("outcome", ["lands", "fails", "is wrong"])
@pytest.mark.parametrize("after_s", [0.0, 1.0])
async def test_p3_a_commit_outlives_its_incarnation(outcome: str, after_s: float) -> None:
    """Restarted at once or later while a commit is on its way: answered, the next one sees it."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        request = tab.send("debug.incr", {"key": "n"})
        commit = await _commit_begun(world)
        await asyncio.sleep(after_s)
        await world.sessions.steer(tab.cell.sid, "restart")
        after = tab.send("debug.state_get", {"key": "n"})
        await asyncio.sleep(1)
        assert not tab.peer.finals(after)
        if outcome == "lands":
            commit.land()
        else:
            commit.fail(StoreError("no such thing") if outcome == "is wrong" else None)
        world.store.release()
        first = await tab.reply(request)
        expected = {"lands": None, "fails": "BUSY", "is wrong": "HANDLER_CRASHED"}
        assert first.get("error", {}).get("code") == expected[outcome]
        assert (await tab.reply(after))["result"] == (1 if outcome == "lands" else None)
        assert tab.cell.incarnation == 2
        world.check_one_answer_each()


@looptime
async def test_p12_numbers_of_notices_follow_on_from_a_commit_on_its_way() -> None:
    """A notice while a commit with pushes is on its way: later, with the next number, stored."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        tab.send("debug.push", {"method": "a.b", "params": {}, "count": 2})
        commit = await _commit_begun(world)
        tab.cell.notify("ops.note", {"n": 1})
        tab.cell.notify("ops.note", {"n": 2})
        await asyncio.sleep(1)
        assert tab.peer.pushes() == []
        commit.land()
        pushes = await tab.push("ops.note", 2)
        assert [push["meta"]["seq"] for push in tab.peer.pushes()] == [1, 2, 3, 4]
        assert [push["params"] for push in pushes] == [{"n": 1}, {"n": 2}]
        stored = await world.store.load(tab.cell.sid)
        assert [row.seq for row in stored.pushes] == [1, 2, 3, 4]
        assert stored.seq == 4


@looptime
@pytest.mark.parametrize("outcome", ["lands", "fails"])
async def test_p12_a_request_waits_for_the_number_of_a_notice(outcome: str) -> None:
    """A notice is on its way: the next pushes come after it, or take its number if it is lost."""
    async with a_world(store=KitStore(everything)) as world:
        tab = await world.open()
        tab.cell.notify("ops.note", {})
        notice = await _commit_begun(world)
        request = tab.send("debug.push", {"method": "a.b", "params": {}, "count": 1})
        await asyncio.sleep(1)
        assert not tab.peer.finals(request)
        if outcome == "lands":
            notice.land()
        else:
            notice.fail()
        (await _commit_begun(world, 2)).land()
        assert (await tab.reply(request))["status"] == "success"
        expected = ["ops.note", "a.b"] if outcome == "lands" else ["a.b"]
        assert [push["method"] for push in tab.peer.pushes()] == expected
        numbers = [push["meta"]["seq"] for push in tab.peer.pushes()]
        assert numbers == list(range(1, len(expected) + 1))


@looptime
async def test_p15_changed_tokens_are_stored(world: World) -> None:
    """Refreshed and renewed tokens are in the store before they are told, and old ones are not."""
    tab = await world.open()
    await world.sessions.refresh(world.lobby(tab, session_id=tab.session_id, token=tab.token))
    stored = await world.store.load(tab.cell.sid)
    assert stored.tokens == tab.cell.tokens.rows()
    assert len(stored.tokens) == 2

    await tab.call("t.renew")
    stored = await world.store.load(tab.cell.sid)
    assert stored.tokens == tab.cell.tokens.rows()
    assert len(stored.tokens) == 1


@looptime
async def test_p3_logout_while_a_commit_is_on_its_way() -> None:
    """The request whose commit cannot be called back is answered when it has landed."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        request = tab.send("debug.incr", {"key": "n"})
        commit = await _commit_begun(world)
        closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, "logout"))
        await asyncio.sleep(1)
        assert tab.cell.state == "closed"
        commit.land()
        assert await closing
        assert (await tab.reply(request))["status"] == "success"
        world.check_one_answer_each()
