"""The methods of a simulated application: each says what it does, so that it can be checked.

An effect appends the request's id to the session's log, counts it, and may push, report
progress and write a document; ``fate`` says how it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator  # noqa: TC003 - read at run time by `handler`
from typing import TYPE_CHECKING, Any

import attrs

from ecan.errors import HandlerError
from ecan.handlers.context import (
    ConnectionContext,
    User,
    UserContext,
)
from ecan.handlers.registry import Final, Scope, handler
from ecan.testing.simulator.disk import LOG_SLOT
from ecan.testing.simulator.documents import DOCUMENTS, KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

FATES = ("ok", "error", "crash", "exit", "memory", "recursion", "keyboard", "slot")
"""How a handler may end: well, declared, or by something undeclared."""


class SimulatedCrash(Exception):  # noqa: N818 - as its name says
    """What an application did not foresee."""


@attrs.frozen(kw_only=True)
class Doing:
    """What a request does.

    Attributes:
        tag: the request's id.
        fate: one of `FATES`.
        early: the fate strikes before anything is written.
        pushes: how many.
        progress: how many `pending` frames.
        pause_s: how long an async handler waits between writing and ending.
        document: key of a document of the user to write as well.
    """

    tag: str
    fate: str = "ok"
    early: bool = False
    pushes: int = 0
    progress: int = 0
    pause_s: float = 0.0
    document: str | None = None


@attrs.frozen(kw_only=True)
class LoggingIn:
    """Who logs in; no password is asked for."""

    user_id: int


def _strike(params: Doing) -> None:
    fate = params.fate
    if fate == "error":
        raise HandlerError("DECLARED", "as was asked for", details={"tag": params.tag})
    if fate == "crash":
        raise SimulatedCrash(params.tag)
    if fate == "exit":
        sys.exit(params.tag)
    if fate == "memory":
        raise MemoryError(params.tag)
    if fate == "recursion":
        raise RecursionError(params.tag)
    if fate == "keyboard":
        raise KeyboardInterrupt(params.tag)


def _started(ctx: UserContext, params: Doing) -> None:
    server: Any = ctx.server
    server.watch.started(ctx)
    if params.early:
        _strike(params)


def _write(ctx: UserContext, params: Doing) -> dict[str, Any]:
    log = [*ctx.state.get(LOG_SLOT, []), params.tag]
    ctx.state[LOG_SLOT] = log
    ctx.state["count"] = ctx.state.get("count", 0) + 1
    _push(ctx, params)
    if params.fate == "slot":
        ctx.state["bad"] = (1, 2)  # reads back as a list
    return {"tag": params.tag, "place": len(log)}


def _push(ctx: UserContext, params: Doing) -> None:
    for number in range(params.pushes):
        ctx.push("sim.pushed", {"tag": params.tag, "n": number})


@handler("sim.inline", inline=True)
def inline(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """An effect on the loop, at once."""
    _started(ctx, params)
    result = _write(ctx, params)
    _strike(params)
    return result


@handler("sim.async")
async def async_(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """An effect that waits, and may write a document."""
    _started(ctx, params)
    if params.document is not None:
        documents: Any = ctx.user.collection(DOCUMENTS)
        tags = await documents.get(params.document, [])
        documents.put(params.document, [*tags, params.tag])
    result = _write(ctx, params)
    for number in range(params.progress):
        ctx.progress({"n": number})
    if params.pause_s:
        await asyncio.sleep(params.pause_s)
    _strike(params)
    return result


@handler("sim.deaf")
async def deaf(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """An effect that swallows every cancellation until its time is over."""
    _started(ctx, params)
    result = _write(ctx, params)
    end = asyncio.get_running_loop().time() + params.pause_s
    while (left := end - asyncio.get_running_loop().time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)
    ctx.state["late"] = params.tag
    ctx.progress("late")
    _strike(params)
    return result


@handler("sim.thread")
def thread(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """An effect in a worker thread; it may come back when nobody waits any more."""
    if not ctx.cancelled:
        _started(ctx, params)
    result = _write(ctx, params)
    ctx.progress({"cancelled": ctx.cancelled})
    _strike(params)
    return result


@handler("sim.ask")
async def ask(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """An effect that asks the browser first."""
    _started(ctx, params)
    await ctx.call("ui.ask", {"tag": params.tag}, timeout_s=2.0)
    result = _write(ctx, params)
    _strike(params)
    return result


@handler("sim.stream")
async def stream(ctx: UserContext, params: Doing) -> AsyncGenerator[Any, None]:
    """An effect that streams."""
    _started(ctx, params)
    result = _write(ctx, params)
    for number in range(params.progress):
        yield {"n": number}
        await asyncio.sleep(params.pause_s / 4)
    _strike(params)
    yield Final(result)


@handler("sim.process", isolation="process")
def process(params: Doing) -> dict[str, Any]:
    """Computes in a worker process; has no session to change."""
    _strike(params)
    return {"tag": params.tag}


@handler("sim.overlap", concurrent=True)
async def overlap(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """Overlaps others; may push, cannot write."""
    _started(ctx, params)
    _push(ctx, params)
    await asyncio.sleep(params.pause_s)
    _strike(params)
    return {"tag": params.tag}


@handler("sim.read", inline=True, reads=True)
def read(ctx: UserContext, params: Doing) -> list[str]:
    """Only looks."""
    _started(ctx, params)
    log: list[str] = ctx.state.get(LOG_SLOT, [])
    return log


@handler("sim.read_documents", reads=True)
async def read_documents(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """Looks at two documents: what it answers was true at one moment."""
    _started(ctx, params)
    documents: Any = ctx.user.collection(DOCUMENTS)
    if params.pause_s:
        page = await documents.list(limit=10)
        found = {document.key: document.value for document in page.documents}
        return {key: found.get(key, []) for key in KEYS}
    return {key: await documents.get(key, []) for key in KEYS}


@handler("sim.poison")
async def poison(ctx: UserContext, params: Doing) -> None:
    """Crashes whoever calls it."""
    _started(ctx, params)
    raise SimulatedCrash("poison")


@handler("sim.control", inline=True, control=True, concurrent=True)
def control(ctx: UserContext, params: Doing) -> dict[str, Any]:
    """Passes the queue."""
    _started(ctx, params)
    _strike(params)
    return {"tag": params.tag}


@handler("login", scope=Scope.CONNECTION)
async def login(ctx: ConnectionContext, params: LoggingIn) -> dict[str, Any]:
    """Opens a session."""
    user = User(user_id=params.user_id, username=f"user{params.user_id}")
    return await ctx.server.sessions.open(ctx, user)


HANDLERS: list[Callable[..., Any]] = [
    inline,
    async_,
    deaf,
    thread,
    ask,
    stream,
    process,
    overlap,
    read,
    read_documents,
    poison,
    control,
    login,
]
