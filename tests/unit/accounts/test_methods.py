"""The methods around accounts, on contexts as the gateway and the sessions make them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accounts_kit import PASSWORD

from ecan.errors import ReplyError
from ecan.handlers.accounts import methods
from ecan.handlers.context import ConnectionContext, UserContext
from ecan.handlers.registry import Kind, Registry, Scope

HERE = "192.0.2.1"
NEW = "another long password"


class FakeSessions:
    def __init__(self):
        self.opened = []
        self.closed = []
        self.logged_out = []

    async def open(self, ctx, user):
        self.opened.append(user)
        return {
            "token": "t", "session_id": "s", "expires_at": 1, "sid": "abc", "epoch": "e", "seq": 0,
        }  # fmt: skip

    async def logout(self, ctx):
        self.logged_out.append((ctx.session_id, ctx.token))

    async def refresh(self, ctx):
        return {"token": "t2", "expires_at": 2}

    async def close_user(self, user_id, reason, *, but=None):
        self.closed.append((user_id, reason, but))
        return 1


@pytest.fixture
def registry():
    return Registry(methods.HANDLERS)


@pytest.fixture
def sessions():
    return FakeSessions()


@pytest.fixture
def server(accounts, sessions):
    return SimpleNamespace(accounts=accounts, sessions=sessions)


@pytest.fixture
def call(registry, server):
    async def call(method, params=None, user=None):
        spec = registry.get(method)
        if user is None:
            ctx = ConnectionContext(
                server, method, "1", address=HERE, user_agent="", session_id="s", token="t"
            )
        else:
            session = SimpleNamespace(
                user=user, sid="abc", renew_token=lambda _ctx: {"token": "t3", "expires_at": 3}
            )
            ctx = UserContext(
                server, spec, "1",
                session=session, slots={}, incarnation=1, deadline_mono=0,
            )  # fmt: skip
        return await spec.function(ctx, spec.structure(params or {}))

    return call


def test_the_table(registry):
    scopes = {spec.name: (spec.scope, spec.concurrent) for spec in registry}
    assert scopes == {
        "login": (Scope.CONNECTION, False),
        "signup": (Scope.CONNECTION, False),
        "logout": (Scope.CONNECTION, False),
        "refresh_token": (Scope.CONNECTION, False),
        "change_password": (Scope.SESSION, True),
        "get_last_login": (Scope.ANY, False),
    }
    assert {spec.kind for spec in registry} == {Kind.ASYNC}
    assert all(spec.doc for spec in registry)


async def test_login_opens_a_session(call, ann, sessions):
    answer = await call("login", {"username": "ann", "password": PASSWORD})
    assert answer == {
        "token": "t",
        "session_id": "s",
        "expires_at": 1,
        "sid": "abc",
        "epoch": "e",
        "seq": 0,
        "message": "Logged in.",
        "user_info": {
            "username": "ann", "role": "user", "email": "", "name": "", "lang": "en",
            "machine_role": "",
        },
    }  # fmt: skip
    assert sessions.opened == [ann]


@pytest.mark.parametrize(
    ("params", "machine_role"),
    [
        ({"role": "admin"}, "admin"),
        ({"machine_role": "Commander"}, "Commander"),
        ({"machine_role": "Platoon", "role": "x"}, "Platoon"),
        ({"role": "x" * 1000}, "x" * 64),
    ],
)
async def test_the_machines_role_grants_nothing(call, ann, sessions, params, machine_role):
    answer = await call("login", {"username": "ann", "password": PASSWORD, **params})
    assert answer["user_info"]["machine_role"] == machine_role
    assert answer["user_info"]["role"] == sessions.opened[0].role == "user"


async def test_login_speaks_the_language_asked_for(call, ann, sessions):
    answer = await call("login", {"username": "ann", "password": PASSWORD, "lang": "zh-CN"})
    assert answer["message"] == "登录成功。"
    assert sessions.opened[0].lang == "zh-CN"


async def test_a_refused_login_opens_nothing(call, ann, sessions):
    with pytest.raises(ReplyError, match="INVALID_CREDENTIALS"):
        await call("login", {"username": "ann", "password": "wrong password"})
    assert sessions.opened == []


async def test_wrong_params_never_repeat_a_password_p16(call):
    with pytest.raises(ReplyError) as caught:
        await call("login", {"username": "ann", "password": 12345678})
    assert caught.value.code == "INVALID_PARAMS"
    assert "12345678" not in str(caught.value) + repr(caught.value.details)


def test_params_hide_their_secrets_p16(registry):
    for method, params in (
        ("login", {"username": "ann", "password": "hush"}),
        ("signup", {"username": "ann", "password": "hush"}),
        ("logout", {"session_id": "hush", "token": "hush"}),
        ("refresh_token", {"session_id": "hush", "token": "hush"}),
        ("change_password", {"old_password": "hush", "new_password": "hush"}),
    ):
        assert "hush" not in repr(registry.get(method).structure(params))


async def test_sign_up_then_login(call):
    params = {"username": "zoe", "password": PASSWORD, "email": "z@x.y", "lang": "zh"}
    answer = await call("signup", params)
    assert answer["message"].startswith("账户已创建")
    assert answer["user_info"]["email"] == "z@x.y"
    answer = await call("login", {"username": "zoe", "password": PASSWORD})
    assert answer["message"] == "登录成功。"


async def test_logout_and_refresh_go_by_what_the_gateway_read(call, sessions):
    assert await call("logout", {"session_id": "x", "token": "y"}) == {"message": "Logged out."}
    assert sessions.logged_out == [("s", "t")]
    assert await call("refresh_token") == {"token": "t2", "expires_at": 2}


async def test_change_password_ends_the_other_sessions_and_renews_the_token_p15(
    call, ann, sessions
):
    answer = await call(
        "change_password", {"old_password": PASSWORD, "new_password": NEW}, user=ann
    )
    assert (answer["token"], answer["expires_at"]) == ("t3", 3)
    assert answer["message"].startswith("The password has been changed.")
    assert sessions.closed == [(ann.user_id, "password_changed", "abc")]
    await call("login", {"username": "ann", "password": NEW})


async def test_a_refused_change_ends_nothing(call, ann, sessions):
    with pytest.raises(ReplyError, match="INVALID_CREDENTIALS"):
        await call("change_password", {"old_password": "x", "new_password": NEW}, user=ann)
    assert sessions.closed == []


async def test_last_login_tells_strangers_nothing(call, ann):
    await call("login", {"username": "ann", "password": PASSWORD})
    await call("login", {"username": "ann", "password": PASSWORD})
    assert await call("get_last_login", {"username": "ann"}) == {"last_login": None}
    assert await call("get_last_login") == {"last_login": None}
    answer = await call("get_last_login", {"username": "bob"}, user=ann)
    assert answer["last_login"]["username"] == "ann"
    assert answer["last_login"]["address"] == HERE


@pytest.mark.parametrize(
    ("lang", "expected"),
    [
        (None, "Logged out."),
        ("zh_TW", "已退出登录。"),
        ("ZH", "已退出登录。"),
        ("fr", "Logged out."),
    ],
)
def test_texts(lang, expected):
    assert methods.text("logout", lang) == expected
