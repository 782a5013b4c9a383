"""The real process: ``python web_server.py`` and the command line beside it."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest
from edge_kit import ROOT, Process, ecan, eventually, free_port, http

from ecan.testing import ReplyFailed

PASSWORD = "correct horse battery"
QUICK = {"ECAN_ADMIN_PASSWORD": PASSWORD, "ECAN_DEBUG_METHODS": 1}


@pytest.fixture
async def process(tmp_path):
    """A running server with debug methods and a known admin."""
    async with Process(tmp_path, **QUICK) as process:
        yield process


async def refused_start(folder, **settings):
    """The one line on stderr of a server that does not start."""
    process = Process(folder, **settings)
    try:
        assert await process.ended() == 2, process.err
    finally:
        process.kill()
    assert "ready" not in process.out
    (line,) = [line for line in process.err.splitlines() if not line.startswith("{")]
    assert line.startswith("ecan: "), line
    assert "Traceback" not in process.err
    return line


# -- start --------------------------------------------------------------------------------


async def test_ready_line_and_first_password(tmp_path):
    """The ready line is printed once, the first password once and never again; both work."""
    port = free_port()
    settings = {"ECAN_MODE": "web", "ECAN_WS_PORT": port}
    async with Process(tmp_path, **settings) as first:
        handlers = re.search(r"handlers=(\d+)", first.out)[1]
        lines = first.out.splitlines()
        assert lines[1:] == [
            f"ecan: ready on http://127.0.0.1:{port} (mode=web, store=sqlite, handlers={handlers})"
        ]
        password = re.fullmatch(r"ecan: first account 'admin', password: (\S+)", lines[0])[1]
        async with first.client() as client:
            assert (await client.login("admin", password))["user_info"]["role"] == "admin"
        first.signal()
        assert await first.ended() == 0
        assert password not in first.err
    async with Process(tmp_path) as second:
        assert "first account" not in second.out + second.err
        assert second.out.count("\n") == 1
        async with second.client() as client:
            await client.login("admin", password)


async def test_a_chosen_first_password_is_not_printed(process):
    """With ECAN_ADMIN_PASSWORD nothing is printed but the ready line."""
    assert len(process.out.splitlines()) == 1
    assert PASSWORD not in process.out + process.err
    async with process.client() as client:
        await client.login("admin", PASSWORD)
    status, _, body = await http(process.url, "/health")
    assert (status, json.loads(body)["mode"]) == (200, "web")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ECAN_WS_PORT", "70000"),
        ("ECAN_HANDLERS", "no_such_module"),
        ("ECAN_TRANSPORT", "quic"),
    ],
)
async def test_a_bad_value_ends_the_start_with_one_line(tmp_path, name, value):
    """One line names the variable, the value and what is allowed; exit code 2."""
    line = await refused_start(tmp_path, **{name: value})

    assert line.startswith(f"ecan: {name}='{value}")


async def test_a_port_in_use(tmp_path):
    """A port somebody else has is named with its variable; tests/unit/test_app.py has the rest."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await refused_start(tmp_path, ECAN_WS_PORT=port)

    assert line.startswith(f"ecan: ECAN_WS_PORT='127.0.0.1:{port}': cannot listen there: ")


async def test_an_unknown_variable_is_a_warning_with_a_suggestion(tmp_path):
    """A misspelt ECAN_ variable is warned of, with the name that was meant."""
    async with Process(tmp_path, **QUICK, ECAN_SESSION_TIMEOT=5) as process:
        (line,) = [line for line in process.err.splitlines() if "ECAN_SESSION_TIMEOT" in line]
        assert '"level":"warning"' in line
        assert "ECAN_SESSION_TIMEOUT" in line


# -- handlers -----------------------------------------------------------------------------


def readme_example():
    """The README's own handlers."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next((block for block in blocks if "HANDLERS" in block), None)


async def test_the_handlers_of_the_readme(tmp_path):
    """The README's example, saved as it says and named in ECAN_HANDLERS, answers."""
    code = readme_example()
    assert code is not None, "README.md has no python block with HANDLERS"
    (tmp_path / "shop.py").write_text(code)
    settings = {"ECAN_HANDLERS": "shop", "ECAN_ADMIN_PASSWORD": PASSWORD}
    async with Process(tmp_path, **settings) as process, process.client() as client:
        await client.login("admin", PASSWORD)
        assert await client.call("shop.add", {"sku": "mug", "amount": 2}) == {"items": 2}
        assert await client.call("shop.add", {"sku": "cup", "amount": 1}) == {"items": 3}
        error = await client.error("shop.add", {"sku": 5, "amount": "x", "color": "red"})
        assert error["code"] == "INVALID_PARAMS"
        assert len(error["details"]) == 3
        assert "shop.add" in [m["name"] for m in (await client.call("rpc.discover"))["methods"]]
        await client.call("logout")
        url = {"ECAN_URL": process.client().url}
        words = ("call", "shop.add", '{"sku": "mug", "amount": 2}', "--user", "admin")
        code, out, err = await process.run(*words, "--password-stdin", stdin=PASSWORD, **url)
        assert (code, json.loads(out), err) == (0, {"items": 2}, "")


# -- the end ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(process, number):
    """P14: what runs is answered, what is new is DRAINING, tabs are told and closed with 1012; exit 0."""
    async with process.client() as client:
        await client.login("admin", PASSWORD)
        running = await client.start("debug.sleep", {"seconds": 1.0})
        blocked = await client.start("debug.incr", {"key": "n"})
        await client.call("ping")
        process.signal(number)
        (push,) = await client.push("server.draining")
        assert push["params"]["reconnect_in_ms"] >= 500
        assert (await client.error("debug.incr", {"key": "n"}))["code"] == "DRAINING"
        assert (await http(process.url, "/health"))[0] == 503
        assert (await running)["result"] == {"slept_s": 1.0}
        assert (await blocked)["result"] == 1
        assert (await client.closed())[0] == 1012
    assert await process.ended() == 0
    assert "Traceback" not in process.err
    assert process.out.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "method"), [(signal.SIGTERM, "debug.block"), (signal.SIGINT, "debug.sleep")]
)
async def test_a_second_signal_stops_at_once(process, number, method):
    """P14: whoever waits is answered, not run to the end; exit 0 all the same."""
    async with process.client() as client:
        await client.login("admin", PASSWORD)
        running = await client.start(method, {"seconds": 3600}, deadline_ms=3_600_000)
        await client.call("ping")
        process.signal(number)
        await client.push("server.draining")
        assert not running.done()
        process.signal(number)
        assert (await running)["error"]["outcome"] == "unknown"
        assert (await client.closed())[0] == 1012
    assert await process.ended() == 0
    assert "Traceback" not in process.err


async def test_the_drain_ends_at_its_time_limit(tmp_path):
    """P3, P14: a handler that never ends is answered when ECAN_DRAIN_TIMEOUT is over."""
    async with Process(tmp_path, **QUICK, ECAN_DRAIN_TIMEOUT="200ms") as process:
        async with process.client() as client:
            await client.login("admin", PASSWORD)
            running = await client.start("debug.block", {"seconds": 3600}, deadline_ms=3_600_000)
            await client.call("ping")
            process.signal()
            error = (await running)["error"]
            assert error["details"] == {"reason": "drained"}
            assert (await client.closed())[0] == 1012
        assert await process.ended() == 0
        assert "server.drain_timeout" in process.err


async def test_a_signal_during_the_start_is_not_lost(tmp_path):
    """A server that is told to stop before it is ready stops as well."""
    process = Process(tmp_path, **QUICK)
    await eventually(lambda: "user.created" in process.err or process.popen.poll() is not None)
    process.signal()
    assert await process.ended() == 0
    process.kill()


# -- the command line ---------------------------------------------------------------------


async def test_ecan_call(process):
    """`ecan call`: 0 and the result, 1 and the error, 2 for usage, 3 without a server."""
    url = {"ECAN_URL": process.client().url}

    code, out, err = await process.run("call", "ping", **url)
    assert (code, json.loads(out)["pong"], err) == (0, True, "")
    code, out, err = await process.run("call", "debug.incr", '{"key": "n"}', **url)
    assert (code, out, json.loads(err)["code"]) == (1, "", "TOKEN_REQUIRED")
    code, out, err = await process.run("call", "ping", "{", **url)
    assert (code, out) == (2, "")
    assert "JSON" in err
    process.signal()
    assert await process.ended() == 0
    code, out, err = await process.run("call", "ping", **url)
    assert (code, out) == (3, "")
    assert err.startswith("ecan: cannot connect")


async def test_users_beside_a_running_server(process):
    """`ecan users` works while the server runs; disabling ends sessions at the next frame."""
    code, out, _ = await process.run("users", "add", "ann", "--password-stdin", stdin=PASSWORD)
    assert (code, out) == (0, "Added ann (user).\n")
    code, out, _ = await process.run("users", "list", "--json")
    assert [row["username"] for row in json.loads(out)] == ["admin", "ann"]
    async with process.client() as ann, process.client() as admin:
        await ann.login("ann", PASSWORD)
        await admin.login("admin", PASSWORD)
        code, _, _ = await process.run("users", "disable", "ann")
        assert code == 0
        (push,) = await ann.push("session.closed")
        assert push["params"] == {"reason": "disabled"}
        error = await ann.error("debug.incr", {"key": "n"})
        assert (error["code"], error["details"]["reason"]) == ("SESSION_CLOSED", "disabled")
        ann.session = {}
        with pytest.raises(ReplyFailed, match="INVALID_CREDENTIALS"):
            await ann.login("ann", PASSWORD)
        assert await admin.call("debug.incr", {"key": "n"}) == 1


async def test_serve_is_the_same_server(tmp_path):
    """`ecan serve` with a bad setting ends as web_server.py does."""
    code, out, err = await ecan(tmp_path, "serve", ECAN_WS_PORT="x")

    assert (code, out) == (2, "")
    assert err.startswith("ecan: ECAN_WS_PORT='x'")


async def test_a_start_that_fails_makes_no_account(tmp_path):
    """A busy port: exit 2 and no password shown; it is made and shown by the start that serves."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failed = Process(tmp_path, ECAN_WS_PORT=taken.getsockname()[1])
        assert await failed.ended() == 2
    assert "password:" not in failed.out
    async with Process(tmp_path) as served:
        assert "password:" in served.out
