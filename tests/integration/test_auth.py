"""P15: every request is checked. P16: secrets appear nowhere."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal

import pytest
from edge_kit import (
    TEXT,
    Process,
    Raw,
    answer_to,
    cell_of,
    eventually,
    free_port,
    http,
    token_of,
)

from ecan.testing import ADMIN_PASSWORD, USER_PASSWORD, ReplyFailed, running_app

STRONG = "another staple, another horse"


@pytest.fixture
async def user(server):
    async with server.logged_in() as user:
        yield user


@pytest.fixture
async def tab(server, user):
    """A second tab of the session."""
    async with server.client() as tab:
        await tab.resume(user.session)
        yield tab


async def refused(client, code="INVALID_TOKEN"):
    error = await client.error("debug.incr", {"key": "n"})
    assert error["code"] == code, error
    assert (error["outcome"], error["retryable"]) == ("not_run", False)
    return error


# -- tokens -------------------------------------------------------------------------------


async def test_without_a_login_no_session_method_runs(server):
    """P15: TOKEN_REQUIRED before login, whatever half of the credentials is sent."""
    async with server.logged_in() as user, server.client() as client:
        await refused(client, "TOKEN_REQUIRED")
        client.session = {"token": user.session["token"]}
        await refused(client, "TOKEN_REQUIRED")
        client.session = {"session_id": user.session["session_id"]}
        await refused(client, "TOKEN_REQUIRED")
        client.session = {**user.session, "token": "wrong"}
        await refused(client)
        client.session = {**user.session, "token": ""}
        await refused(client)
        assert await user.call("debug.state_get", {"key": "n"}) is None


async def test_an_expired_token_is_refused_on_a_busy_session(server, user, tab):
    """P15: a token that expires while the session works dies at its next frame on every tab."""
    running = await user.start("debug.sleep", {"seconds": 0.2})
    assert await tab.call("ping")
    token_of(server, user).expires_at = server.app.clock.now()

    for one in (user, tab):
        await refused(one)
        one.session = {}
        await refused(one)
    # What was accepted before is answered.
    assert (await running)["status"] == "success"


async def test_a_token_lives_as_long_as_its_setting():
    """P15: ECAN_TOKEN_TTL counts from the login; `expires_at` says until when."""
    async with running_app(token_ttl_s=100.0) as server, server.logged_in() as user:
        now = server.app.clock.now()
        assert now < user.login_result["expires_at"] <= now + 100
        server.app.clock.now = lambda: now + 99.9
        assert await user.call("debug.incr", {"key": "n"}) == 1
        server.app.clock.now = lambda: now + 100.1
        await refused(user)


async def test_a_revoked_token_is_refused(server, user, tab):
    """P15: a revoked token dies on every tab that holds it."""
    cell_of(server, user).tokens.revoke_all()

    await refused(user)
    await refused(tab)


async def test_a_refreshed_token_and_the_grace_of_the_old_one(server, user, tab):
    """P15: the old token stays good for the grace, on other tabs and its own; then it is not."""
    old = dict(user.session)
    fresh = await user.call("refresh_token")
    new = {**old, "token": fresh["token"]}
    assert fresh["token"] != old["token"]

    user.session = new
    assert await user.call("debug.incr", {"key": "n"}) == 1
    assert await tab.call("debug.incr", {"key": "n"}) == 2
    user.session = old
    assert await user.call("debug.incr", {"key": "n"}) == 3

    now = server.app.clock.now()
    cell = cell_of(server, user)
    record = cell.tokens.find(old["token"], now)
    assert record.expires_at <= now + 60
    record.expires_at = now
    await refused(user)
    await refused(tab)
    tab.session = {}
    await refused(tab)
    user.session = new
    assert await user.call("debug.incr", {"key": "n"}) == 4
    tab.session = new
    assert await tab.call("debug.incr", {"key": "n"}) == 5


async def test_the_tab_that_refreshed_is_bound_to_the_new_token(server, user):
    """A tab need not repeat the new token; the old one's end does not touch it."""
    old = token_of(server, user)
    await user.call("refresh_token")
    user.session = {}
    old.expires_at = 0.0

    assert await user.call("debug.incr", {"key": "n"}) == 1


async def test_refresh_on_an_old_token_is_refused(server, user):
    """An expired token cannot be refreshed."""
    token_of(server, user).expires_at = 0.0

    assert (await user.error("refresh_token"))["code"] == "INVALID_TOKEN"


async def test_a_changed_password_ends_the_other_tabs_tokens(server, user, tab):
    """P15: after change_password only the new token is good; other sessions end."""
    async with server.logged_in() as other:
        result = await user.call(
            "change_password", {"old_password": ADMIN_PASSWORD, "new_password": STRONG}
        )
        await refused(tab)
        await refused(user)
        error = await refused(other, "SESSION_CLOSED")
        assert error["details"] == {"reason": "password_changed"}
        for one in (user, tab):
            one.session = {**one.session, "token": result["token"]}
            assert await one.call("ping")
        with pytest.raises(ReplyFailed, match="INVALID_CREDENTIALS"):
            await other.login("admin", ADMIN_PASSWORD)
        await other.login("admin", STRONG)


async def test_logout_ends_the_session_on_every_tab(server, user, tab):
    """P15: both tabs are told and refused; the connections stay for a new login."""
    await tab.call("logout")

    for one in (user, tab):
        (push,) = await one.push("session.closed")
        assert push["params"] == {"reason": "logout"}
        error = await refused(one, "SESSION_CLOSED")
        assert error["details"] == {"reason": "logout"}
        one.session = {}
        await refused(one, "SESSION_CLOSED")
    await user.login("admin", ADMIN_PASSWORD)
    assert await user.call("debug.incr", {"key": "n"}) == 1


async def test_logout_answers_what_still_runs(server, user, tab):
    """P3, P15: a request that runs at logout is answered, and so is one in the queue."""
    running = await user.start("debug.sleep", {"seconds": 3600})
    queued = await user.start("debug.incr", {"key": "n"})
    await eventually(lambda: len(cell_of(server, user).pending) == 2)
    await tab.call("logout")

    outcomes = [(await future)["error"] for future in (running, queued)]
    assert [error["code"] for error in outcomes] == ["SESSION_CLOSED"] * 2
    assert [error["outcome"] for error in outcomes] == ["unknown", "not_run"]


async def test_a_killed_session_closes_every_tab_with_4501(server, user, tab):
    """P15: an operator's kill closes all tabs with 4501; the credentials are void."""
    await server.app.sessions.close(user.login_result["sid"], "killed")

    assert (await user.closed())[0] == (await tab.closed())[0] == 4501
    async with server.client() as again:
        again.session = user.session
        error = await refused(again, "SESSION_CLOSED")
        assert error["details"] == {"reason": "killed"}


async def test_a_closed_session_is_refused_whatever_way_it_is_named(server, user):
    """P15: with its token or another one, by resume, refresh or logout: SESSION_CLOSED."""
    await user.call("logout")

    for method in ("session.resume", "refresh_token", "logout", "debug.incr"):
        for session in (user.session, {}, {"token": "other"}, {**user.session, "token": "other"}):
            user_session, user.session = user.session, session
            error = await user.error(method, {"key": "n"} if method == "debug.incr" else None)
            user.session = user_session
            assert error["code"] == "SESSION_CLOSED", (method, session.keys())


async def test_another_sessions_token_opens_nothing(server, user):
    """P15: session and token must belong together, on a bound tab as on a new one."""
    await server.add_user("ann")
    async with server.logged_in("ann", USER_PASSWORD) as ann, server.client() as fresh:
        mixed = [
            {"session_id": ann.session["session_id"], "token": user.session["token"]},
            {"session_id": user.session["session_id"], "token": ann.session["token"]},
            {"token": ann.session["token"]},
        ]
        for one in (user, fresh):
            own = dict(one.session)
            for session in mixed:
                one.session = session
                bound = one is user or "session_id" in session
                await refused(one, "INVALID_TOKEN" if bound else "TOKEN_REQUIRED")
                assert (await one.error("session.resume"))["code"] in (
                    "INVALID_TOKEN",
                    "TOKEN_REQUIRED",
                )
            one.session = own
        assert await user.call("debug.incr", {"key": "n"}) == 1
        assert await ann.call("debug.incr", {"key": "n"}) == 1


async def test_a_failed_attempt_leaves_the_tab_where_it_was(server, user):
    """A request with foreign credentials is refused and changes nothing of the binding."""
    await refused_with(user, {"session_id": "x" * 43, "token": "y" * 43}, "SESSION_NOT_FOUND")
    user.session = {}

    assert await user.call("debug.incr", {"key": "n"}) == 1


async def refused_with(client, session, code):
    own, client.session = client.session, session
    await refused(client, code)
    client.session = own


async def test_the_session_id_alone_opens_nothing_by_default(server, user):
    """ECAN_SESSION_AUTH=token: without the token a new connection is refused."""
    async with server.client() as client:
        client.session = {"session_id": user.session["session_id"]}
        await refused(client, "TOKEN_REQUIRED")


async def test_the_session_id_alone_is_enough_for_the_old_client():
    """ECAN_SESSION_AUTH=session_id: the id binds a new connection, as long as a token lives."""
    async with (
        running_app(session_auth="session_id") as server,
        server.logged_in() as user,
        server.client() as old,
        server.client() as wrong,
    ):
        old.session = {"session_id": user.session["session_id"]}
        assert await old.call("debug.incr", {"key": "n"}) == 1
        assert await old.call("debug.incr", {"key": "n"}) == 2
        wrong.session = {**old.session, "token": "wrong"}
        await refused(wrong)
        token_of(server, user).expires_at = 0.0
        await refused(old)


async def test_a_disabled_user_is_out_on_every_tab(server, user):
    """P15: disabling an account ends its sessions and its logins."""
    await server.add_user("ann")
    async with server.logged_in("ann", USER_PASSWORD) as ann, server.client() as again:
        await server.app.accounts.set_disabled("ann", True)
        error = await refused(ann, "SESSION_CLOSED")
        assert error["details"] == {"reason": "disabled"}
        with pytest.raises(ReplyFailed, match="INVALID_CREDENTIALS"):
            await again.login("ann", USER_PASSWORD)
        assert await user.call("debug.incr", {"key": "n"}) == 1


async def test_a_role_too_low_is_forbidden(server, monkeypatch):
    """FORBIDDEN names the role that is needed; nothing runs."""
    import attrs

    registry = server.app.registry
    spec = attrs.evolve(registry.get("debug.incr"), role="admin")
    monkeypatch.setitem(registry.specs, "debug.incr", spec)
    await server.add_user("ann")
    async with server.logged_in("ann", USER_PASSWORD) as ann, server.logged_in() as admin:
        error = await refused(ann, "FORBIDDEN")
        assert "admin" in error["message"]
        assert await admin.call("debug.incr", {"key": "n"}) == 1


async def test_a_suspended_method_is_refused(server, user):
    """P9: what is switched off is METHOD_SUSPENDED, for every session, until it is resumed."""
    server.app.guard.suspend("debug.incr", "it broke")

    error = await user.error("debug.incr", {"key": "n"})
    assert (error["code"], error["outcome"]) == ("METHOD_SUSPENDED", "not_run")
    assert "it broke" in error["message"]
    server.app.guard.resume("debug.incr")
    assert await user.call("debug.incr", {"key": "n"}) == 1


async def test_an_answer_to_a_lost_login_binds_nobody(server, monkeypatch):
    """A client that leaves during its login leaves no connection behind in the session."""
    async with server.client() as client:
        await client.start("login", {"username": "admin", "password": ADMIN_PASSWORD})
        client.cut()
    await eventually(lambda: server.app.gateway.connection_count == 0)
    assert all(not cell.tabs for cell in server.app.directory)


# -- P16 ----------------------------------------------------------------------------------


async def tell_the_story(url_client, password, wrong):
    """Everything that could write a secret down; returns the secrets."""
    known = [password, wrong]
    async with url_client() as client, url_client() as other:
        await client.error("login", {"username": "admin", "password": wrong})
        await client.error("login", {"username": wrong, "password": 5, "token": wrong})
        await client.login("admin", password)
        known += [client.session["session_id"], client.session["token"]]
        old = dict(client.session)
        fresh = await client.call("refresh_token")
        known.append(fresh["token"])
        client.session["token"] = fresh["token"]
        await client.call("debug.incr", {"key": "n", **old})
        await client.error("debug.crash", {**old, "password": password})
        await client.error("debug.incr", {"key": 5, "password": password, "token": old["token"]})
        await client.call("debug.state_set", {"key": "k", "value": 1})
        await client.error("debug.incr_then_crash", {"key": "n", **client.session})
        await client.error("debug.crash")
        await client.error("no.such", {"password": password, **client.session})
        await client.error("change_password", {"old_password": wrong, "new_password": password})
        await answer_to(client, json.dumps({"id": "1", "type": "x", "token": old["token"]}))
        await answer_to(client, json.dumps({"password": password})[:-1])
        other.session = {**client.session, "token": wrong}
        await other.error("debug.incr", {"key": "n"})
        await other.resume(client.session, 0)
        await other.call("session.info")
        slow = await client.start("debug.sleep", {"seconds": 3600}, deadline_ms=30)
        await slow
        changed = await client.call(
            "change_password", {"old_password": password, "new_password": wrong + "-new"}
        )
        known += [wrong + "-new", changed["token"]]
        client.session["token"] = changed["token"]
        await client.call("logout")
        await client.error("debug.incr", {"key": "n"})
    return known


async def test_no_secret_in_any_output_of_the_process(tmp_path):
    """P16: a whole story at log level DEBUG leaves no password, token or session id in any output."""
    wrong = f"wrong-{secrets.token_hex(12)}"
    metrics_port = free_port()
    settings = {"ECAN_LOG_LEVEL": "DEBUG", "ECAN_DEBUG_METHODS": 1, "ECAN_LOGIN_RATE_LIMIT": 0}
    async with Process(tmp_path, **settings, ECAN_METRICS_PORT=metrics_port) as process:
        (line,) = [line for line in process.out.splitlines() if "password" in line]
        password = line.rpartition(" ")[2]
        known = await tell_the_story(process.client, password, wrong)
        async with await Raw.connect(process.url) as raw:
            raw.send(TEXT, f'{{"password": "{known[0]}\xff"}}'.encode("latin-1"))
            await raw.outcome()
        # Even a secret in the path or a header of a careless client.
        await http(process.url, f"/ws?token={known[3]}", headers={"X-Token": known[3]})
        metrics = (await http(f"http://127.0.0.1:{metrics_port}", "/metrics"))[2].decode()
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0

    output = process.out.replace(line, "") + process.err
    assert "session.crashed" in output and "DebugCrashError" in output
    assert "ecan_sessions" in metrics
    for secret in known:
        assert secret not in output
        assert secret not in metrics


async def test_no_secret_in_dead_letters_or_memory_of_sessions():
    """P16: dead letters keep the request with its secrets redacted; tokens are kept as digests."""
    async with running_app() as server:
        known = await tell_the_story(server.client, ADMIN_PASSWORD, "wrong-wrong-wrong")
        letters = await server.app.store.letters(10)
        assert letters
        text = repr(letters) + server.app.metrics.render().decode()
        text += repr([(cell, list(cell.tokens)) for cell in server.app.directory])
        for secret in known:
            assert secret not in text


async def test_no_secret_in_what_others_are_told(server, user, tab):
    """P16: session.info, session.list and get_system_status know no credentials."""
    answers = [await tab.call(m) for m in ("session.info", "session.list", "get_system_status")]

    text = json.dumps(answers)
    assert user.session["session_id"] not in text
    assert user.session["token"] not in text
    await asyncio.sleep(0)
