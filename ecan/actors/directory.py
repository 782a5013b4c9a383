"""Where every session is: here, or nowhere. O(1), no I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecan.actors.cell import Cell
    from ecan.protocol.frames import Sid

MAX_TOMBSTONES = 10_000
"""Closed sessions whose reason is remembered, so that a late tab is told why."""


class Directory:
    """The cells in memory, by public id, and why others are gone.

    INVARIANT: the supervisor alone adds and removes cells; everybody may look.
    """

    __slots__ = ("_cells", "_of_user", "_tombstones", "_user_of")

    def __init__(self) -> None:
        self._cells: dict[Sid, Cell] = {}
        self._of_user: dict[int, dict[Sid, None]] = {}
        self._user_of: dict[Sid, int] = {}
        self._tombstones: OrderedDict[Sid, str] = OrderedDict()

    def get(self, sid: Sid) -> Cell | None:
        """The cell, if the session is in memory."""
        return self._cells.get(sid)

    def add(self, cell: Cell) -> None:
        """A session is in memory now."""
        self._cells[cell.sid] = cell

    def evict(self, cell: Cell) -> None:
        """The session rests in the store only; it still counts."""
        self._cells.pop(cell.sid, None)

    def count_in(self, sid: Sid, user_id: int) -> None:
        """A session exists, in memory or in the store."""
        self._of_user.setdefault(user_id, {})[sid] = None
        self._user_of[sid] = user_id

    def bury(self, sid: Sid, user_id: int, reason: str) -> None:
        """The session exists no longer."""
        self._cells.pop(sid, None)
        self._user_of.pop(sid, None)
        sids = self._of_user.get(user_id)
        if sids is not None:
            sids.pop(sid, None)
            if not sids:
                del self._of_user[user_id]
        self._tombstones[sid] = reason
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def forget(self, cell: Cell) -> None:
        """The session never came to be."""
        self.bury(cell.sid, cell.user.user_id, "")
        del self._tombstones[cell.sid]

    def knows(self, sid: Sid) -> bool:
        """Whether the id is or was in use, as far as is known."""
        return sid in self._user_of or sid in self._tombstones

    @property
    def total(self) -> int:
        """Sessions in memory and in the store."""
        return len(self._user_of)

    def reason(self, sid: Sid) -> str | None:
        """Why a session that is gone ended, if that is still known."""
        return self._tombstones.get(sid)

    def of_user(self, user_id: int) -> list[Sid]:
        """All sessions of a user, oldest first, passivated ones too."""
        return list(self._of_user.get(user_id, ()))

    def users(self) -> list[int]:
        """Users with a session."""
        return list(self._of_user)

    def stored(self) -> list[Sid]:
        """Sessions that rest in the store only."""
        return [sid for sid in self._user_of if sid not in self._cells]

    def __iter__(self) -> Iterator[Cell]:
        return iter(list(self._cells.values()))

    def __len__(self) -> int:
        return len(self._cells)
