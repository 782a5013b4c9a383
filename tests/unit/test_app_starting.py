"""A server whose port listens is not ready yet: what it tells until it is."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

import pytest
from websockets import InvalidStatus
from websockets.asyncio.client import connect

from ecan.app import App
from ecan.config import Settings
from ecan.testing import ADMIN_PASSWORD, Client


@pytest.fixture(params=["websockets", "picows"])
def app_config(request, tmp_path):
    """Over both transports."""
    return Settings(
        ws_host="127.0.0.1",
        ws_port=0,
        mode="web",
        data_dir=tmp_path / "data",
        admin_password=ADMIN_PASSWORD,
        transport=request.param,
    )


def get(port, path):
    """(status, body) of one GET."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


async def test_starting_until_the_first_account_is_there(app_config, monkeypatch):
    """Until start ends: 503 "starting", alive, and no WebSockets; then all at once healthy."""
    app = App(app_config)
    assert app.health() == ("starting", 0)
    seen = {}
    make_first_admin = app._first_admin

    async def look_and_make():
        port = app.gateway.port
        for path in ("/health", "/health/ready", "/health/live"):
            seen[path] = await asyncio.to_thread(get, port, path)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/ws")
        seen["/ws"] = refused.value.response.status_code
        await make_first_admin()

    monkeypatch.setattr(app, "_first_admin", look_and_make)
    await app.start()
    try:
        assert seen == {
            "/health": (503, {"status": "starting", "mode": "web", "sessions": 0}),
            "/health/ready": (503, {"status": "starting"}),
            "/health/live": (200, {"status": "alive"}),
            "/ws": 503,
        }
        assert app.health() == ("healthy", 0)
        async with Client(f"ws://127.0.0.1:{app.gateway.port}/ws") as client:
            await client.login("admin", ADMIN_PASSWORD)
    finally:
        await app.stop()
    assert app.health()[0] == "draining"


async def test_a_start_that_failed_is_never_healthy(app_config, monkeypatch):
    """It says draining, whatever it had come to."""
    app = App(app_config)

    async def fail():
        raise OSError("no accounts")

    monkeypatch.setattr(app, "_first_admin", fail)
    with pytest.raises(OSError, match="no accounts"):
        await app.start()
    assert app.health() == ("draining", 0)
