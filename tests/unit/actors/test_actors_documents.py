"""ADR 10: documents of a user go with their request's commit, and conflicts run it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from sessions_kit import Tab, World, a_world
from stores_kit import KitStore, has_answer

from ecan.actors.session import MAX_RUNS
from ecan.errors import HandlerError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import Final, handler

looptime = pytest.mark.looptime(start=1000)


@handler("t.put")
async def put(ctx: UserContext, params: Any) -> None:
    notes = ctx.user.collection("notes")
    for key, value in params.items():
        notes.put(key, value)


@handler("t.get", reads=True)
async def get(ctx: UserContext, params: Any) -> Any:
    return await ctx.user.collection("notes").get(params)


@handler("t.keys", reads=True)
async def keys(ctx: UserContext) -> Any:
    page = await ctx.user.collection("notes").list()
    return [document.key for document in page.documents]


class Contest:
    """A handler that counts a document up while another session of the user writes it too."""

    def __init__(self) -> None:
        self.runs = 0
        self.rivals = 0
        self.rival: Tab
        self.contexts: list[UserContext] = []

    async def _interfere(self) -> None:
        if self.rivals:
            self.rivals -= 1
            await self.rival.call("t.put", {"n": 100 * self.runs})

    def handlers(self) -> list[Callable[..., Any]]:
        @handler("t.count")
        async def count(ctx: UserContext, params: Any) -> int:
            self.runs += 1
            self.contexts.append(ctx)
            ctx.state["runs"] = ctx.state.get("runs", 0) + 1
            ctx.push("t.pushed", self.runs)
            notes = ctx.user.collection("notes")
            n = await notes.get("n", 0)
            await self._interfere()
            notes.put("n", n + 1)
            return int(n + 1)

        @handler("t.stream_count")
        async def stream_count(ctx: UserContext) -> AsyncGenerator[Any, None]:
            self.runs += 1
            notes = ctx.user.collection("notes")
            n = await notes.get("n", 0)
            yield self.runs
            await self._interfere()
            notes.put("n", n + 1)
            yield Final(n + 1)

        @handler("t.sum", reads=True)
        async def total(ctx: UserContext) -> list[Any]:
            self.runs += 1
            notes = ctx.user.collection("notes")
            n = await notes.get("n", 0)
            await self._interfere()
            return [n, await notes.get("other", 0)]

        @handler("t.once", reads=True)
        async def once(ctx: UserContext) -> Any:
            self.runs += 1
            n = await ctx.user.collection("notes").get("n", 0)
            await self._interfere()
            return n

        return [put, get, keys, count, stream_count, total, once]


async def contestants(world: World, contest: Contest) -> Tab:
    """Two sessions of one user: one runs the contest, the other is its rival."""
    contest.rival = await world.open(1)
    return await world.open(1)


# -- shared by a user's sessions, and by nobody else ---------------------------------------


@looptime
async def test_p1_documents_are_shared_by_the_sessions_of_one_user_only() -> None:
    """The user's other session sees them, another user does not; they outlive the session."""
    async with a_world(put, get, keys) as world:
        first, second, stranger = [await world.open(user_id) for user_id in (1, 1, 2)]
        await first.call("t.put", {"a": 1, "b": 2})
        assert await second.call("t.get", "a") == 1
        assert await second.call("t.keys") == ["a", "b"]
        assert await stranger.call("t.get", "a") is None
        assert await stranger.call("t.keys") == []
        await stranger.call("t.put", {"a": "mine"})
        assert await first.call("t.get", "a") == 1
        await world.sessions.close_user(1, "logout")
        assert await (await world.open(1)).call("t.get", "a") == 1


@looptime
async def test_settings_are_the_same_in_every_session_of_the_user(world: World) -> None:
    """Two save different ones at the same moment: both are kept."""
    tabs = [await world.open(1), await world.open(1)]
    requests = [
        tab.send("save_settings", {"settings": {name: 1}})
        for tab, name in zip(tabs, "ab", strict=True)
    ]
    for tab, request in zip(tabs, requests, strict=True):
        assert (await tab.reply(request))["status"] == "success"
    for tab in tabs:
        assert (await tab.call("get_settings"))["settings"] == {"a": 1, "b": 1}


# -- one commit ----------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("ending", ["declared", "crash", "timeout", "store"])
async def test_p4_documents_are_written_with_the_request_or_not_at_all(ending: str) -> None:
    """Declared error, crash, timeout, a store that cannot write: nothing of it is there."""

    @handler("t.write")
    async def write(ctx: UserContext) -> None:
        ctx.user.collection("notes").put("a", 1)
        ctx.state["n"] = 1
        if ending == "declared":
            raise HandlerError("NOPE", "declared")
        if ending == "crash":
            raise ValueError("crash")
        if ending == "timeout":
            await asyncio.sleep(100)

    async with a_world(write, get) as world:
        tab = await world.open()
        if ending == "store":
            world.store.fail.add("commit")
        error = await tab.error("t.write", deadline_s=5)
        assert (
            error["code"]
            == {
                "declared": "NOPE",
                "crash": "HANDLER_CRASHED",
                "timeout": "TIMEOUT",
                "store": "BUSY",
            }[ending]
        )
        world.store.fail.clear()
        await world.state(tab.cell, "active")
        assert await tab.call("t.get", "a") is None
        assert await tab.call("debug.state_get", {"key": "n"}) is None


@looptime
async def test_p11_documents_state_and_answer_are_one_commit() -> None:
    """Other sessions see the document when the reply may leave, not before."""
    async with a_world(put, get, store=KitStore(has_answer)) as world:
        tab, other = await world.open(), await world.open()
        request = tab.send("t.put", {"a": 1})
        (held,) = await world.until(lambda: world.store.held)
        assert held.commit.answer.request_id == request
        assert [write.key for write in held.commit.documents] == ["a"]
        assert await other.call("t.get", "a") is None
        held.land()
        await tab.reply(request)
        assert await other.call("t.get", "a") == 1


@looptime
@pytest.mark.parametrize("kind", ["inline", "concurrent"])
async def test_documents_can_be_written_by_every_kind_of_method(kind: str) -> None:
    """Inline ones cannot wait for a read but write; concurrent ones are bound in state only."""

    @handler("t.inline", inline=True)
    def inline(ctx: UserContext) -> None:
        ctx.user.collection("notes").put("a", 1)

    @handler("t.concurrent", concurrent=True)
    async def concurrent(ctx: UserContext) -> None:
        notes = ctx.user.collection("notes")
        notes.put("a", await notes.get("a", 0) + 1)

    async with a_world(inline, concurrent, get) as world:
        tab = await world.open()
        await tab.call(f"t.{kind}")
        assert await tab.call("t.get", "a") == 1


async def test_documents_from_a_worker_thread() -> None:
    """get_blocking and list_blocking wait in the thread; put and delete do not wait."""

    @handler("t.thread")
    def thread(ctx: UserContext) -> Any:
        notes = ctx.user.collection("notes")
        keys = [
            document.key for document in notes.list_blocking(prefix="a", order="-key").documents
        ]
        before = notes.get_blocking("a1"), notes.get_blocking("none", "default")
        notes.put("a1", "new")
        notes.delete("a2")
        return [keys, before, notes.get_blocking("a1"), notes.get_blocking("a2")]

    async with a_world(put, keys, thread) as world:
        tab = await world.open()
        await tab.call("t.put", {"a1": 1, "a2": 2, "b": 3})
        assert await tab.call("t.thread") == [["a2", "a1"], [1, "default"], "new", None]
        assert await tab.call("t.keys") == ["a1", "b"]


@looptime
@pytest.mark.parametrize("method", ["t.get", "t.keys"])
async def test_reading_while_the_store_is_down_is_busy(method: str) -> None:
    """An answer, no crash; later it works."""
    async with a_world(put, get, keys) as world:
        tab = await world.open()
        world.store.fail |= {"document", "documents"}
        params = "a" if method == "t.get" else None
        error = await tab.error(method, params, id="r")
        assert (error["code"], error["details"]) == ("BUSY", {"reason": "store"})
        world.store.fail.clear()
        assert (await tab.request(method, params, id="r"))["status"] == "success"
        assert tab.cell.incarnation == 1


# -- conflicts -----------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("rivals", [1, MAX_RUNS - 1])
async def test_p4_a_conflict_runs_the_handler_again(rivals: int) -> None:
    """From the start, with what is true now; only the last run's effects are there."""
    contest = Contest()
    async with a_world(*contest.handlers()) as world:
        tab = await contestants(world, contest)
        contest.rivals = rivals
        assert await tab.call("t.count", {}, id="once") == 100 * rivals + 1
        assert contest.runs == rivals + 1
        assert await tab.call("t.get", "n") == 100 * rivals + 1
        assert await tab.call("debug.state_get", {"key": "runs"}) == 1
        assert [push["params"] for push in tab.peer.pushes()] == [rivals + 1]
        assert [push["meta"]["seq"] for push in tab.peer.pushes()] == [1]
        assert [ctx.cancelled for ctx in contest.contexts] == [True] * rivals + [False]
        assert tab.cell.incarnation == 1
        assert (await tab.request("t.count", {}, id="once"))["meta"]["replayed"] is True
        world.check_no_two_answers()


@looptime
async def test_p10_after_five_runs_a_conflict_is_an_answer_that_may_be_retried() -> None:
    """CONFLICT: nothing of it happened or is kept, and the same id may try again."""
    contest = Contest()
    async with a_world(*contest.handlers()) as world:
        tab = await contestants(world, contest)
        contest.rivals = MAX_RUNS
        error = await tab.error("t.count", {}, id="once")
        assert error.pop("message")
        assert error == {
            "code": "CONFLICT",
            "retryable": True,
            "outcome": "not_run",
            "retry_after_ms": 100,
        }
        assert (contest.runs, contest.rivals) == (MAX_RUNS, 0)
        assert await tab.call("t.get", "n") == 100 * MAX_RUNS
        assert await tab.call("debug.state_get", {"key": "runs"}) is None
        assert tab.peer.pushes() == []
        frame = await tab.request("t.count", {}, id="once")
        assert (frame["result"], frame["meta"]["replayed"]) == (100 * MAX_RUNS + 1, False)
        assert (tab.cell.incarnation, await world.letters()) == (1, [])


@looptime
async def test_a_stream_that_conflicts_sends_its_values_again() -> None:
    """Progress leaves at once (P4), so the tab sees both runs; the result is the last one's."""
    contest = Contest()
    async with a_world(*contest.handlers()) as world:
        tab = await contestants(world, contest)
        contest.rivals = 1
        assert await tab.call("t.stream_count") == 101
        assert tab.peer.pending() == [1, 2]


@looptime
async def test_p7_a_conflict_does_not_extend_the_deadline() -> None:
    """A handler that conflicts runs again until its time is up; then TIMEOUT, once."""

    @handler("t.slow")
    async def slow(ctx: UserContext) -> None:
        runs.append(world.clock.mono())
        notes = ctx.user.collection("notes")
        await notes.get("n")
        await asyncio.sleep(2)
        await rival.call("t.put", {"n": len(runs)})
        notes.put("n", -1)

    runs: list[float] = []
    async with a_world(put, get, slow) as world:
        rival, tab = await world.open(), await world.open()
        error = await tab.error("t.slow", deadline_s=5)
        assert (error["code"], len(runs)) == ("TIMEOUT", 3)
        await asyncio.sleep(10)
        assert (len(runs), await tab.call("t.get", "n")) == (3, 2)
        world.check_one_answer_each()


@looptime
@pytest.mark.parametrize("how", ["cancel", "logout"])
async def test_p3_a_request_that_ends_between_two_runs_is_not_run_again(how: str) -> None:
    """Stopped while its commit is refused: one answer, no third run."""
    contest = Contest()
    async with a_world(*contest.handlers(), store=KitStore()) as world:
        tab = await contestants(world, contest)
        world.store.holds = lambda commit: commit.checks != () and commit.sid == tab.cell.sid
        contest.rivals = 1
        request = tab.send("t.count", {})
        (held,) = await world.until(lambda: world.store.held)
        closing = None
        if how == "cancel":
            tab.cell.cancel(request)
        else:
            closing = asyncio.ensure_future(world.sessions.close(tab.cell.sid, how))
        await asyncio.sleep(1)
        assert tab.peer.finals(request) == []  # it may land: too late to say
        held.land()
        if how == "cancel":
            (_, again) = await world.until(lambda: len(world.store.held) == 2 and world.store.held)
            again.land()
        frame = await tab.reply(request)
        assert contest.runs == (2 if how == "cancel" else 1)
        assert frame["status"] == ("success" if how == "cancel" else "error")
        assert closing is None or await closing
        world.check_one_answer_each()


@looptime
async def test_p4_what_a_method_reads_more_than_once_was_true_at_one_moment() -> None:
    """Changed between two reads: looked at again. A single read is true by itself."""
    contest = Contest()
    async with a_world(*contest.handlers()) as world:
        tab = await contestants(world, contest)
        await tab.call("t.put", {"n": 1, "other": 2})
        contest.rivals = 1
        assert await tab.call("t.sum") == [100, 2]
        assert contest.runs == 2

        before = len(world.store.committed)
        contest.rivals = 1
        assert await tab.call("t.once") == 100
        assert (contest.runs, len(world.store.committed)) == (3, before + 1)  # the rival's own
        checked = [commit for commit in world.store.committed if commit.checks]
        assert [(c.answer, c.slots, c.pushes, c.documents) for c in checked] == [(None, {}, (), ())]


@looptime
async def test_p2_the_queue_waits_while_a_request_runs_again() -> None:
    """In order, all the same."""
    contest = Contest()
    async with a_world(*contest.handlers()) as world:
        tab = await contestants(world, contest)
        contest.rivals = 2
        first = tab.send("t.count", {})
        second = tab.send("t.get", "n")
        assert (await tab.reply(second))["result"] == (await tab.reply(first))["result"] == 201
