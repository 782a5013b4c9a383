"""Handlers whose steps a test controls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from ecan.errors import HandlerError
from ecan.handlers.context import UserContext, get_handler_context
from ecan.handlers.registry import Final, handler

if TYPE_CHECKING:
    from sessions_kit import World

TIMEOUT_S = 20.0
"""Generous: a test that waits for it has failed."""


def kit_handlers(world: World) -> list[Callable[..., Any]]:
    """Handlers whose steps a test controls; ``params["n"]`` names the run."""

    @handler("t.note", inline=True)
    def note(ctx: UserContext, params: Any) -> Any:
        world.ran.append(params)
        return params

    @handler("t.renew")
    async def renew(ctx: UserContext) -> Any:
        return ctx.session.renew_token(ctx)

    @handler("t.wait")
    async def wait(ctx: UserContext, params: Any) -> Any:
        name = params["n"]
        world.ran.append(name)
        ctx.state[params.get("key", "waited")] = name
        ctx.push("t.pushed", name)
        world.note_started(name)
        await world.async_gate(name).wait()
        return name

    @handler("t.deaf")
    async def deaf(ctx: UserContext, params: Any) -> Any:
        """Swallows every cancellation until its gate opens."""
        name = params["n"]
        ctx.state["deaf"] = name
        ctx.push("t.pushed", name)
        world.note_started(name)
        while not world.async_gate(name).is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await world.async_gate(name).wait()
        ctx.state["deaf"] = "late"
        ctx.progress("late")
        return name

    @handler("t.block")
    def block(ctx: UserContext, params: Any) -> Any:
        name = params["n"]
        ctx.state["blocked"] = name
        ctx.push("t.pushed", name)
        world.note_started(name)
        assert world.gate(name).wait(TIMEOUT_S)
        ctx.state["blocked"] = "late"
        ctx.push("t.late")
        ctx.progress("late")
        world.ran.append((name, ctx.cancelled))
        return name

    @handler("t.overlap", concurrent=True)
    async def overlap(ctx: UserContext, params: Any) -> Any:
        name = params["n"]
        world.note_started(name)
        await world.async_gate(name).wait()
        if params.get("crash"):
            raise ValueError(name)
        return name

    @handler("t.overlap_block", concurrent=True)
    def overlap_block(ctx: UserContext, params: Any) -> Any:
        name = params["n"]
        world.note_started(name)
        assert world.gate(name).wait(TIMEOUT_S)
        return name

    @handler("t.control", inline=True, control=True)
    def control(ctx: UserContext, params: Any) -> Any:
        world.ran.append(params)
        if params == "crash":
            raise ValueError(params)
        return params

    @handler("t.refuse", inline=True)
    def refuse(ctx: UserContext) -> None:
        ctx.state["refused"] = True
        ctx.push("t.pushed", "refused")
        raise HandlerError("NOPE", "declared", details={"left": 3})

    @handler("t.final")
    async def final(ctx: UserContext) -> AsyncGenerator[Any, None]:
        yield 1
        yield Final("done")
        yield 2

    @handler("t.context_inline", inline=True)
    def context_inline(ctx: UserContext) -> Any:
        return get_handler_context() is ctx

    @handler("t.context_async")
    async def context_async(ctx: UserContext) -> Any:
        await asyncio.sleep(0)
        return get_handler_context() is ctx

    @handler("t.context_thread")
    def context_thread(ctx: UserContext) -> Any:
        return get_handler_context() is ctx and threading.current_thread().name

    return [
        note,
        renew,
        wait,
        deaf,
        block,
        overlap,
        overlap_block,
        control,
        refuse,
        final,
        context_inline,
        context_async,
        context_thread,
    ]
