"""Deadlines of many sessions in one heap. Pure.

A session that is used only gets later deadlines, so using it costs nothing here: the
old entry comes up, the owner computes the true deadline and schedules again.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = 8
"""Heaps by key: clearing one of stale entries holds the loop for an eighth of the time."""

_LATEST = (math.inf, "")


class _Part:
    """Some of the keys."""

    __slots__ = ("at", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, str]] = []
        self.at: dict[str, float] = {}


class DeadlineHeap:
    """Keys with one deadline each; O(log n) to schedule, nothing for keys that wait.

    >>> heap = DeadlineHeap()
    >>> heap.schedule("a", 5.0); heap.schedule("b", 3.0); heap.schedule("a", 1.0)
    >>> heap.next_at(), list(heap.due(3.0)), heap.next_at()
    (1.0, ['a', 'b'], None)
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = [_Part() for _ in range(PARTS)]

    def _part(self, key: str) -> _Part:
        return self._parts[hash(key) % PARTS]

    def schedule(self, key: str, when_mono: float) -> None:
        """Set the key's deadline; an earlier or later one is replaced."""
        part = self._part(key)
        part.at[key] = when_mono
        heapq.heappush(part.heap, (when_mono, key))
        # INVARIANT: stale entries never outnumber live ones by more than 2 to 1 + 64 a part.
        if len(part.heap) > 3 * len(part.at) + 64:
            part.heap = [(when, key) for key, when in part.at.items()]
            heapq.heapify(part.heap)

    def cancel(self, key: str) -> None:
        """Forget the key."""
        self._part(key).at.pop(key, None)

    def get(self, key: str) -> float | None:
        """The key's deadline, or None."""
        return self._part(key).at.get(key)

    def next_at(self) -> float | None:
        """The earliest deadline, or None."""
        part = self._first()
        return part.heap[0][0] if part is not None else None

    def due(self, now_mono: float, limit: int | None = None) -> Iterator[str]:
        """Take the keys whose deadline has come, earliest first, at most ``limit``."""
        while limit is None or limit > 0:
            part = self._first()
            if part is None or part.heap[0][0] > now_mono:
                return
            _, key = heapq.heappop(part.heap)
            del part.at[key]
            if limit is not None:
                limit -= 1
            yield key

    def _first(self) -> _Part | None:
        """The part with the earliest deadline of all, live and on top of its heap, or None."""
        while True:
            first: _Part | None = None
            earliest: tuple[float, str] = _LATEST
            for part in self._parts:
                if part.heap and part.heap[0] < earliest:
                    first, earliest = part, part.heap[0]
            if first is None or first.at.get(earliest[1]) == earliest[0]:
                return first
            heapq.heappop(first.heap)  # stale

    def __len__(self) -> int:
        return sum(len(part.at) for part in self._parts)

    def __contains__(self, key: str) -> bool:
        return key in self._part(key).at
