"""The clients of the admin socket: answers that are late, wrong, too big or never come."""

from __future__ import annotations

import asyncio
import doctest
import json
import socket
import sys
import threading
from pathlib import Path

import pytest
from fake_admin import STATUS

from ecan.admin import client as client_module
from ecan.admin import render
from ecan.admin.client import AsyncClient, Client, ClientError, NoServerError, RefusedError
from ecan.admin.columns import event_style
from ecan.admin.render import Column, age, rate, size, table, when
from ecan.admin.top import dialogs, readings


@pytest.mark.parametrize("module", [render, readings, dialogs], ids=lambda module: module.__name__)
def test_examples_in_the_docstrings(module) -> None:
    """They are true."""
    assert doctest.testmod(module).failed == 0


@pytest.fixture
def raw(tmp_path):
    """A server that answers the first line with given bytes and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "raw.sock"))
    listener.listen()
    threads = []

    def serve(data: bytes):
        def work() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(data)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return tmp_path / "raw.sock"

    yield serve
    for thread in threads:
        thread.join(10)
    listener.close()


LINES = [
    (b'{"id": 1, "result": {"a": 1}}\n', {"a": 1}),
    (b'{"id": 7, "result": 0}\n{"method": "event"}\n{"id": 1, "result": {"a": 1}}\n', {"a": 1}),
    (b'{"id": 1, "error": {"message": "no"}}\n', RefusedError),
    (b'{"id": null, "error": {"message": "busy"}}\n', RefusedError),
    (b'{"id": 1, "error": "no"}\n', RefusedError),
    (b"HTTP/1.1 400 Bad Request\n", ClientError),
    (b"[]\n", ClientError),
    (b"", NoServerError),
    (b'{"id": 1', NoServerError),
]


@pytest.mark.parametrize(("data", "outcome"), LINES)
async def test_both_clients_take_answers_alike(raw, data, outcome):
    """Late answers and notifications are passed over; the rest is an error of the tree."""

    def blocking():
        with Client(raw(data), 5) as client:
            return client.call("status")

    async def on_the_loop():
        async with AsyncClient(raw(data), 5) as client:
            return await client.call("status")

    for ask in (lambda: asyncio.to_thread(blocking), on_the_loop):
        if isinstance(outcome, dict):
            assert await ask() == outcome
        else:
            with pytest.raises(outcome):
                await ask()


async def test_an_answer_that_is_too_big(raw, monkeypatch):
    """Not into memory without end."""
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1000)
    with Client(raw(b"x" * 100_000), 5) as client, pytest.raises(ClientError, match="too big"):
        client.call("status")
    async with AsyncClient(raw(b"x" * 100_000), 5) as client:
        with pytest.raises(ClientError, match="too big"):
            await client.call("status")


async def test_a_call_that_was_given_up_does_not_confuse_the_next(fake):
    """Its late answer is not taken for another's."""
    waiting = threading.Event()

    def late(_):
        waiting.wait(5)
        return STATUS

    fake.answers["status"] = late
    async with AsyncClient(fake.path, 0.1) as client:
        with pytest.raises(NoServerError, match=r"no answer within 0\.1 s"):
            await client.call("status")
        waiting.set()
        assert await client.call("sessions.keep") == {"expires_in_s": 90000.0}


async def test_events_on_the_loop_until_the_server_goes(fake):
    """In order."""
    kinds = []

    async def listen() -> None:
        async with AsyncClient(fake.path) as client:
            async for event in client.watch("events.watch"):
                kinds.append(event["kind"])
                if len(kinds) == 3:
                    threading.Thread(target=fake.stop).start()

    with pytest.raises(NoServerError):
        await listen()
    assert kinds == ["session.created", "session.crashed", "session.restarted"]


async def test_a_stream_that_is_refused(raw):
    """As an answer would be."""
    data = json.dumps({"id": 1, "error": {"message": "full"}}).encode() + b"\n"
    with Client(raw(data)) as client, pytest.raises(RefusedError, match="full"):
        next(client.watch("events.watch"))
    async with AsyncClient(raw(data)) as client:
        with pytest.raises(RefusedError, match="full"):
            await anext(client.watch("events.watch"))


async def test_the_server_of_a_container_has_our_pid_for_it(tmp_path):
    """Not the one it knows itself: there it is number 1, which here is somebody else."""
    path = tmp_path / "admin.sock"
    listen = (
        "import os, socket, sys; server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]);"
        "server.listen(); print(os.getpid(), flush=True); sys.stdin.read()"
    )
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    process = await asyncio.create_subprocess_exec(
        *apart, sys.executable, "-c", listen, str(path),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert await process.stdout.readline() == b"1\n"
    async with AsyncClient(path) as client:
        assert str(path) in Path(f"/proc/{client.server_pid}/cmdline").read_text()
        assert client.server_pid not in {1, process.pid}
    process.stdin.close()
    assert await process.wait() == 0


async def test_no_permission(tmp_path, monkeypatch):
    """It says who may."""

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(asyncio, "open_unix_connection", refuse)
    with pytest.raises(NoServerError, match="only root and the user the server runs as"):
        async with AsyncClient(tmp_path / "a.sock"):
            pass


def test_connecting_to_what_does_not_accept(tmp_path, monkeypatch):
    """A full backlog: no waiting for ever."""
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "full.sock"))
        listener.listen(0)
        others = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(str(tmp_path / "full.sock"))
        with pytest.raises(NoServerError), Client(tmp_path / "full.sock", 0.05) as client:
            client.call("status")
        for other in others:
            other.close()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (-1, "0s"), (0.25, "0.2s"), (59.9, "59s"), (3599, "59m"), (3600, "1h"), (187200, "2d 4h")],
)  # fmt: skip
def test_ages(seconds, words):
    """At most two units."""
    assert age(seconds) == words


def test_sizes_rates_and_times():
    """As a person would say it."""
    assert [size(n) for n in (None, 0, 1023, 1 << 20, 5 << 40, 1 << 53)] == [
        "-", "0 B", "1023 B", "1.0 MiB", "5.0 TiB", "8192.0 TiB",
    ]  # fmt: skip
    assert [rate(n) for n in (None, 1, 1234.5)] == ["-", "1.0", "1,234"]
    assert when(None, 0) == "-"
    assert when("2026-01-02T03:04:05Z", 0).startswith("2026-01-0")
    assert event_style("session.restarted") == "yellow"


def test_a_narrow_table_leaves_out_columns_by_rank_and_cuts_the_flexible():
    """The first column stays whole."""
    columns = [
        Column("ID", lambda row: row[0]),
        Column("NAME", lambda row: row[1], flexible=True),
        Column("NUMBER", lambda row: row[2], "right", rank=1),
    ]
    rows = [("abc", "名" * 20, "12345")]

    lines = [line.plain for line in table(columns, rows, 24)]
    assert lines == ["ID   NAME         NUMBER", "abc  名名名名名…   12345"]
    lines = [line.plain for line in table(columns, rows, 16)]
    assert lines[0] == "ID   NAME"
    assert lines[1] == "abc  名名名名名…"


def test_readings_of_a_server_that_was_started_anew():
    """Rates start over; latencies are of what happened in between."""
    looks = readings.Readings()

    def look(uptime_s: float, cpu_s: float, fast: int, slow: int) -> None:
        text = (
            f'ecan_request_run_seconds_bucket{{le="0.01",method="a"}} {fast}.0\n'
            f'ecan_request_run_seconds_bucket{{le="1.0",method="a"}} {fast + slow}.0\n'
            f'ecan_request_run_seconds_bucket{{le="+Inf",method="a"}} {fast + slow}.0\n'
        )
        looks.look({"uptime_s": uptime_s, "cpu_s": cpu_s, "rates": {"requests_s": 1.0}}, text)

    look(100, 10, 1000, 0)
    assert looks.p50_ms is None
    look(101, 10.5, 1000, 10)
    assert looks.p50_ms == pytest.approx(505)
    assert looks.cpu_percent == pytest.approx(50)
    look(1, 1, 5, 0)
    assert looks.p99_ms is None
    look(2, 1.1, 5 + 10, 0)
    assert looks.p99_ms < 10
    assert looks.cpu_percent == pytest.approx(10)
    assert readings.quantile(readings.run_buckets(""), 0.5) == 0.0
