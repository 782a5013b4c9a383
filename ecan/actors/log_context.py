"""What log lines say of the request they are written in, and what they must not (P16).

Asked for when a line is written, by `ecan.observability.configure`, in whatever thread
the handler runs: an author's lines have sid, incarnation, method and request id, in
structlog and in the standard library's logging alike.
"""

from __future__ import annotations

from typing import Any

from ecan.actors.view import SessionView
from ecan.handlers.context import ConnectionContext, UserContext, current_context
from ecan.observability import secret_values, tracing
from ecan.protocol.redact import request_secrets


def log_facts() -> dict[str, Any]:
    """Of the handler that runs here; nothing outside of one. Runs on: any thread."""
    ctx = current_context.get(None)
    if ctx is None:
        return {}
    facts: dict[str, Any] = {}
    if isinstance(ctx, UserContext):
        facts = {"sid": ctx.sid, "incarnation": ctx.incarnation}
    elif isinstance(ctx, ConnectionContext):
        bound = getattr(ctx.connection, "bound", None)
        if bound is not None:
            facts = {"sid": bound.cell.sid, "incarnation": bound.cell.incarnation}
    return {**facts, "method": ctx.method, "request_id": ctx.request_id, **tracing.log_ids()}


def log_secrets() -> set[str]:
    """What the request that runs here brought in secret fields. Runs on: any thread."""
    ctx = current_context.get(None)
    if isinstance(ctx, ConnectionContext):
        brought = {secret for secret in (ctx.session_id, ctx.token) if secret}
        return brought | secret_values(ctx.params)
    if isinstance(ctx, UserContext) and isinstance(ctx.session, SessionView):
        call = ctx.session.cell.pending.get(ctx.request_id)
        if call is not None:
            return request_secrets(call.request)
    return set()
