"""A whole server over a disk that fails: what clients, health and the next life see."""

from __future__ import annotations

import json
from functools import partial

import pytest
from edge_kit import eventually, http

from ecan.store import choose
from ecan.store.sqlite import SqliteStore
from ecan.testing import running_app
from ecan.testing.faulty_disk import FaultyDisk


@pytest.fixture
def disk(monkeypatch):
    """Every store of this test is on it."""
    with FaultyDisk() as disk:
        monkeypatch.setattr(choose, "SqliteStore", partial(SqliteStore, vfs=disk.name))
        yield disk


async def health(server):
    """Status code and word of /health."""
    status, _, body = await http(server.http, "/health")
    return status, json.loads(body)["status"]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [("write", "full"), ("write", "io"), ("sync", "io"), ("write", "locked")],
)
async def test_p11_a_disk_that_fails_is_told_read_on_and_recovered_from(disk, operation, fault):
    """Changes are BUSY and retryable, reading goes on, health is degraded, and it passes by itself."""
    async with running_app() as server, server.logged_in() as client:
        assert await client.call("debug.incr", {"key": "n"}) == 1
        assert await health(server) == (200, "healthy")

        disk.fail(operation, fault, part="wal")
        error = await client.error("debug.incr", {"key": "n"}, id="kept")
        assert (error["code"], error["retryable"]) == ("BUSY", True)
        assert error["details"] == {"reason": "store"}
        assert await client.call("debug.state_get", {"key": "n"}) == 1
        assert (await client.call("ping"))["pong"] is True
        crashed = await client.error("debug.incr_then_crash", {"key": "n"})
        assert crashed["code"] == "HANDLER_CRASHED"
        assert await health(server) == (200, "degraded")
        async with server.client() as other:
            refused = await other.error(
                "login", {"username": "admin", "password": "correct horse battery"}
            )
            assert refused["code"] == "BUSY"

        disk.heal()
        recovered = lambda: server.app.store.trouble is None  # noqa: E731
        await eventually(recovered, "the recovery, by itself")
        assert await health(server) == (200, "healthy")
        assert await client.call("debug.incr", {"key": "n"}, id="kept") == 2
        assert await client.call("debug.state_get", {"key": "n"}) == 2


async def test_p11_what_was_acknowledged_on_a_failing_disk_is_there_in_the_next_life(
    disk, tmp_path
):
    """Every second sync fails; what got a success is in the file, once, and nothing else is."""
    acknowledged = 0
    async with running_app(data_dir=tmp_path) as server, server.logged_in() as client:
        for number in range(40):
            if number % 2:
                disk.fail("sync", "io", times=1, part="wal")
            reply = await client.request("debug.incr", {"key": "n"})
            acknowledged += reply["status"] == "success"
            disk.heal()
        assert 0 < acknowledged < 40
        credentials = client.session
    async with running_app(data_dir=tmp_path) as server, server.client() as client:
        client.session = credentials
        assert await client.call("debug.state_get", {"key": "n"}) == acknowledged
