"""A real server in which everything happens once; every metric has to move."""

from __future__ import annotations

import asyncio
import re
import socket
import time

import pytest

from ecan.observability.metrics import COUNTERS, GAUGES, LABELLED
from ecan.testing import ReplyFailed, running_app
from ecan.testing.app import ADMIN_PASSWORD
from ecan.testing.client import TIMEOUT_S

HANDLERS = """
import asyncio

from ecan.handlers.registry import handler


@handler("notes.slow")
async def slow(ctx, params: dict) -> None:
    notes = ctx.user.collection("notes")
    found = await notes.get("one") or 0
    await asyncio.sleep(params["wait_s"])
    notes.put("one", found + 1)


@handler("loop.hold", inline=True)
def hold(ctx) -> None:
    import time

    time.sleep(0.4)


HANDLERS = [slow, hold]
"""

LABELS = {"method", "status", "reason", "outcome", "code", "state", "le", "generation", "budget"}
"""Of our metrics and Python's own; none is an id."""

ELSEWHERE = {"budget_exceeded", "huge_pages_bytes"}
"""Metrics whose own tests see them move."""

MEMORY_AND_MORE = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_start_time_seconds",
    "python_gc_collections_total",
}


def _samples(text: str) -> dict[tuple[str, frozenset], float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
            found[name, frozenset(pairs)] = float(value)
    return found


def _total(samples, name: str, **labels: str) -> float:
    return sum(
        value
        for (found, pairs), value in samples.items()
        if found == name and set(labels.items()) <= pairs
    )


async def _until(condition) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def _read_late(app, client) -> None:
    """The client takes nothing for a moment, so that the server's socket buffers."""
    for wire in app.gateway._open.values():
        wire.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )
    client.ws.transport.pause_reading()
    pushed = await client.start(
        "debug.push", {"method": "large", "params": "x" * 300_000, "count": 3}
    )
    await asyncio.sleep(0.1)
    client.ws.transport.resume_reading()
    await pushed
    await _until(lambda: sum(app.metrics.send.counts))


async def _everything(running, client, other) -> None:
    """Each thing that is counted, at least once."""
    app = running.app
    sid = client.login_result["sid"]
    with pytest.raises(ReplyFailed, match="INVALID_CREDENTIALS"):
        async with running.client() as stranger:
            await stranger.login("admin", "wrong password")
    await client.call("debug.push", {"method": "news", "params": None, "count": 2})
    await client.call("debug.incr", {"key": "n"}, id="again")
    await client.call("debug.incr", {"key": "n"}, id="again")
    await client.error("no.such.method")
    await _read_late(app, client)
    slow = await client.start("notes.slow", {"wait_s": 0.2})
    await other.call("notes.slow", {"wait_s": 0.0})
    assert (await slow)["status"] == "success"
    await client.call("loop.hold")
    late = await client.error("debug.block", {"seconds": 4.0}, deadline_ms=50)
    assert late["code"] == "TIMEOUT"
    await client.push("session.restarted", 1)
    queued = [await client.start("debug.sleep", {"seconds": 0.05}) for _ in range(3)]
    for future in queued:
        assert (await future)["status"] == "success"
    await other.error("debug.crash")
    await other.push("session.restarted")
    for _ in range(3):
        await other.error("debug.crash")
    await _until(lambda: app.metrics.give_ups == 1)
    app.guard.suspend("debug.spin", "a test")
    await app.sessions.steer(sid, "passivate")
    await _until(lambda: app.metrics.passivations == 1)
    await client.call("ping")
    app.sessions._supervisor._fail(RuntimeError("a test"))
    await client.ws.send("not JSON")
    await _until(lambda: app.metrics.labelled("rejected").get("PARSE_ERROR"))


@pytest.fixture
async def running(no_task_left, tmp_path, monkeypatch):
    """A server with an author's handlers."""
    (tmp_path / "metric_notes.py").write_text(HANDLERS, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    async with running_app(handlers=("metric_notes",)) as app:
        yield app


async def test_every_metric_moves_and_no_label_is_an_id(running):
    """Counters count, histograms fill, gauges show it; labels are words of ours."""
    app = running.app
    before = _samples(app.metrics.render().decode())
    await running.add_user("berta.unmistakable")
    async with running.logged_in() as client, running.logged_in() as other:
        await _everything(running, client, other)
        app.store._queue.trouble = "a test"
        during = _samples(app.metrics.render().decode())
        app.store._queue.trouble = None
        async with running.client() as third:
            await third.login("berta.unmistakable", "staple correct horse")
            await third.call("logout")
        ids = {
            value
            for one in (client, other, third)
            for key, value in one.login_result.items()
            if key in ("sid", "session_id", "token", "epoch")
        }
        names = {"berta.unmistakable", "admin", ADMIN_PASSWORD, "again", client._prefix}
    await _until(lambda: not app.gateway.connection_count)
    app._draining = True
    after = _samples(app.metrics.render().decode())
    app._draining = False

    still = {
        name
        for name in COUNTERS
        if _total(after, f"ecan_{name}_total") <= _total(before, f"ecan_{name}_total")
    }
    assert still == set()
    assert {name for name in LABELLED if not _total(after, f"ecan_{name}_total")} <= ELSEWHERE
    shown = {
        name for name in GAUGES if _total(during, f"ecan_{name}") or _total(after, f"ecan_{name}")
    }
    assert set(GAUGES) - shown <= ELSEWHERE
    assert _total(during, "ecan_sessions", state="active") == 1
    assert _total(during, "ecan_sessions", state="failed") == 1
    for name in (
        "request_queue_seconds",
        "request_run_seconds",
        "request_commit_seconds",
        "loop_lag_seconds",
        "mailbox_depth_requests",
        "send_seconds",
        "store_batch_works",
        "store_write_seconds",
    ):
        assert _total(after, f"ecan_{name}_count") > 0, name
    for status in ("success", "timeout", "crashed"):
        assert _total(after, "ecan_requests_total", status=status) > 0, status
    assert app.metrics.send.total >= 0.05
    assert {name for name in MEMORY_AND_MORE if not _total(after, name)} == set()

    labels = {pair for samples in (during, after) for _, pairs in samples for pair in pairs}
    assert {name for name, _ in labels} <= LABELS
    values = {value for name, value in labels if name != "le"}
    assert not {value for value in values for one in ids | names if one in value}
    known = {spec.name for spec in app.registry}
    assert {value for name, value in labels if name == "method"} <= known


async def test_the_parts_of_a_requests_time_add_up(running):
    """Queue, run and commit are measured apart: a handler that waits for the one before it."""
    async with running.logged_in() as client:
        began = time.monotonic()
        first = await client.start("debug.sleep", {"seconds": 0.2})
        second = await client.start("debug.sleep", {"seconds": 0.1})
        await asyncio.gather(first, second)
        took_s = time.monotonic() - began
    figures = running.app.metrics.methods["debug.sleep"]
    assert 0.3 <= figures.run.total <= took_s
    assert 0.2 <= figures.queue.total < 0.3
    assert 0 < figures.commit.total < took_s - 0.3


async def test_a_request_that_never_ran_is_counted_too(running):
    """Late in the queue, dropped by a logout: every accepted request has one status."""
    async with running.logged_in() as client:
        running_one = await client.start("debug.sleep", {"seconds": 5.0})
        late = await client.start("debug.incr", {"key": "n"}, deadline_ms=50)
        waits = await client.start("debug.incr", {"key": "n"})
        assert (await late)["error"]["code"] == "TIMEOUT"
        await client.call("logout")
        for future in (running_one, waits):
            assert (await future)["error"]["code"] == "SESSION_CLOSED"
    methods = running.app.metrics.methods
    assert methods["debug.incr"].by_status == {"timeout": 1, "session_closed": 1}
    assert methods["debug.sleep"].by_status == {"session_closed": 1}
