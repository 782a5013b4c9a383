"""P9: a dead letter is run again, on a copy of its session or in the session itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import attrs
import pytest
from sessions_kit import Tab, World, a_world

from ecan.actors.replay import Replay
from ecan.errors import HandlerError, ReplyError, StoreUnavailableError, SupervisionError
from ecan.handlers.context import UserContext
from ecan.handlers.registry import handler
from ecan.store import Commit

looptime = pytest.mark.looptime(start=1000)

KINDS = ("inline", "async", "overlapping", "thread", "stream")


class Shop:
    """Handlers with a bug that can be put right.

    Attributes:
        bug: what buying does after its effects; None: nothing.
    """

    def __init__(self) -> None:
        self.bug: Callable[[UserContext], Any] | None = self.crash
        self.bought: list[str] = []

    @staticmethod
    def crash(ctx: UserContext) -> None:
        raise ValueError("out of luck")

    def _effects(self, ctx: UserContext, params: Any) -> str:
        self.bought.append(ctx.sid)
        ctx.state["hats"] = ctx.state.get("hats", 0) + 1
        ctx.state.pop("wish", None)
        ctx.push("shop.bought", params["what"])
        ctx.user.collection("orders").put("last", params["what"])
        if self.bug is not None:
            self.bug(ctx)
        return f"bought {params['what']}"

    def handlers(self) -> list[Callable[..., Any]]:
        @handler("shop.async")
        async def async_(ctx: UserContext, params: Any) -> str:
            orders = ctx.user.collection("orders")
            before = await orders.get("last")
            return f"{self._effects(ctx, params)}, {before} before"

        @handler("shop.inline", inline=True)
        def inline(ctx: UserContext, params: Any) -> str:
            return self._effects(ctx, params)

        @handler("shop.thread")
        def thread(ctx: UserContext, params: Any) -> str:
            return self._effects(ctx, params)

        @handler("shop.stream")
        async def stream(ctx: UserContext, params: Any) -> AsyncGenerator[Any, None]:
            yield 1
            self._effects(ctx, params)

        @handler("shop.overlapping", concurrent=True)
        async def overlapping(ctx: UserContext, params: Any) -> str:
            if self.bug is not None:
                self.bug(ctx)
            return "looked"

        @handler("shop.order")
        async def order(ctx: UserContext, params: Any) -> None:
            ctx.user.collection("orders").put("last", params)

        return [async_, inline, thread, stream, overlapping, order]


async def crashed(world: World, tab: Tab, method: str = "shop.async", **params: Any) -> str:
    """Make a dead letter; its crash id."""
    error = await tab.error(method, {"what": "hat", **params})
    assert error["code"] == "HANDLER_CRASHED"
    await world.until(lambda: tab.cell.state == "active")
    return str(error["details"]["crash_id"])


# -- on a copy -----------------------------------------------------------------------------


@looptime
async def test_p9_a_replay_on_a_copy_tells_what_it_would_do() -> None:
    """Result, state before and after, pushes, documents: over the state it crashed on."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        await tab.call("debug.state_set", {"key": "hats", "value": 3})
        await tab.call("debug.state_set", {"key": "wish", "value": "hat"})
        await tab.call("shop.order", "scarf")
        crash_id = await crashed(world, tab)
        await tab.call("debug.state_set", {"key": "hats", "value": 70})  # after the crash
        shop.bug = None
        replay = await world.sessions.replay(crash_id)
        assert replay.pushes.pop()["params"] == "hat"
        assert replay == Replay(
            crash_id=crash_id,
            method="shop.async",
            applied=False,
            status="success",
            result="bought hat, scarf before",
            slots={"hats": (3, 4), "wish": ("hat", None)},
            documents={"orders/last": "hat"},
        )


@looptime
async def test_p9_nothing_of_a_replay_on_a_copy_is_kept() -> None:
    """No state, push, document, answer, letter, figure, incarnation; and again tells the same."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab)
        before = (
            world.store.committed[:],
            tab.peer.frames[:],
            dict(tab.cell.slots),
            tab.cell.incarnation,
            world.observed[:],
            world.metrics.crashes,
            world.metrics.commits,
        )
        for bug in (None, shop.crash, shop.crash, None):
            shop.bug = bug
            first, second = [await world.sessions.replay(crash_id) for _ in range(2)]
            assert (first.status, first.result, first.slots) == (
                second.status,
                second.result,
                second.slots,
            )
        await asyncio.sleep(5)
        assert before == (
            world.store.committed,
            tab.peer.frames,
            dict(tab.cell.slots),
            tab.cell.incarnation,
            world.observed,
            world.metrics.crashes,
            world.metrics.commits,
        )
        assert [letter.crash_id for letter in await world.letters()] == [crash_id]
        assert not world.guard.is_suspended("shop.async")
        assert await world.store.document(1, "orders", "last") is None


@pytest.mark.parametrize("kind", KINDS)
async def test_p9_every_kind_of_method_can_be_replayed(kind: str) -> None:
    """It crashes on a copy as it did in the session, and succeeds when the bug is gone."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab, f"shop.{kind}")
        replay = await asyncio.wait_for(world.sessions.replay(crash_id), 10)
        assert (replay.status, replay.result) == ("crash", None)
        assert replay.error["code"] == "HANDLER_CRASHED"
        assert "ValueError: out of luck" in replay.error["message"]
        assert (replay.slots, replay.pushes, replay.documents) == ({}, [], {})
        shop.bug = None
        replay = await asyncio.wait_for(world.sessions.replay(crash_id), 10)
        assert (replay.status, replay.error) == ("success", None)
        assert replay.slots == ({} if kind == "overlapping" else {"hats": (None, 1)})
        assert tab.cell.incarnation == 2


@looptime
async def test_p9_a_crash_on_a_copy_comes_with_its_traceback() -> None:
    """As `Replay.error` says: an operator wants to see where."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        replay = await world.sessions.replay(await crashed(world, tab))
        assert "out of luck" in replay.error["traceback"]
        assert "Traceback" in replay.error["traceback"]


@looptime
@pytest.mark.parametrize("ending", ["declared", "timeout", "store"])
async def test_p9_a_replay_that_ends_otherwise_is_an_error(ending: str) -> None:
    """A declared error, a deadline, a store that cannot be read: the reply's error says which."""
    shop = Shop()

    @handler("shop.slow", timeout_s=3)
    async def slow(ctx: UserContext, params: Any) -> None:
        if shop.bug is not None:
            shop.bug(ctx)
        if ending == "declared":
            raise HandlerError("NOPE", "declared")
        if ending == "store":
            raise StoreUnavailableError("no disk")
        await asyncio.sleep(100)

    async with a_world(*shop.handlers(), slow) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab, "shop.slow")
        shop.bug = None
        replay = await world.sessions.replay(crash_id)
        codes = {"declared": "NOPE", "timeout": "TIMEOUT", "store": "BUSY"}
        assert (replay.status, replay.error["code"]) == ("error", codes[ending])


@looptime
async def test_p16_a_replay_says_that_secrets_are_missing() -> None:
    """Params are kept redacted, so it is not quite the same request."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        plain = await crashed(world, tab)
        secret = await crashed(world, tab, password="hunter2")
        shop.bug = None
        assert (await world.sessions.replay(plain)).redacted is False
        replay = await world.sessions.replay(secret)
        assert replay.redacted is True
        assert "hunter2" not in repr(replay)


@looptime
@pytest.mark.parametrize("apply", [False, True])
async def test_p9_what_cannot_be_replayed_is_refused(apply: bool) -> None:
    """No such letter; a method that is gone; params that do not fit it any more."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        await crashed(world, tab)
        (letter,) = await world.letters()
        with pytest.raises(SupervisionError, match="no such dead letter"):
            await world.sessions.replay("nonsense", apply=apply)

        await keep_letter(world, letter, crash_id="gone", method="shop.gone")
        with pytest.raises(SupervisionError, match=r"no method shop\.gone"):
            await world.sessions.replay("gone", apply=apply)
        await keep_letter(world, letter, crash_id="misfit", method="debug.incr")
        with pytest.raises(ReplyError, match="INVALID_PARAMS"):
            await world.sessions.replay("misfit", apply=apply)


async def keep_letter(world: World, letter: Any, **changes: Any) -> None:
    """A letter that was made by another version of the handlers."""
    world.store.commit(
        Commit(sid=letter.sid, incarnation=1, letter=attrs.evolve(letter, **changes))
    )


@looptime
async def test_p9_a_copy_that_ends_its_session_ends_nothing() -> None:
    """The replay is over all the same, and the real session lives."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab)
        shop.bug = lambda ctx: ctx.session.end(ctx, "logout")
        replay = await asyncio.wait_for(world.sessions.replay(crash_id), 100)
        assert replay.status == "success"
        assert tab.cell.state == "active"


@looptime
async def test_p9_a_copy_asks_no_tab() -> None:
    """`ctx.call` on a copy waits for nobody who could answer: it ends with its deadline."""
    shop = Shop()

    @handler("shop.ask")
    async def ask(ctx: UserContext, params: Any) -> Any:
        if shop.bug is not None:
            shop.bug(ctx)
        return await ctx.call("ui.ask", {}, timeout_s=5)

    async with a_world(*shop.handlers(), ask) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab, "shop.ask")
        shop.bug = None
        replay = await world.sessions.replay(crash_id)
        assert (replay.status, replay.error["code"]) == ("error", "CLIENT_TIMEOUT")
        assert tab.peer.pushes("ui.ask") == []


@looptime
async def test_p9_a_copy_whose_session_is_gone_can_be_replayed() -> None:
    """The letter has all it takes; in the session it cannot be applied any more."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab)
        await world.sessions.close(tab.cell.sid, "logout")
        shop.bug = None
        replay = await world.sessions.replay(crash_id)
        assert (replay.status, replay.slots) == ("success", {"hats": (None, 1)})
        with pytest.raises((SupervisionError, ReplyError)):
            await world.sessions.replay(crash_id, apply=True)


# -- in the session ------------------------------------------------------------------------


@looptime
@pytest.mark.parametrize("rests", [False, True])
async def test_p9_a_replay_in_the_session_is_a_request_of_it(rests: bool) -> None:
    """Its effects stay, its tabs get the pushes, it has its own id; at rest it is woken."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        await tab.call("debug.state_set", {"key": "hats", "value": 3})
        crash_id = await crashed(world, tab)
        await tab.call("debug.state_set", {"key": "hats", "value": 70})
        if rests:
            await world.at_rest(tab)
        shop.bug = None
        replay = await world.sessions.replay(crash_id, apply=True)
        assert (replay.applied, replay.status) == (True, "success")
        assert replay.result == "bought hat, None before"
        back = await world.come_back(tab)
        assert await back.call("debug.state_get", {"key": "hats"}) == 71
        assert (await world.store.document(1, "orders", "last")).data == b'"hat"'
        if not rests:
            assert [push["params"] for push in tab.peer.pushes("shop.bought")] == ["hat"]
        again = await world.sessions.replay(crash_id, apply=True)
        assert (again.status, again.result) == ("success", "bought hat, hat before")
        assert await back.call("debug.state_get", {"key": "hats"}) == 72
        assert [letter.crash_id for letter in await world.letters()] == [crash_id]


@looptime
async def test_p9_a_replay_in_the_session_that_crashes_is_a_crash_of_it() -> None:
    """A letter of its own, a new incarnation, rolled back."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        crash_id = await crashed(world, tab)
        replay = await world.sessions.replay(crash_id, apply=True)
        assert (replay.status, replay.error["code"]) == ("crash", "HANDLER_CRASHED")
        await world.state(tab.cell, "active")
        assert tab.cell.incarnation == 3
        assert [letter.crash_id for letter in await world.letters()] == [
            replay.error["details"]["crash_id"],
            crash_id,
        ]
        assert await tab.call("debug.state_get", {"key": "hats"}) is None


@looptime
async def test_p9_a_failed_session_takes_no_replay() -> None:
    """Revive it first."""
    shop = Shop()
    async with a_world(*shop.handlers()) as world:
        tab = await world.open()
        for _ in range(4):
            await tab.error("shop.async", {"what": "hat"})
        await world.state(tab.cell, "failed")
        (letter, *_) = await world.letters()
        with pytest.raises(ReplyError, match="SESSION_FAILED"):
            await world.sessions.replay(letter.crash_id, apply=True)
