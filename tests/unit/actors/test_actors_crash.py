"""P1, P5, P6, P9: crashes end incarnations, not sessions, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from sessions_kit import World, a_world

from ecan.actors.messages import HandlerAbandoned, RestartDue, SessionCrashed
from ecan.errors import ReplyError, SupervisionError
from ecan.handlers.context import UserContext, get_handler_context
from ecan.handlers.registry import handler
from ecan.protocol.codes import ErrorCode

looptime = pytest.mark.looptime(start=1000)

DEADLY = [SystemExit, KeyboardInterrupt, MemoryError, RecursionError, asyncio.CancelledError]


def thrower(error: type[BaseException]) -> list[Any]:
    """Handlers of every kind that raise it."""

    @handler("t.inline", inline=True)
    def inline(ctx: UserContext) -> None:
        raise error("thrown")

    @handler("t.async")
    async def async_(ctx: UserContext) -> None:
        raise error("thrown")

    @handler("t.overlapping", concurrent=True)
    async def overlapping(ctx: UserContext) -> None:
        raise error("thrown")

    @handler("t.thread")
    def thread(ctx: UserContext) -> None:
        raise error("thrown")

    @handler("t.stream")
    async def stream(ctx: UserContext) -> AsyncGenerator[int, None]:
        yield 1
        raise error("thrown")

    return [inline, async_, overlapping, thread, stream]


@pytest.mark.parametrize("kind", ["inline", "async", "overlapping", "thread", "stream"])
@pytest.mark.parametrize("error", [*DEADLY, GeneratorExit, StopIteration, ValueError])
async def test_p5_whatever_a_handler_raises_crashes_its_session_only(
    error: type[BaseException], kind: str
) -> None:
    """Answered HANDLER_CRASHED, restarted, the sibling undisturbed, the loop alive."""
    async with a_world(*thrower(error)) as world:
        tab, sibling = await world.open(1), await world.open(2)
        frame = await tab.request(f"t.{kind}")
        assert frame["error"]["code"] == "HANDLER_CRASHED"
        assert frame["error"]["outcome"] == "unknown"
        assert await sibling.call("debug.incr", {"key": "n"}) == 1
        await tab.push("session.restarted")
        assert await tab.call("t.note", 1) == 1
        assert (tab.cell.incarnation, sibling.cell.incarnation) == (2, 1)
        world.check_one_answer_each()


async def test_p5_an_error_of_a_nested_task_is_a_crash() -> None:
    """A TaskGroup's failure inside a handler is that handler's."""

    @handler("t.nested")
    async def nested(ctx: UserContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def fail() -> None:
        raise MemoryError("nested")

    async with a_world(nested) as world:
        tab = await world.open()
        assert (await tab.error("t.nested"))["code"] == "HANDLER_CRASHED"
        assert await tab.call("t.note", 1) == 1


@looptime
async def test_p5_the_reply_tells_what_happened(world: World) -> None:
    """crash_id as in the dead letter, the incarnation, and when it will be back."""
    tab = await world.open()
    started = world.clock.mono()
    error = await tab.error("debug.crash")
    (letter,) = await world.letters()
    details = error["details"]
    assert details["crash_id"] == letter.crash_id
    assert details["incarnation"] == 1
    assert 160 <= details["restart_in_ms"] <= 240

    (push,) = await tab.push("session.restarted")
    assert push["params"] == {"incarnation": 2, "reason": "crash"}
    assert (world.clock.mono() - started) * 1000 == pytest.approx(details["restart_in_ms"], abs=2)
    assert tab.cell.restarts == 1


@looptime
async def test_p5_back_off_doubles_and_starts_over_after_a_quiet_minute(world: World) -> None:
    """0.2, 0.4, 0.8 s (each +-20 %), and 0.2 s again after sixty seconds without a crash."""
    tab = await world.open()
    delays = []
    for pause_s in (0, 0, 0, 61, 0):
        await asyncio.sleep(pause_s)
        error = await tab.error("debug.crash")
        delays.append(error["details"]["restart_in_ms"])
        await world.state(tab.cell, "active")
    for delay, nominal in zip(delays, (200, 400, 800, 200, 400), strict=True):
        assert 0.8 * nominal <= delay <= 1.2 * nominal
    assert tab.cell.incarnation == 6


@looptime
async def test_p6_more_than_three_crashes_in_a_minute_fail_the_session(world: World) -> None:
    """The fourth gives up: refused with SESSION_FAILED, state kept, sibling untouched, revivable."""
    tab, sibling = await world.open(1), await world.open(1)
    await tab.call("debug.incr", {"key": "n"})
    for _ in range(3):
        await tab.error("debug.crash")
    await tab.push("session.restarted", 3)
    error = await tab.error("debug.crash")
    assert error["details"]["restart_in_ms"] is None
    assert tab.cell.state == "failed"
    (push,) = await tab.push("session.failed")
    assert push["params"] == {"reason": "crash_loop"}
    with pytest.raises(ReplyError) as refused:
        tab.send("t.note", 1)
    assert refused.value.code == "SESSION_FAILED"
    assert refused.value.details == {"reason": "crash_loop"}
    with pytest.raises(ReplyError, match="SESSION_FAILED"):
        await world.sessions.resume(
            world.lobby(tab, session_id=tab.session_id, token=tab.token), None, None
        )
    assert await sibling.call("t.note", 1) == 1
    await asyncio.sleep(1)  # simulated: the save is over
    snapshot = await world.store.load(tab.cell.sid)
    assert snapshot.row.facts.failed
    assert snapshot.slots == {"n": b"1"}

    await world.sessions.steer(tab.cell.sid, "revive")
    assert await tab.call("debug.state_get", {"key": "n"}) == 1
    await tab.error("debug.crash")  # the budget is a new one
    await world.state(tab.cell, "active")


@looptime
async def test_p6_three_crashes_are_within_the_budget_and_old_ones_do_not_count(
    world: World,
) -> None:
    """Three crashes, a minute, three more: the session lives."""
    tab = await world.open()
    for _ in range(2):
        for _ in range(3):
            await tab.error("debug.crash")
            await world.state(tab.cell, "active")
        await asyncio.sleep(60)
    assert await tab.call("t.note", 1) == 1


@looptime
async def test_p6_the_budget_is_never_shared(world: World) -> None:
    """Ten sessions crash three times each: all live."""
    tabs = [await world.open(n) for n in range(10)]
    for _ in range(3):
        for tab in tabs:
            await tab.error("debug.crash")
    for tab in tabs:
        assert await tab.call("t.note", 1) == 1


@looptime
async def test_p6_reset_starts_over_with_an_empty_state(world: World) -> None:
    """reset clears the slots, keeps the ledger, works on failed and restarting sessions."""
    tab = await world.open()
    await tab.call("debug.incr", {"key": "n"}, id="first")
    for _ in range(4):
        await tab.error("debug.crash")
    await world.state(tab.cell, "failed")
    await world.sessions.steer(tab.cell.sid, "reset")
    assert await tab.call("debug.state_get", {"key": "n"}) is None
    frame = await tab.request("debug.incr", {"key": "n"}, id="first")
    assert (frame["result"], frame["meta"]["replayed"]) == (1, True)
    assert tab.peer.pushes("session.restarted")[-1]["params"]["reason"] == "reset"
    await tab.error("debug.crash")
    assert tab.cell.state == "restarting"
    await world.sessions.steer(tab.cell.sid, "reset")
    assert await tab.call("debug.incr", {"key": "n"}) == 1
    incarnation = tab.cell.incarnation
    await asyncio.sleep(30)  # the timer of the back-off is gone with it
    assert tab.cell.incarnation == incarnation
    assert (await world.store.load(tab.cell.sid)).slots == {"n": b"1"}


@looptime
async def test_p6_commands_that_do_not_fit_are_refused(world: World) -> None:
    """An operator's command for the wrong state or for no session is a SupervisionError."""
    tab = await world.open()
    with pytest.raises(SupervisionError, match="active cannot be revived"):
        await world.sessions.steer(tab.cell.sid, "revive")
    with pytest.raises(SupervisionError, match="no such session"):
        await world.sessions.steer("nobody", "reset")
    await tab.error("debug.crash")
    with pytest.raises(SupervisionError, match="restarting cannot be restarted"):
        await world.sessions.steer(tab.cell.sid, "restart")
    await world.state(tab.cell, "active")
    tab.send("t.wait", {"n": "a"})
    with pytest.raises(SupervisionError, match="requests in work"):
        await world.sessions.steer(tab.cell.sid, "passivate")


@looptime
async def test_p5_stale_messages_change_nothing(world: World) -> None:
    """What is told of an incarnation that is gone does not hit its successor."""
    tab = await world.open()
    cell = tab.cell
    await tab.error("debug.crash")
    await world.state(cell, "active")
    tell = world.sessions.tell_supervisor
    tell(RestartDue(cell, 1))
    tell(HandlerAbandoned(cell, 1, "x", ErrorCode.TIMEOUT))
    tell(SessionCrashed(cell, 1, None, ValueError("old")))
    assert await tab.call("t.note", 1) == 1
    assert (cell.incarnation, cell.state) == (2, "active")


@looptime
async def test_p5_the_biography_keeps_the_last_fifty_transitions(world: World) -> None:
    """Every change of state is noted with its reason."""
    tab = await world.open()
    await tab.error("debug.crash")
    await world.state(tab.cell, "active")
    noted = [(str(t.event), str(t.state)) for t in tab.cell.transitions]
    assert noted == [
        ("started", "active"),
        ("crashed", "restarting"),
        ("backoff_over", "starting"),
        ("started", "active"),
    ]
    assert "DebugCrashError" in tab.cell.transitions[1].note
    for _ in range(40):
        await world.sessions.steer(tab.cell.sid, "restart")
    assert len(tab.cell.transitions) == 50
    assert repr(tab.cell) == f"Cell({tab.cell.sid}, active, incarnation=42)"


@looptime
async def test_p1_no_session_sees_anothers_state(world: World) -> None:
    """The same slot name in two sessions, even of one user, is two slots."""
    tabs = [await world.open(1), await world.open(1), await world.open(2)]
    for n, tab in enumerate(tabs):
        await tab.call("debug.state_set", {"key": "mine", "value": n})
    assert [await tab.call("debug.state_get", {"key": "mine"}) for tab in tabs] == [0, 1, 2]
    await tabs[0].call("debug.push", {"method": "only.mine"})
    assert [len(tab.peer.pushes()) for tab in tabs] == [1, 0, 0]


async def test_p1_forty_blocked_sessions_do_not_stop_others(world: World) -> None:
    """Forty sessions block a thread each; the forty-first is served, sync and async."""
    tabs = [await world.open(n) for n in range(40)]
    blocked = [tab.send("t.block", {"n": "wall"}) for tab in tabs]
    other = await world.open(100)
    await world.until(lambda: world.workers.threads - world.workers.idle == 40)
    assert await other.call("debug.block", {"seconds": 0}) == {"blocked_s": 0.0}
    assert await other.call("debug.incr", {"key": "n"}) == 1
    assert not any(tab.peer.finals(id_) for tab, id_ in zip(tabs, blocked, strict=True))
    world.gate("wall").set()
    for tab, id_ in zip(tabs, blocked, strict=True):
        assert (await tab.reply(id_))["result"] == "wall"


async def test_get_handler_context_works_in_every_kind_of_handler(world: World) -> None:
    """Inline, coroutine and thread handlers find their own context; outside there is none."""
    tab = await world.open()
    assert await tab.call("t.context_inline") is True
    assert await tab.call("t.context_async") is True
    assert (await tab.call("t.context_thread")).startswith("ecan-worker")
    with pytest.raises(LookupError, match="only while a handler runs"):
        get_handler_context()


@looptime
async def test_p9_five_sessions_crashed_suspend_a_method() -> None:
    """The fifth different session suspends it; four do not; ops can resume it."""

    @handler("shop.buy")
    async def buy(ctx: UserContext, params: Any) -> None:
        raise ValueError("out of luck")

    async with a_world(buy) as world:
        tabs = [await world.open(n) for n in range(6)]
        for tab in (tabs[0], *tabs[:4]):
            assert (await tab.error("shop.buy", {}))["code"] == "HANDLER_CRASHED"
        assert not world.guard.is_suspended("shop.buy")
        await tabs[4].error("shop.buy", {})
        with pytest.raises(ReplyError, match="METHOD_SUSPENDED"):
            tabs[5].send("shop.buy", {})
        assert await tabs[5].call("t.note", 1) == 1
        assert world.guard.resume("shop.buy")
        assert (await tabs[5].error("shop.buy", {}))["code"] == "HANDLER_CRASHED"


@looptime
async def test_p9_debug_methods_are_never_suspended(world: World) -> None:
    """Crashing is what they are for."""
    for n in range(7):
        tab = await world.open(n)
        await tab.error("debug.crash")
    assert world.guard.suspended == {}


@looptime
async def test_p9_a_dead_letter_keeps_the_request_without_its_secrets() -> None:
    """Request, traceback, incarnation and the context before it; passwords and tokens redacted."""

    @handler("shop.buy")
    async def buy(ctx: UserContext, params: Any) -> None:
        ctx.state["n"] = 99
        raise ValueError("out of luck")

    async with a_world(buy) as world:
        tab = await world.open(username="ann")
        await tab.call("debug.incr", {"key": "n"})
        params = {"what": "hat", "password": "hunter2", "deep": [{"api_key": "k"}]}
        error = await tab.error("shop.buy", params, id="req-1")
        (letter,) = await world.letters()
        assert letter.crash_id == error["details"]["crash_id"]
        assert (letter.sid, letter.user_id, letter.username) == (tab.cell.sid, 1, "ann")
        assert (letter.method, letter.request_id, letter.incarnation) == ("shop.buy", "req-1", 1)
        assert orjson.loads(letter.params) == {
            "what": "hat",
            "password": "[redacted]",
            "deep": [{"api_key": "[redacted]"}],
        }
        assert letter.error == "ValueError: out of luck"
        assert "ValueError: out of luck" in letter.traceback
        assert letter.context == {"n": b"1"}
        assert letter.at == world.clock.now()
