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

from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

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


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_p4_two_threads_of_a_handler_write_into_one_state(kind: str) -> None:
    """It is there before they begin, or each might make its own and one be lost."""
    seen: list[Any] = []

    @handler("t.coroutine")
    async def coroutine(ctx: UserContext) -> None:
        seen.append(ctx.used_state)

    @handler("t.thread")
    def thread(ctx: UserContext) -> None:
        seen.append(ctx.used_state)

    async with a_world(coroutine, thread) as world:
        tab = await world.open()
        await tab.call(f"t.{kind}")
        assert seen != [None]


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
        (letter,) = await world.letters()
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
        assert "concurrent methods cannot write" in (await world.letters())[0].traceback
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
