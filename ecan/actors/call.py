"""A request on its way through a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecan.handlers.registry import MethodSpec
    from ecan.observability.tracing import Trace
    from ecan.protocol.codes import ErrorCode
    from ecan.protocol.frames import Peer, Request
    from ecan.store import ReplyRow


class Call:
    """An accepted request: what the mailbox holds and the session's actor runs.

    Attributes:
        id: of the request.
        spec: the method.
        params: structured, as the handler takes them.
        request: as it came in, for dead letters.
        fingerprint: of method and params (P10).
        origin: the connection that asked.
        waiters: connections that asked again with the same id while it was pending.
        accepted_mono: when it entered the queue.
        deadline_mono: when it is answered TIMEOUT.
        started_mono: when its handler began; 0 while queued.
        done_mono: when its handler was done and its commit began; 0 before.
        size_bytes: of its frame, for the mailbox's bound.
        answered: its one final response was given (P3).
        committing: its effects are being made durable; too late to cancel.
        kept: its answer as kept for resume, if no tab was there when it was committed.
        stop_reason: TIMEOUT or CANCELLED once the handler was told to stop.
        trace: its spans, or None: nobody traces.
    """

    __slots__ = (
        "accepted_mono",
        "answered",
        "committing",
        "deadline_mono",
        "done_mono",
        "fingerprint",
        "id",
        "kept",
        "origin",
        "params",
        "request",
        "size_bytes",
        "spec",
        "started_mono",
        "stop_reason",
        "trace",
        "waiters",
    )

    def __init__(
        self,
        request: Request,
        spec: MethodSpec,
        params: Any,
        fingerprint: bytes,
        origin: Peer,
        accepted_mono: float,
        deadline_mono: float,
    ) -> None:
        self.id = request.id
        self.spec = spec
        self.params = params
        self.request = request
        self.fingerprint = fingerprint
        self.origin = origin
        self.waiters: list[Peer] | None = None
        self.accepted_mono = accepted_mono
        self.deadline_mono = deadline_mono
        self.started_mono = self.done_mono = 0.0
        self.size_bytes = request.size_bytes
        self.answered = False
        self.committing = False
        self.kept: ReplyRow | None = None
        self.stop_reason: ErrorCode | None = None
        self.trace: Trace | None = request.trace

    def __repr__(self) -> str:
        return f"Call({self.spec.name}, id={self.id!r})"
