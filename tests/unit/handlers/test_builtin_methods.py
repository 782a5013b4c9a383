"""The built-in methods: system, session, settings, debug."""

from __future__ import annotations

import time

import attrs
import orjson
import pytest
from fakes import committed, connection_ctx, run, user_ctx

from ecan import __version__
from ecan.errors import ConflictError, HandlerError, ReplyError
from ecan.handlers import Kind, Registry, Scope, debug, system
from ecan.handlers.system import discover_document


def _run(server, name, ctx, params=None):
    return run(server.registry.get(name), ctx, params)


# -- system -----------------------------------------------------------------------------


def test_ping_tells_the_time_and_in_a_session_how_it_is(server):
    """At once, in the control lane, without keeping the session from being idle."""
    spec = server.registry.get("ping")
    assert (spec.kind, spec.control, spec.activity) == (Kind.INLINE, True, False)
    pong = _run(server, "ping", connection_ctx(server), {"anything": 1})
    assert pong.keys() == {"pong", "time"}
    assert abs(pong["time"] - time.time() * 1000) < 10_000
    pong = _run(server, "ping", user_ctx(server))
    assert (pong["tabs"], pong["incarnation"], pong["restarts"]) == (2, 3, 1)


@pytest.mark.parametrize("params", [{"a": [1]}, [1, 2], "x", 0])
def test_echo_returns_its_params(server, params):
    """Unchanged."""
    assert _run(server, "echo", connection_ctx(server), params) == params


def test_p16_echo_does_not_return_credentials(server):
    """P16: a token in params is not sent back."""
    echoed = _run(server, "echo", connection_ctx(server), {"a": 1, "token": "t"})
    assert echoed == {"a": 1}


def test_version_and_health(server):
    """Before login, for anybody."""
    ctx = connection_ctx(server)
    assert _run(server, "get_version", ctx) == {
        "version": __version__,
        "name": "eCan.ai Web",
        "protocol": "1",
    }
    assert _run(server, "health_check", ctx) == {"status": "healthy", "mode": "web", "sessions": 5}
    server.draining = True
    assert _run(server, "health_check", ctx)["status"] == "draining"


def test_only_admins_see_the_whole_status(server):
    """Others see what says nothing about other people."""
    for ctx in (connection_ctx(server), user_ctx(server)):
        assert _run(server, "get_system_status", ctx) == {"status": "healthy", "sessions": 5}
    assert "methods" in _run(server, "get_system_status", user_ctx(server, role="admin"))


def test_the_existing_client_sees_a_server_that_is_ready(server):
    """It polls these flags before it shows the login page."""
    progress = _run(server, "get_initialization_progress", connection_ctx(server))
    assert (progress["ready"], progress["progress"], progress["stage"]) == (True, 100, "ready")
    assert progress["ui_ready"]
    assert progress["fully_ready"]


def test_discover_lists_every_public_method_and_its_summary(server):
    """Made from the handlers' types; one document for a registry."""
    document = _run(server, "rpc.discover", connection_ctx(server))
    methods = {method["name"]: method for method in document["methods"]}
    assert set(methods) == {spec.name for spec in server.registry}
    assert all(method["summary"] for method in methods.values())
    assert methods["session.cancel"]["x-ecan"] == {
        "scope": "session",
        "role": None,
        "kind": "inline",
        "concurrent": True,
        "control": True,
    }
    assert [one["name"] for one in methods["session.resume"]["params"]] == [
        "session_id",
        "token",
        "last_seq",
        "epoch",
    ]
    orjson.dumps(document)
    assert _run(server, "rpc.discover", connection_ctx(server)) is document


def test_discover_follows_the_registry():
    """A method added later is listed; a hidden one and debug.* of others are not."""
    registry = Registry(system.HANDLERS)
    before = discover_document(registry)
    assert not any(method["name"].startswith("debug.") for method in before["methods"])

    @attrs.define
    class Nothing: ...

    def hidden(ctx):
        """Hidden."""

    def admin(ctx):
        """For admins."""

    from ecan.handlers import handler

    registry.add(handler("hidden", public=False)(hidden))
    registry.add(handler("admin", role="admin")(admin))
    after = {method["name"]: method for method in discover_document(registry)["methods"]}
    assert "hidden" not in after
    assert {"$ref": "#/components/errors/FORBIDDEN"} in after["admin"]["errors"]


# -- session ----------------------------------------------------------------------------


async def test_resume_hands_over_to_the_sessions(server):
    """Credentials stay in the context; position comes from params."""
    spec = server.registry.get("session.resume")
    assert spec.scope is Scope.CONNECTION
    params = {"session_id": "s", "token": "t", "last_seq": 4, "epoch": "e"}
    assert await run(spec, connection_ctx(server), params) == {"status": "resumed"}
    assert server.sessions.resumed == [("secret-id", 4, "e")]
    assert "'t'" not in repr(spec.structure(params))
    with pytest.raises(ReplyError, match="INVALID_PARAMS"):
        spec.structure({"last_seq": -1})


async def test_the_users_own_sessions_can_be_listed_and_closed(server):
    """This one included."""
    ctx = user_ctx(server)
    assert await _run(server, "session.list", ctx) == {
        "sessions": [{"sid": "s1", "current": True}, {"sid": "s2", "current": False}]
    }
    assert await _run(server, "session.close", ctx, {"sid": "s2"}) == {"closed": "s2"}
    assert await _run(server, "session.close", ctx, {"sid": "s1"}) == {"closed": "s1"}
    assert server.sessions.closed == [("s2", "logout")]
    assert (ctx.session.ended, ctx.end_reason) == ("logout", "logout")


async def test_p1_the_sessions_of_others_do_not_exist(server):
    """P1: closing a stranger's session and one that is gone answer alike."""
    server.sessions.rows[2] = [{"sid": "strange"}]
    ctx = user_ctx(server)
    with pytest.raises(ReplyError) as caught:
        await _run(server, "session.close", ctx, {"sid": "strange"})
    assert caught.value.code == "SESSION_NOT_FOUND"
    assert server.sessions.closed == []
    server.sessions.close_finds = False
    with pytest.raises(ReplyError, match="SESSION_NOT_FOUND"):
        await _run(server, "session.close", ctx, {"sid": "s2"})


def test_info_cancel_and_keep_pass_the_queue(server):
    """They are for sessions that are busy."""
    ctx = user_ctx(server)
    for name in ("session.info", "session.cancel", "session.keep"):
        spec = server.registry.get(name)
        assert (spec.kind, spec.control) == (Kind.INLINE, True)
    assert _run(server, "session.info", ctx) == {"sid": "s1"}
    assert _run(server, "session.cancel", ctx, {"request_id": "running"}) == {
        "status": "cancelling"
    }
    assert _run(server, "session.keep", ctx) == {"kept": None}
    assert _run(server, "session.keep", ctx, {"seconds": 60}) == {"kept": 60.0}
    for seconds in (0, -1, 1e9):
        with pytest.raises(ReplyError, match="INVALID_PARAMS"):
            _run(server, "session.keep", ctx, {"seconds": seconds})


# -- settings ---------------------------------------------------------------------------


async def test_preferences_are_kept(server):
    """Absent fields stay, null deletes a key of values; every session of the user has them."""
    ctx = user_ctx(server)
    params = {"language": "zh-CN", "theme": "dark", "values": {"a": 1, "b": 2}}
    await _run(server, "update_user_preferences", ctx, params)
    result = await _run(server, "update_user_preferences", ctx, {"values": {"a": None}})
    expected = {"language": "zh-CN", "theme": "dark", "values": {"b": 2}}
    assert result == {"preferences": expected}
    await committed(ctx)
    assert await _run(server, "get_settings", user_ctx(server), {"username": "ann"}) == {
        "settings": {},
        "preferences": expected,
        "message": "Settings read.",
    }
    stranger = await _run(server, "get_settings", user_ctx(server, user_id=2))
    assert stranger["preferences"]["language"] is None


async def test_looking_at_settings_writes_nothing(server):
    """A new user's empty settings are not stored by a look at them."""
    assert server.registry.get("get_settings").reads
    ctx = user_ctx(server, reads=True)
    result = await _run(server, "get_settings", ctx)
    assert result["preferences"] == {"language": None, "theme": None, "values": {}}
    assert ctx.state.changes() == {}
    assert ctx.documents.as_writes() == ()


@pytest.mark.parametrize(
    "params",
    [
        {"settings": {"a": 1, "old": None}},
        {"a": 1, "old": None},
        [{"a": 1, "old": None}],
    ],
)
async def test_settings_are_merged_key_by_key(server, params):
    """In the contract's form and in those of the existing client."""
    before = user_ctx(server)
    await _run(server, "save_settings", before, {"settings": {"old": 1, "kept": {"x": 1}}})
    await committed(before)
    ctx = user_ctx(server)
    result = await _run(server, "save_settings", ctx, params)
    assert result["saved"] is True
    assert result["settings"] == {"kept": {"x": 1}, "a": 1}
    assert result["updated_fields"] == ["a", "old"]
    await committed(ctx)
    stored = await _run(server, "get_settings", user_ctx(server))
    assert stored["settings"] == {"kept": {"x": 1}, "a": 1}


async def test_p4_settings_that_another_session_saved_meanwhile_are_not_lost(server):
    """Two sessions of a user save at once: the second is refused by the store, to run again."""
    first, second = user_ctx(server), user_ctx(server)
    await _run(server, "save_settings", first, {"settings": {"a": 1}})
    await _run(server, "save_settings", second, {"settings": {"b": 2}})
    await committed(first)
    with pytest.raises(ConflictError):
        await committed(second)
    again = user_ctx(server)
    result = await _run(server, "save_settings", again, {"settings": {"b": 2}})
    assert result["settings"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("params", [None, {}, [], "x", {"settings": 5}, {"settings": {}}])
async def test_settings_that_are_none_are_refused(server, params):
    """The error names the field."""
    with pytest.raises(ReplyError) as caught:
        await _run(server, "save_settings", user_ctx(server), params)
    assert caught.value.code == "INVALID_PARAMS"
    assert caught.value.details[0]["path"] == "params.settings"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("save_settings", {"settings": {"a": "x" * 70_000}}),
        ("update_user_preferences", {"values": {"a": "x" * 70_000}}),
    ],
)
async def test_p8_settings_have_a_bound(server, method, params):
    """P8: 64 KiB, with a declared error that says so."""
    ctx = user_ctx(server)
    with pytest.raises(HandlerError) as caught:
        await _run(server, method, ctx, params)
    assert caught.value.code == "SETTINGS_TOO_LARGE"
    assert caught.value.details["limit_bytes"] == 65536
    assert ctx.documents.as_writes() == ()


def test_preferences_have_sensible_lengths(server):
    """A language is not a novel."""
    with pytest.raises(ReplyError, match="INVALID_PARAMS"):
        _run(server, "update_user_preferences", user_ctx(server), {"language": "x" * 65})


# -- debug ------------------------------------------------------------------------------


async def test_crashes_on_purpose(server):
    """An undeclared exception, and SystemExit."""
    with pytest.raises(debug.DebugCrashError):
        await _run(server, "debug.crash", user_ctx(server))
    with pytest.raises(SystemExit):
        await _run(server, "debug.exit", user_ctx(server))


def test_state_methods(server):
    """Set, get, increment; the value itself is the result."""
    ctx = user_ctx(server)
    assert _run(server, "debug.state_get", ctx, {"key": "a"}) is None
    assert _run(server, "debug.state_set", ctx, {"key": "a", "value": [1]}) == {"ok": True}
    assert _run(server, "debug.state_get", ctx, {"key": "a"}) == [1]
    assert _run(server, "debug.incr", ctx, {"key": "n"}) == 1
    assert _run(server, "debug.incr", ctx, {"key": "n"}) == 2
    with pytest.raises(debug.DebugCrashError):
        _run(server, "debug.incr_then_crash", ctx, {"key": "n"})
    with pytest.raises(HandlerError, match="NOT_A_NUMBER"):
        _run(server, "debug.incr", ctx, {"key": "a"})


async def test_ways_of_being_busy(server):
    """In a thread, in a process, on the loop."""
    ctx = user_ctx(server)
    kinds = {
        "debug.block": Kind.THREAD,
        "debug.spin": Kind.THREAD,
        "debug.spin_process": Kind.PROCESS,
        "debug.sleep": Kind.ASYNC,
    }
    assert {name: server.registry.get(name).kind for name in kinds} == kinds
    assert _run(server, "debug.block", ctx, {"seconds": 0}) == {"blocked_s": 0.0}
    assert _run(server, "debug.spin", ctx, {"seconds": 0.001})["turns"] > 0
    assert _run(server, "debug.spin_process", ctx, {"seconds": 0})["turns"] == 0
    assert await _run(server, "debug.sleep", ctx, {"seconds": 0}) == {"slept_s": 0.0}
    with pytest.raises(ReplyError, match="INVALID_PARAMS"):
        _run(server, "debug.block", ctx, {"seconds": 4000})


async def test_pushes_and_streams(server):
    """As many as asked for."""
    ctx = user_ctx(server)
    params = {"method": "x", "params": [1], "count": 3}
    assert _run(server, "debug.push", ctx, params) == {"pushed": 3}
    assert ctx.pushes == [("x", [1])] * 3
    values = [one async for one in _run(server, "debug.stream", ctx, {"n": 3, "delay": 0})]
    assert values == [{"i": 1}, {"i": 2}, {"i": 3}]
