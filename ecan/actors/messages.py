"""Every message between actors. Commands are imperative, events past tense.

Requests themselves travel as `Call`s: the gateway puts them into the session's
mailbox, the supervisor is not on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from ecan.actors.biography import Origin
    from ecan.actors.call import Call
    from ecan.actors.cell import Cell
    from ecan.actors.tokens import Token
    from ecan.handlers.context import User
    from ecan.protocol.codes import ErrorCode
    from ecan.protocol.frames import Sid


# -- to the supervisor: commands with an answer ------------------------------------------


@attrs.frozen(eq=False)
class OpenSession:
    """Create a session for a user. Answers `Opened`.

    Attributes:
        origin: who asks.
        capped: refused if the user has too many; an operator may make more.
    """

    user: User
    reply: asyncio.Future[Opened]
    origin: Origin | None = None
    capped: bool = True


@attrs.frozen
class Opened:
    """A new session with its secrets; they are told once and kept hashed."""

    cell: Cell
    session_id: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    record: Token


@attrs.frozen(eq=False)
class FindSession:
    """The cell of a session, loaded from the store if need be. Answers it or None."""

    sid: Sid
    reply: asyncio.Future[Cell | None]


@attrs.frozen(eq=False)
class CloseSession:
    """End a session. Answers whether there was one."""

    sid: Sid
    reason: str
    reply: asyncio.Future[bool]


@attrs.frozen(eq=False)
class SteerSession:
    """An operator's command: revive, reset, restart, passivate, pause or resume.

    Answers None; SupervisionError if it does not fit the session's state.
    """

    sid: Sid
    command: str
    reply: asyncio.Future[None]


# -- to the supervisor: events -----------------------------------------------------------


@attrs.frozen(eq=False)
class SessionCrashed:
    """An incarnation ended by an exception; ``call`` is the request that did it, if any."""

    cell: Cell
    incarnation: int
    call: Call | None
    error: BaseException


@attrs.frozen(eq=False)
class HandlerAbandoned:
    """A handler did not stop when told: its session goes on in a new incarnation (P7)."""

    cell: Cell
    incarnation: int
    method: str
    reason: ErrorCode


@attrs.frozen(eq=False)
class SessionWanted:
    """A request waits for a passivated session."""

    cell: Cell


@attrs.frozen(eq=False)
class TabsChanged:
    """The last tab left, or one came: idle deadlines differ."""

    cell: Cell


@attrs.frozen(eq=False)
class RestartDue:
    """The back-off of this incarnation is over."""

    cell: Cell
    incarnation: int


class DeadlinesDue:
    """Look for idle sessions."""


class TimeoutsChanged:
    """An operator changed when sessions passivate and end."""


# -- to a session's actor ----------------------------------------------------------------


@attrs.frozen(eq=False)
class ConcurrentFailed:
    """An overlapping call crashed; raised again inside the actor so that it fails."""

    incarnation: int
    call: Call
    error: BaseException


class Spawn(Protocol):
    """The supervisor's way to do work at the store without waiting for it."""

    def __call__(
        self, coroutine: Coroutine[Any, Any, Any], reply: asyncio.Future[Any] | None = None
    ) -> None:
        """Run it; ``reply`` is refused if the supervisor ends before."""


def refuse(reply: asyncio.Future[Any], error: BaseException) -> None:
    """Answer a command with an error, unless it was answered or given up."""
    if not reply.done():
        reply.set_exception(error)
