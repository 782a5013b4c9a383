"""P10: every answer that a retry must not contradict is in the store before it leaves (ADR 9)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sessions_kit import Tab, World, a_world
from stores_kit import KitStore, has_answer

from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler
from ecan.store import memory

looptime = pytest.mark.looptime(start=1000)

ENDINGS = {
    "success": ("debug.incr", {"key": "n"}, None),
    "declared": ("t.refuse", None, "NOPE"),
    "crash": ("debug.incr_then_crash", {"key": "n"}, "HANDLER_CRASHED"),
    "timeout": ("t.wait", {"n": "never"}, "TIMEOUT"),
    "cancel": ("t.wait", {"n": "never"}, "CANCELLED"),
}


async def begin(tab: Tab, ending: str, request_id: str = "once") -> None:
    """Send a request and see to it that it ends that way."""
    method, params, _ = ENDINGS[ending]
    tab.send(method, params, id=request_id, deadline_s=3 if ending == "timeout" else None)
    if ending == "cancel":
        await tab.world.has_started("never").wait()
        tab.cell.cancel(request_id)


@looptime
@pytest.mark.parametrize("ending", ENDINGS)
async def test_p10_the_answer_leaves_when_the_store_has_it(ending: str) -> None:
    """Not before, and then a retry gets it again: at once, and after the session was at rest."""
    code = ENDINGS[ending][2]
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        await begin(tab, ending)
        (held,) = await world.until(lambda: world.store.held)
        assert held.commit.answer.request_id == "once"
        assert (held.commit.letter is not None) == (ending == "crash")
        await asyncio.sleep(20)
        assert tab.peer.finals("once") == []
        held.land()
        first = await tab.reply("once")
        assert first.get("error", {}).get("code") == code
        world.store.release()
        assert world.store.answers() == ["once"]

        await world.state(tab.cell, "active")
        await begin_again(tab, ending, first)
        await world.at_rest(tab)
        await begin_again(await world.come_back(tab), ending, first)
        ran = [name for name in world.ran if name == "never"]
        assert len(ran) == (ending in ("timeout", "cancel"))
        assert world.store.answers() == ["once"]


async def begin_again(tab: Tab, ending: str, first: dict[str, Any]) -> None:
    """The same request gets the same answer."""
    method, params, _ = ENDINGS[ending]
    again = await tab.request(method, params, id="once")
    assert again == {**first, "meta": {**first["meta"], "replayed": True}}


@looptime
@pytest.mark.parametrize("ending", ENDINGS)
async def test_p3_a_retry_while_the_answer_is_on_its_way_gets_it_once(ending: str) -> None:
    """From the same tab and from another one: attached, answered once each, run once."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        other = tab.another()
        await begin(tab, ending)
        (held,) = await world.until(lambda: world.store.held)
        method, params, code = ENDINGS[ending]
        tab.send(method, params, id="once")
        other.send(method, params, id="once")
        await asyncio.sleep(1)
        assert other.peer.finals("once") == tab.peer.finals("once") == []
        held.land()
        frames = [await tab.reply("once"), await other.reply("once")]
        await asyncio.sleep(1)
        assert frames[0] == frames[1]
        assert frames[0].get("error", {}).get("code") == code
        assert len(tab.peer.finals("once")) == len(other.peer.finals("once")) == 1
        assert len(world.store.held) == 1


@looptime
@pytest.mark.parametrize("ending", ["timeout", "cancel"])
async def test_p10_what_did_not_run_is_not_kept(world: World, ending: str) -> None:
    """A request that only waited has no answer in the store: the same id may run."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    tab.send("t.note", 1, id="waits", deadline_s=1)
    if ending == "cancel":
        tab.cell.cancel("waits")
    assert (await tab.reply("waits"))["error"]["outcome"] == "not_run"
    world.async_gate("a").set()
    await tab.reply(running)
    assert world.store.answers() == [running]
    assert (await tab.request("t.note", 1, id="waits"))["status"] == "success"


@looptime
@pytest.mark.parametrize("ending", ["declared", "crash", "timeout", "cancel"])
async def test_p3_what_changed_nothing_is_answered_although_the_store_is_down(ending: str) -> None:
    """The answer leaves, and is remembered while the session is in memory."""
    async with a_world() as world:
        tab = await world.open()
        world.store.fail.add("commit")
        await begin(tab, ending)
        assert (await tab.reply("once"))["error"]["code"] == ENDINGS[ending][2]
        await world.state(tab.cell, "active")
        method, params, _ = ENDINGS[ending]
        assert (await tab.request(method, params, id="once"))["meta"]["replayed"] is True
        assert world.store.committed == []


# -- methods that only look ----------------------------------------------------------------


@looptime
async def test_p10_methods_that_only_look_write_nothing(world: World) -> None:
    """Their answers are remembered in memory, no longer: after a rest the retry looks again."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"})
    before = len(world.store.committed)
    looks = {
        "debug.state_get": {"key": "n"},
        "session.info": None,
        "session.list": None,
        "session.cancel": {"request_id": "x"},
    }
    for method, params in looks.items():
        await tab.call(method, params, id=method)
        assert (await tab.request(method, params, id=method))["meta"]["replayed"] is True
    assert len(world.store.committed) == before

    await world.at_rest(tab)
    back = await world.come_back(tab)
    frame = await back.request("debug.state_get", looks["debug.state_get"], id="debug.state_get")
    assert (frame["result"], frame["meta"]["replayed"]) == (1, False)


@looptime
@pytest.mark.parametrize("what", ["state", "in place", "push", "document", "nothing"])
@pytest.mark.parametrize("kind", ["inline", "async"])
async def test_p4_a_method_that_only_looks_cannot_change_anything(kind: str, what: str) -> None:
    """It is a crash that names the reason, and nothing has changed."""

    def change(ctx: UserContext) -> int:
        if what == "state":
            ctx.state["n"] = 2
        elif what == "in place":
            ctx.state["list"].append(1)
        elif what == "push":
            ctx.push("t.pushed")
        elif what == "document":
            ctx.user.collection("notes").put("a", 1)
        return len(ctx.state["list"])

    @handler("t.look_inline", inline=True, reads=True)
    def look_inline(ctx: UserContext) -> int:
        return change(ctx)

    @handler("t.look_async", reads=True)
    async def look_async(ctx: UserContext) -> int:
        return change(ctx)

    async with a_world(look_inline, look_async) as world:
        tab = await world.open()
        await tab.call("debug.state_set", {"key": "list", "value": []})
        if what == "nothing":
            assert await tab.call(f"t.look_{kind}") == 0
            return
        assert (await tab.error(f"t.look_{kind}"))["code"] == "HANDLER_CRASHED"
        (letter,) = await world.letters()
        assert "the method is declared reads=True" in letter.error
        assert tab.peer.pushes("t.pushed") == []
        assert tab.cell.slots == {"list": b"[]"}
        assert await world.store.document(1, "notes", "a") is None


@looptime
async def test_p10_a_declared_error_of_a_method_that_looks_is_not_stored() -> None:
    """Nothing happened; only memory remembers it."""

    @handler("t.look", reads=True)
    async def look(ctx: UserContext) -> int:
        return int(ctx.state["n"])

    async with a_world(look) as world:
        tab = await world.open()
        assert (await tab.error("t.look", id="a"))["code"] == "HANDLER_CRASHED"
        await world.state(tab.cell, "active")
        assert (await tab.request("t.look", id="a"))["meta"]["replayed"] is True
        assert world.store.answers() == []
        assert len(await world.letters()) == 1  # the letter is kept all the same


# -- ids that only the store remembers -----------------------------------------------------


@looptime
@pytest.mark.parametrize("ending", ENDINGS)
async def test_p10_an_id_only_the_store_remembers_is_rolled_back(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds the last 4096 forgotten ids: the commit of an older one is refused."""
    monkeypatch.setattr(memory, "MAX_USED_LOADED", 0)
    async with a_world() as world:
        tab = await world.open()
        await tab.call("t.note", "first", id="once")
        for n in range(256):
            await tab.call("t.note", n)
        await world.at_rest(tab)
        back = await world.come_back(tab)
        await begin(back, ending)
        error = (await back.reply("once"))["error"]
        assert (error["code"], error["outcome"], error["retryable"]) == (
            "ID_EXPIRED",
            "not_run",
            False,
        )
        await world.state(back.cell, "active")
        assert back.cell.slots == {}
        assert back.peer.pushes("t.pushed") == []
        assert await back.call("debug.incr", {"key": "n"}) == 1
