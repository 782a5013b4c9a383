"""Why a request is refused or stopped, in the words of the contract."""

from __future__ import annotations

from ecan.errors import (
    ConflictError,
    IdUsedError,
    Outcome,
    ReplyError,
    StoreError,
    StoreUnavailableError,
)
from ecan.protocol.codes import ErrorCode


class RetryError(ReplyError):
    """An answer that is not kept: nothing took effect, and the same id may be tried again."""


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


def expired_id_error() -> ReplyError:
    """ID_EXPIRED."""
    return ReplyError(
        ErrorCode.ID_EXPIRED, "This request id was answered too long ago.", outcome="not_run"
    )


def store_busy_error(*, outcome: Outcome = "unknown") -> RetryError:
    """BUSY: the store cannot write now. A sync that failed may yet have reached the disk."""
    return RetryError(
        ErrorCode.BUSY,
        "The server cannot write to its disk now. Nothing was changed; try again.",
        details={"reason": "store"},
        outcome=outcome,
        retry_after_ms=1000,
    )


def refused_by_store(error: StoreError) -> ReplyError | None:
    """What a request is answered whose commit the store refused; None: it is our bug, a crash."""
    if isinstance(error, ConflictError):
        return RetryError(
            "CONFLICT",
            "Other sessions of yours changed the same documents all the time; try again.",
            outcome="not_run",
            retryable=True,
            retry_after_ms=100,
        )
    if isinstance(error, IdUsedError):
        return expired_id_error()
    if isinstance(error, StoreUnavailableError):
        return store_busy_error()
    return None


def drained_error(outcome: Outcome) -> RetryError:
    """DRAINING: the next server runs it."""
    return RetryError(
        ErrorCode.DRAINING,
        "The server stopped before the request was done; reconnect.",
        details={"reason": "drained"},
        outcome=outcome,
        retry_after_ms=2000,
    )
