"""Deadlines of many sessions in one heap. Pure.

A session that is used only gets later deadlines, so using it costs nothing here: the
old entry comes up, the owner computes the true deadline and schedules again.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeadlineHeap:
    """Keys with one deadline each; O(log n) to schedule, nothing for keys that wait.

    >>> heap = DeadlineHeap()
    >>> heap.schedule("a", 5.0); heap.schedule("b", 3.0); heap.schedule("a", 1.0)
    >>> heap.next_at(), list(heap.due(3.0)), heap.next_at()
    (1.0, ['a', 'b'], None)
    """

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}

    def schedule(self, key: str, when_mono: float) -> None:
        """Set the key's deadline; an earlier or later one is replaced."""
        self._at[key] = when_mono
        heapq.heappush(self._heap, (when_mono, key))
        # INVARIANT: stale entries never outnumber live ones by more than 2 to 1 + 64.
        if len(self._heap) > 3 * len(self._at) + 64:
            self._heap = [(when, key) for key, when in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: str) -> None:
        """Forget the key."""
        self._at.pop(key, None)

    def get(self, key: str) -> float | None:
        """The key's deadline, or None."""
        return self._at.get(key)

    def next_at(self) -> float | None:
        """The earliest deadline, or None."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now_mono: float, limit: int | None = None) -> Iterator[str]:
        """Take the keys whose deadline has come, earliest first, at most ``limit``."""
        while limit is None or limit > 0:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now_mono:
                return
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            if limit is not None:
                limit -= 1
            yield key

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at
