"""What is written down when a handler crashes: log, dead letter, poison guard (P9)."""

from __future__ import annotations

import secrets
import traceback
from typing import TYPE_CHECKING, Any

import orjson

from ecan.errors import ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.redact import redact, request_secrets, scrub
from ecan.store import LetterRow
from ecan.store.rows import MAX_LETTERS

if TYPE_CHECKING:
    from ecan.actors.guard import PoisonGuard
    from ecan.actors.messages import SessionCrashed
    from ecan.observability import Metrics
    from ecan.runtime import Clock

MAX_ERROR_CHARS = 500
MAX_TRACE_CHARS = 64 * 1024
"""A recursion's traceback is long; its end says where it happened."""

log = get_logger("ecan.supervisor")


def record_crash(
    message: SessionCrashed, clock: Clock, guard: PoisonGuard, metrics: Metrics
) -> tuple[str, LetterRow | None]:
    """Write down what is known of a crash.

    Returns:
        Its id, which the client is told and the log has; and the dead letter, to be kept
        with the request's answer, if a request did it.
    """
    cell, call, error = message.cell, message.call, message.error
    crash_id = secrets.token_hex(6)
    method = call.spec.name if call is not None else ""
    # A message made from params may hold their secrets (P16).
    hidden = request_secrets(call.request) if call is not None else set()
    trace = scrub("".join(traceback.format_exception(error)), hidden)
    metrics.crashes += 1
    log.error(
        "session.crashed",
        sid=cell.sid,
        incarnation=message.incarnation,
        method=method,
        request_id=call.id if call is not None else "",
        crash_id=crash_id,
        error=type(error).__name__,
        traceback=trace,
    )
    if call is None:
        return crash_id, None
    metrics.dead_letters = min(metrics.dead_letters + 1, MAX_LETTERS)
    letter = LetterRow(
        crash_id=crash_id,
        at=clock.now(),
        sid=cell.sid,
        user_id=cell.user.user_id,
        username=cell.user.username,
        method=method,
        request_id=call.id,
        incarnation=message.incarnation,
        params=_json(redact(call.request.params)),
        error=error_text(message)[:MAX_ERROR_CHARS],
        traceback=trace[-MAX_TRACE_CHARS:],
        context=dict(cell.slots),
    )
    if guard.crashed(method, cell.sid, clock.mono()):
        log.error("method.suspended", method=method, why=guard.suspended[method])
    return crash_id, letter


def error_text(message: SessionCrashed) -> str:
    """Type and message of a crash, without the secrets of the request that did it (P16)."""
    call, error = message.call, message.error
    hidden = request_secrets(call.request) if call is not None else set()
    text: str = scrub(f"{type(error).__name__}: {error}", hidden)
    return text


def _json(params: Any) -> bytes:
    try:
        return orjson.dumps(params)
    except TypeError:  # nested too deeply: then it was refused before, but who knows
        return b"null"


def crash_reply(
    crash_id: str, incarnation: int, delay_s: float | None, *, late: bool
) -> ReplyError:
    """HANDLER_CRASHED.

    Args:
        crash_id: from `record_crash`.
        incarnation: that crashed.
        delay_s: until the restart; None when there will be none.
        late: the session has gone on in another incarnation already.
    """
    follows = "the session restarts" if delay_s is not None else "the session is given up"
    if late:
        follows = "the session had gone on without it"
    return ReplyError(
        ErrorCode.HANDLER_CRASHED,
        f"The handler failed. What it did was rolled back; {follows}.",
        details={
            "crash_id": crash_id,
            "incarnation": incarnation,
            "restart_in_ms": None if delay_s is None else round(delay_s * 1000),
        },
    )
