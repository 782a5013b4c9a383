"""The promises about sessions over real sockets: P1 to P10, P12 and P13 as a browser sees them."""

from __future__ import annotations

import asyncio
import itertools
import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from ecan.actors.messages import OpenSession
from ecan.handlers.context import User
from ecan.testing import ADMIN_PASSWORD, Client, RunningApp, running_app

pytestmark = pytest.mark.each_transport

if TYPE_CHECKING:
    from pathlib import Path

_modules = itertools.count(1)

TIMEOUT_S = 30.0
"""Generous: a test that waits for it has failed."""


async def until(found: Any) -> None:
    """Wait for a condition of the server that no frame tells of."""
    async with asyncio.timeout(TIMEOUT_S):
        while not found():
            await asyncio.sleep(0.005)


async def open_session(server: RunningApp, client: Client, user_id: int = 1) -> None:
    """A session of its own for a connected client, without the cost of a password's hash."""
    reply = asyncio.get_running_loop().create_future()
    user = User(user_id=user_id, username=f"user{user_id}")
    server.app.sessions.tell_supervisor(OpenSession(user, reply))
    opened = await reply
    await client.resume({"session_id": opened.session_id, "token": opened.token})


def cell_of(server: RunningApp, client: Client) -> Any:
    """The session's cell in the server."""
    sid = client.login_result.get("sid")
    return next(cell for cell in server.app.directory if sid in (None, cell.sid))


async def answers(futures: list[asyncio.Future[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The final responses, in the order asked."""
    async with asyncio.timeout(TIMEOUT_S):
        return [await future for future in futures]


def codes(replies: list[dict[str, Any]]) -> list[str]:
    """How each request ended: its error's code, or "ok"."""
    return [r["error"]["code"] if r["status"] == "error" else "ok" for r in replies]


async def test_p1_forty_blocked_sessions_do_not_stop_others(server: RunningApp) -> None:
    """Forty sessions sleep in synchronous handlers; another one is served meanwhile."""
    clients = [server.client() for _ in range(41)]
    try:
        for n, client in enumerate(clients):
            await client.open()
            await open_session(server, client, n)
        futures = [await c.start("debug.block", {"seconds": 1}) for c in clients[:40]]
        other = clients[40]
        assert await other.call("debug.incr", {"key": "n"}) == 1
        assert await other.call("debug.block", {"seconds": 0}) == {"blocked_s": 0.0}
        assert not any(future.done() for future in futures)
        assert codes(await answers(futures)) == ["ok"] * 40
    finally:
        for client in clients:
            await client.close()


async def test_p2_p5_a_pipeline_across_a_crash(server: RunningApp) -> None:
    """Fifty requests at once with a crash in the middle: in order, each answered once."""
    async with server.logged_in() as client:
        futures = []
        for n in range(50):
            method = "debug.incr_then_crash" if n == 20 else "debug.incr"
            futures.append(await client.start(method, {"key": "n"}))
        replies = await answers(futures)

        assert codes(replies) == ["ok"] * 20 + ["HANDLER_CRASHED"] + ["ok"] * 29
        results = [reply["result"] for reply in replies if reply["status"] == "success"]
        assert results == list(range(1, 50))
        assert [reply["meta"]["incarnation"] for reply in replies] == [1] * 21 + [2] * 29
        (push,) = await client.push("session.restarted")
        assert push["params"] == {"incarnation": 2, "reason": "crash"}
        assert client.strays == []


async def test_p3_every_request_of_a_mixed_storm_is_answered_once(server: RunningApp) -> None:
    """Success, declared error, crash, timeouts, cancels and a logout: one answer for each id."""
    async with server.logged_in() as client, server.client() as other:
        await other.resume(client.session)
        await client.call("debug.state_set", {"key": "text", "value": "no number"})
        futures = [
            await client.start("debug.incr", {"key": "n"}),
            await client.start("debug.incr", {"key": "text"}),
            await client.start("debug.crash"),
            await client.start("debug.sleep", {"seconds": 60}, deadline_ms=50),
            await client.start("debug.sleep", {"seconds": 60}, id="to-cancel"),
            await client.start("debug.incr", {"key": "n"}, id="queued"),
            await client.start("debug.incr", {"key": "n"}, deadline_ms=1),
        ]
        await answers([futures[3]])
        assert (await other.call("session.cancel", {"request_id": "queued"}))["status"] == (
            "cancelled"
        )
        await until(lambda: cell_of(server, client).pending["to-cancel"].started_mono)
        await other.call("session.cancel", {"request_id": "to-cancel"})
        assert codes(await answers(futures)) == [
            "ok",
            "NOT_A_NUMBER",
            "HANDLER_CRASHED",
            "TIMEOUT",
            "CANCELLED",
            "CANCELLED",
            "TIMEOUT",
        ]
        last = [await client.start("debug.sleep", {"seconds": 60}) for _ in range(3)]
        await until(lambda: len(cell_of(server, client).pending) == 3)
        await other.call("logout")
        assert codes(await answers(last)) == ["SESSION_CLOSED"] * 3
        assert client.strays == []


async def test_p3_p14_drain_lets_accepted_requests_finish() -> None:
    """While draining what was accepted is answered; what comes is refused with DRAINING."""
    async with running_app() as server, server.logged_in() as client:
        running = await client.start("debug.sleep", {"seconds": 0.3})
        queued = await client.start("debug.incr", {"key": "n"})
        await until(lambda: len(cell_of(server, client).pending) == 2)
        drain = asyncio.ensure_future(server.app.drain())
        await client.push("server.draining")
        assert (await client.error("debug.incr", {"key": "n"}))["code"] == "DRAINING"
        assert codes(await answers([running, queued])) == ["ok", "ok"]
        await drain


async def test_p6_a_crash_loop_fails_one_session_and_ops_revive_it(server: RunningApp) -> None:
    """The fourth crash gives up; a sibling of the same user works; revive brings it back."""
    async with server.logged_in() as client, server.logged_in() as sibling:
        await client.call("debug.incr", {"key": "n"})
        for _ in range(4):
            await client.error("debug.crash")
        error = await client.error("debug.incr", {"key": "n"})
        assert (error["code"], error["outcome"]) == ("SESSION_FAILED", "not_run")
        assert error["details"] == {"reason": "crash_loop"}
        assert await sibling.call("debug.incr", {"key": "n"}) == 1

        await server.app.sessions.steer(client.login_result["sid"], "revive")
        assert await client.call("debug.incr", {"key": "n"}) == 2


async def test_p7_a_blocked_handler_is_left_behind(server: RunningApp) -> None:
    """TIMEOUT at once, the session goes on in a new incarnation."""
    async with server.logged_in() as client:
        blocked = await client.start("debug.block", {"seconds": 2}, deadline_ms=400)
        behind = await client.start("debug.incr", {"key": "n"})
        replies = await answers([blocked, behind])
        assert codes(replies) == ["TIMEOUT", "ok"]
        assert replies[0]["error"]["outcome"] == "unknown"
        assert replies[1]["meta"]["incarnation"] == 2


async def test_p8_a_full_mailbox_is_busy() -> None:
    """What does not fit is refused at once, the rest is run; control requests pass."""
    async with running_app(mailbox_size=8) as server, server.logged_in() as client:
        running = await client.start("debug.sleep", {"seconds": 60}, id="running")
        await until(lambda: "running" in cell_of(server, client).pending)
        await until(lambda: cell_of(server, client).pending["running"].started_mono)
        futures = [await client.start("debug.incr", {"key": "n"}) for _ in range(12)]
        refused = await answers(futures[8:])
        assert codes(refused) == ["BUSY"] * 4
        assert refused[0]["error"]["retry_after_ms"] == 1000
        assert (await client.call("session.info"))["queue"]["depth"] == 8
        await client.call("session.cancel", {"request_id": "running"})
        assert [reply["result"] for reply in await answers(futures[:8])] == list(range(1, 9))
        assert codes(await answers([running])) == ["CANCELLED"]


async def test_p9_an_applications_method_is_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five sessions crashed by a method of ECAN_HANDLERS: METHOD_SUSPENDED; secrets redacted."""
    module = f"shop_{next(_modules)}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "from typing import Any\n"
        "from ecan.handlers import UserContext, handler\n"
        "@handler('shop.buy')\n"
        "async def buy(ctx: UserContext, params: Any) -> None:\n"
        "    raise ValueError('sold out')\n"
        "HANDLERS = [buy]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with running_app(handlers=(module,)) as server:
        for n in range(6):
            async with server.client() as client:
                await open_session(server, client, n)
                error = await client.error("shop.buy", {"what": "hat", "password": "hunter2"})
                expected = "HANDLER_CRASHED" if n < 5 else "METHOD_SUSPENDED"
                assert error["code"] == expected
        letters = await server.app.store.letters(10)
        assert len(letters) == 5
        assert json.loads(letters[0].params) == {"what": "hat", "password": "[redacted]"}


async def test_p10_p12_a_cut_connection_and_its_resume(server: RunningApp) -> None:
    """Cut in mid-request: the retry attaches, the reply comes once, missed pushes are replayed."""
    async with server.logged_in() as client:
        await client.call("debug.push", {"method": "demo.note", "count": 2})
        await client.push("demo.note", 2)
        running = await client.start("debug.sleep", {"seconds": 0.5}, id="cut")
        await client.start("debug.push", {"method": "demo.note"}, id="later")
        await until(lambda: len(cell_of(server, client).pending) == 2)
        client.cut()
        async with server.client() as back:
            answer = await back.resume(
                client.session, last_seq=1, epoch=client.login_result["epoch"]
            )
            assert answer["status"] == "resumed"
            again = await back.start("debug.sleep", {"seconds": 0.5}, id="cut")
            assert codes(await answers([again])) == ["ok"]
            pushes = await back.push("demo.note", 2)
            assert [push["meta"]["seq"] for push in pushes] == [2, 3]
            replay = await back.request("debug.sleep", {"seconds": 0.5}, id="cut")
            assert replay["meta"]["replayed"] is True
            error = await back.error("debug.sleep", {"seconds": 9}, id="cut")
            assert error["code"] == "ID_REUSED"
        with pytest.raises(ConnectionError):
            await running


async def test_p12_replies_nobody_was_there_for_come_with_resume(server: RunningApp) -> None:
    """The only tab is lost while a handler runs: its reply waits for the resume."""
    async with server.logged_in() as client:
        await client.start("debug.sleep", {"seconds": 0.2}, id="lost")
        await until(lambda: "lost" in cell_of(server, client).pending)
        client.cut()
        await until(lambda: not cell_of(server, client).pending)
        async with server.client() as back:
            await back.resume(client.session, last_seq=0)
            await back.call("ping")
            assert [(stray["id"], stray["status"]) for stray in back.strays] == [
                ("lost", "success")
            ]


async def test_p13_idle_sessions_leave_memory_and_come_back() -> None:
    """Passivated without a tab, only in the store; a frame on a new connection finds it again."""
    async with running_app(passivate_detached_after_s=0.05) as server:
        async with server.logged_in() as client:
            await client.call("debug.incr", {"key": "n"})
        await until(lambda: len(server.app.directory) == 0)
        async with server.client() as back:
            back.session = client.session
            reply = await back.request("debug.incr", {"key": "n"})
            assert (reply["result"], reply["meta"]["incarnation"]) == (2, 2)


async def test_p13_idle_for_too_long_is_the_end() -> None:
    """Warned, told, and afterwards SESSION_EXPIRED on the old and on a new connection."""
    async with running_app(session_timeout_s=0.4) as server, server.logged_in() as client:
        await client.push("session.expiring")
        (closed,) = await client.push("session.closed")
        assert closed["params"] == {"reason": "idle"}
        async with server.client() as other:
            other.session = client.session
            assert (await other.error("session.info"))["code"] == "SESSION_EXPIRED"


async def test_a_handler_asks_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ctx.call over the wire: the tab answers; refused by the tab; asked again after a cut."""
    module = f"asker_{next(_modules)}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "from typing import Any\n"
        "from ecan.handlers import UserContext, handler\n"
        "@handler('shop.sure')\n"
        "async def sure(ctx: UserContext) -> Any:\n"
        "    return await ctx.call('ui.ask', {'sure': True})\n"
        "HANDLERS = [sure]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with running_app(handlers=(module,)) as server, server.logged_in() as client:
        future = await client.start("shop.sure")
        (push,) = await client.push("ui.ask")
        await client.answer(push, "yes")
        assert (await answers([future]))[0]["result"] == "yes"

        await client.start("shop.sure", id="again")
        _, second = await client.push("ui.ask", 2)
        client.cut()
        await until(lambda: not cell_of(server, client).tabs)
        async with server.client() as back:
            await back.resume(client.session, last_seq=0)
            (asked,) = await back.push("ui.ask")
            assert asked["id"] == second["id"]
            await back.answer(asked, "still yes")
            replay = await back.request("shop.sure", id="again")
            assert replay["result"] == "still yes"


async def test_declared_errors_come_out_of_worker_processes(tmp_path, monkeypatch) -> None:
    """A process handler that raises HandlerError is answered with it, and the session lives."""
    (tmp_path / "burner.py").write_text(
        textwrap.dedent(
            """
            from ecan.handlers import HandlerError, handler

            @handler("burn.refuse", isolation="process")
            def refuse(params: dict):
                raise HandlerError("TOO_HOT", "No more.", details={"degrees": 5}, retryable=True)

            HANDLERS = [refuse]
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with running_app(handlers=("burner",)) as server, server.logged_in() as client:
        error = await client.error("burn.refuse")
        assert error == {
            "code": "TOO_HOT",
            "message": "No more.",
            "details": {"degrees": 5},
            "retryable": True,
            "outcome": "ran",
        }
        assert (await client.call("session.info"))["incarnation"] == 1


async def test_a_login_whose_client_left_leaves_no_session(server: RunningApp) -> None:
    """Nobody has the secrets of a session whose login was never answered: it is ended."""
    async with server.client() as client:
        await client.start("login", {"username": "admin", "password": ADMIN_PASSWORD})
        client.cut()
    async with asyncio.timeout(20):
        while server.app.gateway.connection_count or server.app.sessions.count():
            await asyncio.sleep(0.02)
    assert server.app.sessions.count() == 0


async def test_what_happens_is_counted(server: RunningApp) -> None:
    """Logins, commits, pushes, replays, queue depth and loop lag are in the metrics."""
    async with server.client() as client:
        await client.error("login", {"username": "admin", "password": "wrong password"})
        await client.login("admin", ADMIN_PASSWORD)
        await client.call("debug.push", {"method": "a.b", "params": {}, "count": 3}, id="once")
        await client.call("debug.push", {"method": "a.b", "params": {}, "count": 3}, id="once")
        await client.call("debug.sleep", {"seconds": 0.01})
    metrics = server.app.metrics
    assert metrics.labelled("logins") == {"invalid_credentials": 1, "success": 1}
    assert (metrics.commits, metrics.pushes, metrics.replays) == (2, 3, 1)
    assert sum(metrics.mailbox_depth.counts) >= 1
    assert sum(metrics.loop_lag.counts) >= 1
