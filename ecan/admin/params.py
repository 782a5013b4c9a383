"""What the commands of the admin socket take; one class each, read by server, CLI and docs."""

# ruff: noqa: RUF009 - _doc makes an attrs field, which is no shared default

from __future__ import annotations

from typing import Any, Literal

import attrs

MAX_SIDS = 10_000
MAX_PAGE = 1000

_short: Any = attrs.validators.max_len(200)
_page: Any = [attrs.validators.ge(1), attrs.validators.le(MAX_PAGE)]

SessionState = Literal[
    "starting", "active", "restarting", "failed", "passivating", "passivated", "closed"
]
SortKey = Literal["created", "idle", "traffic", "queue", "restarts", "bytes", "user"]


def _doc(text: str, **options: Any) -> Any:
    """A field with its help."""
    return attrs.field(metadata={"doc": text}, **options)


@attrs.frozen(kw_only=True)
class Nothing:
    """No params."""


@attrs.frozen(kw_only=True)
class ListSessions:
    """Which sessions, in which order."""

    state: SessionState | None = _doc("only sessions in this state", default=None)
    user: str | None = _doc("only sessions of this user", default=None)
    sort: SortKey = _doc("order; all but user and created put the largest first", default="created")
    limit: int = _doc("at most so many", default=100, validator=_page)
    cursor: str | None = _doc("of the page before", default=None)


@attrs.frozen(kw_only=True)
class OneSession:
    """Which session."""

    sid: str = _doc("public id, or the beginning of it if that is unique", validator=_short)


@attrs.frozen(kw_only=True)
class CreateSessions:
    """For whom, and how many."""

    user: str = _doc("user name", validator=_short)
    count: int = _doc(
        "how many",
        default=1,
        validator=[attrs.validators.ge(1), attrs.validators.le(MAX_SIDS)],
    )


@attrs.frozen(kw_only=True)
class KillSession(OneSession):
    """Which session, and what its user is told."""

    reason: str = _doc("told to the tabs", default="killed", validator=_short)


@attrs.frozen(kw_only=True)
class KeepSession(OneSession):
    """Which session, for how long."""

    seconds: float = _doc(
        "not idle before then", validator=[attrs.validators.gt(0), attrs.validators.le(7 * 86400.0)]
    )


@attrs.frozen(kw_only=True)
class PushTo:
    """Whom to push what; one of sid, user and all."""

    method: str = _doc("of the push", validator=_short)
    params: Any = _doc("of the push", default=None)
    sid: str | None = _doc("one session", default=None)
    user: str | None = _doc("all sessions of a user", default=None)
    all: bool = _doc("all sessions that are in memory", default=False)


@attrs.frozen(kw_only=True)
class DropRequests(OneSession):
    """Which queued requests; one of request_id and all."""

    request_id: str | None = _doc("one request", default=None)
    all: bool = _doc("every queued request", default=False)


@attrs.frozen(kw_only=True)
class ListLetters:
    """Which dead letters."""

    limit: int = _doc("at most so many", default=50, validator=_page)
    cursor: str | None = _doc("of the page before", default=None)


@attrs.frozen(kw_only=True)
class OneLetter:
    """Which dead letter."""

    id: str = _doc("crash id, as the client was told", validator=_short)


@attrs.frozen(kw_only=True)
class ReplayLetter(OneLetter):
    """Which dead letter, and where to run it."""

    apply: bool = _doc("in the session itself instead of a copy", default=False)


@attrs.frozen(kw_only=True)
class OneMethod:
    """Which method."""

    method: str = _doc("its name", validator=_short)


@attrs.frozen(kw_only=True)
class SetSetting:
    """Which setting, and to what."""

    name: str = _doc("for example ECAN_RATE_LIMIT", validator=_short)
    value: str = _doc("as in the environment", validator=_short)


@attrs.frozen(kw_only=True)
class LogLevel:
    """How much to log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = _doc("the least severe")


@attrs.frozen(kw_only=True)
class OneUser:
    """Which user."""

    username: str = _doc("user name", validator=_short)


@attrs.frozen(kw_only=True)
class AddUser(OneUser):
    """A new account."""

    password: str = _doc("its password", repr=False)
    role: Literal["user", "admin"] = _doc("what it may do", default="user")


@attrs.frozen(kw_only=True)
class SetPassword(OneUser):
    """A new password; sessions made with the old one end."""

    password: str = _doc("the new one", repr=False)


@attrs.frozen(kw_only=True)
class Drain:
    """How long to wait."""

    timeout: float | None = _doc(
        "seconds for running handlers; absent: ECAN_DRAIN_TIMEOUT", default=None
    )


@attrs.frozen(kw_only=True)
class WatchEvents:
    """Which events."""

    kinds: list[str] | None = _doc("only these, or those that begin with them", default=None)
