"""Frames over real sockets: envelope, order, back-pressure, rate limits, who may connect."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvloop
from edge_kit import (
    TEXT,
    UPGRADE,
    Raw,
    address_of,
    answer_to,
    cell_of,
    eventually,
    http,
    token_of,
)

from ecan.actors.lifecycle import State
from ecan.config import LoginRateLimit, RateLimit
from ecan.testing import Client, running_app

pytestmark = pytest.mark.each_transport

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run_on(factory, story):
    """Run a story on a loop of this kind: buffers of transports differ between them."""
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(story())


@pytest.fixture
async def client(server):
    async with server.client() as client:
        yield client


@pytest.fixture
async def user(server):
    async with server.logged_in() as user:
        yield user


# -- the envelope -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "frame_id", "code", "word"),
    [
        ("{", "", "PARSE_ERROR", "JSON"),
        ("", "", "PARSE_ERROR", "JSON"),
        ('{"id": "a", "type": "request", "method": "ping", "n": NaN}', "", "PARSE_ERROR", "JSON"),
        ("[]", "", "INVALID_REQUEST", "object"),
        ("null", "", "INVALID_REQUEST", "object"),
        ('{"id": "a"}', "a", "MISSING_TYPE", "type"),
        ('{"id": 5}', "", "MISSING_TYPE", "type"),
        ('{"id": "a", "type": "push"}', "a", "UNKNOWN_TYPE", "type"),
        ('{"id": "a", "type": 7}', "a", "UNKNOWN_TYPE", "type"),
        ('{"type": "request", "method": "ping"}', "", "INVALID_REQUEST", "`id`"),
        ('{"id": 5, "type": "request", "method": "ping"}', "", "INVALID_REQUEST", "`id`"),
        ('{"id": "", "type": "request", "method": "ping"}', "", "INVALID_REQUEST", "`id`"),
        ('{"id": "a", "type": "request"}', "a", "INVALID_REQUEST", "`method`"),
        ('{"id": "a", "type": "request", "method": []}', "a", "INVALID_REQUEST", "`method`"),
        (
            '{"id": "a", "type": "request", "method": "ping", "meta": []}',
            "a",
            "INVALID_REQUEST",
            "`meta`",
        ),
        (
            '{"id": "a", "type": "request", "method": "ping", "meta": {"deadline_ms": 0}}',
            "a",
            "INVALID_REQUEST",
            "`meta.deadline_ms`",
        ),
        (
            '{"id": "a", "type": "request", "method": "ping", "meta": {"on_disconnect": "x"}}',
            "a",
            "INVALID_REQUEST",
            "`meta.on_disconnect`",
        ),
        (
            '{"id": "a", "type": "request", "method": "ping", "meta": {"session_id": 1}}',
            "a",
            "INVALID_REQUEST",
            "`meta.session_id`",
        ),
        (
            '{"id": "a", "type": "request", "method": "ping", "meta": {"token": 1}}',
            "a",
            "INVALID_REQUEST",
            "`meta.token`",
        ),
        (
            '{"id": "a", "type": "request", "method": "ping", "token": 1}',
            "a",
            "INVALID_REQUEST",
            "`token`",
        ),
        ('{"id": "a", "type": "response"}', "a", "INVALID_REQUEST", "`status`"),
        ('{"type": "response", "status": "success"}', "", "INVALID_REQUEST", "`id`"),
    ],
)
async def test_a_frame_that_is_no_request_is_answered_and_named(client, raw, frame_id, code, word):
    """P17: the reply has the envelope's error code, names the field and echoes a readable id."""
    reply = await answer_to(client, raw)

    assert (reply["id"], reply["type"], reply["status"]) == (frame_id, "response", "error")
    assert reply["error"]["code"] == code
    assert word in reply["error"]["message"]
    assert (reply["error"]["retryable"], reply["error"]["outcome"]) == (False, "not_run")
    assert (await client.call("ping"))["pong"]


async def test_an_unknown_method_is_named_before_and_after_login(server, client):
    """METHOD_NOT_FOUND names the method, whoever asks."""
    before = await client.error("no.such")
    await client.login("admin", "correct horse battery")
    after = await client.error("no.such")

    assert before["code"] == after["code"] == "METHOD_NOT_FOUND"
    assert "no.such" in before["message"] and "no.such" in after["message"]
    assert after["outcome"] == "not_run"


async def test_invalid_params_list_every_wrong_field(user):
    """INVALID_PARAMS says of each wrong field where it is, all at once."""
    error = await user.error("debug.push", {"count": -1, "extra": 1, "method": 5})

    assert error["code"] == "INVALID_PARAMS"
    assert error["outcome"] == "not_run"
    paths = {detail["path"] for detail in error["details"]}
    assert {"params.extra", "params.method"} <= paths


async def test_invalid_params_before_login(client):
    """The lobby checks params as sessions do."""
    error = await client.error("login", {"username": 5})

    assert error["code"] == "INVALID_PARAMS"
    assert {d["path"] for d in error["details"]} == {"params.username", "params.password"}


async def test_params_of_a_method_that_takes_none_are_refused(user):
    """A method without params says so."""
    assert (await user.error("session.list", {"x": 1}))["code"] == "INVALID_PARAMS"


@pytest.mark.parametrize("place", ["meta", "params", "top level"])
async def test_credentials_may_stand_in_three_places(server, user, client, place):
    """A first request with credentials in meta or params, or a token at the top, binds its tab."""
    session_id, token = user.session["session_id"], user.session["token"]
    frame = {"id": f"first {place}", "type": "request", "method": "debug.incr"}
    frame |= {
        "meta": {"meta": {"session_id": session_id, "token": token}, "params": {"key": "n"}},
        "params": {"params": {"key": "n", "session_id": session_id, "token": token}},
        "top level": {"meta": {"session_id": session_id}, "token": token, "params": {"key": "n"}},
    }[place]

    reply = await answer_to(client, json.dumps(frame))

    assert (reply["status"], reply["result"]) == ("success", 1)
    assert reply["meta"]["sid"] == user.login_result["sid"]
    # The connection is bound: nothing needs to be repeated, and pushes arrive.
    assert await client.call("debug.incr", {"key": "n"}) == 2
    await user.call("debug.push", {"method": "demo.note"})
    await client.push("demo.note")


async def test_credentials_never_reach_a_handler(user):
    """P16: echo gives back its params without the credentials that stood in them."""
    params = {"a": 1, **user.session}

    assert await user.call("echo", params) == {"a": 1}


async def test_deadline_ms_ends_a_request(user):
    """`meta.deadline_ms` is the request's own deadline, in the session and in its queue."""
    running = await user.start("debug.sleep", {"seconds": 60}, deadline_ms=50)
    queued = await user.start("debug.incr", {"key": "n"}, deadline_ms=20)

    error = (await running)["error"]
    assert (error["code"], error["outcome"]) == ("TIMEOUT", "unknown")
    error = (await queued)["error"]
    assert (error["code"], error["outcome"]) == ("TIMEOUT", "not_run")
    assert await user.call("debug.state_get", {"key": "n"}) is None


async def test_deadline_in_the_lobby(server, client, monkeypatch):
    """A login that takes too long is answered TIMEOUT."""

    async def hang(*_):
        await asyncio.sleep(3600)

    monkeypatch.setattr(server.app.accounts._store, "get_by_name", lambda _: None)
    monkeypatch.setattr(server.app.accounts, "_db", hang)

    error = await client.error("login", {"username": "a", "password": "b"}, deadline_ms=20)

    assert error["code"] == "TIMEOUT"
    assert (await client.call("ping"))["pong"]


@pytest.mark.parametrize(("wish", "runs_on"), [("cancel", False), ("keep", True), (None, True)])
async def test_on_disconnect(server, user, wish, runs_on):
    """`on_disconnect: cancel` ends the running request with its tab; by default it runs on."""
    meta = {} if wish is None else {"on_disconnect": wish}
    async with server.client() as other:
        await other.resume(user.session)
        await other.start("debug.sleep", {"seconds": 3600}, id="long", **meta)
        cell = cell_of(server, user)
        await eventually(lambda: "long" in cell.pending and cell.pending["long"].started_mono)
        other.cut()

    await eventually(lambda: len(cell.tabs) == 1)
    assert ("long" in cell.pending) is runs_on
    if runs_on:
        assert (await user.call("session.cancel", {"request_id": "long"}))["status"] == "cancelling"


async def test_replies_come_in_the_order_of_the_requests(user):
    """P2: the requests of one session are answered first in, first out."""
    order = []
    futures = []
    for number in range(50):
        method = "debug.incr" if number % 3 else "debug.sleep"
        params = {"key": "n"} if number % 3 else {"seconds": 0}
        future = await user.start(method, params)
        future.add_done_callback(lambda _, number=number: order.append(number))
        futures.append(future)
    await asyncio.gather(*futures)

    assert order == list(range(50))


async def test_a_long_request_holds_nobody_else(server, user):
    """P1: while one session blocks a thread, another user's session answers."""
    await server.add_user("ann")
    async with server.logged_in("ann", "staple correct horse") as ann:
        blocked = await user.start("debug.block", {"seconds": 0.5})
        slept = await user.start("debug.sleep", {"seconds": 0})

        for _ in range(20):
            await ann.call("debug.incr", {"key": "n"})

        assert not blocked.done()
        assert (await blocked)["status"] == (await slept)["status"] == "success"


# -- the store ----------------------------------------------------------------------------


async def evict(server, client):
    """Send the session to rest in the store, away from memory."""
    await client.close()
    cell = cell_of(server, client)
    await eventually(lambda: not cell.tabs)
    await server.app.sessions.steer(cell.sid, "passivate")
    await eventually(lambda: server.app.directory.get(cell.sid) is None, "the eviction")


def slow_store(server, monkeypatch):
    """The store answers when the returned event is set."""
    gate = asyncio.Event()
    load = server.app.store.load

    async def loading(sid):
        await gate.wait()
        return await load(sid)

    monkeypatch.setattr(server.app.store, "load", loading)
    return gate


async def test_frames_keep_their_order_while_the_session_is_fetched(server, monkeypatch):
    """P2: what arrives while the session comes from the store runs after it, in order."""
    async with server.logged_in() as user:
        await user.call("debug.state_set", {"key": "n", "value": 10})
        await evict(server, user)
    gate = slow_store(server, monkeypatch)
    async with server.client() as tab:
        tab.session = user.session
        futures = [await tab.start("debug.incr", {"key": "n"}) for _ in range(5)]
        tab.session = {}
        futures += [await tab.start("debug.incr", {"key": "n"}) for _ in range(5)]
        gate.set()

        replies = [await future for future in futures]

    assert [reply["result"] for reply in replies] == list(range(11, 21))
    assert replies[0]["meta"]["incarnation"] == 2


async def test_too_many_frames_while_the_session_is_fetched_are_busy(server, monkeypatch):
    """P8: 64 frames wait for the store; more are BUSY, and none is lost."""
    async with server.logged_in() as user:
        await evict(server, user)
    gate = slow_store(server, monkeypatch)
    async with server.client() as tab:
        tab.session = user.session
        futures = [await tab.start("debug.incr", {"key": "n"}) for _ in range(70)]
        last = (await futures[-1])["error"]
        assert (last["code"], last["retryable"], last["outcome"]) == ("BUSY", True, "not_run")
        gate.set()
        replies = [await future for future in futures]

    assert [reply["result"] for reply in replies[:64]] == list(range(1, 65))
    assert {reply["error"]["code"] for reply in replies[64:]} == {"BUSY"}


async def test_the_store_does_not_know_the_session(server, client):
    """SESSION_NOT_FOUND with reason unknown, each frame that waited has its own answer."""
    client.session = {"session_id": "no-such", "token": "x"}
    futures = [await client.start("debug.incr", {"key": "n"}) for _ in range(3)]

    for future in futures:
        error = (await future)["error"]
        assert (error["code"], error["details"]) == ("SESSION_NOT_FOUND", {"reason": "unknown"})


async def test_a_store_that_fails_is_busy_and_not_fatal(server, monkeypatch):
    """A store that cannot load answers BUSY; the next try works."""
    async with server.logged_in() as user:
        await evict(server, user)

    async def broken(_sid):
        raise OSError("disk on fire")

    async with server.client() as tab:
        tab.session = user.session
        with monkeypatch.context() as patch:
            patch.setattr(server.app.store, "load", broken)
            error = await tab.error("debug.incr", {"key": "n"})
            assert (error["code"], error["retryable"]) == ("BUSY", True)
            assert "fire" not in error["message"]

        assert await tab.call("debug.incr", {"key": "n"}) == 1


async def test_the_tab_leaves_while_its_session_is_fetched(server, monkeypatch):
    """A tab that goes away before its session came is forgotten without a trace."""
    async with server.logged_in() as user:
        await evict(server, user)
    gate = slow_store(server, monkeypatch)
    async with server.client() as tab:
        tab.session = user.session
        await tab.start("debug.incr", {"key": "n"})
        await eventually(lambda: server.app.router._tasks)
        tab.cut()
    await eventually(lambda: server.app.gateway.connection_count == 0)
    gate.set()
    await eventually(lambda: not server.app.router._tasks)

    async with server.client() as tab:
        tab.session = user.session
        assert await tab.call("debug.incr", {"key": "n"}) == 1
        assert len(server.app.directory.get(user.login_result["sid"]).tabs) == 1


# -- tabs ---------------------------------------------------------------------------------


async def test_a_late_close_cannot_detach_the_successor(server, user):
    """The end of a replaced connection leaves the one that came after it alone."""
    cell = cell_of(server, user)
    (old,) = cell.tabs.values()
    async with server.client() as successor:
        await successor.resume(user.session)
        user.cut()
        await eventually(lambda: len(cell.tabs) == 1)
        server.app.sessions.detach(cell, old)
        old.lost()

        assert [peer.id for peer in cell.tabs.values()] != [old.id]
        assert len(cell.tabs) == 1
        await successor.call("debug.push", {"method": "demo.note"})
        await successor.push("demo.note")


async def test_sockets_that_race_to_resume_all_get_the_session(server, user):
    """P12: ten tabs that resume at once are all bound, and each gets every push once."""
    await user.call("debug.push", {"method": "demo.note", "count": 3})
    await user.push("demo.note", 3)
    tabs = [server.client() for _ in range(10)]
    for tab in tabs:
        await tab.open()
    try:
        answers = await asyncio.gather(*(tab.resume(user.session, 1) for tab in tabs))
        await user.call("debug.push", {"method": "demo.note"})
        for tab in tabs:
            notes = await tab.push("demo.note", 3)
            assert [note["meta"]["seq"] for note in notes] == [2, 3, 4]
        assert {answer["status"] for answer in answers} == {"resumed"}
        assert len(cell_of(server, user).tabs) == 11
    finally:
        for tab in tabs:
            await tab.close()


async def test_resume_before_the_first_push(server, user):
    """P12: a resume of a session that has pushed nothing yet misses nothing, and no gap."""
    async with server.client() as tab:
        answer = await tab.resume(user.session, 0, user.login_result["epoch"])
        assert (answer["status"], answer["seq"]) == ("resumed", 0)

        await user.call("debug.push", {"method": "demo.note"})
        assert [note["meta"]["seq"] for note in await tab.push("demo.note")] == [1]


async def test_resume_of_a_gap_says_which(server, user):
    """P12: pushes beyond what is kept are named as a gap."""
    await user.call("debug.push", {"method": "demo.note", "count": 1500})
    async with server.client() as tab:
        answer = await tab.resume(user.session, 100)

        assert (answer["status"], answer["from"], answer["to"]) == ("gap", 101, 500)
        notes = await tab.push("demo.note", 1000)
        assert [note["meta"]["seq"] for note in notes] == list(range(501, 1501))


async def test_a_dropped_connection_keeps_its_reply_for_resume(server, user):
    """P3, P12: TCP gone without a close; the reply made meanwhile comes with the resume."""
    async with server.client() as tab:
        await tab.resume(user.session)
        await tab.start("debug.sleep", {"seconds": 0.5}, id="lost")
        await eventually(lambda: "lost" in cell_of(server, user).pending)
        tab.cut()
    await eventually(lambda: len(cell_of(server, user).tabs) == 1)
    await eventually(lambda: "lost" not in cell_of(server, user).pending)
    async with server.client() as tab:
        await tab.resume(user.session, 0)
        await eventually(lambda: tab.strays)

        assert tab.strays[0]["id"] == "lost"
        assert tab.strays[0]["result"] == {"slept_s": 0.5}


async def test_a_second_login_moves_the_connection(server, user):
    """A connection that logs in again belongs to the new session only."""
    first = cell_of(server, user)
    await user.login("admin", "correct horse battery")
    second = cell_of(server, user)

    await eventually(lambda: not first.tabs)
    assert len(second.tabs) == 1
    assert first.state is State.ACTIVE


async def test_a_handler_asks_and_only_a_bound_tab_may_answer(server, user):
    """An answer nobody asked for is dropped without harm."""
    await user.answer({"id": "c-unknown"}, 1)
    async with server.client() as stranger:
        await stranger.answer({"id": "c-unknown"}, 1)
        assert (await stranger.call("ping"))["pong"]

    assert (await user.call("ping"))["pong"]


class FakeAsk:
    def __init__(self):
        self.future = asyncio.get_running_loop().create_future()
        self.peer = None
        self.frame = b""


async def test_answers_reach_who_asked(server, user):
    """A client's answer is the result of the handler's question; an error is an error."""
    cell = cell_of(server, user)
    good, bad, ugly, late = FakeAsk(), FakeAsk(), FakeAsk(), FakeAsk()
    cell.asks = {"good": good, "bad": bad, "ugly": ugly, "late": late}
    error = {"code": "NO", "message": "I will not."}
    await user.answer({"id": "good"}, {"yes": 1})
    await user.answer({"id": "good"}, {"yes": 2})
    for ask_id, problem in (("bad", error), ("ugly", "nonsense")):
        frame = {"id": ask_id, "type": "response", "status": "error", "error": problem}
        await user.send_raw(json.dumps(frame))
    await user.call("ping")
    token_of(server, user).revoked = True
    await user.answer({"id": "late"}, 1)
    await user.error("ping")

    assert good.future.result() == {"yes": 1}
    assert (bad.future.exception().code, bad.future.exception().message) == ("NO", "I will not.")
    assert ugly.future.exception().code == "CLIENT_ERROR"
    assert not late.future.done()
    cell.asks = None


# -- back-pressure ------------------------------------------------------------------------


async def never_reads(server, session):
    """A tab of the session with a small window that reads nothing any more."""
    raw = await Raw.connect(server.url, receive_buffer=4096)
    raw.request("resume", "session.resume", None, **session)
    assert (await raw.json())["result"]["status"] == "resumed"
    raw.writer.transport.pause_reading()
    return raw


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("how", ["push", "stream"])
def test_a_client_that_never_reads_is_closed_and_its_session_lives(factory, how):
    """P8: 1013 for the tab that does not read; its session, its resume and others go on."""

    async def story():
        big = "x" * 20_000
        async with running_app() as server, server.logged_in() as user:
            await server.add_user("ann")
            async with server.logged_in("ann", "staple correct horse") as ann:
                raw = await never_reads(server, user.session)
                cell = cell_of(server, user)
                slow = next(p for p in cell.tabs.values() if p.user_agent == "")
                buffered = 0
                if how == "stream":
                    raw.request("stream", "debug.stream", {"n": 100_000})
                    await eventually(lambda: "stream" in cell.pending)
                    # A stream waits for its reader; what runs it over is what comes beside.
                    await eventually(lambda: slow.backlog_bytes > 0 or "stream" not in cell.pending)
                    await user.call("session.cancel", {"request_id": "stream"})
                for _ in range(2000):
                    await user.call("debug.push", {"method": "demo.big", "params": big})
                    buffered = max(buffered, slow.backlog_bytes)
                    if not slow.is_open:
                        break
                    assert await ann.call("debug.incr", {"key": "n"})
                assert not slow.is_open
                assert buffered <= 2**20 + 2 * len(big)
                closed = server.app.metrics.labelled("connections_closed")
                assert closed == {"1013": 1}
                raw.writer.transport.resume_reading()
                _, code = await raw.outcome()
                assert code in (1013, None)
                await raw.close()
                await eventually(lambda: slow.id not in cell.tabs)
                async with server.client() as again:
                    answer = await again.resume(user.session, 0)
                    assert answer["status"] in ("gap", "resumed")
                    assert await again.call("debug.incr", {"key": "n"}) == 1

    run_on(factory, story)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_frozen_client_is_gone_without_reading_anything(factory):
    """P8: a tab that was closed with 1013 and still does not read is cut off."""

    async def story():
        async with running_app() as server, server.logged_in() as user:
            frozen = await never_reads(server, user.session)
            async with frozen:
                cell = cell_of(server, user)
                while len(cell.tabs) == 2 and all(peer.is_open for peer in cell.tabs.values()):
                    await user.call("debug.push", {"method": "demo.big", "params": "x" * 50_000})
                # Keepalive alone would need its twenty seconds.
                gateway = server.app.gateway
                await eventually(lambda: gateway.connection_count == 1, "the cut", within_s=15)

    run_on(factory, story)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_full_outbox_can_be_resumed(factory):
    """P12: what is kept for resume fits through what a connection may be behind."""

    async def story():
        async with running_app(max_frame=2**22) as server, server.logged_in() as user:
            for _ in range(60):
                await user.call("debug.push", {"method": "demo.big", "params": "x" * 20_000})
            for _ in range(3):
                async with server.client() as tab:
                    answer = await tab.resume(user.session, 0)
                    count = answer["seq"] - answer["to"]
                    assert len(await tab.push("demo.big", count)) == count
                    assert (await tab.call("ping"))["pong"]

    run_on(factory, story)


# -- rates --------------------------------------------------------------------------------


def count_codes(replies):
    codes = [reply["error"]["code"] if reply["status"] == "error" else "ok" for reply in replies]
    return {code: codes.count(code) for code in set(codes)}


async def test_the_rate_limit_is_the_sessions_and_not_the_tabs():
    """Burst respected, then RATE_LIMITED with retry_after_ms; a second tab brings no more."""
    async with (
        running_app(rate_limit=RateLimit(0.001, 20)) as server,
        server.logged_in() as user,
        server.client() as tab,
    ):
        await tab.resume(user.session)
        futures = [
            await one.start("debug.incr", {"key": "n"}) for _ in range(15) for one in (user, tab)
        ]
        replies = [await future for future in futures]

        assert count_codes(replies) == {"ok": 20, "RATE_LIMITED": 10}
        refused = [reply["error"] for reply in replies if reply["status"] == "error"]
        assert all(error["retryable"] and error["outcome"] == "not_run" for error in refused)
        assert all(0 < error["retry_after_ms"] <= 1_000_000 for error in refused)


async def test_one_sessions_rate_is_not_anothers():
    """P1: a user who floods is limited; another one is not."""
    async with running_app(rate_limit=RateLimit(0.001, 10)) as server:
        await server.add_user("ann")
        async with (
            server.logged_in() as user,
            server.logged_in("ann", "staple correct horse") as ann,
        ):
            for _ in range(10):
                await user.request("debug.incr", {"key": "n"})
            assert (await user.error("debug.incr", {"key": "n"}))["code"] == "RATE_LIMITED"
            assert await ann.call("debug.incr", {"key": "n"}) == 1


async def test_without_a_login_the_rate_is_the_connections():
    """Anonymous requests count per connection, unknown methods and bad sessions included."""
    async with (
        running_app(rate_limit=RateLimit(0.001, 4)) as server,
        server.client() as one,
        server.client() as two,
    ):
        await one.call("ping")
        assert (await one.error("no.such"))["code"] == "METHOD_NOT_FOUND"
        assert (await one.error("debug.incr", session_id="x", token="y"))["code"] == (
            "SESSION_NOT_FOUND"
        )
        await one.call("get_version")

        assert (await one.error("ping"))["code"] == "RATE_LIMITED"
        assert (await one.error("no.such"))["code"] == "RATE_LIMITED"
        assert (await one.error("login", {"username": "a", "password": "b"}))["code"] == (
            "RATE_LIMITED"
        )
        assert (await two.call("ping"))["pong"]


async def test_a_flood_of_bad_frames_ends_the_connection():
    """P17: too many bad frames are closed with 1008; who sends good ones stays."""
    async with (
        running_app(rate_limit=RateLimit(0.001, 10)) as server,
        server.client() as good,
        await Raw.connect(server.url) as bad,
    ):
        for _ in range(30):
            bad.send(TEXT, b"{")

        texts, code = await bad.outcome()

        assert code == 1008
        assert [text["error"]["code"] for text in texts] == ["PARSE_ERROR"] * 10
        assert (await good.call("ping"))["pong"]


async def test_waiting_logins_of_one_connection_are_bounded(monkeypatch):
    """P8: eight logins of one connection wait at once; more are BUSY."""
    async with (
        running_app(login_rate_limit=LoginRateLimit(0, 60.0)) as server,
        server.client() as client,
    ):
        await fill_the_lobby(server, client, monkeypatch)


async def fill_the_lobby(server, client, monkeypatch):

    async def hang(*_):
        await asyncio.sleep(3600)

    with monkeypatch.context() as patch:
        patch.setattr(server.app.accounts, "_db", hang)
        futures = [
            await client.start("login", {"username": "a", "password": "b"}, deadline_ms=300)
            for _ in range(9)
        ]
        last = (await futures[-1])["error"]
        assert (last["code"], last["retryable"]) == ("BUSY", True)
        assert {(await future)["error"]["code"] for future in futures[:-1]} == {"TIMEOUT"}


# -- who may connect ----------------------------------------------------------------------


async def upgrade(server, path="/ws", **headers):
    status, _, body = await http(
        server.http,
        path,
        headers={**UPGRADE, **{k.replace("_", "-"): v for k, v in headers.items()}},
    )
    return status, body


@pytest.mark.parametrize("path", ["/", "/ws", "/ws?token=x"])
async def test_both_paths_take_websockets(server, path):
    """WebSockets are accepted on / and /ws."""
    assert (await upgrade(server, path))[0] == 101


async def test_websockets_elsewhere_are_404(server):
    """Another path is 404."""
    assert (await upgrade(server, "/socket"))[0] == 404


async def test_by_default_only_the_same_origin_may_connect(server):
    """Cross-site WebSocket hijacking ends in 403; no Origin at all is a program, and welcome."""
    host = "{}:{}".format(*address_of(server.http))

    assert (await upgrade(server))[0] == 101
    assert (await upgrade(server, Origin=f"http://{host}"))[0] == 101
    for foreign in ("http://evil.example", f"http://{host}.evil.example", "null", "http://["):
        status, body = await upgrade(server, Origin=foreign)
        assert (status, b"ECAN_ALLOWED_ORIGINS" in body) == (403, True)


async def test_listed_origins_may_connect():
    """With a list, those origins may connect and no other, the same one included."""
    async with running_app(allowed_origins=("https://app.example.com",)) as server:
        assert (await upgrade(server, Origin="https://app.example.com"))[0] == 101
        assert (await upgrade(server, Origin="https://other.example.com"))[0] == 403
        assert (await upgrade(server, Origin=server.http))[0] == 403
        assert (await upgrade(server))[0] == 101


async def test_a_star_allows_every_origin():
    """ECAN_ALLOWED_ORIGINS=* allows any page."""
    async with running_app(allowed_origins=("*",)) as server:
        assert (await upgrade(server, Origin="https://anything.example"))[0] == 101


async def test_more_connections_than_allowed_are_refused_with_503():
    """P8: beyond ECAN_MAX_CONNECTIONS a handshake gets 503 and Retry-After; then again 101."""
    async with running_app(max_connections=2) as server:
        async with server.client() as one, server.client():
            await eventually(lambda: server.app.gateway.connection_count == 2)
            status, headers, _ = await http(server.http, "/ws", headers=UPGRADE)
            assert status == 503
            assert int(headers["retry-after"]) > 0
            assert (await one.call("ping"))["pong"]
            assert (await http(server.http, "/health"))[0] == 200
        await eventually(lambda: server.app.gateway.connection_count == 0)
        assert (await upgrade(server))[0] == 101


async def test_a_draining_server_takes_no_connection(server):
    """P14: while draining, handshakes get 503."""
    server.app._draining = True

    assert (await upgrade(server))[0] == 503


async def test_the_address_of_a_tab_is_the_forwarded_one_behind_our_proxy():
    """ECAN_TRUSTED_PROXIES: the proxy's X-Forwarded-For counts, and shows in session.info."""
    import ipaddress

    proxies = (ipaddress.ip_network("127.0.0.0/8"),)
    async with running_app(trusted_proxies=proxies) as server:
        headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "User-Agent": "tab"}
        client = Client(server.url, additional_headers=headers, user_agent_header=None)
        async with client:
            await client.login("admin", "correct horse battery")
            (tab,) = (await client.call("session.info"))["tabs"]
            assert (tab["address"], tab["user_agent"]) == ("203.0.113.9", "tab")


# -- drain --------------------------------------------------------------------------------


async def test_a_drain_lets_the_running_request_finish():
    """P14: what runs is answered, what is new is DRAINING, the tabs are told; then 1012."""
    async with running_app() as server, server.logged_in() as user:
        running = await user.start("debug.sleep", {"seconds": 0.3})
        await eventually(lambda: cell_of(server, user).pending)
        drain = asyncio.create_task(server.app.drain())
        (push,) = await user.push("server.draining")
        assert push["params"]["reconnect_in_ms"] >= 500
        error = await user.error("debug.incr", {"key": "n"})
        assert (error["code"], error["retryable"]) == ("DRAINING", True)
        assert (await user.call("ping"))["pong"]
        assert (await running)["result"] == {"slept_s": 0.3}
        await drain
        await server.app.stop()
        assert await user.closed() == (1012, "The server is restarting.")


async def test_a_login_while_draining_is_refused(server, client):
    """P14: no new sessions while the server drains."""
    server.app._draining = True

    error = await client.error("login", {"username": "admin", "password": "correct horse battery"})

    assert error["code"] == "DRAINING"


async def test_what_does_not_finish_in_time_is_answered_all_the_same():
    """P3: at the end of a drain every accepted request has had its answer, run or not."""
    async with running_app(drain_timeout_s=0.1) as server, server.logged_in() as user:
        running = await user.start("debug.sleep", {"seconds": 3600})
        queued = await user.start("debug.incr", {"key": "n"})
        await eventually(lambda: len(cell_of(server, user).pending) == 2)
        await server.app.drain()
        await server.app.stop()

        error = (await running)["error"]
        assert error["outcome"] == "unknown"
        error = (await queued)["error"]
        assert error["outcome"] == "not_run"


@pytest.mark.parametrize("factory", LOOPS)
def test_frozen_and_half_open_connections_do_not_hold_the_stop(factory):
    """P14: neither who reads nothing nor who never finished the handshake delays the end much."""

    async def story():
        async with running_app() as server, server.logged_in() as user:
            frozen = await never_reads(server, user.session)
            _, half_open = await asyncio.open_connection(*address_of(server.http))
            half_open.write(b"GET /ws HTTP/1.1\r\n")
            cell = cell_of(server, user)
            slow = next(p for p in cell.tabs.values() if p.user_agent == "")
            while slow.backlog_bytes < 100_000:
                await user.call("debug.push", {"method": "demo.big", "params": "x" * 50_000})
            loop = asyncio.get_running_loop()
            started = loop.time()
            await server.app.stop()
            # Not a measurement: the library alone would take ten seconds or for ever.
            assert loop.time() - started < 9
            half_open.close()
            await frozen.close()

    run_on(factory, story)
