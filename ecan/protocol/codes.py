"""Error codes and close codes: one table each, for code, docs, TypeScript and metrics.

The range of an application's close code says whether to reconnect, as in
Centrifugo: 4000-4499 yes, 4500-4999 no.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from ecan.errors import Outcome  # noqa: TC001 - part of a NamedTuple, read at run time


class CodeInfo(NamedTuple):
    """What a client may assume of an error code unless the reply says otherwise."""

    retryable: bool
    outcome: Outcome
    doc: str


class ErrorCode(StrEnum):
    """The error codes of CONTRACT.md §2; a handler's own codes are free strings."""

    PARSE_ERROR = "PARSE_ERROR"
    MISSING_TYPE = "MISSING_TYPE"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    INVALID_REQUEST = "INVALID_REQUEST"
    METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
    INVALID_PARAMS = "INVALID_PARAMS"
    TOKEN_REQUIRED = "TOKEN_REQUIRED"  # noqa: S105 - a code
    INVALID_TOKEN = "INVALID_TOKEN"  # noqa: S105 - a code
    INVALID_CREDENTIALS = "INVALID_CREDENTIALS"
    FORBIDDEN = "FORBIDDEN"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    SESSION_EXPIRED = "SESSION_EXPIRED"
    SESSION_CLOSED = "SESSION_CLOSED"
    SESSION_FAILED = "SESSION_FAILED"
    RATE_LIMITED = "RATE_LIMITED"
    BUSY = "BUSY"
    SESSION_LIMIT = "SESSION_LIMIT"
    DRAINING = "DRAINING"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    HANDLER_CRASHED = "HANDLER_CRASHED"
    METHOD_SUSPENDED = "METHOD_SUSPENDED"
    ID_REUSED = "ID_REUSED"
    ID_EXPIRED = "ID_EXPIRED"


ERROR_CODES: dict[str, CodeInfo] = {
    "PARSE_ERROR": CodeInfo(False, "not_run", "The frame is not a JSON text."),
    "MISSING_TYPE": CodeInfo(False, "not_run", "The frame has no `type`."),
    "UNKNOWN_TYPE": CodeInfo(False, "not_run", "`type` is neither request nor response."),
    "INVALID_REQUEST": CodeInfo(False, "not_run", "The envelope is wrong; the message says where."),
    "METHOD_NOT_FOUND": CodeInfo(False, "not_run", "No such method; see rpc.discover."),
    "INVALID_PARAMS": CodeInfo(False, "not_run", "The params do not fit; see details."),
    "TOKEN_REQUIRED": CodeInfo(False, "not_run", "The request needs a session and its token."),
    "INVALID_TOKEN": CodeInfo(False, "not_run", "The token is wrong, expired or revoked."),
    "INVALID_CREDENTIALS": CodeInfo(False, "not_run", "User name or password is wrong."),
    "FORBIDDEN": CodeInfo(False, "not_run", "The user's role does not allow this."),
    "SESSION_NOT_FOUND": CodeInfo(False, "not_run", "The server knows no such session."),
    "SESSION_EXPIRED": CodeInfo(False, "not_run", "The session was idle for too long."),
    "SESSION_CLOSED": CodeInfo(False, "not_run", "The session was ended; see details.reason."),
    "SESSION_FAILED": CodeInfo(False, "not_run", "It crashed too often and waits for an operator."),
    "RATE_LIMITED": CodeInfo(True, "not_run", "Too many requests; try again after retry_after_ms."),
    "BUSY": CodeInfo(True, "not_run", "The queue of the session is full; wait retry_after_ms."),
    "SESSION_LIMIT": CodeInfo(True, "not_run", "The server or the user has too many sessions."),
    "DRAINING": CodeInfo(True, "not_run", "The server is shutting down; reconnect."),
    "TIMEOUT": CodeInfo(True, "unknown", "The deadline passed; see outcome whether it had begun."),
    "CANCELLED": CodeInfo(False, "unknown", "The request was cancelled."),
    "HANDLER_CRASHED": CodeInfo(False, "unknown", "The handler failed and was rolled back."),
    "METHOD_SUSPENDED": CodeInfo(True, "not_run", "It crashed several sessions; it is off."),
    "ID_REUSED": CodeInfo(False, "not_run", "The request id was used with other params."),
    "ID_EXPIRED": CodeInfo(False, "not_run", "The request id is too old to be answered again."),
}  # fmt: skip

_DECLARED = CodeInfo(False, "ran", "An error declared by the application's handler.")


def code_info(code: str) -> CodeInfo:
    """The defaults of a code; codes that handlers made up count as declared errors.

    >>> code_info("BUSY").retryable, code_info("OUT_OF_STOCK").outcome
    (True, 'ran')
    """
    return ERROR_CODES.get(code, _DECLARED)


class CloseCode(IntEnum):
    """WebSocket close codes the server sends (RFC 6455 §7.4 and our own ranges)."""

    GOING_AWAY = 1001
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    IDLE_UNAUTHENTICATED = 4002
    SESSION_CLOSED = 4500
    SESSION_KILLED = 4501


CLOSE_CODES: dict[CloseCode, str] = {
    CloseCode.GOING_AWAY: "The server goes away; reconnect.",
    CloseCode.INVALID_DATA: "A text frame was not UTF-8.",
    CloseCode.POLICY_VIOLATION: "Too many bad or refused frames.",
    CloseCode.MESSAGE_TOO_BIG: "A frame was larger than ECAN_MAX_FRAME.",
    CloseCode.INTERNAL_ERROR: "A fault of the server; reconnect.",
    CloseCode.SERVICE_RESTART: "The server is shutting down or restarting; reconnect.",
    CloseCode.TRY_AGAIN_LATER: "The client reads too slowly (1 MiB or 5 s behind); reconnect.",
    CloseCode.IDLE_UNAUTHENTICATED: "No login within ten minutes; reconnect when needed.",
    CloseCode.SESSION_CLOSED: "The session was ended; log in again.",
    CloseCode.SESSION_KILLED: "An operator ended the session; log in again.",
}


def may_reconnect(close_code: int) -> bool:
    """Whether a client should reconnect after this close code.

    >>> may_reconnect(1013), may_reconnect(4002), may_reconnect(4500)
    (True, True, False)
    """
    return not 4500 <= close_code <= 4999  # noqa: PLR2004 - the range is the rule
