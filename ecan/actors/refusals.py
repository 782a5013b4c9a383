"""Why a request is refused or stopped, in the words of the contract."""

from __future__ import annotations

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode


def stopped_error(code: ErrorCode, *, ran: bool) -> ReplyError:
    """TIMEOUT or CANCELLED, saying whether the handler had begun."""
    if code is ErrorCode.TIMEOUT:
        message = (
            "The deadline passed while the handler ran; its changes were rolled back."
            if ran
            else "The deadline passed while the request waited in the session's queue."
        )
    else:
        message = (
            "Cancelled while the handler ran; its changes were rolled back."
            if ran
            else "Cancelled before it began."
        )
    return ReplyError(code, message, outcome="unknown" if ran else "not_run")


def failed_error() -> ReplyError:
    """SESSION_FAILED, as requests of a given-up session get it."""
    return ReplyError(
        ErrorCode.SESSION_FAILED,
        "This session crashed too often. Its data is kept; an operator can revive it.",
        details={"reason": "crash_loop"},
        outcome="not_run",
    )


def closed_error(reason: str) -> ReplyError:
    """SESSION_EXPIRED or SESSION_CLOSED, by why the session ended."""
    if reason == "idle":
        return ReplyError(
            ErrorCode.SESSION_EXPIRED,
            "The session ended because it was not used. Log in again.",
            details={"reason": reason},
        )
    return ReplyError(
        ErrorCode.SESSION_CLOSED,
        f"The session was ended ({reason}). Log in again.",
        details={"reason": reason},
    )
