"""A user logs in and works in a session of their own."""

from __future__ import annotations

import pytest

from ecan.testing import RunningApp

pytestmark = pytest.mark.each_transport


async def test_login_opens_a_session_and_state_lives_in_it(server: RunningApp) -> None:
    """After login every request runs in the user's own session."""
    async with server.logged_in() as client:
        assert await client.call("debug.incr", {"key": "n"}) == 1
        assert await client.call("debug.incr", {"key": "n"}) == 2

        info = await client.call("session.info")

        assert info["sid"] == client.login_result["sid"]
        assert info["incarnation"] == 1
        assert info["state"] == "active"


async def test_second_tab_shares_the_session(server: RunningApp) -> None:
    """Two connections with one session's credentials see one state, and both get pushes."""
    async with server.logged_in() as first, server.client() as second:
        await first.call("debug.incr", {"key": "n"})
        await second.resume(first.session)

        assert await second.call("debug.incr", {"key": "n"}) == 2
        await second.call("debug.push", {"method": "demo.note", "params": {"a": 1}, "count": 2})

        for tab in (first, second):
            pushes = await tab.push("demo.note", 2)
            assert [push["meta"]["seq"] for push in pushes] == [1, 2]


async def test_closing_the_own_session_is_answered_first(server: RunningApp) -> None:
    """`session.close` of the session that asks succeeds, then every tab is told."""
    async with server.logged_in() as client:
        sid = client.login_result["sid"]

        assert await client.call("session.close", {"sid": sid}) == {"closed": sid}

        pushes = await client.push("session.closed")
        assert pushes[0]["params"] == {"reason": "logout"}
        error = await client.error("session.info")
        assert error["code"] == "SESSION_CLOSED"
        assert error["details"] == {"reason": "logout"}
