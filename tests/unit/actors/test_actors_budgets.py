"""Budgets of a session: measured, shown, and kept to."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import attrs
import pytest
from sessions_kit import a_world

from ecan.actors.budgets import NAMES
from ecan.config.parsers import Budget
from ecan.errors import ReplyError
from ecan.handlers import UserContext, handler
from ecan.observability.events import Watcher


@handler("b.burn")
def burn(ctx: UserContext, params: float) -> None:
    end = time.thread_time() + params
    while time.thread_time() < end:
        pass


@handler("b.burn_async")
async def burn_async(ctx: UserContext, params: float) -> None:
    for _ in range(4):
        end = time.perf_counter() + params / 4
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0.02)


@handler("b.burn_stream")
async def burn_stream(ctx: UserContext, params: float) -> Any:
    for n in range(4):
        end = time.perf_counter() + params / 4
        while time.perf_counter() < end:
            pass
        yield n
        await asyncio.sleep(0.02)


@handler("b.burn_inline", inline=True)
def burn_inline(ctx: UserContext, params: float) -> None:
    end = time.perf_counter() + params
    while time.perf_counter() < end:
        pass


@handler("b.large", inline=True)
def large(ctx: UserContext, params: int) -> int:
    ctx.state["large"] = "x" * params
    return params


BURNERS = (burn, burn_async, burn_stream, burn_inline)


def budget(tab: Any) -> dict[str, Any]:
    return tab.cell.usage.report(tab.cell, tab.world.clock.mono())


def charge(tab: Any, wall_s: float = 0.0, cpu_s: float = 0.0) -> None:
    tab.cell.usage.charge(tab.world.clock.mono(), wall_s, cpu_s)


# -- measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["b.burn", "b.burn_async", "b.burn_stream", "b.burn_inline"])
async def test_cpu_time_of_every_kind_of_handler_is_counted(method):
    """On the loop it is the time of the steps, in a thread that thread's own."""
    async with a_world(*BURNERS) as world:
        tab = await world.open()
        await tab.call(method, 0.1)
        used = budget(tab)
        assert 0.09 < used["cpu_s"]["used"] < 0.5
        assert used["wall_s"]["used"] >= 0.09


async def test_waiting_is_wall_time_and_no_cpu_time():
    async with a_world() as world:
        tab = await world.open()
        await tab.call("debug.sleep", {"seconds": 0.1})
        await tab.call("debug.block", {"seconds": 0.1})
        used = budget(tab)
        assert used["cpu_s"]["used"] < 0.09
        assert used["wall_s"]["used"] >= 0.2


async def test_cpu_time_of_a_worker_process_is_counted():
    async with a_world() as world:
        tab = await world.open()
        await tab.call("debug.spin_process", {"seconds": 0.2})
        assert 0.03 < budget(tab)["cpu_s"]["used"] < 1.0


async def test_cpu_time_of_an_abandoned_thread_is_counted_when_it_returns():
    async with a_world(*BURNERS) as world:
        tab = await world.open()
        assert (await tab.error("b.burn", 0.3, deadline_s=0.1))["code"] == "TIMEOUT"
        assert budget(tab)["cpu_s"]["used"] < 0.1
        await world.until(lambda: budget(tab)["cpu_s"]["used"] >= 0.29)


async def test_what_runs_counts_as_wall_time_already():
    async with a_world() as world:
        tab = await world.open()
        request = tab.send("t.wait", {"n": "a"})
        await world.has_started("a").wait()
        await asyncio.sleep(0.05)
        assert budget(tab)["wall_s"]["used"] >= 0.05
        world.async_gate("a").set()
        await tab.reply(request)


async def test_a_metered_coroutine_behaves_as_itself():
    """Results, errors, cancellation, and time-outs inside."""
    seen = []

    @handler("b.caught")
    async def caught(ctx: UserContext) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timeout"
        return "no"

    @handler("b.cancelled")
    async def cancelled(ctx: UserContext) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with a_world(caught, cancelled) as world:
        tab = await world.open()
        assert await tab.call("b.caught") == "timeout"
        assert (await tab.error("b.cancelled", deadline_s=0.05))["code"] == "TIMEOUT"
        await world.until(lambda: seen == ["cancelled"])


async def test_bytes_are_counted_over_all_connections_of_a_session():
    async with a_world(large) as world:
        tab = await world.open()
        other = tab.another()
        await tab.call("debug.push", {"method": "x", "params": "y" * 1000})
        sent = tab.peer.sent_bytes + other.peer.sent_bytes
        assert sent > 2000
        assert budget(tab)["sent_bytes"]["used"] == sent
        other.leave()
        assert budget(tab)["sent_bytes"]["used"] == sent
        await tab.call("b.large", 500)
        assert budget(tab)["state_bytes"]["used"] == 502


async def test_what_a_connection_sent_before_it_was_bound_is_not_the_sessions():
    async with a_world() as world:
        tab, stranger = await world.open(), await world.open(2)
        stranger.peer.sent_bytes = 10_000
        world.sessions.attach(tab.cell, stranger.peer)
        assert budget(tab)["sent_bytes"]["used"] == 0


async def test_the_user_sees_every_budget_in_session_info():
    async with a_world(budget_cpu_s=Budget(20.0, 50.0)) as world:
        tab = await world.open()
        charge(tab, cpu_s=1.5)
        shown = (await tab.call("session.info"))["budget"]
        assert list(shown) == list(NAMES)
        assert shown["cpu_s"] == {"used": pytest.approx(1.5, abs=0.1), "soft": 20.0, "hard": 50.0}
        assert shown["wall_s"]["hard"] is None


# -- kept to -----------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_soft_limit_warns_once_a_minute_and_refuses_nothing():
    async with a_world(budget_wall_s=Budget(20.0, 500.0)) as world:
        tab = await world.open()
        watcher = Watcher(lambda: None, ("session.budget",))
        world.env.events.add(watcher)
        await tab.call("t.note", {})
        charge(tab, wall_s=100.0)
        for _ in range(8):
            await asyncio.sleep(10)
            await tab.call("t.note", {})
        pushes = await tab.push("session.budget", 2)
        assert [push["params"]["name"] for push in pushes] == ["wall_s", "wall_s"]
        assert {k: pushes[0]["params"][k] for k in ("soft", "hard")} == {
            "soft": 20.0,
            "hard": 500.0,
        }
        assert 90 < pushes[0]["params"]["used"] <= 100
        assert [event["name"] for event in watcher.take()] == ["wall_s", "wall_s"]
        assert world.metrics.labelled("budget_exceeded") == {"wall_s_soft": 2}


@pytest.mark.looptime
async def test_a_hard_limit_refuses_until_the_window_has_passed():
    """The answer says when; control methods and retries go on."""
    async with a_world(budget_cpu_s=Budget(20.0, 50.0)) as world:
        tab = await world.open()
        await tab.call("t.note", {}, id="before")
        charge(tab, cpu_s=100.0)
        await asyncio.sleep(1)
        with pytest.raises(ReplyError) as caught:
            tab.send("t.note", {})
        error = caught.value
        assert (error.code, error.outcome) == ("RATE_LIMITED", "not_run")
        assert error.details == {"reason": "budget", "budget": "cpu_s", "used": 100.0, "hard": 50.0}
        assert (await tab.call("session.info"))["budget"]["cpu_s"]["used"] == 100.0
        await tab.call("ping", {}) if world.registry.get("ping") else None
        assert (await tab.request("t.note", {}, id="before"))["meta"]["replayed"]
        assert 80_000 < error.retry_after_ms < 95_000
        await asyncio.sleep(error.retry_after_ms / 1000 - 1)
        with pytest.raises(ReplyError):
            tab.send("t.note", {})
        await asyncio.sleep(1.1)
        await tab.call("t.note", {})


@pytest.mark.looptime
async def test_a_session_that_stays_over_is_suspended_until_an_operator_resumes_it():
    async with a_world(budget_cpu_s=Budget(20.0, 50.0), budget_windows=2) as world:
        tab = await world.open()
        watcher = Watcher(lambda: None, ("session.suspended", "session.throttled"))
        world.env.events.add(watcher)
        await tab.call("t.note", {})

        def refusal() -> dict[str, Any]:
            charge(tab, cpu_s=60.0)
            with pytest.raises(ReplyError, match="RATE_LIMITED") as caught:
                tab.send("t.note", {})
            return caught.value.details

        for _ in range(2):
            await asyncio.sleep(61)
            assert refusal()["budget"] == "cpu_s"
        await asyncio.sleep(61)
        assert refusal() == {"reason": "budget", "suspended": True}
        assert tab.cell.mailbox.paused
        assert [e["kind"] for e in watcher.take()] == [
            "session.throttled", "session.throttled", "session.suspended",
        ]  # fmt: skip
        await tab.push("session.suspended")
        await asyncio.sleep(3600)
        assert refusal() == {"reason": "budget", "suspended": True}
        await world.sessions.steer(tab.cell.sid, "resume")
        await tab.call("t.note", {})
        assert budget(tab)["cpu_s"]["used"] < 1


@pytest.mark.looptime
async def test_a_session_that_keeps_to_its_budget_in_between_is_not_suspended():
    async with a_world(budget_cpu_s=Budget(20.0, 50.0), budget_windows=2) as world:
        tab = await world.open()
        await tab.call("t.note", {})
        for _ in range(10):
            charge(tab, cpu_s=60.0)
            await asyncio.sleep(1)
            with pytest.raises(ReplyError):
                tab.send("t.note", {})
            await asyncio.sleep(150)
            await tab.call("t.note", {})


async def test_queued_bytes_are_bounded_to_the_byte():
    async with a_world(budget_queued_bytes=Budget(1000, 2000)) as world:
        tab = await world.open()
        running = tab.send("t.wait", {"n": "a"})
        await world.has_started("a").wait()
        for _ in range(9):
            tab.send("t.note", {}, size_bytes=200)
        with pytest.raises(ReplyError) as caught:
            tab.send("t.note", {}, size_bytes=200)
        assert caught.value.details["budget"] == "queued_bytes"
        tab.send("t.note", {}, size_bytes=100)
        world.async_gate("a").set()
        await tab.reply(running)
        await world.until(lambda: not tab.cell.pending)
        await tab.call("t.note", {}, size_bytes=200)


@pytest.mark.looptime
async def test_a_tab_that_is_behind_holds_its_session_back():
    async with a_world(budget_backlog_bytes=Budget(1000, 2000)) as world:
        tab = await world.open()
        await tab.call("t.note", {})
        tab.peer.backlog_bytes = 3000
        await asyncio.sleep(1)
        with pytest.raises(ReplyError) as caught:
            tab.send("t.note", {})
        assert caught.value.retry_after_ms == 1000
        tab.peer.backlog_bytes = 0
        await tab.call("t.note", {})


async def test_a_state_that_would_be_too_large_is_rolled_back_and_may_shrink():
    """Whoever is over already (the limit came later) may still write less."""
    async with a_world(large, budget_state_bytes=Budget(500, 1000)) as world:
        tab = await world.open()
        await tab.call("b.large", 900)
        error = await tab.error("b.large", 2000)
        assert error["code"] == "STATE_TOO_LARGE"
        assert error["details"] == {"size_bytes": 2002, "limit_bytes": 1000}
        assert len(await tab.call("debug.state_get", {"key": "large"})) == 900
        tab.cell.slots["large"] = b'"' + b"x" * 5000 + b'"'
        await tab.call("b.large", 3000)
        await tab.call("b.large", 10)


@pytest.mark.looptime
async def test_limits_that_change_while_the_server_runs_are_kept_to():
    async with a_world() as world:
        tab = await world.open()
        await tab.call("t.note", {})
        charge(tab, cpu_s=1000.0)
        object.__setattr__(world.settings, "budget_cpu_s", Budget(1.0, 2.0))
        await asyncio.sleep(61)
        with pytest.raises(ReplyError):
            tab.send("t.note", {})


async def test_by_default_nothing_is_limited():
    async with a_world(large) as world:
        tab = await world.open()
        charge(tab, wall_s=1e6, cpu_s=1e6)
        await tab.call("b.large", 500_000)
        assert {row["hard"] for row in budget(tab).values()} == {None}
        assert attrs.asdict(world.settings)["budget_windows"] == 5
