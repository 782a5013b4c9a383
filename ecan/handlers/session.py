"""The session itself: resume it, look at it, list and close, cancel, keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

import attrs

from ecan.errors import ReplyError
from ecan.handlers.context import (  # noqa: TC001 - read at run time by `handler`
    ConnectionContext,
    UserContext,
)
from ecan.handlers.registry import Scope, handler
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_KEEP_S = 7 * 86400.0
"""A week: longer than any computation, short enough to end."""

_short: Any = attrs.validators.max_len(200)
_keepable: Any = attrs.validators.optional(
    attrs.validators.and_(attrs.validators.gt(0), attrs.validators.le(MAX_KEEP_S))
)


@attrs.frozen(kw_only=True)
class Resume:
    """Which session, and what of it the client has already.

    Attributes:
        session_id: may also stand in meta.
        token: may also stand in meta.
        last_seq: the last push the client has seen; null or absent: replay nothing.
        epoch: of that push.
    """

    session_id: str | None = attrs.field(default=None, repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    last_seq: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    epoch: str | None = attrs.field(default=None, validator=attrs.validators.optional(_short))


@attrs.frozen(kw_only=True)
class Close:
    """Which session to end.

    Attributes:
        sid: public id of one of my sessions, from session.list.
    """

    sid: str = attrs.field(validator=_short)


@attrs.frozen(kw_only=True)
class Cancel:
    """Which request to cancel.

    Attributes:
        request_id: of the request to cancel.
    """

    request_id: str = attrs.field(validator=_short)


@attrs.frozen(kw_only=True)
class Keep:
    """For how long to stay.

    Attributes:
        seconds: how long the session must not be taken for idle; absent: count as activity once.
    """

    seconds: float | None = attrs.field(default=None, validator=_keepable)


class Cancelled(TypedDict):
    """``cancelled``: it never ran; ``cancelling``: it runs and was told; ``unknown``: not here."""

    status: Literal["cancelled", "cancelling", "unknown"]


@handler("session.resume", scope=Scope.CONNECTION)
async def resume(ctx: ConnectionContext, params: Resume) -> dict[str, Any]:
    """Binds this connection to a session and replays the pushes it missed.

    The credentials come from meta or params. The answer's ``status`` is ``resumed``, or
    ``gap`` with ``from`` and ``to`` when some pushes are no longer kept.
    """
    return await ctx.server.sessions.resume(ctx, params.last_seq, params.epoch)


@handler("session.info", inline=True, control=True, reads=True)
def info(ctx: UserContext) -> dict[str, Any]:
    """The session as it is now: user, tabs, incarnation, queue, times."""
    return ctx.session.info(ctx)


@handler("session.list", concurrent=True, reads=True)
async def list_sessions(ctx: UserContext) -> dict[str, Any]:
    """All sessions of the user; ``current`` marks the one that asks."""
    rows = await ctx.server.sessions.of_user(ctx.user.user_id)
    return {"sessions": [{**row, "current": row["sid"] == ctx.sid} for row in rows]}


@handler("session.close", concurrent=True)
async def close(ctx: UserContext, params: Close) -> dict[str, str]:
    """Ends one of the user's sessions, this one included."""
    if params.sid == ctx.sid:
        ctx.session.end(ctx, "logout")
        return {"closed": params.sid}
    mine = {row["sid"] for row in await ctx.server.sessions.of_user(ctx.user.user_id)}
    # The same answer for a stranger's session as for none: nobody learns that it exists.
    if params.sid not in mine or not await ctx.server.sessions.close(params.sid, "logout"):
        raise ReplyError(
            ErrorCode.SESSION_NOT_FOUND,
            "You have no such session; see session.list.",
            details={"reason": "unknown"},
        )
    return {"closed": params.sid}


@handler("session.cancel", inline=True, control=True, reads=True)
def cancel(ctx: UserContext, params: Cancel) -> Cancelled:
    """Cancels a request of this session that waits or runs."""
    return {"status": ctx.session.cancel(params.request_id)}  # type: ignore[typeddict-item]


@handler("session.keep", inline=True, control=True)
def keep(ctx: UserContext, params: Keep) -> dict[str, Any]:
    """Counts as activity; with seconds, the session is not taken for idle before then."""
    return ctx.session.keep(params.seconds)


HANDLERS: list[Callable[..., Any]] = [resume, info, list_sessions, close, cancel, keep]
