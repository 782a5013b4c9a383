"""The admin socket's protocol, and what a client may cost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from admin_kit import TIMEOUT_S, Line, a_server
from structlog.testing import capture_logs

from ecan.admin import server as server_module
from ecan.admin.commands import FUNCTIONS
from ecan.admin.server import MAX_CLIENTS, MAX_LINE_BYTES
from ecan.errors import ConfigError, ReplyError, StoreUnavailableError, SupervisionError


@pytest.fixture
def answering(monkeypatch):
    """Replace a command's function."""

    def replace(name, result=None, error=None, work=None):
        seen = []

        async def function(_port, params):
            seen.append(params)
            if work is not None:
                return await work(params)
            if error is not None:
                raise error
            return result

        monkeypatch.setitem(FUNCTIONS, name, function)
        return seen

    return replace


def call(call_id, method="status", **params):
    return {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}


async def test_one_call(admin, answering):
    """An answer with the same id."""
    answering("status", {"a": 1})
    async with admin.connect() as client:
        assert await client.call("status", id="x") == {
            "jsonrpc": "2.0",
            "id": "x",
            "result": {"a": 1},
        }


async def test_a_batch_is_answered_by_a_batch(admin, answering):
    """One line; what is no call among them has its own error, notifications have nothing."""
    seen = answering("status", "fine")
    async with admin.connect() as client:
        notice = {"jsonrpc": "2.0", "method": "status"}
        client.send([call(1), notice, 5, call(2, "nope"), call(3)])
        answers = await client.line()

    assert [(a["id"], a.get("result"), a.get("error", {}).get("code")) for a in answers] == [
        (1, "fine", None),
        (None, None, -32600),
        (2, None, -32601),
        (3, "fine", None),
    ]
    assert len(seen) == 3


async def test_notifications_are_done_and_not_answered(admin, answering):
    """Neither alone nor in a batch, not even when they fail."""
    seen = answering("status", "fine")
    async with admin.connect() as client:
        notice = {"jsonrpc": "2.0", "method": "status"}
        client.send(notice)
        client.send([notice, notice])
        client.send({"jsonrpc": "2.0", "method": "nope"})
        assert (await client.call("status", id="last"))["id"] == "last"

    assert len(seen) == 4


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{\n", -32700),
        (b"\xff\xfe\n", -32700),
        (b"GET / HTTP/1.1\r\n", -32700),
        (b"[]\n", -32600),
        (b"[" + b"1," * 100 + b"1]\n", -32600),
        (b"7\n", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}\n', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"sessions.show"}\n', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"sessions.show","params":{"sid":1}}\n', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"log.level","params":{"level":"LOUD"}}\n', -32602),
    ],
)
async def test_each_mistake_has_its_code(admin, answering, line, code):
    """And the connection goes on."""
    answering("status", "fine")
    async with admin.connect() as client:
        client.send(line)
        assert (await client.line())["error"]["code"] == code
        assert (await client.call("status"))["result"] == "fine"


async def test_every_wrong_field_is_named(admin):
    """In data.problems."""
    async with admin.connect() as client:
        error = (await client.call("sessions.list", {"limit": "x", "sort": "no", "more": 1}))[
            "error"
        ]

    assert {problem["path"] for problem in error["data"]["problems"]} == {
        "params.limit",
        "params.sort",
        "params.more",
    }


@pytest.mark.parametrize(
    ("error", "code", "details"),
    [
        (ReplyError("SESSION_NOT_FOUND", "no"), "SESSION_NOT_FOUND", None),
        (ReplyError("X", "no", details={"a": 1}), "X", {"a": 1}),
        (SupervisionError("no"), "WRONG_STATE", None),
        (StoreUnavailableError("no"), "BUSY", None),
        (ConfigError("A", "b", "c"), "BAD_VALUE", {"allowed": "c"}),
    ],
)
async def test_a_refusal_has_our_code_in_its_data(admin, answering, error, code, details):
    """-32000, and what the command said."""
    answering("status", error=error)
    async with admin.connect() as client:
        answer = (await client.call("status"))["error"]

    assert answer["code"] == -32000
    assert answer["data"] == {"code": code, "details": details}


async def test_a_bug_in_a_command_is_an_internal_error(admin, answering):
    """P17: no traceback to the client; the log has it."""
    answering("status", error=RuntimeError("secret of the house"))
    async with admin.connect() as client:
        await client.call("nope")
        with capture_logs() as logs:
            error = (await client.call("status"))["error"]

    assert error["code"] == -32603
    assert "house" not in str(error)
    assert [line["event"] for line in logs] == ["admin.command_failed"]


async def test_p16_params_are_not_logged(admin, answering):
    """Who did what is; a password is not, nor is it repeated when it does not fit."""
    answering("users.add", {"username": "ann", "role": "user"})
    with capture_logs() as logs:
        async with admin.connect() as client:
            good = await client.call("users.add", {"username": "ann", "password": "hunter22"})
            bad = await client.call("users.add", {"username": "ann", "password": ["hunter22"]})
            worse = await client.call("users.add", {"username": 1, "password": "hunter22", "x": 2})

    assert good["result"]["username"] == "ann"
    assert bad["error"]["code"] == worse["error"]["code"] == -32602
    assert "hunter22" not in f"{good}{bad}{worse}{logs}"
    assert [line["command"] for line in logs if line["event"] == "admin.command"] == ["users.add"]


# -- who may connect ----------------------------------------------------------------------


async def test_a_wrong_uid_is_refused(tmp_path):
    """Closed without a word; the log says who."""
    with capture_logs() as logs:
        async with (
            a_server(tmp_path / "a.sock", may=lambda _uid: False) as server,
            server.connect() as client,
        ):
            assert await client.line() is None

    assert [(line["event"], line["uid"]) for line in logs] == [("admin.refused", os.geteuid())]


STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"status"}\\n')
except BrokenPipeError:
    pass
try:
    print(repr(s.recv(1000)))
except ConnectionResetError:
    print(repr(b""))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
async def test_another_user_is_refused_by_the_kernels_word(answering):
    """A process of another user that can open the socket gets nothing."""
    import tempfile
    from pathlib import Path

    seen = answering("status", "fine")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "a.sock"
        async with a_server(path):
            Path(folder).chmod(0o755)
            path.chmod(0o666)  # the file's mode is the first lock; this test is about the second
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STRANGER, str(path), stdout=subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(child.communicate(), TIMEOUT_S)

    assert (child.returncode, out.strip(), seen) == (0, b"b''", [])


async def test_at_most_so_many_operators(admin, answering):
    """The 33rd is told; when one leaves, the next one may come."""
    answering("status", "fine")
    clients = [await Line.connect(admin.path) for _ in range(MAX_CLIENTS)]
    for client in clients:
        assert (await client.call("status"))["result"] == "fine"

    async with admin.connect() as late:
        assert (await late.line())["error"]["data"]["code"] == "BUSY"
        assert await late.line() is None
    clients.pop().close()
    async with asyncio.timeout(TIMEOUT_S):
        while admin.server.client_count >= MAX_CLIENTS:
            await asyncio.sleep(0.005)
    async with admin.connect() as next_one:
        assert (await next_one.call("status"))["result"] == "fine"
    for client in clients:
        client.close()


# -- what a client may cost ---------------------------------------------------------------


async def test_a_huge_line_ends_its_connection_only(admin, answering):
    """An error, then the end; others notice nothing."""
    answering("status", "fine")
    async with admin.connect() as other, admin.connect() as client:
        client.send(b"x" * (MAX_LINE_BYTES + 10))
        assert (await client.line())["error"]["code"] == -32600
        await client.ended()
        assert (await other.call("status"))["result"] == "fine"


async def test_a_line_of_the_largest_size_is_taken(admin, answering):
    """The bound is exact enough."""
    answering("status", "fine")
    async with admin.connect() as client:
        body = b'{"jsonrpc":"2.0","id":1,"method":"status"}'
        client.send(body + b" " * (MAX_LINE_BYTES - len(body) - 1) + b"\n")
        assert (await client.line())["result"] == "fine"


async def test_who_says_nothing_is_cut_off(tmp_path):
    """Half a line is nothing; who watches may be silent."""
    async with (
        a_server(tmp_path / "a.sock", idle_s=0.1) as server,
        server.connect() as watching,
    ):
        await watching.call("events.watch")
        async with server.connect() as silent, server.connect() as half:
            half.send(b'{"jsonrpc"')
            await silent.ended()
            await half.ended()
        server.events.emit("session.created", sid="s")
        assert (await watching.line())["params"]["kind"] == "session.created"


async def test_who_does_not_read_is_cut_off(tmp_path, answering):
    """The buffer is bounded, and so is the time it may be full; others are served meanwhile."""
    answering("status", "x" * (4 * 2**20))
    answering("metrics", "fine")
    path = tmp_path / "a.sock"
    async with a_server(path, write_timeout_s=0.2) as server:
        reader, writer = await asyncio.open_unix_connection(path, limit=1)
        slow = Line(reader, writer)
        for number in range(50):
            slow.send(call(number))
        async with server.connect() as other:
            assert (await other.call("metrics"))["result"] == "fine"
            async with asyncio.timeout(TIMEOUT_S):
                while server.server.client_count > 1:
                    await asyncio.sleep(0.01)
        slow.close()


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 5000, b"\n" * 5000, b"{" * 5000 + b"\n", b"[" * 9000]
)
async def test_garbage_harms_nobody(admin, answering, garbage):
    """Neither the server nor another operator."""
    answering("status", "fine")
    async with admin.connect() as other:
        async with admin.connect() as client:
            client.send(garbage)
            client.writer.write_eof()
            await client.ended()
        assert (await other.call("status"))["result"] == "fine"


async def test_who_leaves_in_the_middle_of_a_command_harms_nobody(admin, answering):
    """The command is finished; its answer goes nowhere."""
    began, go = asyncio.Event(), asyncio.Event()

    async def work(_params):
        began.set()
        await go.wait()
        return "x" * 2**20

    answering("status", work=work)
    answering("metrics", "fine")
    async with admin.connect() as client:
        client.send(call(1))
        await began.wait()
    go.set()
    async with admin.connect() as other:
        assert (await other.call("metrics"))["result"] == "fine"


async def test_an_answer_larger_than_the_buffer_reaches_who_reads(admin, answering):
    """sessions.create answers megabytes."""
    answering("status", "x" * (8 * 2**20))
    async with admin.connect() as client:
        assert len((await client.call("status"))["result"]) == 8 * 2**20


async def test_close_parts_from_everybody(tmp_path, answering):
    """Who waits for an answer too."""

    async def work(_params):
        await asyncio.sleep(3600)

    answering("status", work=work)
    async with (
        a_server(tmp_path / "a.sock") as server,
        server.connect() as waiting,
        server.connect() as idle,
    ):
        waiting.send(call(1))
        await idle.call("nope")
        await server.server.close()
        assert (await waiting.line(), await idle.line()) == (None, None)
        await server.server.close()


# -- events -------------------------------------------------------------------------------


async def test_events_come_as_notifications(admin):
    """Those of the kinds asked for, in order, after the answer."""
    async with admin.connect() as client:
        assert (await client.call("events.watch", {"kinds": ["session."]}))["result"] == {
            "watching": ["session."]
        }
        admin.events.emit("queue.paused", sid="a")
        admin.events.emit("session.created", sid="b", user="ann")
        admin.events.emit("session.closed", sid="b", reason="killed")
        first, second = await client.line(), await client.line()

    assert (first["method"], "id" in first) == ("event", False)
    assert {**first["params"], "at": 0} == {
        "kind": "session.created",
        "at": 0,
        "sid": "b",
        "user": "ann",
    }
    assert second["params"]["kind"] == "session.closed"


async def test_watching_goes_with_other_commands_and_ends_with_the_connection(admin, answering):
    """A second watch replaces the first; nothing is kept for who left."""
    answering("status", "fine")
    async with admin.connect() as client:
        await client.call("events.watch", {"kinds": ["a."]})
        await client.call("events.watch", {"kinds": ["b."]})
        admin.events.emit("a.b")
        admin.events.emit("b.c")
        assert (await client.line())["params"]["kind"] == "b.c"
        assert (await client.call("status"))["result"] == "fine"
        assert len(admin.events._watchers) == 1
    async with asyncio.timeout(TIMEOUT_S):
        while admin.events._watchers:
            await asyncio.sleep(0.005)


async def test_an_event_does_not_come_between_the_parts_of_a_batch(admin, answering):
    """A line is a line."""

    async def work(_params):
        admin.events.emit("x.y")
        await asyncio.sleep(0.01)
        return "fine"

    answering("status", work=work)
    async with admin.connect() as client:
        await client.call("events.watch")
        client.send([call(1), call(2)])
        assert [a["result"] for a in await client.line()] == ["fine", "fine"]
        assert (await client.line())["params"]["kind"] == "x.y"


async def test_a_watcher_that_is_too_slow_is_told_what_it_lost(admin, monkeypatch):
    """The oldest go."""
    async with admin.connect() as client:
        await client.call("events.watch")
        for number in range(1500):
            admin.events.emit("x.y", number=number)
        lost, first = await client.line(), await client.line()

    assert (lost["params"]["kind"], lost["params"]["count"]) == ("events.lost", 500)
    assert first["params"]["number"] == 500


async def test_a_watcher_that_does_not_read_is_cut_off(tmp_path, monkeypatch):
    """And costs no more than its buffer."""
    monkeypatch.setattr(server_module, "MAX_BUFFER_BYTES", 1000)
    path = tmp_path / "a.sock"
    async with a_server(path, write_timeout_s=0.1) as server:
        reader, writer = await asyncio.open_unix_connection(path, limit=1)
        client = Line(reader, writer)
        client.send(call(1, "events.watch"))
        async with asyncio.timeout(TIMEOUT_S):
            while not server.events._watchers:
                await asyncio.sleep(0.005)
            while server.events._watchers:
                server.events.emit("x.y", text="x" * 10_000)
                await asyncio.sleep(0)
        client.close()
