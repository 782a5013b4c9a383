"""Every command of the admin socket, through `ecan ops`, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from edge_kit import Process, eventually

from ecan.admin.table import COMMANDS
from ecan.testing import ReplyFailed

PASSWORD = "correct horse battery"
SETTINGS = {"ECAN_ADMIN_PASSWORD": PASSWORD, "ECAN_DEBUG_METHODS": 1, "ECAN_LOGIN_RATE_LIMIT": 0}


class Operator:
    """`ecan ops` beside a server."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def __call__(self, *words: str, code: int = 0, stdin: str = "") -> str:
        """Its stdout, or its stderr when it is to fail."""
        got, out, err = await self.process.run("ops", *words, stdin=stdin)
        assert got == code, out + err
        assert "Traceback (most" not in err
        return out if code == 0 else err

    async def json(self, *words: str, **options):
        return json.loads(await self(*words, "--json", **options))


def test_no_command_is_left_out() -> None:
    """Each stands in this module, as words."""
    text = Path(__file__).read_text("utf-8")
    words = [json.dumps(command.name.split("."))[1:-1] for command in COMMANDS]
    assert [each for each in words if each not in text] == []


@pytest.fixture
async def process(tmp_path):
    async with Process(tmp_path, **SETTINGS) as process:
        yield process


@pytest.fixture
def ops(process):
    return Operator(process)


async def login(process, client, username="admin", password=PASSWORD):
    return (await client.login(username, password))["sid"]


async def test_how_the_server_is(process, ops):
    """status, metrics, methods, settings, log level."""
    async with process.client() as client:
        await login(process, client)
        await client.call("debug.incr", {"key": "a"})

        assert "healthy" in await ops("status")
        status = await ops.json("status")
        assert status["sessions"]["active"] == 1
        assert "# TYPE ecan_requests" in await ops("metrics")
        assert "debug.incr" in await ops("methods", "list")
        (row,) = [
            r for r in (await ops.json("methods", "list"))["methods"] if r["method"] == "debug.incr"
        ]
        assert row["calls"] == 1

        assert "ok" in await ops("methods", "suspend", "debug.incr", "--yes")
        with pytest.raises(ReplyFailed) as refused:
            await client.call("debug.incr", {"key": "a"})
        assert refused.value.code == "METHOD_SUSPENDED"
        assert "suspended: debug.incr" in await ops("status")
        await ops("methods", "resume", "debug.incr")
        assert "not suspended" in await ops("methods", "resume", "debug.incr", code=1)

        assert "ECAN_RATE_LIMIT" in await ops("settings", "get")
        await ops("settings", "set", "ECAN_RATE_LIMIT", "50")
        rows = (await ops.json("settings", "get"))["settings"]
        (row,) = [row for row in rows if row["name"] == "ECAN_RATE_LIMIT"]
        assert row["from"] == "admin"
        assert "ECAN_WS_PORT" in await ops("settings", "set", "ECAN_WS_PORT", "1", code=1)
        assert (await ops.json("log", "level", "DEBUG"))["before"] == "INFO"


async def test_sessions_are_made_seen_and_steered(process, ops):
    """create, list, show, keep, push, restart, passivate, reset, revive, kill."""
    made = (await ops.json("sessions", "create", "admin", "--count", "3"))["sessions"]
    sids = {row["sid"] for row in made}
    rows = (await ops.json("sessions", "list", "--limit", "2000"))["sessions"]
    assert {row["sid"] for row in rows} == sids
    sid = made[0]["sid"]
    page = await ops("sessions", "show", sid[:8])
    assert sid in page
    assert "admin socket" in page
    assert made[0]["token"] not in page
    assert "expires_in_s" in await ops("sessions", "keep", sid, "60")

    async with process.client() as client:
        mine = await login(process, client)
        assert (await ops.json("sessions", "push", "hello", "--sid", mine, "--params", "[1]"))[
            "sessions"
        ] == 1
        (push,) = await client.push("hello")
        assert push["params"] == [1]
        await client.call("debug.incr", {"key": "a"})
        await ops("sessions", "restart", mine, "--yes")
        shown = await ops.json("sessions", "show", mine)
        assert shown["incarnation"] == 2
        await ops("sessions", "reset", mine, "--yes")
        assert (await ops.json("sessions", "show", mine))["slots"] == {}
        for _ in range(4):
            with contextlib.suppress(ReplyFailed):
                await client.call("debug.crash")
        failed = await ops("sessions", "list", "--state", "failed")
        assert mine in failed
        await ops("sessions", "revive", mine)
        await eventually_state(ops, mine, "active")
        assert "debug.crash" in await ops("sessions", "show", mine)
        await ops("sessions", "kill", mine, "--reason", "spam", "--yes")
        assert "spam" in await ops("sessions", "show", mine, code=1)

    await ops("sessions", "passivate", sid)
    await eventually_state(ops, sid, "passivated")
    assert "no such session" in await ops("sessions", "kill", "zzzz", "--yes", code=1)
    assert "--yes" in await ops("sessions", "kill", sid, code=2)


async def eventually_state(ops, sid: str, state: str) -> None:
    for _ in range(50):
        if (await ops.json("sessions", "show", sid))["state"] == state:
            return
    raise AssertionError(f"{sid} is not {state}")


async def test_queue_of_a_stuck_session(process, ops):
    """Seen with its stack; paused, dropped, resumed, killed."""
    async with process.client() as client:
        sid = await login(process, client)
        stuck = asyncio.create_task(client.call("debug.block", {"seconds": 20}))
        waiting = asyncio.create_task(client.call("debug.incr", {"key": "a"}))
        await asyncio.sleep(1.2)
        page = await ops("sessions", "show", sid)
        assert "RUNNING debug.block" in page
        assert "time.sleep" in page
        assert f"{sid} in debug.block" in await ops("status")
        assert "debug.incr" in await ops("queue", "list", sid)
        await ops("queue", "pause", sid)
        assert "paused" in await ops("sessions", "list")
        assert (await ops.json("queue", "drop", sid, "--all", "--yes"))["dropped"] == 1
        with pytest.raises(ReplyFailed) as dropped:
            await waiting
        assert dropped.value.code == "CANCELLED"
        await ops("queue", "resume", sid)
        await ops("sessions", "kill", sid, "--yes")
        with pytest.raises(ReplyFailed):
            await stuck


async def test_dead_letters(process, ops):
    """list, show, replay on a copy and in the session, discard."""
    async with process.client() as client:
        await login(process, client)
        with pytest.raises(ReplyFailed):
            await client.call("debug.incr_then_crash", {"key": "a"})
        (row,) = (await ops.json("deadletters", "list"))["letters"]
        assert row["id"] in await ops("deadletters", "list")
        assert "DebugCrashError" in await ops("deadletters", "show", row["id"])
        assert "on a copy" in await ops("deadletters", "replay", row["id"])
        applied = await ops.json("deadletters", "replay", row["id"], "--apply")
        assert applied["applied"] is True
        for letter in (await ops.json("deadletters", "list"))["letters"]:
            await ops("deadletters", "discard", letter["id"], "--yes")
        assert await ops("deadletters", "list") == "No dead letters.\n"


async def test_accounts(process, ops):
    """add, list, passwd, disable; passwords from stdin."""
    first, second = "tea pots and cups", "cups and tea pots"
    await ops("users", "add", "zoe", "--password-stdin", stdin=first + "\n")
    assert "zoe" in await ops("users", "list")
    async with process.client() as client:
        await login(process, client, "zoe", first)
    await ops("users", "passwd", "zoe", "--password-stdin", "--yes", stdin=second + "\n")
    async with process.client() as client:
        await login(process, client, "zoe", second)
    await ops("users", "disable", "zoe", "--yes")
    assert "disabled" in await ops("users", "list")
    assert "zoe" in await ops("users", "add", "zoe", "--password-stdin", stdin=first + "\n", code=1)


async def test_events_reload_and_the_end(process, ops):
    """events watch ends with the server: drain, then nobody answers."""
    watching = asyncio.create_task(ops("events", "watch", "--json", code=3))
    await asyncio.sleep(1.5)
    code, _, err = await process.run("ops", "handlers", "reload", "--yes")
    assert code in {0, 1}, err
    await ops("drain", "--timeout", "1", "--yes")
    assert await process.ended() == 0
    assert "hung up" in await watching
    assert "no server answers" in await ops("status", code=3)


async def test_gc(ops):
    """A whole look, and what it found."""
    assert "found" in await ops("gc", "--yes")


async def test_shutdown(process, ops):
    """At once."""
    await ops("shutdown", "--yes")
    await eventually(lambda: process.popen.poll() is not None, "the end")
