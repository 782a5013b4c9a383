"""A connection's hold on a session, and why it gets none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.actors.tokens import Token
    from ecan.protocol.frames import Peer


class Bound(NamedTuple):
    """A session and the token that was checked for it."""

    cell: Cell
    token: Token


class Bindable(Protocol):
    """A connection that can be bound to a session."""

    @property
    def peer(self) -> Peer:
        """Its other end."""

    @property
    def bound(self) -> Bound | None:
        """The session it is bound to."""

    def bind(self, bound: Bound) -> None:
        """Requests of this connection go to that session from now on."""


def invalid_token() -> ReplyError:
    """INVALID_TOKEN, the same for wrong, expired and revoked ones."""
    return ReplyError(
        ErrorCode.INVALID_TOKEN, "The token is wrong, expired or revoked. Log in again."
    )


def not_found() -> ReplyError:
    """SESSION_NOT_FOUND, the same for none and for somebody else's."""
    return ReplyError(
        ErrorCode.SESSION_NOT_FOUND, "There is no such session.", details={"reason": "unknown"}
    )
