"""What handlers see."""

from __future__ import annotations

import asyncio
import contextvars

import pytest
from fakes import FakeServer, connection_ctx, user_ctx

from ecan.handlers import HandlerContext, User, get_handler_context
from ecan.handlers.context import current_context


def test_the_running_context_is_found_from_anywhere_in_a_handler(server):
    """And only there; the error says how to pass it on."""
    ctx = user_ctx(server)

    def inside() -> HandlerContext:
        current_context.set(ctx)
        return get_handler_context()

    assert contextvars.copy_context().run(inside) is ctx
    with pytest.raises(LookupError, match="copy_context"):
        get_handler_context()


def test_before_login_there_is_no_user(server):
    """The error names the method."""
    with pytest.raises(LookupError, match="login runs before login"):
        _ = connection_ctx(server, "login").user


def test_a_users_public_face():
    """As login answers it: without the internal id."""
    user = User(user_id=7, username="ann", machine_role="Platoon")
    assert user.public() == {
        "username": "ann",
        "role": "user",
        "email": "",
        "name": "",
        "lang": "en",
        "machine_role": "Platoon",
    }


async def test_a_session_context_reaches_its_session(server):
    """User, sid, pushes, progress, cancellation, the browser."""
    ctx = user_ctx(server)
    assert ctx.user.username == "ann"
    assert ctx.sid == "s1"
    ctx.push("cart.changed", {"n": 1})
    ctx.push("bare")
    assert ctx.pushes == [("cart.changed", {"n": 1}), ("bare", None)]
    ctx.progress({"done": 1})
    assert ctx.session.progressed == [{"done": 1}]
    assert not ctx.cancelled
    ctx.mark_cancelled()
    assert ctx.cancelled
    assert await ctx.call("ui.ask", 1, timeout_s=2) == ["ui.ask", 1, 2]


async def test_handlers_in_threads_can_ask_the_browser():
    """`call_blocking` waits in the thread, not on the loop."""
    server = FakeServer()
    loop = asyncio.get_running_loop()
    type(server).loop = property(lambda _self: loop)  # type: ignore[method-assign,assignment]
    try:
        ctx = user_ctx(server)
        assert await asyncio.to_thread(ctx.call_blocking, "ui.ask") == ["ui.ask", None, None]
    finally:
        type(server).loop = property(lambda _self: asyncio.get_running_loop())  # type: ignore[method-assign,assignment]


def test_the_state_is_made_when_it_is_first_asked_for(server):
    """One for the whole request: what one part of a handler writes, another sees."""
    ctx = user_ctx(server, {"n": b"1"})
    assert ctx.used_state is None
    assert ctx.state["n"] == 1
    ctx.state["n"] = 2
    assert ctx.state["n"] == 2
    assert ctx.used_state is ctx.state
