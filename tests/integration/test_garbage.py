"""Nothing of ours is in a cycle when it dies: reference counting frees it at once (ADR 17)."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from edge_kit import TEXT, Raw

from ecan.testing import Client
from tests.integration.test_sessions import cell_of, open_session, until

N = 5
"""Of each kind of request, so that what is made once does not look like a leak."""


@pytest.fixture
def collector_off():
    """The collector must not be quicker than the test."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    gc.unfreeze()


def garbage() -> Counter[str]:
    """What of ours only the collector would have freed, by type; frames and errors as well."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(
            f"{type(one).__module__}.{type(one).__qualname__}"
            for one in gc.garbage
            if type(one).__module__.startswith(("ecan", "websockets", "picows"))
            or issubclass(type(one), BaseException)
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()  # what was only saved so far


async def leaves_nothing(life: Callable[[], Awaitable[None]]) -> None:
    """Again and again; the first time what is made once is made."""
    await life()
    garbage()
    for _ in range(N):
        await life()
    assert not garbage()


REQUESTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "inline": ("ping", None, {}),
    "a change": ("debug.incr", {"key": "n"}, {}),
    "a coroutine": ("debug.sleep", {"seconds": 0.001}, {}),
    "a thread": ("debug.block", {"seconds": 0.001}, {}),
    "a stream": ("debug.stream", {"n": 3, "delay": 0}, {}),
    "pushes": ("debug.push", {"method": "a", "params": 1, "count": 2}, {}),
    "no such method": ("nowhere", None, {}),
    "wrong params": ("debug.incr", {"key": 1, "other": 2}, {}),
    "a declared error": ("debug.incr", {"key": "text"}, {}),
    "timed out": ("debug.sleep", {"seconds": 5}, {"deadline_ms": 20}),
    "timed out in a thread": ("debug.block", {"seconds": 0.1}, {"deadline_ms": 20}),
    "a crash": ("debug.crash", None, {}),
}


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_request_leaves_no_garbage(server, collector_off, kind):
    """Of each kind, answered, with the session alive."""
    method, params, meta = REQUESTS[kind]
    times = 1 if "crash" in kind else N
    async with Client(server.url) as client:
        await open_session(server, client)
        await client.call("debug.state_set", {"key": "text", "value": "x"})
        cell = cell_of(server, client)
        await client.request(method, params, **meta)
        await until(lambda: cell.actor is not None and not cell.waits and not cell.zombies)
        garbage()
        for _ in range(times):
            await client.request(method, params, **meta)
        await until(lambda: cell.actor is not None and not cell.waits and not cell.zombies)
        await asyncio.sleep(0.05)
        assert not garbage()


@pytest.mark.each_transport
async def test_a_session_leaves_no_garbage(server, collector_off):
    """Made, used, left, passivated, resumed, logged out."""

    async def life() -> None:
        async with Client(server.url) as client:
            await open_session(server, client)
            sid = cell_of(server, client).sid
            await client.call("debug.incr", {"key": "n"})
            credentials = dict(client.session)
        await until(lambda: not server.app.directory.get(sid).tabs)
        await server.app.sessions.steer(sid, "passivate")
        async with Client(server.url) as client:
            await client.resume(credentials)
            await client.call("debug.incr", {"key": "n"})
            await client.call("logout")
        await until(lambda: len(server.app.directory) == 0)
        await asyncio.sleep(0.05)

    await leaves_nothing(life)


@pytest.mark.each_transport
async def test_a_lost_connection_leaves_no_garbage(server, collector_off):
    """The client is gone without a word."""

    async def life() -> None:
        # Not by the library, whose client keeps cycles of its own.
        raw = await Raw.connect(server.url)
        raw.send(TEXT, b'{"id":"1","type":"request","method":"ping"}')
        await raw.json()
        raw.writer.transport.abort()
        await until(lambda: not server.app.gateway.connection_count)
        await asyncio.sleep(0.05)

    await leaves_nothing(life)


async def test_garbage_is_seen(collector_off):
    """The test itself: a cycle of ours is found."""

    class Ours:
        pass

    Ours.__module__ = "ecan.somewhere"
    one = Ours()
    one.itself = one  # type: ignore[attr-defined]
    del one
    assert sum(garbage().values()) == 1
