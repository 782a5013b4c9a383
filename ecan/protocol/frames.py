"""The frames of CONTRACT.md §2 as types. No I/O, no clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NewType, Protocol

if TYPE_CHECKING:
    from ecan.observability.tracing import Trace
    from ecan.protocol.codes import CloseCode

SessionId = NewType("SessionId", str)
"""The secret bearer of a session: 256 random bits. Appears in no log (P16)."""

Sid = NewType("Sid", str)
"""The public short id of a session; safe in logs, metrics and admin answers."""

ConnectionId = NewType("ConnectionId", int)


class Request:
    """A request as it came in: envelope checked, params not yet.

    Attributes:
        id: chosen by the client; answered and remembered per session (P10).
        method: name as sent.
        params: any JSON value, or None when absent.
        session_id: from ``meta.session_id`` or ``params.session_id``.
        token: from ``meta.token``, ``params.token`` or the top level.
        deadline_ms: relative, positive, or None.
        cancel_on_disconnect: ``meta.on_disconnect == "cancel"``.
        traceparent: W3C trace context as sent, or None.
        size_bytes: of the whole frame, for the mailbox's bound.
        trace: its spans, or None: nobody traces.
    """

    __slots__ = (
        "cancel_on_disconnect",
        "deadline_ms",
        "id",
        "method",
        "params",
        "session_id",
        "size_bytes",
        "token",
        "trace",
        "traceparent",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the wire's name
        method: str,
        params: Any = None,
        *,
        session_id: str | None = None,
        token: str | None = None,
        deadline_ms: float | None = None,
        cancel_on_disconnect: bool = False,
        traceparent: str | None = None,
        size_bytes: int = 0,
    ) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.session_id = session_id
        self.token = token
        self.deadline_ms = deadline_ms
        self.cancel_on_disconnect = cancel_on_disconnect
        self.traceparent = traceparent
        self.size_bytes = size_bytes
        self.trace: Trace | None = None

    def __repr__(self) -> str:
        # Params and credentials stay out: a repr ends up in logs (P16).
        return f"Request(id={self.id!r}, method={self.method!r}, {self.size_bytes} bytes)"


class Answer:
    """A client's answer to a push that asked for one (`UserContext.call`).

    Attributes:
        id: of the push.
        result: the client's answer when ``ok``.
        error: the client's error object when not ``ok``.
    """

    __slots__ = ("error", "id", "ok", "result")

    def __init__(self, id: str, *, ok: bool, result: Any, error: Any) -> None:  # noqa: A002
        self.id = id
        self.ok = ok
        self.result = result
        self.error = error


class Peer(Protocol):
    """Whoever sits at the other end of a connection; a WebSocket today, Qt WebChannel later.

    Sending never waits: a peer that does not take its output is closed by its own
    bounded outbox (P8), and the session stays.
    """

    @property
    def id(self) -> ConnectionId:
        """Unique in this process; a late close names the connection it belongs to."""

    @property
    def address(self) -> str:
        """Where the client is, for people; behind a trusted proxy the forwarded address."""

    @property
    def user_agent(self) -> str:
        """As the client says, cut to 200 characters."""

    @property
    def connected_at(self) -> float:
        """UTC epoch seconds."""

    @property
    def is_open(self) -> bool:
        """Whether frames may still reach the other end."""

    @property
    def backlog_bytes(self) -> int:
        """Queued and not yet taken by the other end; a stream waits while it is high."""

    @property
    def sent_bytes(self) -> int:
        """All that was queued so far, taken or not."""

    def send(self, frame: bytes) -> bool:
        """Queue one text frame. Runs on the loop; never raises, never waits.

        Returns:
            False if it cannot reach the other end any more.
        """

    def send_all(self, frames: list[bytes]) -> None:
        """Queue what was kept for this peer, as one: its own bound is that it was kept."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Close after what is queued; returns at once."""
