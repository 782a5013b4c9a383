"""What is written down when a handler crashes: log, dead letter, poison guard (P9)."""

from __future__ import annotations

import secrets
import traceback
from typing import TYPE_CHECKING

from ecan.errors import ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.redact import redact

if TYPE_CHECKING:
    from ecan.actors.guard import DeadLetters, PoisonGuard
    from ecan.actors.messages import SessionCrashed
    from ecan.observability import Metrics
    from ecan.runtime import Clock

log = get_logger("ecan.supervisor")


def record_crash(
    message: SessionCrashed,
    clock: Clock,
    guard: PoisonGuard,
    dead_letters: DeadLetters,
    metrics: Metrics,
) -> str:
    """Keep what is known of a crash.

    Returns:
        Its id, which the client is told and the log has.
    """
    cell, call, error = message.cell, message.call, message.error
    crash_id = secrets.token_hex(6)
    method = call.spec.name if call is not None else ""
    trace = "".join(traceback.format_exception(error))
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
        return crash_id
    dead_letters.add(
        crash_id=crash_id,
        at=clock.now(),
        sid=cell.sid,
        username=cell.user.username,
        method=method,
        request_id=call.id,
        incarnation=message.incarnation,
        params=redact(call.request.params),
        traceback=trace,
        context_before=dict(cell.slots),
    )
    if guard.crashed(method, cell.sid, clock.mono()):
        log.error("method.suspended", method=method, why=guard.suspended[method])
    return crash_id


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
