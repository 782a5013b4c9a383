"""The poison guard and the dead letters (P9). Pure."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from typing import Any

import attrs

MAX_SESSIONS = 5
WINDOW_S = 60.0
"""A method that crashes this many different sessions within the window is suspended."""

MAX_DEAD_LETTERS = 1000

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


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A request that crashed its session.

    Attributes:
        crash_id: as the client was told.
        params: secrets redacted (P16).
        traceback: of the exception.
        context_before: the committed slots before the request, as bytes of JSON.
    """

    id: int
    crash_id: str
    at: float
    sid: str
    username: str
    method: str
    request_id: str
    incarnation: int
    params: Any
    traceback: str
    context_before: dict[str, bytes]


class DeadLetters:
    """The last crashing requests, newest kept."""

    __slots__ = ("_ids", "_letters")

    def __init__(self) -> None:
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._ids = itertools.count(1)

    def add(self, **facts: Any) -> DeadLetter:
        """Keep one; see `DeadLetter` for the facts."""
        letter = DeadLetter(id=next(self._ids), **facts)
        self._letters[letter.id] = letter
        if len(self._letters) > MAX_DEAD_LETTERS:
            self._letters.popitem(last=False)
        return letter

    def get(self, letter_id: int) -> DeadLetter | None:
        """One by its number."""
        return self._letters.get(letter_id)

    def list(self) -> list[DeadLetter]:
        """All, newest first."""
        return list(reversed(self._letters.values()))

    def discard(self, letter_id: int) -> bool:
        """Forget one; False if there is none."""
        return self._letters.pop(letter_id, None) is not None

    def __len__(self) -> int:
        return len(self._letters)
