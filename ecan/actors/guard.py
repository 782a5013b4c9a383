"""The poison guard (P9). Pure."""

from __future__ import annotations

from collections import deque

MAX_SESSIONS = 5
WINDOW_S = 60.0
"""A method that crashes this many different sessions within the window is suspended."""

EXEMPT_PREFIX = "debug."
"""Crashing is what debug methods are for."""


class PoisonGuard:
    """Watches which methods crash how many sessions.

    >>> guard = PoisonGuard()
    >>> [guard.crashed("shop.buy", f"s{n}", float(n)) for n in range(5)][-1]
    True
    >>> guard.is_suspended("shop.buy")
    True
    """

    __slots__ = ("_crashes", "suspended")

    def __init__(self) -> None:
        self._crashes: dict[str, deque[tuple[float, str]]] = {}
        self.suspended: dict[str, str] = {}

    def crashed(self, method: str, sid: str, now_mono: float) -> bool:
        """Record a crash; True if the method is suspended because of it."""
        if method.startswith(EXEMPT_PREFIX) or method in self.suspended:
            return False
        crashes = self._crashes.setdefault(method, deque(maxlen=1000))
        crashes.append((now_mono, sid))
        while crashes and now_mono - crashes[0][0] >= WINDOW_S:
            crashes.popleft()
        if len({sid for _, sid in crashes}) < MAX_SESSIONS:
            return False
        self.suspend(method, f"it crashed {MAX_SESSIONS} sessions within {WINDOW_S:.0f} s")
        return True

    def is_suspended(self, method: str) -> bool:
        """Whether requests for the method are refused."""
        return method in self.suspended

    def suspend(self, method: str, why: str) -> None:
        """Refuse the method until it is resumed."""
        self.suspended[method] = why

    def resume(self, method: str) -> bool:
        """Allow the method again; False if it was not suspended."""
        self._crashes.pop(method, None)
        return self.suspended.pop(method, None) is not None
