"""The methods around accounts: login, signup, logout, tokens, passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ecan.handlers.context import (  # noqa: TC001 - the registry reads the annotations
    ConnectionContext,
    HandlerContext,
    UserContext,
)
from ecan.handlers.registry import Scope, handler

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MACHINE_ROLE_CHARS = 64
MAX_LANG_CHARS = 35
"""BCP 47 (RFC 5646 §4.4.1): what a buffer for a language tag should hold."""

_TEXTS = {
    "login": {"en": "Logged in.", "zh": "登录成功。"},
    "signup": {
        "en": "The account has been created. You can log in now.",
        "zh": "账户已创建，现在可以登录。",  # noqa: RUF001 - Chinese
    },
    "logout": {"en": "Logged out.", "zh": "已退出登录。"},
    "change_password": {
        "en": "The password has been changed. Your other sessions have been logged out.",
        "zh": "密码已修改，您的其他会话已退出登录。",  # noqa: RUF001 - Chinese
    },
}


def text(key: str, lang: str | None) -> str:
    """A message in the language asked for; English if there is none in it.

    >>> text("logout", "zh-CN")
    '已退出登录。'
    """
    primary = (lang or "en").replace("_", "-").partition("-")[0].lower()
    texts = _TEXTS[key]
    return texts.get(primary, texts["en"])


@attrs.frozen(kw_only=True)
class Login:
    """Params of `login`.

    Attributes:
        role: what the client calls its machine; grants nothing.
        machine_role: the same under its other name; wins if both are there.
        lang: of messages in this session; None: the account's own.
    """

    username: str
    password: str = attrs.field(repr=False)
    role: str | None = None
    machine_role: str | None = None
    lang: str | None = None


@attrs.frozen(kw_only=True)
class Signup:
    """Params of `signup`."""

    username: str
    password: str = attrs.field(repr=False)
    email: str | None = None
    name: str | None = None
    lang: str | None = None


@attrs.frozen(kw_only=True)
class Credentials:
    """Params of `logout` and `refresh_token`: what the gateway has already read."""

    session_id: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ChangePassword:
    """Params of `change_password`."""

    old_password: str = attrs.field(repr=False)
    new_password: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class GetLastLogin:
    """Params of `get_last_login`; the name is accepted and not looked at."""

    username: str | None = None


@handler("login", scope=Scope.CONNECTION)
async def login(ctx: ConnectionContext, params: Login) -> dict[str, Any]:
    """Log in and open a session; the connection belongs to it afterwards."""
    accounts = ctx.server.accounts
    async with accounts.authenticated(params.username, params.password, ctx.address) as account:
        machine_role = params.machine_role or params.role or ""
        user = attrs.evolve(
            account,
            machine_role=machine_role[:MAX_MACHINE_ROLE_CHARS],
            lang=(params.lang or account.lang)[:MAX_LANG_CHARS],
        )
        opened = await ctx.server.sessions.open(ctx, user)
    return {**opened, "message": text("login", user.lang), "user_info": user.public()}


@handler("signup", scope=Scope.CONNECTION)
async def signup(ctx: ConnectionContext, params: Signup) -> dict[str, Any]:
    """Make an account; log in next."""
    user = await ctx.server.accounts.signup(
        params.username,
        params.password,
        address=ctx.address,
        email=params.email or "",
        name=params.name or "",
        lang=(params.lang or "en")[:MAX_LANG_CHARS],
    )
    return {"message": text("signup", params.lang), "user_info": user.public()}


@handler("logout", scope=Scope.CONNECTION)
async def logout(ctx: ConnectionContext, params: Credentials) -> dict[str, Any]:  # noqa: ARG001 - the gateway has read them
    """End the session, on all its tabs."""
    await ctx.server.sessions.logout(ctx)
    return {"message": text("logout", None)}


@handler("refresh_token", scope=Scope.CONNECTION)
async def refresh_token(ctx: ConnectionContext, params: Credentials) -> dict[str, Any]:  # noqa: ARG001 - as in logout
    """A new token for the session; the old one stays good for a short grace."""
    return await ctx.server.sessions.refresh(ctx)


@handler("change_password", concurrent=True)
async def change_password(ctx: UserContext, params: ChangePassword) -> dict[str, Any]:
    """Change the own password: other sessions end, this one goes on with a new token."""

    async def end_others() -> None:
        await ctx.server.sessions.close_user(ctx.user.user_id, "password_changed", but=ctx.sid)

    await ctx.server.accounts.change_password(
        ctx.user.user_id, params.old_password, params.new_password, end_sessions=end_others
    )
    return {"message": text("change_password", ctx.user.lang), **ctx.session.renew_token(ctx)}


@handler("get_last_login", scope=Scope.ANY, reads=True)
async def get_last_login(ctx: HandlerContext, params: GetLastLogin) -> dict[str, Any]:  # noqa: ARG001 - whoever asks learns of themselves only
    """The user's previous login; before login always null, so that it tells nobody who exists."""
    try:
        user_id = ctx.user.user_id
    except LookupError:
        return {"last_login": None}
    return {"last_login": await ctx.server.accounts.last_login(user_id)}


HANDLERS: list[Callable[..., Any]] = [
    login,
    signup,
    logout,
    refresh_token,
    change_password,
    get_last_login,
]
