"""Methods that misbehave on purpose, for tests and drills (ECAN_DEBUG_METHODS=1)."""

# ruff: noqa: ARG001 - a handler's parameters are its signature on the wire

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator  # noqa: TC003 - read at run time by `handler`
from typing import TYPE_CHECKING, Any

import attrs

from ecan.errors import HandlerError
from ecan.handlers.context import UserContext  # noqa: TC001 - read at run time by `handler`
from ecan.handlers.registry import handler

if TYPE_CHECKING:
    from collections.abc import Callable

_key: Any = attrs.validators.and_(attrs.validators.min_len(1), attrs.validators.max_len(200))
_seconds: Any = [attrs.validators.ge(0), attrs.validators.le(3600)]


class DebugCrashError(Exception):
    """The crash that was asked for."""


@attrs.frozen(kw_only=True)
class Seconds:
    """How long to misbehave.

    Attributes:
        seconds: how long, at most an hour.
    """

    seconds: float = attrs.field(validator=_seconds)


@attrs.frozen(kw_only=True)
class Key:
    """Which state slot.

    Attributes:
        key: name of a state slot.
    """

    key: str = attrs.field(validator=_key)


@attrs.frozen(kw_only=True)
class KeyValue:
    """What to write where.

    Attributes:
        key: name of a state slot.
        value: any JSON value.
    """

    key: str = attrs.field(validator=_key)
    value: Any


@attrs.frozen(kw_only=True)
class Push:
    """Which pushes to send.

    Attributes:
        method: of the pushes.
        params: of the pushes.
        count: how many.
    """

    method: str = attrs.field(validator=_key)
    params: Any = None
    count: int = attrs.field(
        default=1, validator=[attrs.validators.ge(0), attrs.validators.le(100_000)]
    )


@attrs.frozen(kw_only=True)
class Stream:
    """How much to stream.

    Attributes:
        n: how many values.
        delay: seconds between two.
    """

    n: int = attrs.field(validator=[attrs.validators.ge(1), attrs.validators.le(100_000)])
    delay: float = attrs.field(default=0.0, validator=_seconds)


@handler("debug.crash")
async def crash(ctx: UserContext) -> None:
    """Raises an undeclared exception: the session's actor crashes and is restarted."""
    raise DebugCrashError("debug.crash was called")


@handler("debug.exit")
async def exit_(ctx: UserContext) -> None:
    """Raises SystemExit, which must end this session's incarnation and nothing else."""
    raise SystemExit("debug.exit was called")


@handler("debug.block")
def block(ctx: UserContext, params: Seconds) -> dict[str, float]:
    """Sleeps in a worker thread, deaf to cancellation."""
    time.sleep(params.seconds)
    return {"blocked_s": params.seconds}


@handler("debug.spin")
def spin(ctx: UserContext, params: Seconds) -> dict[str, int]:
    """Burns CPU in a worker thread, deaf to cancellation."""
    return {"turns": _burn(params.seconds)}


@handler("debug.spin_process", isolation="process")
def spin_process(params: Seconds) -> dict[str, int]:
    """Burns CPU in a worker process, which can be killed."""
    return {"turns": _burn(params.seconds)}


def _burn(seconds: float) -> int:
    turns = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        turns += 1
    return turns


@handler("debug.sleep")
async def sleep(ctx: UserContext, params: Seconds) -> dict[str, float]:
    """Sleeps on the loop; can be cancelled."""
    await asyncio.sleep(params.seconds)
    return {"slept_s": params.seconds}


@handler("debug.state_set", inline=True)
def state_set(ctx: UserContext, params: KeyValue) -> dict[str, bool]:
    """Writes a state slot."""
    ctx.state[params.key] = params.value
    return {"ok": True}


@handler("debug.state_get", inline=True, reads=True)
def state_get(ctx: UserContext, params: Key) -> Any:
    """The value of a state slot; null if it is empty."""
    return ctx.state.get(params.key)


@handler("debug.incr", inline=True)
def incr(ctx: UserContext, params: Key) -> int:
    """Adds one to a state slot and returns the new value."""
    return _increment(ctx, params.key)


@handler("debug.incr_then_crash", inline=True)
def incr_then_crash(ctx: UserContext, params: Key) -> int:
    """Adds one to a state slot and crashes; the slot must stay as it was."""
    _increment(ctx, params.key)
    raise DebugCrashError("debug.incr_then_crash was called")


def _increment(ctx: UserContext, key: str) -> int:
    value = ctx.state.get(key, 0)
    if type(value) is not int:
        raise HandlerError("NOT_A_NUMBER", f"The slot {key!r} holds no integer.")
    ctx.state[key] = value + 1
    return value + 1


@handler("debug.push", inline=True)
def push(ctx: UserContext, params: Push) -> dict[str, int]:
    """Sends pushes to every tab of this session."""
    for _ in range(params.count):
        ctx.push(params.method, params.params)
    return {"pushed": params.count}


@handler("debug.stream")
async def stream(ctx: UserContext, params: Stream) -> AsyncGenerator[dict[str, int], None]:
    """Yields ``{"i": 1}`` to ``{"i": n}``: pending frames, the last one is the result."""
    for i in range(1, params.n + 1):
        if i > 1:
            await asyncio.sleep(params.delay)
        yield {"i": i}


HANDLERS: list[Callable[..., Any]] = [
    crash,
    exit_,
    block,
    spin,
    spin_process,
    sleep,
    state_set,
    state_get,
    incr,
    incr_then_crash,
    push,
    stream,
]
