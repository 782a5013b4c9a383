"""A store that forgets with the process: for tests, and where durability is not wanted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from ecan.store.base import Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ecan.store.base import Commit, LedgerRow, PushRow, SessionRow, TokenRow

MAX_LEDGER_ROWS = 256
MAX_PUSH_ROWS = 1000
"""As the session's own ledger and outbox: what they no longer need is not kept here."""


class _Record:
    """One session, changed in place by commits."""

    __slots__ = ("ledger", "pushes", "row", "seq", "slots", "tokens")

    def __init__(self, snapshot: Snapshot) -> None:
        self.row: SessionRow = snapshot.row
        self.seq = snapshot.seq
        self.slots = dict(snapshot.slots)
        self.tokens: tuple[TokenRow, ...] = snapshot.tokens
        self.ledger: deque[LedgerRow] = deque(snapshot.ledger, MAX_LEDGER_ROWS)
        self.pushes: deque[PushRow] = deque(snapshot.pushes, MAX_PUSH_ROWS)


class MemoryStore:
    """Sessions in a dictionary. Everything is done at once, nothing outlives the process."""

    name = "memory"

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    async def open(self) -> None:
        """See `SessionStore.open`."""

    async def close(self) -> None:
        """See `SessionStore.close`."""

    async def create(self, snapshot: Snapshot) -> None:
        """See `SessionStore.create`."""
        self._records[snapshot.row.sid] = _Record(snapshot)

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """See `SessionStore.commit`."""
        record = self._records.get(commit.sid)
        if record is None:
            return None
        for name, data in commit.slots.items():
            if data is None:
                record.slots.pop(name, None)
            else:
                record.slots[name] = data
        if commit.tokens is not None:
            record.tokens = commit.tokens
        if commit.answer is not None:
            record.ledger.append(commit.answer)
        if commit.pushes:
            record.pushes.extend(commit.pushes)
            record.seq = commit.pushes[-1].seq
        return None

    async def save(self, snapshot: Snapshot) -> None:
        """See `SessionStore.save`."""
        self._records[snapshot.row.sid] = _Record(snapshot)

    async def load(self, sid: str) -> Snapshot | None:
        """See `SessionStore.load`."""
        record = self._records.get(sid)
        if record is None:
            return None
        return Snapshot(
            row=attrs.evolve(record.row),
            seq=record.seq,
            slots=dict(record.slots),
            tokens=record.tokens,
            ledger=tuple(record.ledger),
            pushes=tuple(record.pushes),
        )

    async def delete(self, sid: str) -> None:
        """See `SessionStore.delete`."""
        self._records.pop(sid, None)

    async def count(self) -> int:
        """See `SessionStore.count`."""
        return len(self._records)
