"""Where every session is: here, or nowhere in memory. O(1), no I/O.

A session that rests in the store costs nothing here: it is one of `total`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from ecan.actors.lifecycle import State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from ecan.actors.cell import Cell
    from ecan.protocol.frames import Sid

MAX_TOMBSTONES = 10_000
"""Ended sessions whose reason is remembered here; the store remembers too."""


class Ending(NamedTuple):
    """Why a session ended, and whether the store knows; StoreError if the first try failed."""

    reason: str
    known: asyncio.Future[bool]


class Directory:
    """The cells in memory, by public id, and why others are gone.

    INVARIANT: the supervisor alone adds and removes cells; everybody may look.

    Attributes:
        total: sessions in memory and in the store.
        by_state: of those in memory; `Cell.transit` keeps it, so that nobody has to count.
        ending: ended sessions whose end the store does not know yet.
        leaving: ended sessions with answers on their way.
    """

    __slots__ = ("_cells", "_of_user", "_tombstones", "by_state", "ending", "leaving", "total")

    def __init__(self) -> None:
        self._cells: dict[Sid, Cell] = {}
        self._of_user: dict[int, dict[Sid, None]] = {}
        self._tombstones: OrderedDict[Sid, str] = OrderedDict()
        self.ending: dict[Sid, Ending] = {}
        self.leaving: list[Cell] = []
        self.total = 0
        self.by_state: dict[State, int] = dict.fromkeys(State, 0)

    def get(self, sid: Sid) -> Cell | None:
        """The cell, if the session is in memory."""
        return self._cells.get(sid)

    def add(self, cell: Cell) -> None:
        """A session is in memory now; if it was already, nothing changes."""
        if cell.tally is not None:
            return
        cell.tally = self.by_state
        self.by_state[cell.state] += 1
        self._cells[cell.sid] = cell
        self._of_user.setdefault(cell.user.user_id, {})[cell.sid] = None

    def evict(self, cell: Cell) -> None:
        """The session rests in the store only; it still counts."""
        if cell.tally is None:
            return
        cell.tally = None
        self.by_state[cell.state] -= 1
        del self._cells[cell.sid]
        sids = self._of_user[cell.user.user_id]
        del sids[cell.sid]
        if not sids:
            del self._of_user[cell.user.user_id]

    def bury(self, sid: Sid, reason: str) -> None:
        """The session exists no longer, here or in the store."""
        cell = self._cells.get(sid)
        if cell is not None:
            self.evict(cell)
        self.total -= 1
        self._tombstones[sid] = reason
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def forget(self, cell: Cell) -> None:
        """The session never came to be."""
        self.evict(cell)
        self.total -= 1

    def leave(self, cell: Cell) -> None:
        """The session has ended; somebody may still wait for an answer of it."""
        self.leaving = [left for left in self.leaving if left.pending]
        if cell.pending:
            self.leaving.append(cell)

    def unanswered(self) -> int:
        """Accepted requests whose answer has not been given."""
        return sum(len(cell.pending) for cell in (*self._cells.values(), *self.leaving))

    def reason(self, sid: Sid) -> str | None:
        """Why a session that is gone ended, if that is still known here."""
        return self._tombstones.get(sid)

    def of_user(self, user_id: int) -> list[Cell]:
        """The sessions of a user that are in memory, oldest first."""
        return [self._cells[sid] for sid in self._of_user.get(user_id, ())]

    def __iter__(self) -> Iterator[Cell]:
        return iter(list(self._cells.values()))

    def __len__(self) -> int:
        return len(self._cells)
