"""P4: what a handler does to its context happens wholly or not at all."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import weakref
from typing import Any

import attrs
import pytest
from sessions_kit import World, a_world

from ecan.errors import StoreError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler
from ecan.store import Commit, MemoryStore

looptime = pytest.mark.looptime(start=1000)


@attrs.define
class Cart:
    """A typed slot."""

    items: list[str] = attrs.Factory(list)
    at: dt.date | None = None


@looptime
async def test_p4_a_crash_rolls_back(world: World) -> None:
    """After a crash the state is as it stood before the request."""
    tab = await world.open()
    assert await tab.call("debug.incr", {"key": "n"}) == 1
    await tab.error("debug.incr_then_crash", {"key": "n"})
    assert await tab.call("debug.incr", {"key": "n"}) == 2


@looptime
async def test_p4_a_declared_error_rolls_back_and_the_actor_lives(world: World) -> None:
    """HandlerError undoes state and pushes, and costs no incarnation."""
    tab = await world.open()
    await tab.error("t.refuse")
    assert await tab.call("debug.state_get", {"key": "refused"}) is None
    assert tab.peer.pushes() == []
    assert tab.cell.incarnation == 1


@looptime
@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_p4_timeout_and_cancel_roll_back(world: World, how: str) -> None:
    """What a stopped handler wrote and pushed is gone."""
    tab = await world.open()
    await tab.call("debug.state_set", {"key": "waited", "value": "before"})
    request = tab.send("t.wait", {"n": "a"}, deadline_s=5)
    await world.has_started("a").wait()
    if how == "cancel":
        tab.cell.cancel(request)
    await tab.reply(request)
    assert await tab.call("debug.state_get", {"key": "waited"}) == "before"
    assert tab.peer.pushes() == []


@looptime
async def test_p4_pushes_leave_with_the_commit_and_pending_frames_at_once() -> None:
    """A push waits for its handler's end and comes before the reply; progress does not wait."""

    @handler("t.both")
    async def both(ctx: UserContext) -> str:
        ctx.push("t.pushed", 1)
        ctx.progress({"at": 1})
        await gate.wait()
        ctx.push("t.pushed", 2)
        return "end"

    gate = asyncio.Event()
    async with a_world(both) as world:
        tab = await world.open()
        request = tab.send("t.both")
        await tab.peer.until(tab.peer.pending)
        assert tab.peer.pending() == [{"at": 1}]
        assert tab.peer.pushes() == []
        gate.set()
        await tab.reply(request)
        kinds = [(f["type"], f.get("status"), f.get("params")) for f in tab.peer.frames]
        assert kinds == [
            ("response", "pending", None),
            ("request", None, 1),
            ("request", None, 2),
            ("response", "success", None),
        ]
        assert [push["meta"]["seq"] for push in tab.peer.pushes()] == [1, 2]


@looptime
@pytest.mark.parametrize(
    "value", [(1, 2), float("nan"), {1, 2}, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]
)
async def test_p4_a_value_that_cannot_be_stored_crashes_with_the_slots_name(value: Any) -> None:
    """A slot that would come back as something else fails on the day it is written."""

    @handler("t.bad")
    async def bad(ctx: UserContext) -> None:
        ctx.state["fine"] = 1
        ctx.state["rotten"] = value

    async with a_world(bad) as world:
        tab = await world.open()
        error = await tab.error("t.bad")
        assert error["code"] == "HANDLER_CRASHED"
        (letter,) = world.dead_letters.list()
        assert "state slot 'rotten'" in letter.traceback
        assert await tab.call("debug.state_get", {"key": "fine"}) is None


@looptime
async def test_p4_typed_slots_live_on_as_their_type() -> None:
    """A typed slot comes back as its class in the next request and after a crash."""

    @handler("t.add")
    async def add(ctx: UserContext, params: Any) -> int:
        cart = ctx.slot("cart", Cart)
        cart.items.append(params)
        cart.at = dt.date(2026, 1, 2)
        if params == "bomb":
            raise ValueError(params)
        return len(cart.items)

    @handler("t.look")
    async def look(ctx: UserContext) -> Any:
        cart = ctx.slot("cart", Cart)
        return [*cart.items, str(cart.at)]

    async with a_world(add, look) as world:
        tab = await world.open()
        assert await tab.call("t.add", "apple") == 1
        await tab.error("t.add", "bomb")
        assert await tab.call("t.add", "pear") == 2
        assert await tab.call("t.look") == ["apple", "pear", "2026-01-02"]


@looptime
async def test_p4_a_slot_can_be_deleted() -> None:
    """A deleted slot is gone with the commit, from memory and from the store."""

    @handler("t.delete")
    async def delete(ctx: UserContext) -> None:
        del ctx.state["n"]

    async with a_world(delete) as other:
        tab = await other.open()
        await tab.call("debug.incr", {"key": "n"})
        await tab.call("t.delete")
        assert tab.cell.slots == {}
        assert (await other.store.load(tab.cell.sid)).slots == {}


@looptime
async def test_p2_a_concurrent_method_cannot_write_state() -> None:
    """A concurrent handler that writes crashes with the slot's name; nothing is written."""

    @handler("t.write", concurrent=True)
    async def write(ctx: UserContext, params: Any) -> None:
        if params == "in place":
            ctx.state["list"].append(1)
        else:
            ctx.state["n"] = 1

    async with a_world(write) as world:
        tab = await world.open()
        await tab.call("debug.state_set", {"key": "list", "value": []})
        for params in ("set", "in place"):
            assert (await tab.error("t.write", params))["code"] == "HANDLER_CRASHED"
        assert "concurrent methods cannot write" in world.dead_letters.list()[0].traceback
        assert await tab.call("debug.state_get", {"key": "list"}) == []
        assert await tab.call("debug.state_get", {"key": "n"}) is None


@looptime
async def test_p4_a_result_that_is_no_json_is_a_crash() -> None:
    """The reply cannot be encoded: nothing is committed."""

    @handler("t.bad")
    async def bad(ctx: UserContext) -> Any:
        ctx.state["n"] = 1
        return object()

    async with a_world(bad) as world:
        tab = await world.open()
        assert (await tab.error("t.bad"))["code"] == "HANDLER_CRASHED"
        assert await tab.call("debug.state_get", {"key": "n"}) is None


@looptime
async def test_p4_a_stream_can_set_its_result(world: World) -> None:
    """`Final` ends a stream with a result; what is after it is not run."""
    tab = await world.open()
    assert await tab.call("t.final") == "done"
    assert tab.peer.pending() == [1]


@looptime
async def test_p8_a_stream_waits_for_a_slow_reader(world: World) -> None:
    """While the asking tab is far behind no more values are produced."""
    tab = await world.open()
    tab.peer.backlog_bytes = 2**20
    request = tab.send("debug.stream", {"n": 3})
    await asyncio.sleep(5)
    assert tab.peer.pending() == [{"i": 1}]
    tab.peer.backlog_bytes = 0
    await tab.reply(request)
    assert tab.peer.pending() == [{"i": 1}, {"i": 2}, {"i": 3}]


async def test_an_idle_session_holds_nothing_of_its_last_request() -> None:
    """The live objects of a request go with it: an idle session costs its committed bytes only."""
    seen: list[weakref.ref[Any]] = []

    @handler("t.see")
    async def see(ctx: UserContext) -> None:
        seen.append(weakref.ref(ctx.slot("cart", Watched)))

    async with a_world(see) as world:
        tab = await world.open()
        await tab.call("t.see")
        gc.collect()
        assert seen[0]() is None


@attrs.define(weakref_slot=True)
class Watched:
    """A slot that can be watched."""

    n: int = 0


# -- commits that take their time ----------------------------------------------------------


class SlowStore(MemoryStore):
    """Commits of requests land when the test says so; notices too with ``slow_notices``."""

    def __init__(self, *, slow_notices: bool = False) -> None:
        super().__init__()
        self.slow_notices = slow_notices
        self.commits: list[asyncio.Future[None]] = []

    def commit(self, commit: Commit) -> Any:
        if commit.answer is None and not self.slow_notices:
            return super().commit(commit)
        landing = asyncio.get_running_loop().create_future()
        self.commits.append(landing)

        async def durable() -> None:
            await landing
            super(SlowStore, self).commit(commit)

        return durable()


async def _commit_begun(world: World, count: int = 1) -> asyncio.Future[None]:
    await world.until(lambda: len(world.store.commits) == count)
    return world.store.commits[-1]


@looptime
@pytest.mark.parametrize("method", ["debug.incr", "t.wait"])
async def test_p11_the_reply_waits_for_the_commit(method: str) -> None:
    """The reply and the pushes leave when the change is durable, not before; too late to cancel."""
    async with a_world(store=SlowStore()) as world:
        world.async_gate("a").set()
        tab = await world.open()
        request = tab.send(method, {"key": "n", "n": "a"} if method == "t.wait" else {"key": "n"})
        queued = tab.send("t.note", 1)
        commit = await _commit_begun(world)
        assert await tab.call("session.cancel", {"request_id": request}) == {"status": "unknown"}
        await asyncio.sleep(100)  # past the deadline: what is being committed is not stopped
        assert not tab.peer.finals(request)
        assert tab.peer.pushes() == []
        commit.set_result(None)
        assert (await tab.reply(request))["status"] == "success"
        assert (await tab.reply(queued))["error"]["code"] == "TIMEOUT"
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("method", ["debug.incr", "t.wait"])
async def test_p11_a_commit_that_fails_is_a_crash(method: str) -> None:
    """The store refuses: the request is answered HANDLER_CRASHED and nothing changed."""
    async with a_world(store=SlowStore()) as world:
        world.async_gate("a").set()
        tab = await world.open()
        request = tab.send(method, {"key": "n", "n": "a"} if method == "t.wait" else {"key": "n"})
        (await _commit_begun(world)).set_exception(StoreError("disk full"))
        assert (await tab.reply(request))["error"]["code"] == "HANDLER_CRASHED"
        assert await tab.call("debug.state_get", {"key": "n"}) is None
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("outcome", ["lands", "fails"])
@pytest.mark.parametrize("after_s", [0.0, 1.0])
async def test_p3_a_commit_outlives_its_incarnation(outcome: str, after_s: float) -> None:
    """Restarted at once or later while a commit is on its way: answered, the next one sees it."""
    async with a_world(store=SlowStore()) as world:
        tab = await world.open()
        request = tab.send("debug.incr", {"key": "n"})
        commit = await _commit_begun(world)
        await asyncio.sleep(after_s)
        await world.sessions.steer(tab.cell.sid, "restart")
        after = tab.send("debug.state_get", {"key": "n"})
        await asyncio.sleep(1)
        assert tab.cell.incarnation == 2
        assert not tab.peer.finals(after)
        if outcome == "lands":
            commit.set_result(None)
        else:
            commit.set_exception(StoreError("disk full"))
        first = await tab.reply(request)
        assert first["status"] == ("success" if outcome == "lands" else "error")
        assert (await tab.reply(after))["result"] == (1 if outcome == "lands" else None)
        world.check_one_answer_each()


@looptime
async def test_p12_numbers_of_notices_follow_on_from_a_commit_on_its_way() -> None:
    """A notice while a commit with pushes is on its way: later, with the next number, stored."""
    async with a_world(store=SlowStore()) as world:
        tab = await world.open()
        tab.send("debug.push", {"method": "a.b", "params": {}, "count": 2})
        commit = await _commit_begun(world)
        tab.cell.notify("ops.note", {"n": 1})
        tab.cell.notify("ops.note", {"n": 2})
        await asyncio.sleep(1)
        assert tab.peer.pushes() == []
        commit.set_result(None)
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
    async with a_world(store=SlowStore(slow_notices=True)) as world:
        tab = await world.open()
        tab.cell.notify("ops.note", {})
        notice = await _commit_begun(world)
        request = tab.send("debug.push", {"method": "a.b", "params": {}, "count": 1})
        await asyncio.sleep(1)
        assert not tab.peer.finals(request)
        if outcome == "lands":
            notice.set_result(None)
        else:
            notice.set_exception(StoreError("disk full"))
        (await _commit_begun(world, 2)).set_result(None)
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

    tab.cell.actor._view.renew_token()
    await tab.call("t.note", 1)
    stored = await world.store.load(tab.cell.sid)
    assert stored.tokens == tab.cell.tokens.rows()
    assert len(stored.tokens) == 1


@looptime
async def test_p3_logout_while_a_commit_is_on_its_way() -> None:
    """The request whose commit cannot be called back is answered when it has landed."""
    async with a_world(store=SlowStore()) as world:
        tab = await world.open()
        request = tab.send("debug.incr", {"key": "n"})
        commit = await _commit_begun(world)
        await world.sessions.close(tab.cell.sid, "logout")
        commit.set_result(None)
        assert (await tab.reply(request))["status"] == "success"
        world.check_one_answer_each()
