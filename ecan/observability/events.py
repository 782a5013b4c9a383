"""What happens to sessions, for those who watch (admin socket, `ecan top`).

Costs an attribute look-up when nobody does. A watcher that does not keep up loses the
oldest events and is told how many.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BACKLOG = 1000
"""Events one watcher may be behind."""


class Watcher:
    """One reader of events.

    Args:
        wake: called when there is something to `take` after there was nothing.
        kinds: only these, or those that begin with one of them; None: all.
    """

    __slots__ = ("_events", "_kinds", "_wake", "lost")

    def __init__(self, wake: Callable[[], None], kinds: tuple[str, ...] | None = None) -> None:
        self._wake = wake
        self._kinds = kinds
        self._events: deque[dict[str, Any]] = deque()
        self.lost = 0

    def offer(self, event: dict[str, Any]) -> None:
        """Keep an event for it, if it wants it."""
        if self._kinds is not None and not event["kind"].startswith(self._kinds):
            return
        if len(self._events) >= MAX_BACKLOG:
            self._events.popleft()
            self.lost += 1
        self._events.append(event)
        if len(self._events) == 1:
            self._wake()

    def take(self) -> list[dict[str, Any]]:
        """All that is there; begins with how many were lost, if any were."""
        events = list(self._events)
        self._events.clear()
        if self.lost:
            events.insert(0, {"kind": "events.lost", "at": events[0]["at"], "count": self.lost})
            self.lost = 0
        return events


class EventBus:
    """Hands events to the watchers. Runs on: the loop."""

    __slots__ = ("_now", "_watchers")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._watchers: list[Watcher] = []

    def emit(self, kind: str, **facts: Any) -> None:
        """Tell the watchers; never secrets (P16).

        Args:
            kind: noun.verb in the past tense, for example ``session.crashed``.
            facts: JSON-able.
        """
        if not self._watchers:
            return
        event = {"kind": kind, "at": self._now(), **facts}
        for watcher in self._watchers:
            watcher.offer(event)

    def add(self, watcher: Watcher) -> None:
        """Watch from now on."""
        self._watchers.append(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Watch no longer; twice is fine."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
