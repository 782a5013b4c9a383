"""Which sessions have been idle for too long, without looking at all of them.

Two heaps with lazy deletion: sessions by their last activity, and those that are held
until a time by that time. A session is in one of them; its entry in the other, or an
entry that is out of date, is dropped when it comes to the top.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, TypeAlias

from ecan.store.rows import Expiring

if TYPE_CHECKING:
    from ecan.store.rows import Facts

_Entry: TypeAlias = tuple[float, str, int]


class IdleIndex:
    """Sessions by when they may end."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}
        self._entries: dict[str, _Entry] = {}  # the valid one
        self._idle: list[_Entry] = []
        self._held: list[_Entry] = []
        self._numbers = itertools.count()

    def set(self, sid: str, facts: Facts) -> None:
        """A session is new, or its facts are others."""
        before = self._facts.get(sid)
        self._facts[sid] = facts
        if (
            before is None
            or facts.last_active_at < before.last_active_at
            or facts.keep_until_at < before.keep_until_at
        ):
            self._place(self._idle, facts.last_active_at, sid)
        # Later times are seen when the entry comes to the top.

    def remove(self, sid: str) -> None:
        """The session is no more."""
        self._facts.pop(sid, None)
        self._entries.pop(sid, None)

    def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """See `SessionStore.expiring`."""
        while (entry := self._top(self._held)) and entry[0] <= now_at:
            self._place(self._idle, self._facts[entry[1]].last_active_at, entry[1])
        due: list[_Entry] = []
        while (entry := self._top(self._idle)) and entry[0] + timeout_s <= now_at:
            facts = self._facts[entry[1]]
            if facts.last_active_at != entry[0]:
                self._place(self._idle, facts.last_active_at, entry[1])
            elif facts.keep_until_at > now_at:
                self._place(self._held, facts.keep_until_at, entry[1])
            elif len(due) < limit:
                due.append(heapq.heappop(self._idle))
            else:
                break
        nexts = [entry[0] + timeout_s] if (entry := self._top(self._idle)) else []
        nexts += [entry[0]] if (entry := self._top(self._held)) else []
        for entry in due:  # until they are deleted
            heapq.heappush(self._idle, entry)
        return Expiring(sids=tuple(sid for _, sid, _ in due), next_at=min(nexts, default=None))

    def _place(self, heap: list[_Entry], at: float, sid: str) -> None:
        entry = at, sid, next(self._numbers)
        self._entries[sid] = entry
        heapq.heappush(heap, entry)

    def _top(self, heap: list[_Entry]) -> _Entry | None:
        while heap and self._entries.get(heap[0][1]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0] if heap else None
