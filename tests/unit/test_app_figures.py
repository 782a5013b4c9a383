"""The log line with the number of sessions (ECAN_LOG_FIGURES)."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ecan.app import App
from ecan.config import Settings
from ecan.testing import ADMIN_PASSWORD, Client


@pytest.fixture
def make_app(tmp_path):
    def make(**settings):
        return App(
            Settings(
                ws_host="127.0.0.1",
                ws_port=0,
                data_dir=tmp_path / "data",
                admin_password=ADMIN_PASSWORD,
                **settings,
            )
        )

    return make


def figures(logs):
    return [
        (line["sessions"], line["in_memory"], line["connections"])
        for line in logs
        if line["event"] == "server.figures"
    ]


async def test_sessions_connections_and_those_at_rest(make_app):
    """One line each time it is due; who rests is a session, but not in memory."""
    app = make_app(log_figures_s=60.0)
    with capture_logs() as logs:
        await app.start()
        try:
            assert figures(logs) == []  # it is not ready yet when it first looks
            now = app.clock.mono()
            app._log_figures(now)
            app._log_figures(now + 59)
            assert figures(logs) == [(0, 0, 0)]
            async with Client(f"ws://127.0.0.1:{app.gateway.port}/ws") as client:
                sid = (await client.login("admin", ADMIN_PASSWORD))["sid"]
                app._log_figures(now + 60)
                assert figures(logs)[1:] == [(1, 1, 1)]
                await app.sessions.steer(sid, "passivate")
                async with asyncio.timeout(5):
                    while not app.sessions.by_state().get("passivated"):
                        await asyncio.sleep(0.01)
                app._log_figures(now + 120)
                assert figures(logs)[2:] == [(1, 0, 1)]
        finally:
            await app.stop()


async def test_none_unless_asked_for(make_app):
    """The default is never."""
    app = make_app()
    with capture_logs() as logs:
        await app.start()
        app._log_figures(app.clock.mono() + 1e6)
        await app.stop()
    assert figures(logs) == []
