"""P12: replies that no tab took are kept in the store, in order, and handed out once."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import Tab, World, a_world
from stores_kit import KitStore, has_answer

from ecan.actors.outbox import MAX_FRAMES

looptime = pytest.mark.looptime(start=1000)


def order(tab: Tab) -> list[object]:
    """Frames as they came: a push by its params, a response by its id."""
    return [f["id"] if f["type"] == "response" else f["params"] for f in tab.peer.frames]


async def stored_replies(world: World, tab: Tab) -> list[str]:
    snapshot = await world.store.load(tab.cell.sid)
    return [reply.request_id for reply in snapshot.replies]


async def leave_three_replies(world: World) -> Tab:
    """A tab leaves while requests run that push and answer: r1 with two pushes, r2, r3."""
    tab = await world.open()
    tab.send("t.wait", {"n": "a"}, id="r0")
    await world.has_started("a").wait()
    tab.send("debug.push", {"method": "m", "params": "p", "count": 2}, id="r1")
    tab.send("debug.incr", {"key": "n"}, id="r2")
    tab.send("t.refuse", id="r3")
    tab.leave()
    world.async_gate("a").set()
    await world.until(lambda: not tab.cell.pending)
    return tab


ORDER = ["a", "r0", "p", "p", "r1", "r2", "r3"]


@looptime
@pytest.mark.parametrize("rests", [False, True])
async def test_p12_replies_are_handed_out_among_the_pushes_once(world: World, rests: bool) -> None:
    """In the order they were made, from memory and from the store; a second resume gets none."""
    tab = await leave_three_replies(world)
    assert await stored_replies(world, tab) == ["r0", "r1", "r2", "r3"]
    if rests:
        await world.at_rest(tab)
    _, back = await world.resume(tab, last_seq=0, epoch=tab.cell.outbox.epoch)
    assert order(back) == ORDER
    assert [push["meta"]["seq"] for push in back.peer.pushes()] == [1, 2, 3]
    assert await stored_replies(world, back) == []
    _, second = await world.resume(tab, last_seq=3, epoch=tab.cell.outbox.epoch)
    assert order(second) == []
    assert len(back.cell.outbox.replies) == 0


@looptime
async def test_p12_a_tab_that_saw_the_pushes_gets_the_replies_alone(world: World) -> None:
    """What it saw is not repeated, what it did not see is."""
    tab = await leave_three_replies(world)
    _, back = await world.resume(tab, last_seq=2, epoch=tab.cell.outbox.epoch)
    assert order(back) == ["r0", "p", "r1", "r2", "r3"]


@looptime
async def test_p12_a_tab_that_is_gone_again_takes_nothing(world: World) -> None:
    """It resumed and left before its answer did: the replies stay for the next one."""
    tab = await leave_three_replies(world)
    missed = tab.cell.outbox.missed(0, None)
    gone = tab.another()
    gone.peer.is_open = False
    tab.cell.hand_out(gone.peer, missed.frames)
    assert await stored_replies(world, tab) == ["r0", "r1", "r2", "r3"]
    _, back = await world.resume(tab, last_seq=0)
    assert order(back) == ORDER


@looptime
async def test_p12_the_reply_is_kept_by_the_commit_of_its_request() -> None:
    """State, answer and kept reply are one commit: a kill between them is none."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        tab.leave()
        for n, (method, params) in enumerate(
            [("debug.incr", {"key": "n"}), ("t.refuse", None), ("debug.crash", None)]
        ):
            tab.send(method, params, id=f"r{n}")
            await world.until(lambda n=n: len(world.store.held) == n + 1)
            commit = world.store.held[-1].commit
            assert [reply.request_id for reply in commit.replies] == [f"r{n}"]
            assert commit.replies[0].frame == commit.answer.frame
            world.store.held[-1].land()
            await world.until(lambda: not tab.cell.pending)
        assert await stored_replies(world, tab) == ["r0", "r1", "r2"]


@looptime
@pytest.mark.parametrize("method", ["debug.incr", "t.refuse"])
async def test_p12_a_reply_that_a_retry_took_before_it_landed_is_not_kept(method: str) -> None:
    """Nobody was there when it was committed; who asked again before it landed got it."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        params = {"key": "n"} if method == "debug.incr" else None
        tab.send("t.note", 0, id="r0")
        world.store.held[0].land()
        await tab.reply("r0")
        tab.leave()
        tab.send(method, params, id="r1")
        held = (await world.until(lambda: world.store.held[1:]))[0]
        assert held.commit.replies != ()
        back = tab.another()
        back.send(method, params, id="r1")
        held.land()
        await back.reply("r1")
        await asyncio.sleep(1)
        assert await stored_replies(world, tab) == []
        _, third = await world.resume(tab, last_seq=0)
        assert third.peer.finals("r1") == []


@looptime
async def test_p12_a_reply_that_a_retry_took_later_is_not_handed_out_again(world: World) -> None:
    """It was kept; then the client asked again instead of resuming, and has it."""
    tab = await leave_three_replies(world)
    back = tab.another()
    frame = await back.request("debug.incr", {"key": "n"}, id="r2")
    assert frame["meta"]["replayed"] is True
    await asyncio.sleep(1)
    assert await stored_replies(world, tab) == ["r0", "r1", "r3"]
    _, third = await world.resume(tab, last_seq=3)
    assert order(third) == ["r0", "r1", "r3"]


@looptime
async def test_p8_replies_in_the_store_are_bounded() -> None:
    """As many as in memory, the newest, and a resume gets them from the store in order."""
    async with a_world(mailbox_size=2000) as world:
        tab = await world.open()
        tab.peer.is_open = False
        for n in range(MAX_FRAMES + 5):
            tab.send("t.note", n, id=f"r{n}")
        await world.until(lambda: not tab.cell.pending)
        await world.at_rest(tab)
        _, back = await world.resume(tab, last_seq=0)
        assert order(back) == [f"r{n}" for n in range(5, MAX_FRAMES + 5)]


@looptime
async def test_p12_a_reply_is_kept_although_its_commit_was_refused() -> None:
    """BUSY is an answer too, and the one that is kept is BUSY, not what was rolled back."""
    async with a_world() as world:
        tab = await world.open()
        tab.leave()
        world.store.fail.add("commit")
        tab.send("debug.incr", {"key": "n"}, id="r1")
        await world.until(lambda: not tab.cell.pending)
        world.store.fail.clear()
        _, back = await world.resume(tab, last_seq=0)
        (frame,) = back.peer.finals("r1")
        assert frame["error"]["code"] == "BUSY"
        assert await tab.another().call("debug.incr", {"key": "n"}, id="r1") == 1


@looptime
@pytest.mark.parametrize("down", [False, True])
async def test_p12_a_refused_commit_that_was_on_its_way_keeps_its_refusal(down: bool) -> None:
    """The success that was to be kept is not handed out: it was rolled back."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        tab.leave()
        tab.send("debug.incr", {"key": "n"}, id="r1")
        (held,) = await world.until(lambda: world.store.held)
        if down:
            world.store.fail.add("commit")
        held.fail()
        world.store.release()
        await world.until(lambda: not tab.cell.pending)
        world.store.fail.clear()
        _, back = await world.resume(tab, last_seq=0)
        assert [f["error"]["code"] for f in back.peer.finals("r1")] == ["BUSY"]


@looptime
async def test_p12_a_reply_on_its_way_while_others_are_handed_out_is_not_lost() -> None:
    """A tab resumes while a commit with a reply to keep is landing: the next resume gets it."""
    async with a_world(store=KitStore(has_answer)) as world:
        tab = await world.open()
        tab.leave()
        tab.send("debug.incr", {"key": "n"}, id="r0")
        (await world.until(lambda: world.store.held))[0].land()
        await world.until(lambda: not tab.cell.pending)
        tab.send("debug.incr", {"key": "n"}, id="r1")
        held = (await world.until(lambda: world.store.held[1:]))[0]
        _, back = await world.resume(tab, last_seq=0)
        assert order(back) == ["r0"]
        back.leave()
        held.land()
        world.store.release()
        await world.until(lambda: not tab.cell.pending)
        await asyncio.sleep(1)
        assert [reply.request_id for reply in tab.cell.outbox.replies] == ["r1"]
        assert await stored_replies(world, tab) == ["r1"]
