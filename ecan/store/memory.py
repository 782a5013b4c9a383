"""A store that forgets with the process: for tests, and where durability is not wanted."""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import attrs

from ecan.errors import ConflictError, IdUsedError
from ecan.store.cursors import check_limit
from ecan.store.memory_documents import MemoryDocuments
from ecan.store.memory_idle import IdleIndex
from ecan.store.rows import (
    MAX_ENDED,
    MAX_LEDGER_ROWS,
    MAX_LETTERS,
    MAX_PUSH_ROWS,
    MAX_REPLY_ROWS,
    MAX_USED_LOADED,
    Ended,
    SessionPage,
    SlotPage,
    Snapshot,
    id_hash,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from ecan.store.base import Commit
    from ecan.store.rows import (
        DocumentPage,
        DocumentRow,
        Expiring,
        LedgerRow,
        LetterRow,
        Order,
        PushRow,
        ReplyRow,
        SessionRow,
        TokenRow,
    )

_Row = TypeVar("_Row")

MAX_USED_IDS = 65_536
"""Of a session: what is older may be used again. 6 MB; a session this long is for a real store."""


SLICE = 1000
"""Sessions looked at in one turn of the loop, when they are listed."""


class _Record:
    """One session, changed in place by commits."""

    __slots__ = ("ledger", "pushes", "replies", "row", "seq", "slots", "tokens", "used")

    def __init__(self, snapshot: Snapshot) -> None:
        self.row: SessionRow = snapshot.row
        self.seq = snapshot.seq
        self.slots = dict(snapshot.slots)
        self.tokens: tuple[TokenRow, ...] = snapshot.tokens
        self.ledger: dict[str, LedgerRow] = {}
        self.used: dict[int, None] = dict.fromkeys(snapshot.used)  # oldest first
        self.pushes: deque[PushRow] = deque(snapshot.pushes, MAX_PUSH_ROWS)
        self.replies: deque[ReplyRow] = deque(snapshot.replies, MAX_REPLY_ROWS)
        for answer in snapshot.ledger:
            self.remember(answer)

    def remember(self, answer: LedgerRow) -> None:
        self.ledger[answer.request_id] = answer
        if len(self.ledger) > MAX_LEDGER_ROWS:
            oldest = next(iter(self.ledger))
            del self.ledger[oldest]
            self.used[id_hash(oldest)] = None
            if len(self.used) > MAX_USED_IDS:
                del self.used[next(iter(self.used))]

    def is_used(self, request_id: str) -> bool:
        return request_id in self.ledger or (bool(self.used) and id_hash(request_id) in self.used)

    def apply(self, commit: Commit) -> None:
        if commit.incarnation > self.row.incarnation:
            self.row = attrs.evolve(self.row, incarnation=commit.incarnation)
        if commit.facts is not None:
            self.row = attrs.evolve(self.row, facts=commit.facts)
        for name, data in commit.slots.items():
            if data is None:
                self.slots.pop(name, None)
            else:
                self.slots[name] = data
        if commit.tokens is not None:
            self.tokens = commit.tokens
        if commit.answer is not None:
            self.remember(commit.answer)
        if commit.pushes:
            self.pushes.extend(commit.pushes)
            self.seq = commit.pushes[-1].seq
        if commit.handed_out:
            self.replies.clear()
        self.replies.extend(commit.replies)

    def snapshot(self) -> Snapshot:
        used = tuple(islice(reversed(self.used), MAX_USED_LOADED))
        return Snapshot(
            row=self.row,
            seq=self.seq,
            slots=dict(self.slots),
            tokens=self.tokens,
            ledger=tuple(self.ledger.values()),
            used=used[::-1],
            pushes=tuple(self.pushes),
            replies=tuple(self.replies),
        )


class MemoryStore:
    """Sessions in a dictionary. Everything is done at once, nothing outlives the process."""

    name = "memory"
    trouble: str | None = None

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._ended: dict[str, str] = {}
        self._order: list[str] = []  # the keys of it, sorted
        self._of_user: dict[int, set[str]] = {}
        self._idle = IdleIndex()
        self._documents = MemoryDocuments()
        self._letters: dict[str, LetterRow] = {}

    async def open(self) -> None:
        """See `SessionStore.open`."""

    async def close(self) -> None:
        """See `SessionStore.close`."""

    async def create(self, snapshot: Snapshot) -> None:
        """See `SessionStore.create`."""
        row = snapshot.row
        self._forget(row.sid)
        self._records[row.sid] = _Record(snapshot)
        bisect.insort(self._order, row.sid)
        self._of_user.setdefault(_user_id(row), set()).add(row.sid)
        self._idle.set(row.sid, row.facts)

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """See `SessionStore.commit`."""
        record = self._records.get(commit.sid)
        if record is None:
            return None
        if commit.answer is not None and record.is_used(commit.answer.request_id):
            raise IdUsedError(f"request id {commit.answer.request_id!r} was answered before")
        for check in commit.checks:
            if not self._documents.holds(commit.user_id, check):
                raise ConflictError(f"{check.collection!r} was changed since it was read")
        record.apply(commit)
        if commit.facts is not None:
            self._idle.set(commit.sid, commit.facts)
        for write in commit.documents:
            self._documents.write(commit.user_id, write)
        if commit.letter is not None:
            _put_newest(self._letters, commit.letter.crash_id, commit.letter, MAX_LETTERS)
        return None

    async def load(self, sid: str) -> Snapshot | Ended | None:
        """See `SessionStore.load`."""
        record = self._records.get(sid)
        if record is not None:
            return record.snapshot()
        reason = self._ended.get(sid)
        return None if reason is None else Ended(reason=reason)

    async def delete(self, sid: str, reason: str) -> bool:
        """See `SessionStore.delete`."""
        _put_newest(self._ended, sid, reason, MAX_ENDED)
        return self._forget(sid)

    def _forget(self, sid: str) -> bool:
        record = self._records.pop(sid, None)
        if record is None:
            return False
        del self._order[bisect.bisect_left(self._order, sid)]
        self._idle.remove(sid)
        user_id = _user_id(record.row)
        self._of_user[user_id].discard(sid)
        if not self._of_user[user_id]:
            del self._of_user[user_id]
        return True

    async def count(self) -> int:
        """See `SessionStore.count`."""
        return len(self._records)

    async def of_user(self, user_id: int) -> list[SessionRow]:
        """See `SessionStore.of_user`."""
        rows = [self._records[sid].row for sid in self._of_user.get(user_id, ())]
        return sorted(rows, key=lambda row: (row.created_at, row.sid))

    async def sids_of_user(self, user_id: int) -> Sequence[str]:
        """See `SessionStore.sids_of_user`."""
        return tuple(self._of_user.get(user_id, ()))

    async def sessions(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        user_id: int | None = None,
        failed: bool | None = None,
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        check_limit(limit)
        found: list[SessionRow] = []
        behind = cursor or ""
        while part := self._order[(at := bisect.bisect_right(self._order, behind)) : at + SLICE]:
            for sid in part:
                row = self._records[sid].row
                if user_id is not None and _user_id(row) != user_id:
                    continue
                if failed is not None and row.facts.failed is not failed:
                    continue
                if len(found) == limit:
                    return SessionPage(rows=tuple(found), cursor=found[-1].sid)
                found.append(row)
            behind = part[-1]
            await asyncio.sleep(0)
        return SessionPage(rows=tuple(found), cursor=None)

    async def slots(self, names: Sequence[str], limit: int, cursor: str | None = None) -> SlotPage:
        """See `SessionStore.slots`."""
        check_limit(limit)
        at = bisect.bisect_right(self._order, cursor or "")
        sids = self._order[at : at + limit]
        found = []
        for sid in sids:
            slots = self._records[sid].slots
            wanted = {name: slots[name] for name in names if name in slots}
            if wanted:
                found.append((sid, wanted))
        await asyncio.sleep(0)
        more = at + limit < len(self._order)
        return SlotPage(sessions=tuple(found), cursor=sids[-1] if more else None)

    async def count_by_user(self) -> dict[int, int]:
        """See `SessionStore.count_by_user`."""
        return {user_id: len(sids) for user_id, sids in self._of_user.items()}

    async def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """See `SessionStore.expiring`."""
        return self._idle.expiring(now_at, timeout_s, limit)

    async def document(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        return self._documents.get(user_id, collection, key)

    async def documents(
        self,
        user_id: int,
        collection: str,
        *,
        prefix: str = "",
        order: Order = "key",
        cursor: str | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """See `SessionStore.documents`."""
        return self._documents.page(user_id, collection, prefix, order, cursor, limit)

    async def letters(self, limit: int, before: str | None = None) -> Sequence[LetterRow]:
        """See `SessionStore.letters`."""
        letters = reversed(self._letters.values())
        if before is not None:
            for letter in letters:
                if letter.crash_id == before:
                    break
        return list(islice(letters, max(limit, 0)))

    async def letter(self, crash_id: str) -> LetterRow | None:
        """See `SessionStore.letter`."""
        return self._letters.get(crash_id)

    async def discard_letter(self, crash_id: str) -> bool:
        """See `SessionStore.discard_letter`."""
        return self._letters.pop(crash_id, None) is not None

    async def letter_count(self) -> int:
        """See `SessionStore.letter_count`."""
        return len(self._letters)


def _put_newest(rows: dict[str, _Row], key: str, row: _Row, most: int) -> None:
    rows.pop(key, None)  # again is newest
    rows[key] = row
    if len(rows) > most:
        del rows[next(iter(rows))]


def _user_id(row: SessionRow) -> int:
    return int(row.user["user_id"])
