"""A page of all sessions: those in memory first, in the order asked for, then those at rest.

The order of those in memory changes while one pages (who is busiest?), so a cursor is a
place in the order, not a number: the key of the last session of the page before. Sessions
at rest come by public id, as the store has them.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.admin.commands.rows import cell_row, state_bytes, stored_row
from ecan.admin.slices import slices
from ecan.errors import ReplyError, StoreError
from ecan.protocol.codes import ErrorCode
from ecan.protocol.frames import Sid

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.actors.cell import Cell
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort

    Key = Callable[[Cell, float], Any]
    Place = tuple[Any, Sid]

ROWS = 100
"""Rows made in one turn of the loop."""

STORED = 500
"""Sessions asked of the store at once: those that are in memory too are passed over."""

AT_REST = {"passivated", "failed"}
"""States of sessions in the store."""


def _traffic(cell: Cell, now: float) -> float:
    story = cell.story
    # The total decides between those that are quiet now.
    return 0.0 if story is None else -(story.requests_s(now) + story.requests * 1e-9)


KEYS: dict[str, Key] = {
    "created": lambda cell, _: cell.created_at,
    "user": lambda cell, _: cell.user.username,
    "idle": lambda cell, _: cell.last_active_mono,
    "traffic": _traffic,
    "queue": lambda cell, _: -len(cell.mailbox),
    "restarts": lambda cell, _: -cell.restarts,
    "bytes": lambda cell, _: -state_bytes(cell),
}
"""The smallest comes first."""


async def list_(port: AdminPort, params: p.ListSessions) -> dict[str, Any]:
    """See the table."""
    place, in_store = _read_cursor(params)
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    trouble: str | None = None
    total: int | None = 0
    if in_store is None:
        found = await _in_memory(port, params, place)
        now = port.clock.mono()
        async for part in slices(found.cells, ROWS):
            rows += [cell_row(cell, now) for cell in part]
        if found.last is None:
            in_store = ""
        else:
            cursor = _cursor(params, list(found.last), None)
        total = found.matching
    if params.state in {None, *AT_REST}:
        total = None if params.state or params.user else port.directory.total
        if in_store is not None:
            try:
                stored, behind = await _at_rest(port, params, in_store, params.limit - len(rows))
            except StoreError as error:
                trouble = str(error)  # those in memory can be seen all the same
            else:
                rows += stored
                cursor = None if behind is None else _cursor(params, None, behind)
    return {"sessions": rows, "cursor": cursor, "total": total, "trouble": trouble}


@attrs.frozen
class _Found:
    """Sessions in memory: a page, the place of its last one if there are more, how many match."""

    cells: list[Cell]
    last: Place | None
    matching: int


async def _in_memory(port: AdminPort, params: p.ListSessions, after: Place | None) -> _Found:
    now = port.clock.mono()
    key = KEYS[params.sort]
    first: list[tuple[Any, Sid, Cell]] = []
    matching = 0
    async for part in slices(list(port.directory)):
        found = [cell for cell in part if _matches(cell, params)]
        matching += len(found)
        candidates = [(key(cell, now), cell.sid, cell) for cell in found]
        if after is not None:
            candidates = [each for each in candidates if each[:2] > after]
        first = heapq.nsmallest(params.limit + 1, first + candidates)
    page = first[: params.limit]
    last = page[-1][:2] if len(first) > len(page) else None
    return _Found([cell for _, _, cell in page], last, matching)


def _matches(cell: Cell, params: p.ListSessions) -> bool:
    return (params.state is None or cell.state == params.state) and (
        params.user is None or cell.user.username == params.user
    )


async def _at_rest(
    port: AdminPort, params: p.ListSessions, cursor: str, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Sessions that are in the store only; and where the next page begins."""
    user_id = None
    if params.user is not None:
        user_id = await _user_id(port, params.user)
        if user_id is None:
            return [], None
    if port.directory.total <= len(port.directory):
        return [], None
    failed = None if params.state is None else params.state == "failed"
    rows: list[dict[str, Any]] = []
    while True:
        # One more than asked for, so that the last page says that it is the last.
        page = await port.store.sessions(
            max(STORED, limit - len(rows) + 1), cursor, user_id=user_id, failed=failed
        )
        now = port.clock.now()
        for row in page.rows:
            sid = Sid(row.sid)
            if port.directory.get(sid) is None and port.directory.reason(sid) is None:
                if len(rows) == limit:
                    return rows, cursor
                rows.append(stored_row(row, now))
            cursor = row.sid
        if page.cursor is None:
            return rows, None


async def _user_id(port: AdminPort, username: str) -> int | None:
    users = await port.accounts.list_users()
    return next((int(user["user_id"]) for user in users if user["username"] == username), None)


def _cursor(params: p.ListSessions, place: list[Any] | None, in_store: str | None) -> str:
    facts = [params.sort, place, in_store]
    return base64.urlsafe_b64encode(orjson.dumps(facts)).decode().rstrip("=")


def _read_cursor(params: p.ListSessions) -> tuple[Place | None, str | None]:
    if params.cursor is None:
        return None, None
    place: Place | None = None
    in_store: str | None = None
    try:
        data = base64.urlsafe_b64decode(params.cursor + "=" * (-len(params.cursor) % 4))
        sort, found, in_store = orjson.loads(data)
        fits = sort == params.sort and (found is None) is isinstance(in_store, str)
        if fits and found is not None:
            key, sid = found
            fits = isinstance(sid, str) and isinstance(key, str) is (sort == "user")
            place = key, Sid(sid)
    except (ValueError, TypeError, binascii.Error):
        fits = False
    if not fits:
        raise ReplyError(
            ErrorCode.INVALID_PARAMS,
            "The cursor is of no page with this order.",
            details=[{"path": "params.cursor", "problem": "of no page with this order"}],
        )
    return place, in_store
