"""Operators over the real socket, against a real server with sessions in every state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from edge_kit import Process, cell_of, eventually

from ecan.admin.client import AsyncClient, RefusedError
from ecan.admin.table import COMMANDS
from ecan.errors import StoreUnavailableError
from ecan.testing import ADMIN_PASSWORD, running_app

QUICK = {"passivate_after_s": 3600.0, "passivate_detached_after_s": 3600.0}


async def refusal(operator, name, /, **params):
    """The error object of a command that is refused."""
    with pytest.raises(RefusedError) as refused:
        await operator.call(name, params)
    return refused.value.error


async def code_of(operator, name, /, **params):
    return (await refusal(operator, name, **params))["data"]["code"]


async def until(operator, method, found, **params):
    """Ask until the answer is as expected."""
    async with asyncio.timeout(30):
        while True:
            answer = await operator.call(method, params)
            if found(answer):
                return answer
            await asyncio.sleep(0.02)


@pytest.fixture
async def operator(server):
    async with server.admin() as connected:
        yield connected


@pytest.fixture
async def client(server):
    """A tab of the first user."""
    async with server.logged_in() as connected:
        yield connected


def sid_of(client):
    return client.login_result["sid"]


class Recorded:
    """An operator whose every answer is kept as it came, for the search for secrets."""

    def __init__(self, client):
        self.client = client
        self.text = ""

    async def call(self, method, params=None):
        try:
            answer = await self.client.call(method, params)
        except RefusedError as error:
            self.text += json.dumps(error.error)
            raise
        if method != "sessions.create":
            self.text += json.dumps(answer)
        return answer


# -- sessions in every state --------------------------------------------------------------


@contextlib.asynccontextmanager
async def every_state():
    """A server with a session in each state, by state; and an operator."""
    async with (
        running_app(request_timeout_s=60.0, **QUICK) as server,
        server.admin() as operator,
        contextlib.AsyncExitStack() as tabs,
    ):

        async def tab():
            return await tabs.enter_async_context(server.logged_in())

        names = (
            "active",
            "failed",
            "restarting",
            "passivated",
            "at_rest",
            "stuck",
            "paused",
            "overlapping",
        )
        clients = {name: await tab() for name in names}
        for client in clients.values():
            await client.call("debug.incr", {"key": "n"})
        sids = {name: sid_of(client) for name, client in clients.items()}
        for _ in range(4):
            begin(clients["failed"], "debug.crash")
        await eventually(lambda: cell_of(server, clients["failed"]).state == "failed")
        await operator.call("sessions.passivate", {"sid": sids["passivated"]})
        await clients["at_rest"].close()
        await operator.call("sessions.passivate", {"sid": sids["at_rest"]})
        cell = server.app.directory.get(sids["at_rest"])
        await eventually(lambda: cell.state == "passivated")
        server.app.directory.evict(cell)  # as the reaper does a minute later
        begin(clients["stuck"], "debug.block", {"seconds": 4})
        begin(clients["stuck"], "debug.incr", {"key": "n"})
        await operator.call("queue.pause", {"sid": sids["paused"]})
        begin(clients["paused"], "debug.incr", {"key": "n"})
        for _ in range(3):  # the third back-off is long enough to be looked at
            await clients["restarting"].error("debug.crash")
        yield SimpleNamespace(server=server, operator=operator, clients=clients, sids=sids)


def begin(client, method, params=None):
    """Send a request and do not wait; who wants its final response awaits this."""
    task = asyncio.ensure_future(client.request(method, params))
    client.begun = [*getattr(client, "begun", []), task]
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def test_the_list_and_the_biographies_of_sessions_in_every_state():
    """Each is shown as it is, wherever it is, and none of it has secrets (P16)."""
    async with every_state() as world:
        operator, sids = Recorded(world.operator), world.sids
        listed = {row["sid"]: row for row in (await operator.call("sessions.list"))["sessions"]}
        shown = {
            name: await operator.call("sessions.show", {"sid": sid}) for name, sid in sids.items()
        }

        states = {name: listed[sid]["state"] for name, sid in sids.items()}
        assert {**states, "restarting": ""} == {
            "active": "active",
            "failed": "failed",
            "restarting": "",
            "passivated": "passivated",
            "at_rest": "passivated",
            "stuck": "active",
            "paused": "active",
            "overlapping": "active",
        }
        assert states["restarting"] in {"restarting", "active"}
        assert all(listed[sid].keys() <= shown[name].keys() for name, sid in sids.items())
        assert len({frozenset(row) for row in listed.values()}) == 1
        assert len({frozenset(row) for row in shown.values()}) == 1
        assert [len(shown[name]["crashes"]) for name in ("active", "failed", "restarting")] == [
            0,
            4,
            3,
        ]
        assert shown["restarting"]["errors"][-1]["code"] == "HANDLER_CRASHED"
        assert shown["active"]["slots"] == {"n": 1}
        assert shown["at_rest"]["slots"] == {"n": 1}
        assert shown["active"]["created_by"]["address"] == "127.0.0.1"
        assert [tab["address"] for tab in shown["active"]["tabs"]] == ["127.0.0.1"]
        assert shown["at_rest"]["tabs"] == []
        assert [call["method"] for call in shown["paused"]["queue"]] == ["debug.incr"]
        assert (shown["paused"]["paused"], listed[sids["paused"]]["queue"]) == (True, 1)
        assert shown["stuck"]["running"]["method"] == "debug.block"
        assert "time.sleep" in shown["stuck"]["running"]["stack"]
        assert [t["event"] for t in shown["passivated"]["transitions"]][-2:] == ["idle", "saved"]

        for state, expected in (
            ("failed", {sids["failed"]}),
            ("passivated", {sids["passivated"], sids["at_rest"]}),
            ("closed", set()),
        ):
            rows = (await operator.call("sessions.list", {"state": state}))["sessions"]
            assert {row["sid"] for row in rows} == expected

        letters = await operator.call("deadletters.list")
        for letter in letters["letters"]:
            await operator.call("deadletters.show", {"id": letter["id"]})
        for name in (
            "status",
            "metrics",
            "methods.list",
            "settings.get",
            "users.list",
            "queue.list",
        ):
            with contextlib.suppress(RefusedError):
                await operator.call(name, {"sid": sids["paused"]} if name == "queue.list" else {})
        secrets = [ADMIN_PASSWORD]
        for client in world.clients.values():
            secrets += [client.login_result["session_id"], client.login_result["token"]]
        assert [secret for secret in secrets if secret in operator.text] == []
        assert len(operator.text) > 10_000


async def test_every_session_can_be_killed_whatever_it_does():
    """At rest, failed, stuck in a thread with a queue, paused: each is gone, its requests answered."""
    async with every_state() as world:
        operator, sids = world.operator, world.sids
        for sid in sids.values():
            assert await operator.call("sessions.kill", {"sid": sid}) == {"ok": True}

        assert (await operator.call("sessions.list"))["sessions"] == []
        assert await world.server.app.store.count() == 0
        for name in ("stuck", "paused"):
            for request in world.clients[name].begun:
                assert (await request)["error"]["code"] == "SESSION_CLOSED"  # P3
        for sid in sids.values():
            assert await code_of(operator, "sessions.kill", sid=sid) == "SESSION_NOT_FOUND"
            assert await code_of(operator, "sessions.show", sid=sid) == "SESSION_CLOSED"


async def test_a_stuck_session_is_seen_with_method_and_stack_and_killed(server, operator):
    """A thread that hangs is in the status within two seconds, and also after it was left behind."""
    async with server.logged_in() as client:
        sid = sid_of(client)
        request = begin(client, "debug.block", {"seconds": 3})
        status = await until(operator, "status", lambda answer: answer["stalled"])
        (stalled,) = status["stalled"]
        assert (stalled["sid"], stalled["method"]) == (sid, "debug.block")
        assert stalled["since_s"] < 2
        assert "time.sleep" in stalled["stack"]

        await operator.call("sessions.kill", {"sid": sid, "reason": "abuse"})
        await eventually(lambda: client.pushes)
        assert client.pushes[-1]["params"] == {"reason": "abuse"}
        assert (await request)["error"]["code"] == "SESSION_CLOSED"
        assert (await client.closed())[0] == 4501
        (stalled,) = (await operator.call("status"))["stalled"]
        assert stalled["abandoned"]
        await until(operator, "status", lambda answer: not answer["stalled"])


# -- one session --------------------------------------------------------------------------


async def test_a_session_is_named_by_the_beginning_of_its_id(server, operator, client):
    """If it is the only one that begins so, wherever it is."""
    sid = sid_of(client)
    assert (await operator.call("sessions.show", {"sid": sid[:6].upper()}))["sid"] == sid
    made = await operator.call("sessions.create", {"user": "admin", "count": 40})
    sids = [row["sid"] for row in made["sessions"]]
    first = next(c for c in (s[0] for s in sids) if [s[0] for s in [*sids, sid]].count(c) > 1)
    error = await refusal(operator, "sessions.show", sid=first)
    assert error["data"]["code"] == "AMBIGUOUS_SID"
    assert all(candidate.startswith(first) for candidate in error["data"]["details"]["candidates"])
    assert await code_of(operator, "sessions.show", sid="0") == "SESSION_NOT_FOUND"
    assert await code_of(operator, "sessions.show", sid="0" * 12) == "SESSION_NOT_FOUND"
    cell = server.app.directory.get(sids[0])
    await operator.call("sessions.passivate", {"sid": sids[0]})
    await eventually(lambda: cell.state == "passivated")
    server.app.directory.evict(cell)
    assert (await operator.call("sessions.show", {"sid": sids[0][:11]}))["sid"] == sids[0]


async def test_created_sessions_are_real(server, operator):
    """Without a password, more than a user may open, with secrets that work."""
    made = await operator.call("sessions.create", {"user": "Admin", "count": 25})
    assert len({row["sid"] for row in made["sessions"]}) == 25

    async with server.client() as tab:
        secrets = made["sessions"][7]
        await tab.resume({"session_id": secrets["session_id"], "token": secrets["token"]})
        assert await tab.call("debug.incr", {"key": "n"}) == 1
    shown = await operator.call("sessions.show", {"sid": made["sessions"][7]["sid"]})
    assert shown["created_by"] == {"address": "admin socket", "user_agent": ""}
    assert await code_of(operator, "sessions.create", user="nobody") == "USER_NOT_FOUND"


async def test_created_sessions_are_all_or_none():
    """The server's bound holds for operators too; nobody would have the secrets of a half."""
    async with running_app(max_sessions=10) as server, server.admin() as operator:
        assert await code_of(operator, "sessions.create", user="admin", count=11) == "SESSION_LIMIT"
        await eventually(lambda: server.app.sessions.count() == 0)
        made = await operator.call("sessions.create", {"user": "admin", "count": 10})
        assert len(made["sessions"]) == 10


async def test_restart_revive_and_reset(server, operator, client):
    """Each acts by the supervisor, and says when it does not fit."""
    sid = sid_of(client)
    await client.call("debug.incr", {"key": "n"})
    assert await operator.call("sessions.restart", {"sid": sid}) == {"ok": True}
    await until(operator, "sessions.show", lambda a: a["incarnation"] == 2, sid=sid)
    assert await code_of(operator, "sessions.revive", sid=sid) == "WRONG_STATE"
    for _ in range(4):
        begin(client, "debug.crash")
    await until(operator, "sessions.show", lambda a: a["state"] == "failed", sid=sid)
    assert await code_of(operator, "sessions.restart", sid=sid) == "WRONG_STATE"
    await operator.call("sessions.revive", {"sid": sid})
    assert await client.call("debug.incr", {"key": "n"}) == 2
    await operator.call("sessions.reset", {"sid": sid})
    assert await client.call("debug.incr", {"key": "n"}) == 1


async def test_keep_is_told_and_durable(server, operator, client):
    """The session does not end before then."""
    sid = sid_of(client)
    answer = await operator.call("sessions.keep", {"sid": sid, "seconds": 5 * 86400.0})
    assert answer["expires_in_s"] > 4 * 86400
    row = (await server.app.store.load(sid)).row
    assert row.facts.keep_until_at > server.app.clock.now() + 4 * 86400


async def test_push_to_one_to_a_user_and_to_all(server, operator, client):
    """To the tabs that are there, and kept for those that come back."""
    await server.add_user("ann")
    async with server.logged_in() as second:
        push = {"method": "news", "params": {"n": 1}}
        assert await operator.call("sessions.push", {**push, "sid": sid_of(client)}) == {
            "sessions": 1
        }
        assert await operator.call("sessions.push", {**push, "user": "admin"}) == {"sessions": 2}
        assert await operator.call("sessions.push", {**push, "all": True}) == {"sessions": 2}
        assert await operator.call("sessions.push", {**push, "user": "ann"}) == {"sessions": 0}
        await eventually(lambda: len(client.pushes) == 3 and len(second.pushes) == 2)
        assert [frame["params"] for frame in client.pushes] == [{"n": 1}] * 3
        error = await refusal(operator, "sessions.push", **push)
        assert error["code"] == -32602


# -- queues -------------------------------------------------------------------------------


async def test_a_paused_queue_waits_through_a_restart_and_goes_on_in_order(
    server, operator, client
):
    """Control requests are answered meanwhile; a deadline still answers TIMEOUT (P2, P3)."""
    sid = sid_of(client)
    await operator.call("queue.pause", {"sid": sid})
    waiting = [begin(client, "debug.state_set", {"key": "n", "value": n}) for n in range(3)]
    late = asyncio.ensure_future(
        client.request("debug.state_set", {"key": "n", "value": 9}, deadline_ms=100)
    )
    assert (await client.call("session.info"))["queue"]["depth"] == 4
    assert (await late)["error"]["code"] == "TIMEOUT"
    await operator.call("sessions.restart", {"sid": sid})
    await until(operator, "sessions.show", lambda a: a["incarnation"] == 2, sid=sid)
    queue = await operator.call("queue.list", {"sid": sid})
    assert (queue["paused"], queue["running"]) == (True, None)
    assert [row["method"] for row in queue["queue"]] == ["debug.state_set"] * 3
    assert all(row["bytes"] > 0 and row["age_s"] > 0 for row in queue["queue"])
    assert not any(task.done() for task in waiting)

    await operator.call("queue.resume", {"sid": sid})
    assert [(await task)["status"] for task in waiting] == ["success"] * 3
    assert await client.call("debug.state_get", {"key": "n"}) == 2


async def test_dropped_requests_get_one_answer_each(server, operator, client):
    """P3: CANCELLED, not run; what runs is not dropped, what is left goes on."""
    sid = sid_of(client)
    running = begin(client, "debug.sleep", {"seconds": 0.5})
    waiting = [begin(client, "debug.incr", {"key": "n"}) for _ in range(4)]
    queue = await until(operator, "queue.list", lambda a: len(a["queue"]) == 4, sid=sid)
    assert queue["running"]["method"] == "debug.sleep"
    first = queue["queue"][0]["id"]
    assert await operator.call("queue.drop", {"sid": sid, "request_id": first}) == {"dropped": 1}
    assert await code_of(operator, "queue.drop", sid=sid, request_id=first) == "REQUEST_NOT_FOUND"
    running_id = queue["running"]["id"]
    assert (
        await code_of(operator, "queue.drop", sid=sid, request_id=running_id) == "REQUEST_NOT_FOUND"
    )
    assert await operator.call("queue.drop", {"sid": sid, "all": True}) == {"dropped": 3}
    assert (await refusal(operator, "queue.drop", sid=sid))["code"] == -32602

    for task in waiting:
        error = (await task)["error"]
        assert (error["code"], error["outcome"]) == ("CANCELLED", "not_run")
    assert (await running)["status"] == "success"
    assert await client.call("debug.incr", {"key": "n"}) == 1


async def test_a_full_queue_does_not_keep_operators_out():
    """Commands pass the queue."""
    async with (
        running_app(mailbox_size=2) as server,
        server.admin() as operator,
        server.logged_in() as client,
    ):
        sid = sid_of(client)
        begin(client, "debug.block", {"seconds": 1})
        await until(operator, "queue.list", lambda a: a["running"], sid=sid)
        for _ in range(2):
            begin(client, "debug.incr", {"key": "n"})
        await until(operator, "queue.list", lambda a: len(a["queue"]) == 2, sid=sid)
        assert (await client.error("debug.incr", {"key": "n"}))["code"] == "BUSY"
        assert await operator.call("queue.drop", {"sid": sid, "all": True}) == {"dropped": 2}
        assert await operator.call("sessions.restart", {"sid": sid}) == {"ok": True}
        assert await client.call("debug.incr", {"key": "n"}) == 1


# -- letters, methods, settings, users ----------------------------------------------------


async def test_dead_letters_are_listed_shown_replayed_and_discarded(server, operator, client):
    """With what the handler would do on a copy."""
    await client.call("debug.state_set", {"key": "n", "value": 1})
    assert (await client.error("debug.incr_then_crash", {"key": "n"}))["code"] == "HANDLER_CRASHED"
    assert (await client.error("debug.crash"))["code"] == "HANDLER_CRASHED"
    listed = await operator.call("deadletters.list", {"limit": 1})
    assert (len(listed["letters"]), listed["total"]) == (1, 2)
    rest = await operator.call("deadletters.list", {"limit": 1, "cursor": listed["cursor"]})
    assert rest["cursor"] is None
    (letter,) = rest["letters"]
    shown = await operator.call("deadletters.show", {"id": letter["id"]})
    assert shown["method"] == "debug.incr_then_crash"
    assert "Traceback" in shown["traceback"]
    assert (shown["params"], shown["context"]) == ({"key": "n"}, {"n": 1})

    replay = await operator.call("deadletters.replay", {"id": letter["id"]})
    assert (replay["applied"], replay["status"]) == (False, "crash")
    assert await client.call("debug.state_get", {"key": "n"}) == 1
    assert await operator.call("deadletters.discard", {"id": letter["id"]}) == {"ok": True}
    for command in ("show", "replay", "discard"):
        name = f"deadletters.{command}"
        assert await code_of(operator, name, id=letter["id"]) == "LETTER_NOT_FOUND"
    assert (await operator.call("status"))["dead_letters"] == 1


async def test_methods_are_counted_suspended_and_resumed(server, operator, client):
    """METHOD_SUSPENDED for everybody until then (P9)."""
    await client.call("debug.incr", {"key": "n"})
    await client.error("debug.crash")
    methods = {row["method"]: row for row in (await operator.call("methods.list"))["methods"]}
    assert methods["debug.incr"]["calls"] == 1
    assert methods["debug.incr"]["p99_ms"] > 0
    assert (methods["debug.crash"]["errors"], methods["debug.crash"]["crashes"]) == (1, 1)

    await operator.call("methods.suspend", {"method": "debug.incr"})
    assert (await client.error("debug.incr", {"key": "n"}))["code"] == "METHOD_SUSPENDED"
    assert "debug.incr" in (await operator.call("status"))["suspended_methods"]
    await operator.call("methods.resume", {"method": "debug.incr"})
    assert await client.call("debug.incr", {"key": "n"}) == 2
    assert await code_of(operator, "methods.resume", method="debug.incr") == "NOT_SUSPENDED"
    assert await code_of(operator, "methods.suspend", method="nope") == "METHOD_NOT_FOUND"
    assert await code_of(operator, "methods.resume", method="nope") == "METHOD_NOT_FOUND"


async def test_settings_that_can_change_do(server, operator, client):
    """By the parsers of the start; others say that they cannot."""
    await operator.call("settings.set", {"name": "ECAN_REQUEST_TIMEOUT", "value": "100ms"})
    assert (await client.error("debug.sleep", {"seconds": 20}))["code"] == "TIMEOUT"
    await operator.call("settings.set", {"name": "ECAN_REQUEST_TIMEOUT", "value": "30s"})
    await operator.call("settings.set", {"name": "ECAN_RATE_LIMIT", "value": "1/1"})
    replies = await asyncio.gather(*(client.request("debug.incr", {"key": "n"}) for _ in range(3)))
    assert [r["status"] for r in replies].count("error") >= 1
    await operator.call("settings.set", {"name": "ECAN_RATE_LIMIT", "value": "0"})
    await operator.call("settings.set", {"name": "ECAN_LOGIN_RATE_LIMIT", "value": "1/h"})
    async with server.client() as other:
        codes = [
            (await other.request("login", {"username": "admin", "password": "wrong"}))["error"][
                "code"
            ]
            for _ in range(2)
        ]
    assert codes == ["INVALID_CREDENTIALS", "RATE_LIMITED"]
    for name, value in (
        ("ECAN_SIGNUP", "open"),
        ("ECAN_MAILBOX_SIZE", "7"),
        ("ECAN_WORKER_THREADS", "9"),
        ("ECAN_SESSION_TIMEOUT", "2h"),
    ):
        await operator.call("settings.set", {"name": name, "value": value})
    assert server.app.accounts.signup_open
    assert cell_of(server, client).mailbox.max_items == 7
    assert server.app.workers.max_threads == 9
    shown = await operator.call("sessions.show", {"sid": sid_of(client)})
    assert 7000 < shown["expires_in_s"] <= 7200

    rows = {row["name"]: row for row in (await operator.call("settings.get"))["settings"]}
    assert (rows["ECAN_SESSION_TIMEOUT"]["value"], rows["ECAN_SESSION_TIMEOUT"]["from"]) == (
        "7200s",
        "admin",
    )
    assert rows["ECAN_ADMIN_PASSWORD"]["value"] == "[hidden]"
    assert (rows["ECAN_WS_PORT"]["live"], rows["ECAN_RATE_LIMIT"]["live"]) == (False, True)
    for name, value in (("ECAN_WS_PORT", "1"), ("ECAN_NOPE", "1"), ("ECAN_MAX_SESSIONS", "x")):
        error = await refusal(operator, "settings.set", name=name, value=value)
        assert error["data"]["code"] == "BAD_VALUE"
        assert error["message"].startswith(name)


async def test_shorter_timeouts_hold_for_sessions_that_are_there(server, operator, client):
    """Their deadlines are set anew, in memory and at rest."""
    made = await operator.call("sessions.create", {"user": "admin", "count": 1})
    sid = made["sessions"][0]["sid"]
    await operator.call("settings.set", {"name": "ECAN_PASSIVATE_DETACHED_AFTER", "value": "10ms"})
    cell = server.app.directory.get(sid)
    await eventually(lambda: cell.state == "passivated")
    server.app.directory.evict(cell)
    await operator.call("settings.set", {"name": "ECAN_SESSION_TIMEOUT", "value": "50ms"})
    await eventually(lambda: server.app.directory.reason(sid) == "idle")


async def test_the_log_level_changes(server, operator):
    """And says what it was."""
    answer = await operator.call("log.level", {"level": "ERROR"})
    assert answer == {"level": "ERROR", "before": "INFO"}
    assert (await operator.call("log.level", {"level": "INFO"}))["before"] == "ERROR"


async def test_users_are_added_get_passwords_and_are_locked_out(server, operator):
    """Their sessions end at once (P15)."""
    password = "a long enough one"
    assert await operator.call("users.add", {"username": "ann", "password": password}) == {
        "username": "ann",
        "role": "user",
    }
    assert (
        await code_of(operator, "users.add", username="ann", password=password) == "USERNAME_TAKEN"
    )
    short = await refusal(operator, "users.add", username="bob", password="x")
    assert (short["code"], short["data"]["problems"][0]["path"]) == (-32602, "params.password")
    async with server.client() as ann:
        await ann.login("ann", password)
        users = {row["username"]: row for row in (await operator.call("users.list"))["users"]}
        assert users["ann"]["sessions"] == 1
        await operator.call("users.passwd", {"username": "ann", "password": password + "!"})
        assert (await ann.error("session.info"))["code"] == "SESSION_CLOSED"
        await ann.login("ann", password + "!")
        await operator.call("users.disable", {"username": "ann"})
        assert (await ann.error("session.info"))["code"] == "SESSION_CLOSED"
    assert await code_of(operator, "users.disable", username="nobody") == "USER_NOT_FOUND"
    assert await code_of(operator, "sessions.create", user="ann") == "USER_DISABLED"


async def test_the_metrics_are_those_of_prometheus(server, operator, client):
    """As on the metrics port."""
    text = (await operator.call("metrics"))["text"]
    assert 'ecan_sessions{state="active"} 1.0' in text


async def test_nothing_to_reload(server, operator):
    """handlers.reload is there; what it does is tested elsewhere."""
    assert (await operator.call("handlers.reload"))["reloaded"] == []


# -- events -------------------------------------------------------------------------------


async def test_events_tell_the_life_of_a_session(server, operator):
    """From login to kill, in order."""
    seen = []

    async def watch():
        async with server.admin() as watcher:
            async for event in watcher.watch("events.watch"):
                seen.append(event)

    task = asyncio.ensure_future(watch())
    await eventually(lambda: server.app.events._watchers)
    async with server.logged_in() as client:
        sid = sid_of(client)
        await client.error("debug.crash")
        await eventually(lambda: "session.restarted" in [e["kind"] for e in seen])
        await operator.call("queue.pause", {"sid": sid})
        begin(client, "debug.incr", {"key": "n"})
        await until(operator, "queue.list", lambda a: a["queue"], sid=sid)
        await operator.call("queue.drop", {"sid": sid, "all": True})
        await operator.call("queue.resume", {"sid": sid})
        await operator.call("methods.suspend", {"method": "debug.spin"})
        await operator.call("methods.resume", {"method": "debug.spin"})
        assert (await client.request("debug.block", {"seconds": 1}, deadline_ms=100))["error"]
        await eventually(lambda: cell_of(server, client).state == "active")
        await operator.call("sessions.passivate", {"sid": sid})
        await eventually(lambda: cell_of(server, client).state == "passivated")
        await client.call("debug.incr", {"key": "n"})
        await operator.call("sessions.kill", {"sid": sid})
    await eventually(
        lambda: [e["kind"] for e in seen][-1] in {"session.closed", "session.detached"}
    )
    kinds = [e["kind"] for e in seen if e["kind"] != "session.detached"]
    expected = [
        "session.created",
        "session.bound",
        "session.crashed",
        "session.restarted",
        "queue.paused",
        "queue.dropped",
        "queue.resumed",
        "method.suspended",
        "method.resumed",
        "session.stuck",
        "session.restarted",
        "session.passivated",
        "session.activated",
        "session.closed",
    ]
    assert kinds == expected
    assert all(e.get("sid", sid) == sid for e in seen)
    crash = next(e for e in seen if e["kind"] == "session.crashed")
    assert (crash["method"], crash["error"]) == ("debug.crash", "DebugCrashError")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: not server.app.events._watchers)


async def test_a_store_in_trouble_is_an_event(server, operator, monkeypatch):
    """Told when it begins and when it is over."""
    async with server.admin() as watcher:
        events = watcher.watch("events.watch", {"kinds": ["store."]})
        first = asyncio.ensure_future(anext(events))
        await eventually(lambda: server.app.events._watchers)
        monkeypatch.setattr(type(server.app.store), "trouble", "the disk is full")
        degraded = await first
        monkeypatch.undo()
        recovered = await anext(events)
    assert (degraded["kind"], degraded["trouble"]) == ("store.degraded", "the disk is full")
    assert recovered["kind"] == "store.recovered"


# -- the process --------------------------------------------------------------------------


def raw(path, line):
    """One line over a connection of its own, as `nc -U` sends it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(line + b"\n")
        return json.loads(sock.makefile("rb").readline())


# What other tests left behind is found here, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_gc_looks_at_everything(server, operator):
    """And says what it found, and how long that took."""

    class Node:
        pass

    one = Node()
    one.itself = one
    gone = weakref.ref(one)
    del one
    answer = await operator.call("gc")
    assert gone() is None
    assert answer["found"] >= 1
    assert answer["seconds"] > 0


@pytest.mark.parametrize("command", ["drain", "shutdown"])
async def test_p14_the_process_ends_with_0(tmp_path, command):
    """Over the socket as by a signal; the file is there before the ready line, gone at the end."""
    async with Process(
        tmp_path, ECAN_ADMIN_PASSWORD=ADMIN_PASSWORD, ECAN_DEBUG_METHODS=1
    ) as process:
        path = tmp_path / "data" / "admin.sock"
        assert path.is_socket()
        async with process.client() as client:
            await client.login("admin", ADMIN_PASSWORD)
            request = asyncio.ensure_future(client.request("debug.sleep", {"seconds": 1}))
            await asyncio.sleep(0.2)
            call = {"jsonrpc": "2.0", "id": 1, "method": command}
            answer = await asyncio.to_thread(raw, path, json.dumps(call).encode())
            assert answer["result"] == {"ok": True}
            reply = await request
            assert reply["status"] == ("success" if command == "drain" else "error")
            assert (await client.closed())[0] == 1012
        assert await process.ended() == 0
        assert not path.exists()


async def test_a_drain_may_have_its_own_timeout(tmp_path):
    """Shorter than ECAN_DRAIN_TIMEOUT."""
    async with Process(
        tmp_path, ECAN_ADMIN_PASSWORD=ADMIN_PASSWORD, ECAN_DEBUG_METHODS=1
    ) as process:
        async with process.client() as client:
            await client.login("admin", ADMIN_PASSWORD)
            request = asyncio.ensure_future(client.request("debug.sleep", {"seconds": 20}))
            await asyncio.sleep(0.2)
            async with AsyncClient(tmp_path / "data" / "admin.sock") as operator:
                await operator.call("drain", {"timeout": 0.2})
                assert (await request)["error"]["code"] == "DRAINING"
        assert await process.ended() == 0


async def test_while_draining_operators_still_see(server, operator, client):
    """The status says so, a new session is refused, and the event was told."""
    request = begin(client, "debug.sleep", {"seconds": 0.5})
    await until(operator, "queue.list", lambda a: a["running"], sid=sid_of(client))
    async with server.admin() as watcher:
        event = asyncio.ensure_future(anext(watcher.watch("events.watch", {"kinds": ["server."]})))
        await eventually(lambda: server.app.events._watchers)
        draining = asyncio.ensure_future(server.app.drain())
        assert (await event)["kind"] == "server.draining"
    status = await until(operator, "status", lambda a: a["status"] == "draining")
    assert status["sessions"]["active"] == 1
    assert await code_of(operator, "sessions.create", user="admin") == "DRAINING"
    assert (await request)["status"] == "success"
    await draining


async def test_a_second_server_does_not_take_the_socket(tmp_path):
    """One line that names the variable, exit code 2."""
    async with Process(tmp_path, ECAN_ADMIN_PASSWORD=ADMIN_PASSWORD) as first:
        second = Process(
            tmp_path,
            ECAN_ADMIN_PASSWORD=ADMIN_PASSWORD,
            ECAN_DATA_DIR=tmp_path / "other",
            ECAN_ADMIN_SOCKET=tmp_path / "data" / "admin.sock",
        )
        assert await second.ended() == 2
        lines = [line for line in second.err.splitlines() if not line.startswith("{")]
        assert len(lines) == 1
        assert lines[0].startswith("ecan: ECAN_ADMIN_SOCKET=")
        assert (tmp_path / "data" / "admin.sock").is_socket()
        first.signal()
        assert await first.ended() == 0


async def test_a_killed_servers_socket_is_taken_over(tmp_path):
    """kill -9 leaves the file behind."""
    async with Process(tmp_path, ECAN_ADMIN_PASSWORD=ADMIN_PASSWORD) as first:
        first.kill()
    path = tmp_path / "data" / "admin.sock"
    assert path.is_socket()
    async with Process(tmp_path), AsyncClient(path) as operator:
        assert (await operator.call("status"))["pid"] > 0
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Path(path).stat().st_uid == os.geteuid()


def test_the_tests_name_every_command():
    """None is without one."""
    text = Path(__file__).read_text()
    missing = [
        c.name for c in COMMANDS if c.name not in text and not c.name.startswith("deadletters")
    ]
    assert missing == []


# -- lists --------------------------------------------------------------------------------


async def test_a_list_without_its_store_shows_what_is_in_memory(
    server, operator, client, monkeypatch
):
    """Trouble is said; an operator needs the list most when something is wrong."""
    made = await operator.call("sessions.create", {"user": "admin"})
    cell = server.app.directory.get(made["sessions"][0]["sid"])
    await operator.call("sessions.passivate", {"sid": cell.sid})
    await eventually(lambda: cell.state == "passivated")
    server.app.directory.evict(cell)

    async def broken(*_args, **_options):
        raise StoreUnavailableError("disk I/O error")

    monkeypatch.setattr(server.app.store, "sessions", broken)
    answer = await operator.call("sessions.list")
    assert [row["sid"] for row in answer["sessions"]] == [sid_of(client)]
    assert (answer["trouble"], answer["total"]) == ("disk I/O error", 2)


async def test_lists_are_filtered_by_user_and_state(server, operator, client):
    """In memory and at rest; a user nobody knows has none."""
    await server.add_user("ann")
    made = await operator.call("sessions.create", {"user": "ann", "count": 3})
    sids = {row["sid"] for row in made["sessions"]}
    resting = server.app.directory.get(made["sessions"][0]["sid"])
    await operator.call("sessions.passivate", {"sid": resting.sid})
    await eventually(lambda: resting.state == "passivated")
    server.app.directory.evict(resting)

    async def listed(**params):
        return {row["sid"] for row in (await operator.call("sessions.list", params))["sessions"]}

    assert await listed(user="ann") == sids
    assert await listed(user="ann", state="active") == sids - {resting.sid}
    assert await listed(user="ann", state="passivated") == {resting.sid}
    assert await listed(state="active") == (sids - {resting.sid}) | {sid_of(client)}
    assert await listed(user="nobody") == set()


@pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "WzEsMiwzXQ", "WyJ1c2VyIixudWxsLCIiXQ"])
async def test_a_cursor_of_no_page_is_refused(server, operator, cursor):
    """Garbage, or of another order."""
    error = await refusal(operator, "sessions.list", cursor=cursor)
    assert (error["code"], error["data"]["problems"][0]["path"]) == (-32602, "params.cursor")


async def test_budgets_change_live_and_are_in_the_biography(server, operator, client):
    """With what is used of them."""
    await client.call("debug.incr", {"key": "n"})
    await operator.call("settings.set", {"name": "ECAN_BUDGET_STATE", "value": "1KiB/2KiB"})
    shown = await operator.call("sessions.show", {"sid": sid_of(client)})
    assert shown["budget"]["state_bytes"] == {"used": 1, "soft": 1024, "hard": 2048}
    error = await client.error("debug.state_set", {"key": "x", "value": "x" * 3000})
    assert error["code"] == "STATE_TOO_LARGE"
