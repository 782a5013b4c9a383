"""P7, P8: handlers over their deadline, mailboxes at their bound."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sessions_kit import World, a_world

from ecan.actors.runner import MAX_ZOMBIES
from ecan.errors import HandlerError, ReplyError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

looptime = pytest.mark.looptime(start=1000)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_p7_a_blocked_thread_is_abandoned_at_once(world: World, how: str) -> None:
    """TIMEOUT or CANCELLED at once; a new incarnation goes on from the last commit."""
    tab = await world.open()
    await tab.call("debug.state_set", {"key": "blocked", "value": "before"})
    stuck = tab.send("t.block", {"n": "wall"}, deadline_s=0.02 if how == "timeout" else None)
    behind = tab.send("debug.state_get", {"key": "blocked"})
    await world.has_started("wall").wait()
    if how == "cancel":
        tab.cell.cancel(stuck)
    error = (await tab.reply(stuck))["error"]
    assert (error["code"], error["outcome"]) == (
        ("TIMEOUT", "unknown") if how == "timeout" else ("CANCELLED", "unknown")
    )
    after = await tab.reply(behind)
    assert (after["result"], after["meta"]["incarnation"]) == ("before", 2)
    (restarted,) = await tab.push("session.restarted")
    assert restarted["params"] == {
        "incarnation": 2,
        "reason": "timeout" if how == "timeout" else "cancelled",
    }
    assert world.workers.zombies == tab.cell.zombies == 1

    # Whatever the zombie still does to its old context is discarded.
    world.gate("wall").set()
    await world.until(lambda: tab.cell.zombies == 0 and world.workers.zombies == 0)
    assert world.ran == [("wall", True)]
    assert await tab.call("debug.state_get", {"key": "blocked"}) == "before"
    assert [push["method"] for push in tab.peer.pushes()] == ["session.restarted"]
    assert tab.peer.pending() == []
    world.check_one_answer_each()


async def test_p7_nothing_begins_between_the_timeout_and_the_new_incarnation(world: World) -> None:
    """However long the supervisor takes, what waits does not run beside the abandoned thread."""
    tab = await world.open()
    tell = world.env.tell_supervisor
    world.env.tell_supervisor = lambda message: world.env.loop.call_later(0.05, tell, message)
    stuck = tab.send("t.block", {"n": "wall"})
    behind = tab.send("t.note", 1)
    await world.has_started("wall").wait()
    tab.cell.cancel(stuck)
    assert (await tab.reply(behind))["meta"]["incarnation"] == 2


async def test_p7_a_zombie_cannot_ask_the_browser() -> None:
    """call_blocking of an abandoned handler fails; the browser is not asked."""
    outcome: list[str] = []

    @handler("t.zombie")
    def zombie(ctx: UserContext) -> None:
        world.note_started("z")
        assert world.gate("z").wait(20)
        try:
            ctx.call_blocking("ui.ask")
        except HandlerError as error:
            outcome.append(error.code)

    async with a_world(zombie) as world:
        tab = await world.open()
        request = tab.send("t.zombie")
        await world.has_started("z").wait()
        tab.cell.cancel(request)
        world.gate("z").set()
        await world.until(lambda: outcome)
        assert outcome == ["CANCELLED"]
        assert tab.peer.pushes("ui.ask") == []


async def test_p7_a_job_that_no_thread_took_yet_is_not_run(world: World) -> None:
    """With every thread busy the request waits; cancelled there, it is not_run, and true."""
    world.workers.max_threads = 1
    blocker, tab = await world.open(1), await world.open(2)
    first = blocker.send("t.block", {"n": "wall"})
    await world.has_started("wall").wait()
    waiting = tab.send("t.block", {"n": "never"})
    await world.until(lambda: world.workers.queued == 1)
    tab.cell.cancel(waiting)
    error = (await tab.reply(waiting))["error"]
    assert (error["code"], error["outcome"]) == ("CANCELLED", "not_run")
    assert await tab.call("t.note", 1) == 1
    world.gate("wall").set()
    await blocker.reply(first)
    assert not world.has_started("never").is_set()
    assert tab.cell.incarnation == 1


async def test_p7_too_many_zombies_make_blocking_calls_busy(world: World) -> None:
    """Eight abandoned threads: blocking calls are BUSY (not_run), others go on; then free again."""
    tab = await world.open()
    for n in range(MAX_ZOMBIES):
        request = tab.send("t.block", {"n": f"z{n}"})
        await world.has_started(f"z{n}").wait()
        tab.cell.cancel(request)
    error = await tab.error("t.block", {"n": "one more"})
    assert (error["code"], error["outcome"], error["retry_after_ms"]) == ("BUSY", "not_run", 5000)
    assert await tab.call("debug.incr", {"key": "n"}) == 1
    for n in range(MAX_ZOMBIES):
        world.gate(f"z{n}").set()
    await world.until(lambda: tab.cell.zombies == 0)
    assert await tab.call("debug.block", {"seconds": 0}) == {"blocked_s": 0.0}


async def test_p7_an_overlapping_thread_is_left_behind_without_a_restart(world: World) -> None:
    """A concurrent blocking request over its deadline costs no incarnation."""
    tab = await world.open()
    request = tab.send("t.overlap_block", {"n": "o"})
    await world.has_started("o").wait()
    tab.cell.cancel(request)
    assert (await tab.reply(request))["error"]["code"] == "CANCELLED"
    assert await tab.call("t.note", 1) == 1
    assert (tab.cell.incarnation, tab.cell.zombies) == (1, 1)


@looptime
async def test_p7_a_coroutine_that_swallows_cancellation_is_abandoned(world: World) -> None:
    """After a grace of one second the session goes on without it, and it changes nothing."""
    tab = await world.open()
    stuck = tab.send("t.deaf", {"n": "d"}, deadline_s=5)
    behind = tab.send("debug.state_get", {"key": "deaf"})
    begun = world.clock.mono()
    assert (await tab.reply(stuck))["error"]["code"] == "TIMEOUT"
    assert world.clock.mono() - begun == pytest.approx(5, abs=0.01)
    after = await tab.reply(behind)
    assert world.clock.mono() - begun == pytest.approx(6, abs=0.01)
    assert (after["result"], after["meta"]["incarnation"]) == (None, 2)

    world.async_gate("d").set()
    await asyncio.sleep(10)
    assert await tab.call("debug.state_get", {"key": "deaf"}) is None
    assert [push["method"] for push in tab.peer.pushes()] == ["session.restarted"]
    assert tab.peer.pending() == []
    assert tab.cell.incarnation == 2


@looptime
async def test_p7_a_coroutine_that_stops_in_time_costs_no_incarnation(world: World) -> None:
    """Cancelled, unwound, done: the same incarnation goes on."""
    tab = await world.open()
    error = await tab.error("debug.sleep", {"seconds": 100}, deadline_s=3)
    assert error["code"] == "TIMEOUT"
    assert await tab.call("t.note", 1) == 1
    await asyncio.sleep(10)
    assert tab.cell.incarnation == 1


async def test_p7_a_process_handler_is_killed(world: World) -> None:
    """A handler in a worker process is killed; the session goes on, the next one runs."""
    tab = await world.open()
    spin = tab.send("debug.spin_process", {"seconds": 3600})
    await world.until(lambda: world.processes.idle == 0 and world.processes.processes == 1)
    behind = tab.send("debug.incr", {"key": "n"})
    tab.cell.cancel(spin)
    assert (await tab.reply(spin))["error"]["code"] == "CANCELLED"
    assert (await tab.reply(behind))["result"] == 1
    assert tab.cell.incarnation == 1
    assert (await tab.call("debug.spin_process", {"seconds": 0.001}))["turns"] >= 1


@looptime
async def test_p7_the_earliest_deadline_counts(world: World) -> None:
    """Deadlines in any order are each kept; one that is answered before does not matter."""
    tab = await world.open()
    begun = world.clock.mono()
    running = tab.send("t.wait", {"n": "a"}, deadline_s=50)
    queued = {s: tab.send("t.note", s, deadline_s=s) for s in (30, 10, 20)}
    for seconds in (10, 20, 30):
        await tab.reply(queued[seconds])
        assert world.clock.mono() - begun == pytest.approx(seconds, abs=0.01)
    await tab.reply(running)
    assert world.clock.mono() - begun == pytest.approx(50, abs=0.01)


@looptime
async def test_p7_a_timer_that_fires_a_tick_early_does_not_spin(world: World) -> None:
    """A deadline that is a microsecond away counts as passed."""
    tab = await world.open()
    tab.send("t.wait", {"n": "a"})
    late = tab.send("t.note", 1, deadline_s=10)
    deadline = tab.cell.pending[late].deadline_mono
    world.clock.mono = lambda: deadline - 1e-6
    tab.cell._sweep()
    assert tab.peer.finals(late)[0]["error"]["code"] == "TIMEOUT"


@looptime
async def test_p8_a_mailbox_at_exactly_its_bound() -> None:
    """The last request that fits is taken, the next is BUSY at once and nothing is enqueued."""
    async with a_world(mailbox_size=4) as world:
        tab = await world.open()
        running = tab.send("t.wait", {"n": "a"})
        await world.has_started("a").wait()
        queued = [tab.send("t.note", n) for n in range(4)]
        with pytest.raises(ReplyError) as refused:
            tab.send("t.note", "too many", id="refused")
        assert (refused.value.code, refused.value.retry_after_ms) == ("BUSY", 1000)
        assert refused.value.details == {"queued": 4, "queued_bytes": 400}
        assert len(tab.cell.mailbox) == 4
        assert "refused" not in tab.cell.pending
        assert await tab.call("t.control", "passes") == "passes"
        world.async_gate("a").set()
        await tab.reply(running)
        await tab.reply(queued[-1])
        assert await tab.call("t.note", "too many", id="refused") == "too many"
        world.check_one_answer_each()


@looptime
async def test_p8_a_mailbox_is_bounded_in_bytes(world: World) -> None:
    """Exactly 4 MiB fit; one byte more is BUSY."""
    tab = await world.open()
    tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    mib = 2**20
    for n in range(3):
        tab.send("t.note", n, size_bytes=mib)
    with pytest.raises(ReplyError, match="BUSY"):
        tab.send("t.note", "big", size_bytes=mib + 1)
    fits = tab.send("t.note", 3, size_bytes=mib)
    with pytest.raises(ReplyError, match="BUSY"):
        tab.send("t.note", "small", size_bytes=1)
    world.async_gate("a").set()
    assert (await tab.reply(fits))["result"] == 3
    assert world.ran == ["a", 0, 1, 2, 3]
    assert tab.cell.mailbox.nbytes == 0


@looptime
async def test_p8_the_control_lane_is_bounded_too(world: World) -> None:
    """Control requests that nobody reads yet are BUSY beyond the lane's room."""
    tab = await world.open()
    await tab.error("debug.crash")
    room = tab.cell.mailbox.max_control
    for n in range(room):
        tab.send("t.control", n)
    with pytest.raises(ReplyError, match="BUSY"):
        tab.send("t.control", "too many")
    await world.until(lambda: not tab.cell.pending)
    assert world.ran == list(range(room))
    world.check_one_answer_each()


# -- asking the browser ------------------------------------------------------------------


def asking(**options: Any) -> list[Any]:
    """Handlers that ask the browser and answer with what they got."""

    @handler("t.ask")
    async def ask(ctx: UserContext, params: Any) -> Any:
        return {"said": await ctx.call("ui.ask", params, **options)}

    @handler("t.ask_thread")
    def ask_thread(ctx: UserContext) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return {"said": ctx.call_blocking("ui.ask", {"sure": True})}

    return [ask, ask_thread]


@looptime
async def test_call_asks_the_asking_tab_and_gets_its_answer() -> None:
    """The question goes to the tab that asked, at once, and is no numbered push."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        other = tab.another()
        request = other.send("t.ask", {"sure": True})
        (push,) = await other.push("ui.ask")
        assert tab.peer.pushes() == []
        assert push["params"] == {"sure": True}
        assert push["meta"]["expects_answer"] is True
        assert "seq" not in push["meta"]
        other.answer(push, "yes")
        assert (await other.reply(request))["result"] == {"said": "yes"}
        assert tab.cell.asks == {}


async def test_call_works_from_a_worker_thread() -> None:
    """call_blocking is the same for handlers that block."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        request = tab.send("t.ask_thread")
        (push,) = await tab.push("ui.ask")
        tab.answer(push, 42)
        assert (await tab.reply(request))["result"] == {"said": 42}


@looptime
async def test_call_passes_the_clients_own_error_on() -> None:
    """A client that answers with an error makes the handler's HandlerError."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        request = tab.send("t.ask", None)
        (push,) = await tab.push("ui.ask")
        tab.answer(push, error="CLIENT_SAYS_NO")
        assert (await tab.reply(request))["error"]["code"] == "CLIENT_SAYS_NO"
        assert tab.cell.incarnation == 1


@looptime
async def test_call_without_any_tab_is_client_gone() -> None:
    """Nobody is there to answer: CLIENT_GONE at once."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        tab.send("t.wait", {"n": "a"})
        request = tab.send("t.ask", None)
        tab.leave()
        world.async_gate("a").set()
        await world.until(lambda: not tab.cell.pending)
        frame = tab.cell.ledger.get(request, world.clock.now()).frame
        assert b'"CLIENT_GONE"' in frame


@looptime
async def test_call_gives_up_after_its_own_time_limit() -> None:
    """timeout_s seconds without an answer: CLIENT_TIMEOUT; a later one finds nobody."""
    async with a_world(*asking(timeout_s=7)) as world:
        tab = await world.open()
        begun = world.clock.mono()
        assert (await tab.error("t.ask", None))["code"] == "CLIENT_TIMEOUT"
        assert world.clock.mono() - begun == pytest.approx(7, abs=0.01)
        assert tab.cell.asks == {}


@looptime
async def test_call_asks_another_open_tab_when_the_asking_one_is_gone() -> None:
    """The tab that sent the request left before the question: another one is asked."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        other = tab.another()
        tab.send("t.wait", {"n": "a"})
        tab.send("t.ask", None)
        tab.leave()
        world.async_gate("a").set()
        (push,) = await other.push("ui.ask")
        other.answer(push, "me")
        await world.until(lambda: not tab.cell.pending)


@looptime
async def test_call_asks_the_others_when_the_asked_tab_leaves() -> None:
    """Asked, then the tab is lost while another is open: that one is asked at once."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        other = tab.another()
        tab.send("t.ask", {"q": 1})
        (push,) = await tab.push("ui.ask")
        assert other.peer.pushes("ui.ask") == []
        tab.leave()
        (again,) = await other.push("ui.ask")
        assert again == push
        other.answer(again, "me")
        await world.until(lambda: not tab.cell.pending)


@looptime
async def test_call_asks_again_when_the_tab_came_back() -> None:
    """Asked, then the tab is lost: the tab that comes is asked the same question."""
    async with a_world(*asking()) as world:
        tab = await world.open()
        request = tab.send("t.ask", {"q": 1})
        (push,) = await tab.push("ui.ask")
        tab.leave()
        back = tab.another()
        (again,) = await back.push("ui.ask")
        assert again == push
        third = back.another()
        assert third.peer.pushes("ui.ask") == [push]  # who asked is gone: anybody may answer
        back.answer(again, "still here")
        await world.until(lambda: not tab.cell.pending)
        (reply,) = tab.cell.outbox.replies
        assert b"still here" in reply.frame
        assert tab.peer.finals(request) == []
