"""P3: every accepted request gets exactly one final response, on every path."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sessions_kit import FakePeer, Tab, World, a_world

from ecan.errors import HandlerError, ReplyError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler

looptime = pytest.mark.looptime(start=1000)


def codes(tab: Tab, ids: list[str]) -> list[str]:
    """How each request ended: its error's code, or "ok"."""
    frames = [tab.peer.finals(id_)[-1] for id_ in ids]
    return [f["error"]["code"] if f["status"] == "error" else "ok" for f in frames]


@looptime
async def test_p3_success_declared_error_and_crash(world: World) -> None:
    """Each of a mixed pipeline is answered once: result, declared error, crash."""
    tab = await world.open()
    methods = ["t.note", "t.refuse", "debug.crash", "t.note", "debug.push", "t.note"]
    params = {"t.note": 1, "debug.push": {"method": "m"}}
    ids = [tab.send(method, params.get(method)) for method in methods]
    await tab.reply(ids[-1])

    assert codes(tab, ids) == ["ok", "NOPE", "HANDLER_CRASHED", "ok", "ok", "ok"]
    assert tab.peer.finals(ids[1])[0]["error"] == {
        "code": "NOPE",
        "message": "declared",
        "details": {"left": 3},
        "retryable": False,
        "outcome": "ran",
    }
    world.check_one_answer_each()


@looptime
async def test_p3_timeout_running_and_queued(world: World) -> None:
    """A deadline passes for what runs (outcome unknown) and what waits (not_run)."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"}, deadline_s=5)
    queued = tab.send("t.note", 1, deadline_s=2)
    later = tab.send("t.note", 2, deadline_s=60)
    frame = await tab.reply(queued)
    assert (frame["error"]["code"], frame["error"]["outcome"]) == ("TIMEOUT", "not_run")
    assert not tab.peer.finals(running)
    frame = await tab.reply(running)
    assert (frame["error"]["code"], frame["error"]["outcome"]) == ("TIMEOUT", "unknown")
    await tab.reply(later)

    assert world.ran == ["a", 2]
    world.check_one_answer_each()


@looptime
async def test_p3_deadline_over_before_its_turn_in_the_same_instant(world: World) -> None:
    """A request whose deadline is now when it is taken from the queue is not run."""
    tab = await world.open()
    late = tab.send("t.note", 1, deadline_s=-1.0)
    frame = await tab.reply(late)
    assert (frame["error"]["code"], frame["error"]["outcome"]) == ("TIMEOUT", "not_run")
    assert world.ran == []


@looptime
async def test_p3_cancel_queued_running_and_unknown(world: World) -> None:
    """session.cancel says what it met, and each cancelled request is answered once."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    queued = tab.send("t.note", 1)
    await world.has_started("a").wait()

    assert await tab.call("session.cancel", {"request_id": queued}) == {"status": "cancelled"}
    assert await tab.call("session.cancel", {"request_id": running}) == {"status": "cancelling"}
    assert await tab.call("session.cancel", {"request_id": running}) == {"status": "unknown"}
    assert await tab.call("session.cancel", {"request_id": "nothing"}) == {"status": "unknown"}

    assert (await tab.reply(queued))["error"]["outcome"] == "not_run"
    assert (await tab.reply(running))["error"]["outcome"] == "unknown"
    assert await tab.call("t.note", 2) == 2
    assert world.ran == ["a", 2]
    world.check_one_answer_each()


@looptime
async def test_p3_cancel_before_the_first_step_does_not_run_it(world: World) -> None:
    """Cancelled between being taken from the queue and its first step: not_run, and true."""
    tab = await world.open()
    request = tab.send("t.wait", {"n": "a"})
    while tab.cell.pending[request].started_mono == 0.0:
        await asyncio.sleep(0)
    tab.cell.cancel(request)

    assert (await tab.reply(request))["error"]["outcome"] == "not_run"
    assert await tab.call("t.note", 1) == 1
    assert world.ran == [1]


@looptime
async def test_p3_cancel_crossing_completion(world: World) -> None:
    """A cancel in the moment of completion: one answer, whichever came first."""
    tab = await world.open()
    for n in range(20):
        name = f"c{n}"
        request = tab.send("t.wait", {"n": name})
        await world.has_started(name).wait()
        world.async_gate(name).set()
        for _ in range(n % 5):
            await asyncio.sleep(0)
        tab.cell.cancel(request)
        await tab.reply(request)
        await tab.call("t.note", n)
    world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("reason", ["logout", "killed"])
async def test_p3_the_end_of_a_session_answers_everything(world: World, reason: str) -> None:
    """Logout and kill answer what runs, overlaps, waits in the queue and in the control lane."""
    tab = await world.open()
    peer = tab.peer
    running = tab.send("t.wait", {"n": "a"})
    overlapping = tab.send("t.overlap", {"n": "o"})
    world.async_gate("x")
    await world.has_started("a").wait()
    queued = [tab.send("t.note", n) for n in range(3)]
    control = tab.send("t.control", 1)
    closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, reason))
    # The control request and the closing meet: whoever is first, it is answered.
    assert await closing

    outcomes = {}
    for id_ in [running, overlapping, *queued]:
        (frame,) = peer.finals(id_)
        assert frame["error"]["details"] == {"reason": reason}
        outcomes[id_] = (frame["error"]["code"], frame["error"]["outcome"])
    assert outcomes[running] == ("SESSION_CLOSED", "unknown")
    assert {outcomes[id_] for id_ in queued} == {("SESSION_CLOSED", "not_run")}
    assert len(peer.finals(control)) == 1
    assert peer.pushes("session.closed")[0]["params"] == {"reason": reason}
    assert peer.closed == ((4501, "An operator ended the session.") if reason == "killed" else None)
    assert world.sessions.count() == 0
    with pytest.raises(ReplyError) as refused:
        tab.send("t.note", 1)
    assert refused.value.code == "SESSION_CLOSED"
    world.check_one_answer_each()


@looptime
async def test_p3_logout_during_the_back_off_answers_the_control_lane_too(world: World) -> None:
    """Between two incarnations requests of both lanes wait; a logout answers them all."""
    tab = await world.open()
    await tab.error("debug.crash")
    assert tab.cell.state == "restarting"
    queued = tab.send("t.note", 1)
    control = tab.send("t.control", 1)

    await world.sessions.close(tab.cell.sid, "logout")

    assert codes(tab, [queued, control]) == ["SESSION_CLOSED", "SESSION_CLOSED"]
    world.check_one_answer_each()


@looptime
async def test_p3_a_failed_session_answers_its_queue(world: World) -> None:
    """At give-up what waits is answered SESSION_FAILED (not_run), in both lanes."""
    tab = await world.open()
    crashing = [tab.send("debug.crash") for _ in range(4)]
    queued = [tab.send("t.note", n) for n in range(3)]
    await tab.reply(crashing[-1])
    await world.state(tab.cell, "failed")

    assert codes(tab, [*crashing, *queued]) == ["HANDLER_CRASHED"] * 4 + ["SESSION_FAILED"] * 3
    assert {tab.peer.finals(id_)[0]["error"]["outcome"] for id_ in queued} == {"not_run"}
    assert world.ran == []
    world.check_one_answer_each()


@looptime
async def test_p3_restart_and_reset_by_an_operator_answer_what_runs(world: World) -> None:
    """An operator's restart keeps the queue, a reset too; what ran is CANCELLED."""
    tab = await world.open()
    for command in ("restart", "reset"):
        running = tab.send("t.wait", {"n": command})
        queued = tab.send("t.note", command)
        await world.has_started(command).wait()
        await world.sessions.steer(tab.cell.sid, command)
        assert (await tab.reply(running))["error"]["code"] == "CANCELLED"
        assert (await tab.reply(queued))["result"] == command
    world.check_one_answer_each()


@looptime
async def test_p3_drain_lets_queue_and_running_finish(world: World) -> None:
    """While the server drains, accepted requests go on to their answers; logins are refused."""
    tab = await world.open()
    running = tab.send("t.wait", {"n": "a"})
    queued = tab.send("t.note", 1)
    await world.has_started("a").wait()
    world.server.draining = True
    with pytest.raises(ReplyError) as refused:
        await world.sessions.open(world.lobby(), tab.cell.user)
    assert refused.value.code == "DRAINING"
    world.async_gate("a").set()
    await tab.reply(running)
    await tab.reply(queued)
    world.check_one_answer_each()


@looptime
async def test_p3_a_retry_from_a_new_tab_is_delivered_once(world: World) -> None:
    """The asking tab is gone, a new one asked again: it gets the answer, resume adds no other."""
    first = await world.open()
    request = first.send("t.wait", {"n": "a"}, id="same")
    await world.has_started("a").wait()
    first.leave()
    second = first.another()
    second.send("t.wait", {"n": "a"}, id="same")
    world.async_gate("a").set()
    assert (await second.reply(request))["result"] == "a"
    assert first.cell.outbox.replies == ()
    assert (await world.store.load(first.cell.sid)).replies == ()


@looptime
async def test_p3_every_tab_that_asked_gets_the_answer(world: World) -> None:
    """Two open tabs that ask with one id both get the one answer; asking twice changes nothing."""
    first = await world.open()
    second = first.another()
    for tab in (first, second, second, first):
        tab.send("t.wait", {"n": "a"}, id="same")
    await world.has_started("a").wait()
    world.async_gate("a").set()
    assert (await first.reply("same"))["result"] == "a"
    assert (await second.reply("same"))["result"] == "a"
    assert world.ran == ["a"]
    assert len(first.peer.finals("same")) == len(second.peer.finals("same")) == 1


@looptime
async def test_p3_pending_frames_go_to_every_asking_tab(world: World) -> None:
    """A stream's values reach the tab that asked and the one that asked again."""
    first = await world.open()
    second = first.another()
    params = {"n": 3, "delay": 1}
    first.send("debug.stream", params, id="s")
    second.send("debug.stream", params, id="s")
    assert (await first.reply("s"))["result"] == {"streamed": 3}
    assert first.peer.pending() == second.peer.pending() == [{"i": 1}, {"i": 2}, {"i": 3}]


@looptime
async def test_p3_cancel_on_disconnect(world: World) -> None:
    """on_disconnect=cancel stops the request with its tab; a request another tab waits for, not."""
    first = await world.open()
    second = first.another()
    first.send("t.wait", {"n": "a"}, id="gone", cancel_on_disconnect=True)
    first.send("t.wait", {"n": "b"}, id="kept", cancel_on_disconnect=True)
    first.send("t.note", 1, id="stays")
    second.send("t.wait", {"n": "b"}, id="kept")
    await world.has_started("a").wait()
    first.leave()
    first.leave()  # a late close of a connection that is gone already
    await world.has_started("b").wait()
    world.async_gate("b").set()
    assert (await second.reply("kept"))["result"] == "b"
    await world.until(lambda: not first.cell.pending)
    assert world.ran == ["a", "b", 1]


@looptime
async def test_p3_an_unknown_note_to_the_actor_is_pykkas_business(world: World) -> None:
    """A message that is no request does not disturb the session."""
    tab = await world.open()
    tab.cell.actor.actor_ref.tell({"no": "request"})
    assert await tab.call("t.note", 1) == 1


@looptime
async def test_p3_a_second_answer_is_dropped(world: World) -> None:
    """Whoever answers first has answered; neither the tab nor the ledger sees another."""
    tab = await world.open()
    request = tab.send("t.wait", {"n": "a"})
    call = tab.cell.pending[request]
    first, second = (
        b'{"id":"%s","type":"response","status":"success","result":%d,"meta":{"replayed":false}}'
        % (request.encode(), n)
        for n in (1, 2)
    )
    tab.cell.answer(call, first, remember=True)
    tab.cell.answer(call, second, remember=True)
    assert [frame["result"] for frame in tab.peer.finals(request)] == [1]
    assert tab.cell.ledger.get(request, world.clock.now()).frame == first


async def test_p3_handlers_that_fail_on_their_way_out_are_nobodys_crash() -> None:
    """A handler told to stop that raises something else has been answered already."""

    @handler("t.sour")
    async def sour(ctx: UserContext, params: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if params == "declared":
                raise HandlerError("LATE", "too late") from None
            raise ValueError("on the way out") from None

    for params in ("declared", "crash"):
        started = asyncio.Event()
        async with a_world(sour) as world:
            tab = await world.open()
            request = tab.send("t.sour", params)
            await started.wait()
            tab.cell.cancel(request)
            assert (await tab.reply(request))["error"]["code"] == "CANCELLED"
            assert await tab.call("t.note", 1) == 1
            assert tab.cell.incarnation == 1
            world.check_one_answer_each()


def test_a_peer_that_is_closed_gets_nothing() -> None:
    """The kit's own peer behaves as a connection does."""
    peer = FakePeer.__new__(FakePeer)
    peer.is_open, peer.frames = False, []
    peer.send(b"{}")
    assert peer.frames == []
