"""Where a load test's sessions come from, and the corners of its wire and its processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import time
from typing import Any

import attrs
import pytest
from websockets.asyncio.server import ServerConnection, serve

from ecan.loadtest import generator, timer
from ecan.loadtest.builtin import PLANS
from ecan.loadtest.live import Live
from ecan.loadtest.local_server import LocalServer, StartError
from ecan.loadtest.plan import PlanError, make_phases
from ecan.loadtest.probe import Probe
from ecan.loadtest.run import Options, Runner
from ecan.loadtest.wire import Address, Wire, WireError, text_frame
from ecan.testing import running_app
from tests.integration.loadtest_kit import fake_server
from tests.integration.test_loadtest import job, play, settings


def runner(url: str, plan_ref: str = "ping", **more: Any) -> Runner:
    return Runner(Options(plan_ref=plan_ref, url=url, **more), Live(io.StringIO(), PLANS["ping"]))


def short(name: str, users: int = 3, **more: Any) -> Any:
    return attrs.evolve(PLANS[name], users=users, **{"phases": make_phases(20, 1), **more})


async def test_sessions_over_the_admin_socket_are_logged_out_afterwards() -> None:
    """Bulk sessions, the server's pid and metrics; nothing is left when it is over."""
    async with running_app(**settings()) as app:
        testing = runner(
            app.url,
            "counter",
            admin_socket=app.app.settings.admin_socket,
            metrics_url="http://127.0.0.1:9/metrics",
        )
        result = await testing.run(short("counter"))
        more = await testing.run(short("counter", users=5))
        sessions = app.app.sessions.count()
        await testing.clean_up()
        left = app.app.sessions.count()
    assert (result["total"]["ok"], more["total"]["ok"]) == (20, 20)
    assert result["facts"]["sessions"] == "the admin socket"
    assert any(row.get("server", {}).get("rss_bytes") for row in result["timeline"])
    assert (sessions, left) == (5, 0)
    assert more["checks"]["examples"] == [], "counters go on from the run before"
    assert more["checks"]["compared"] == 5


async def test_accounts_made_for_the_test() -> None:
    """--signup: accounts, then logins; closed, it says so."""
    async with running_app(**settings()) as app:
        result = await runner(app.url, sign_up=True).run(short("ping"))
    assert result["total"]["ok"] == 20
    assert result["facts"]["sessions"] == "3 new accounts, by login"
    async with running_app() as app:
        with pytest.raises(WireError, match="signup: FORBIDDEN"):
            await runner(app.url, sign_up=True).run(short("ping"))
        with pytest.raises(PlanError, match="where do the sessions come from"):
            await runner(app.url).run(short("ping"))


async def test_arrival_waits_when_told_to_come_later() -> None:
    """BUSY and RATE_LIMITED before the plan starts are no failure; a refusal is."""
    async with fake_server() as fake:
        answer = fake.answer
        refusals = [{"code": "RATE_LIMITED", "retryable": True, "retry_after_ms": 20}]

        def refuse(request: dict[str, Any]) -> dict[str, Any]:
            reply = answer(request)
            if request["method"] == "login" and refusals:
                return {**reply, "status": "error", "error": refusals.pop()}
            return reply

        fake.answer = refuse  # type: ignore[method-assign]
        done = await play(job(fake.url, users=1))
        assert done["stats"][0]["debug.incr"]["ok"] == 30
        refusals.append({"code": "INVALID_CREDENTIALS", "message": "no"})
        with pytest.raises(WireError, match="INVALID_CREDENTIALS: no"):
            await play(job(fake.url, users=1))


async def test_session_that_cannot_be_resumed_is_lost() -> None:
    """SESSION_NOT_FOUND at the resume: the user is dead, what it waited for is lost."""
    async with fake_server() as fake:
        answer = fake.answer

        def refuse(request: dict[str, Any]) -> dict[str, Any]:
            reply = answer(request)
            if request["method"] == "session.resume":
                return {**reply, "status": "error", "error": {"code": "SESSION_NOT_FOUND"}}
            return reply

        fake.answer = refuse  # type: ignore[method-assign]
        done = await play(job(fake.url, users=1, seconds=1, chaos={"cut_s": 5}))
    stats = done["stats"][0]
    assert done["lost_sessions"] == 1
    assert stats["(reconnect)"]["errors"] == {"SESSION_LOST": 1}
    assert done["dropped"][0] > 0


async def test_closed_loop_asks_again_at_once() -> None:
    """Each user sends when its answer has come; with a scenario as with a mix."""
    async with fake_server() as fake:
        fake.delay = lambda: 0.01
        phases = [attrs.asdict(phase) for phase in make_phases(None, 0.5)]
        done = await play(job(fake.url, users=2, phases=phases))
        assert 2 * 5 < done["stats"][0]["debug.incr"]["ok"] <= 2 * 51
        assert done["compared"] == 2
        storm = await play(job(fake.url, "reconnect-storm", users=2, phases=phases))
        assert storm["stats"][0]["(iteration)"]["ok"] > 4
        fake.twist = lambda _request, reply: [
            {**reply, "status": "error", "error": {"code": "BUSY", "outcome": "not_run"}}
        ]
        busy = await play(job(fake.url, users=2, phases=phases))
        assert 2 <= busy["stats"][0]["debug.incr"]["errors"]["BUSY"] <= 2 * 11


async def test_storm_against_a_server_that_refuses() -> None:
    """Nobody listens: every iteration ends, connections are counted as failed."""
    async with fake_server() as fake:
        url = fake.url
    done = await play(job(url, "login-storm", users=2, seconds=0.5, rate=10))
    stats = done["stats"][0]
    assert stats["(connect)"]["errors"] == {"CONNECT_FAILED": 5}
    assert stats["(iteration)"]["ok"] == 5


# -- the wire -------------------------------------------------------------------------------


async def test_wire_takes_what_websockets_may_send() -> None:
    """Fragments, pings, frames of every length, a close with its code."""
    sizes = (5, 125, 126, 65535, 65536, 300_000)
    pongs: list[float] = []

    async def talk(ws: ServerConnection) -> None:
        for size in sizes:
            assert len(await ws.recv()) == size
            await ws.send("x" * size)
        await ws.send(["ab", "cd", "ef"])
        pongs.append(await (await ws.ping()))
        await ws.close(4001, "enough")

    texts: list[bytes] = []
    lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        wire = await Wire.connect(
            Address.parse(f"ws://127.0.0.1:{port}"),
            texts.append,
            lambda _w, code: lost.set_result(code),
        )
        for size in sizes:
            wire.write(text_frame(b"y" * size))
        assert await asyncio.wait_for(lost, 10) == 4001
    assert [len(text) for text in texts] == [*sizes, 6]
    assert texts[-1] == b"abcdef"
    assert len(pongs) == 1
    wire.close()
    wire.freeze()
    wire.thaw()


@pytest.mark.parametrize("answer", [b"", b"x" * 20_000, b"HTTP/1.1 101 Nearly\r\n\r\n"])
async def test_wire_and_what_is_no_server(answer: bytes) -> None:
    """It hangs up, talks without end, or does not know the handshake."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(WireError):
            await Wire.connect(Address.parse(f"ws://127.0.0.1:{port}/"), print, print)  # type: ignore[arg-type]


async def test_probe_is_told_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs up; one that keeps silent; one that knows no rpc.discover."""
    monkeypatch.setattr("ecan.loadtest.probe.ANSWER_TIMEOUT_S", 0.1)
    async with fake_server() as fake:
        fake.gate.clear()
        async with Probe(fake.url) as probe:
            with pytest.raises(WireError, match="no answer within"):
                await probe.ask("ping")
            asking = asyncio.create_task(probe.ask("ping"))
            while not fake.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            for ws in list(fake.connections):
                ws.transport.abort()
            with pytest.raises(WireError):
                await asking
    async with fake_server() as fake:
        fake.answer = lambda request: {  # type: ignore[method-assign]
            "id": request["id"], "type": "response", "status": "error", "error": {"code": "METHOD_NOT_FOUND"},
        }  # fmt: skip
        async with Probe(fake.url) as probe:
            assert (await probe.methods()).known is None


# -- processes ---------------------------------------------------------------------------------


async def test_timer_fires_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, not before its time; with timerfd and without."""
    for platform in (sys.platform, "other"):
        monkeypatch.setattr(timer.sys, "platform", platform)
        fired: list[float] = []
        due = asyncio.Event()

        def note(fired: list[float] = fired, due: asyncio.Event = due) -> None:
            fired.append(time.monotonic())
            due.set()

        clock = timer.Timer(note)
        clock.set(time.monotonic() + 60)
        at = time.monotonic() + 0.02
        clock.set(at)
        await asyncio.wait_for(due.wait(), 10)
        assert fired[0] >= at - 0.002  # the loop's own resolution
        clock.set(0.0)
        due.clear()
        await asyncio.wait_for(due.wait(), 10)
        clock.close()


async def drive(
    lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The main coroutine of a generator process, with a pipe for its stdin."""
    told: list[dict[str, Any]] = []
    read, write = os.pipe()
    monkeypatch.setattr(generator, "_write", told.append)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(generator.sys, "stdin", stdin)
        for line in lines:
            os.write(write, json.dumps(line).encode() + b"\n")
        os.close(write)
        await generator._main()
    return told


async def test_generator_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Job, go, result; when its coordinator is gone it ends; what fails is told."""
    async with fake_server() as fake:
        todo = attrs.asdict(job(fake.url, seconds=30))
        told = await drive([todo, {"go": time.monotonic()}], monkeypatch)
        assert told[0] == {"ready": 3}
        assert told[-1]["done"]["violations"]["counts"] == {}
        assert (await drive([todo], monkeypatch)) == [{"ready": 3}]
    (told_error,) = await drive([{**todo, "plan": "nothing"}], monkeypatch)
    assert "no plan 'nothing'" in told_error["error"]


async def test_server_that_does_not_start() -> None:
    """The end of its log says why."""
    with pytest.raises(StartError, match="ECAN_STORE"):
        async with LocalServer({**os.environ, "ECAN_STORE": "tape"}):
            pass


@pytest.mark.parametrize("after_s", [0.4, 3.0])
async def test_ctrl_c_leaves_no_server_behind(tmp_path: Any, after_s: float) -> None:
    """Early or while it runs: the command ends, its server with it, and a run has its report."""
    command = (sys.executable, "-m", "ecan", "loadtest", "ping", "--start", "--rate", "20")
    process = await asyncio.create_subprocess_exec(
        *command, "--for", "100s", "--out", str(tmp_path), "--name", "x",
        env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode in {0, 1, -signal.SIGINT}, errors
    assert not list(tmp_path.glob("ecan-loadtest-*")), "its folder is gone, so it was ended"
    assert bool(list(tmp_path.glob("x.html"))) or process.returncode != 0
