"""What operators want to know of a session beyond its state: made when first needed, bounded."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from ecan.protocol.redact import request_secrets, scrub

if TYPE_CHECKING:
    from ecan.actors.call import Call
    from ecan.errors import ReplyError

MAX_CRASHES = 5
MAX_ERRORS = 10
"""Last ones kept of each session."""

MAX_MESSAGE_CHARS = 200

WINDOW_S = 10.0
"""Of the request rate."""


@attrs.frozen
class Origin:
    """Who created a session."""

    address: str
    user_agent: str


@attrs.frozen
class CrashNote:
    """A crash, as the biography has it; the dead letter has more."""

    at: float
    crash_id: str
    method: str
    error: str


@attrs.frozen
class ErrorNote:
    """A request that was answered with an error."""

    at: float
    method: str
    code: str
    message: str


class Biography:
    """One session's figures and last mishaps.

    Attributes:
        created_by: of the login; None of a session that was loaded from the store.
        requests: accepted since the session is in memory.
        errors: answered with an error, the last of them.
        crashes: the last ones.
    """

    __slots__ = ("_before", "_began_mono", "_count", "crashes", "created_by", "errors", "requests")

    def __init__(self, created_by: Origin | None = None) -> None:
        self.created_by = created_by
        self.requests = 0
        self.errors: deque[ErrorNote] | None = None
        self.crashes: deque[CrashNote] | None = None
        self._began_mono = 0.0
        self._count = self._before = 0

    def count_request(self, now_mono: float) -> None:
        """A request was accepted."""
        self.requests += 1
        if now_mono - self._began_mono >= WINDOW_S:
            self._turn(now_mono)
        self._count += 1

    def _turn(self, now_mono: float) -> None:
        missed = now_mono - self._began_mono >= 2 * WINDOW_S
        self._before = 0 if missed else self._count
        self._count = 0
        self._began_mono = now_mono if missed else self._began_mono + WINDOW_S

    def requests_s(self, now_mono: float) -> float:
        """Requests a second over the last ten: this window, and the last one's share.

        >>> story = Biography()
        >>> for second in range(100, 130): story.count_request(float(second))
        >>> story.requests_s(130.0), story.requests_s(135.0), story.requests_s(160.0)
        (1.0, 0.5, 0.0)
        """
        if now_mono - self._began_mono >= WINDOW_S:
            self._turn(now_mono)
        share = max(0.0, 1.0 - (now_mono - self._began_mono) / WINDOW_S)
        return round((self._before * share + self._count) / WINDOW_S, 2)

    def crashed(self, note: CrashNote) -> None:
        """Keep a crash."""
        if self.crashes is None:
            self.crashes = deque(maxlen=MAX_CRASHES)
        self.crashes.append(note)

    def refused(self, at: float, call: Call, error: ReplyError) -> None:
        """Keep an error reply, without the request's secrets (P16)."""
        message = scrub(error.message, request_secrets(call.request))
        if self.errors is None:
            self.errors = deque(maxlen=MAX_ERRORS)
        self.errors.append(ErrorNote(at, call.spec.name, error.code, message[:MAX_MESSAGE_CHARS]))
