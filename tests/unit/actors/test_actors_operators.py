"""What operators see and steer: paused queues, dropped requests, events, stacks, biographies."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import a_world

from ecan.actors.biography import MAX_CRASHES, MAX_ERRORS, Origin
from ecan.actors.messages import OpenSession, TimeoutsChanged
from ecan.errors import ReplyError
from ecan.handlers.context import User
from ecan.observability import Watcher


def watch(world, *kinds):
    """A watcher of the world's events."""
    watcher = Watcher(lambda: None, kinds or None)
    world.env.events.add(watcher)
    return watcher


def kinds(watcher):
    return [event["kind"] for event in watcher.take()]


@pytest.mark.looptime
async def test_p3_a_paused_queue_outlives_a_crash(world):
    """The next incarnation honours it; what waits is run in order when it goes on (P2)."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    await world.sessions.steer(tab.cell.sid, "pause")
    waiting = [tab.send("t.note", n) for n in range(3)]
    overlap = tab.send("debug.crash")
    world.async_gate("a").set()
    assert (await tab.reply(running))["status"] == "success"
    await world.sessions.steer(tab.cell.sid, "restart")
    await world.state(tab.cell, "active")
    assert tab.cell.incarnation == 2
    await asyncio.sleep(5)
    assert world.ran == ["a"]

    await world.sessions.steer(tab.cell.sid, "resume")
    for request_id in waiting:
        assert (await tab.reply(request_id))["status"] == "success"
    assert (await tab.reply(overlap))["error"]["code"] == "HANDLER_CRASHED"
    assert world.ran == ["a", 0, 1, 2]


@pytest.mark.looptime
async def test_a_paused_session_answers_control_requests_and_deadlines(world):
    """An inline request waits as any other."""
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "pause")

    assert await tab.call("t.control", 7) == 7
    error = await tab.error("t.note", 1, deadline_s=3)

    assert (error["code"], error["outcome"]) == ("TIMEOUT", "not_run")
    assert world.ran == [7]


@pytest.mark.looptime
async def test_a_paused_session_without_tabs_stays_in_memory(world):
    """Or nobody would know that it is paused."""
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "pause")
    tab.leave()
    await asyncio.sleep(2 * world.settings.passivate_detached_after_s + 300)

    assert tab.cell.state == "passivated"
    assert world.directory.get(tab.cell.sid) is tab.cell
    back = await world.come_back(tab)
    request = back.send("t.note", 1)
    await world.state(tab.cell, "active")
    await asyncio.sleep(1)
    assert world.ran == []
    await world.sessions.steer(tab.cell.sid, "resume")
    assert (await back.reply(request))["status"] == "success"


@pytest.mark.looptime
async def test_p3_dropped_requests_are_answered_once(world):
    """CANCELLED, not run; the same id may be tried again."""
    tab = await world.open()
    await world.sessions.steer(tab.cell.sid, "pause")
    ids = [tab.send("t.note", n) for n in range(3)]

    assert tab.cell.drop_queued(ids[1]) == 1
    assert tab.cell.drop_queued(ids[1]) == 0
    assert tab.cell.drop_queued() == 2

    for request_id in ids:
        error = (await tab.reply(request_id))["error"]
        assert (error["code"], error["outcome"]) == ("CANCELLED", "not_run")
    world.check_one_answer_each()
    await world.sessions.steer(tab.cell.sid, "resume")
    assert (await tab.request("t.note", 1, id=ids[1]))["status"] == "success"
    assert world.ran == [1]


@pytest.mark.looptime
async def test_events_of_a_crash_loop(world):
    """Crashed, restarted, in the end failed; the poison guard is not asked for debug methods."""
    tab = await world.open()
    watcher = watch(world, "session.")
    for _ in range(4):
        await tab.error("debug.crash")
    await world.state(tab.cell, "failed")

    crashed = ["session.crashed", "session.restarted"]
    assert kinds(watcher) == [*crashed * 3, "session.crashed", "session.failed"]


@pytest.mark.looptime
async def test_the_poison_guard_is_an_event(world):
    """With why."""
    watcher = watch(world, "method.")
    tabs = [await world.open(user) for user in range(1, 6)]
    for tab in tabs:
        await tab.error("t.control", "crash")

    (event,) = watcher.take()
    assert (event["kind"], event["method"]) == ("method.suspended", "t.control")
    assert "5 sessions" in event["why"]


@pytest.mark.looptime
async def test_where_a_coroutine_hangs(world):
    """Only the author's own frames, innermost last."""
    tab = await world.open()
    request = tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()

    stack = tab.cell.actor.stack_of(tab.cell.actor.running)

    assert stack.splitlines()[0].endswith("in wait")
    assert "runner.py" not in stack
    world.async_gate("a").set()
    await tab.reply(request)


async def test_where_a_thread_hangs_also_after_it_was_left_behind(world):
    """Until it comes back."""
    tab = await world.open()
    request = tab.send("t.block", {"n": "a"})
    await world.has_started("a").wait()
    assert "handlers_kit.py" in tab.cell.actor.stack_of(tab.cell.actor.running)
    (stopper,) = world.env.threads
    assert (stopper.sid, stopper.call.spec.name) == (tab.cell.sid, "t.block")

    tab.cell.cancel(request)
    assert "handlers_kit.py" in stopper.stack()
    assert world.env.threads == {stopper}
    world.gate("a").set()
    await world.until(lambda: not world.env.threads)


@pytest.mark.looptime
async def test_a_biography_is_bounded(world):
    """The last mishaps, how many requests, and who made the session."""
    reply = asyncio.get_running_loop().create_future()
    user = User(user_id=1, username="ann")
    world.sessions.tell_supervisor(OpenSession(user, reply, Origin("10.0.0.1", "Firefox")))
    opened = await reply
    back = await world.open()
    tab = await world.come_back(type(back)(world, opened.cell, opened.session_id, opened.token))
    for _ in range(12):
        await tab.error("t.refuse")
    for _ in range(7):
        await tab.error("debug.crash")
        await asyncio.sleep(61)

    story = opened.cell.story
    assert story.created_by == Origin("10.0.0.1", "Firefox")
    assert (len(story.errors), len(story.crashes)) == (MAX_ERRORS, MAX_CRASHES)
    assert story.crashes[-1].method == "debug.crash"
    assert {note.code for note in story.errors} == {"NOPE", "HANDLER_CRASHED"}
    assert story.requests == 19


@pytest.mark.looptime
async def test_a_full_server_stays_full_when_many_come_at_once():
    """Their own sessions are counted at the store before, and others come meanwhile."""
    async with a_world(max_sessions=3) as world:
        opening = [asyncio.ensure_future(world.open(user)) for user in range(1, 9)]
        done = await asyncio.gather(*opening, return_exceptions=True)

    refused = [error for error in done if isinstance(error, ReplyError)]
    assert {error.code for error in refused} == {"SESSION_LIMIT"}
    assert len(done) - len(refused) == 3


@pytest.mark.looptime
async def test_an_operator_may_open_more_than_a_user():
    """Not more than the server takes."""
    async with a_world(max_sessions_per_user=1, max_sessions=3) as world:
        user = User(user_id=1, username="ann")
        for _ in range(3):
            await world.sessions.open_for(user, Origin("here", ""), capped=False)
        with pytest.raises(ReplyError, match="as many sessions"):
            await world.sessions.open_for(user, Origin("here", ""), capped=False)
        with pytest.raises(ReplyError):
            await world.sessions.open_for(user, Origin("here", ""))


@pytest.mark.looptime
async def test_changed_timeouts_are_heeded(world):
    """By sessions that had their deadlines before."""
    tab = await world.open()
    object.__setattr__(world.settings, "session_timeout_s", 10.0)
    world.sessions.tell_supervisor(TimeoutsChanged())
    await asyncio.sleep(11)

    assert tab.cell.state == "closed"
    assert tab.cell.close_reason == "idle"
