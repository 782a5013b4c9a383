"""Which session an operator means: by its public id, or the beginning of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.tokens import SID_CHARS
from ecan.admin.slices import slices
from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Sid

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.admin.ports import AdminPort

MAX_CANDIDATES = 5


async def resolve(port: AdminPort, text: str) -> Sid:
    """The public id; a whole one is not looked up.

    Raises:
        ReplyError: SESSION_NOT_FOUND, or AMBIGUOUS_SID with some that begin so.
    """
    sid = Sid(text.strip().lower())
    if len(sid) >= SID_CHARS:
        return sid
    found: set[str] = set()
    async for part in slices(list(port.directory), size=5000):
        found.update(cell.sid for cell in part if cell.sid.startswith(sid))
    page = await port.store.sessions(MAX_CANDIDATES + 1, sid)
    found.update(
        row.sid
        for row in page.rows
        if row.sid.startswith(sid) and port.directory.reason(Sid(row.sid)) is None
    )
    if not found:
        raise not_found()
    if len(found) > 1:
        raise ReplyError(
            "AMBIGUOUS_SID",
            f"More than one session's id begins with {sid!r}.",
            details={"candidates": sorted(found)[:MAX_CANDIDATES]},
        )
    return Sid(found.pop())


async def cell_of(port: AdminPort, text: str) -> Cell:
    """The session, loaded from the store if it rests there.

    Raises:
        ReplyError: as `resolve`; SESSION_CLOSED and its kin; BUSY.
    """
    cell = await port.sessions.find(await resolve(port, text))
    if cell is None:
        raise not_found()
    return cell


def not_found() -> ReplyError:
    """SESSION_NOT_FOUND."""
    return ReplyError(ErrorCode.SESSION_NOT_FOUND, "There is no such session.")
