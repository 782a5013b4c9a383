"""One session: its biography, and what an operator may do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import attrs

from ecan.actors.biography import Origin
from ecan.actors.messages import TabsChanged
from ecan.admin.commands.listing import list_
from ecan.admin.commands.lookup import cell_of, not_found, resolve
from ecan.admin.commands.rows import (
    cell_row,
    notes,
    overlapping_of,
    queue_rows,
    running_of,
    stored_row,
)
from ecan.admin.slices import slices
from ecan.errors import ReplyError
from ecan.protocol.codes import CloseCode, ErrorCode
from ecan.protocol.frames import Sid
from ecan.store import Ended

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function
    from ecan.store import Snapshot

_OK = {"ok": True}

CREATED_AT_ONCE = 50
"""Sessions on their way to the store; the batch of it is as large as that."""

NOTIFIED_AT_ONCE = 50
"""Sessions that are pushed to in one turn: each may have tabs, and is a commit."""

BY_OPERATOR = Origin("admin socket", "")


async def show(port: AdminPort, params: p.OneSession) -> dict[str, Any]:
    """The biography. A session at rest is looked at where it is."""
    sid = await resolve(port, params.sid)
    cell = port.directory.get(sid)
    if cell is not None:
        return _biography(port, cell)
    found = await port.store.load(sid)
    cell = port.directory.get(sid)
    if cell is not None:  # RACE: it came back meanwhile
        return _biography(port, cell)
    reason = port.directory.reason(sid)
    if reason is not None or isinstance(found, Ended):
        reason = reason or (found.reason if isinstance(found, Ended) else "")
        raise ReplyError(
            ErrorCode.SESSION_CLOSED,
            f"The session was ended ({reason}).",
            details={"reason": reason},
        )
    if found is None:
        raise not_found()
    return _stored_biography(port, found)


def _biography(port: AdminPort, cell: Cell) -> dict[str, Any]:
    clock, story = port.clock, cell.story
    now = clock.mono()
    creator = None if story is None else story.created_by
    return {
        **cell_row(cell, now),
        "created_by": None if creator is None else attrs.asdict(creator),
        "tabs": [
            {
                "id": peer.id,
                "address": peer.address,
                "user_agent": peer.user_agent,
                "connected_at": peer.connected_at,
                "backlog_bytes": peer.backlog_bytes,
            }
            for peer in cell.tabs.values()
        ],
        "running": running_of(cell, now, stack=True),
        "overlapping": overlapping_of(cell, now),
        "queue": queue_rows(cell, now),
        "queue_bytes": cell.mailbox.nbytes,
        "zombies": cell.zombies,
        "slots": {name: len(data) for name, data in cell.slots.items()},
        "transitions": [
            {"at": t.at, "event": str(t.event), "state": str(t.state), "note": t.note}
            for t in cell.transitions or ()
        ],
        "crashes": notes(None if story is None else story.crashes),
        "errors": notes(None if story is None else story.errors),
        "budget": {} if cell.usage is None else cell.usage.report(cell, now),
        "outbox": {
            "epoch": cell.outbox.epoch,
            "seq": cell.outbox.seq,
            "bytes": cell.outbox.nbytes,
            "replies": len(cell.outbox.replies),
        },
        "ledger": len(cell.ledger),
        "store": port.store.name,
        "durability": port.settings.durability,
        "expires_in_s": round(port.sessions.expires_in_s(cell), 1),
    }


def _stored_biography(port: AdminPort, found: Snapshot) -> dict[str, Any]:
    """The same shape, with what a session at rest has."""
    row, settings, now = found.row, port.settings, port.clock.now()
    ends = max(row.facts.last_active_at + settings.session_timeout_s, row.facts.keep_until_at)
    return {
        **stored_row(row, now),
        "created_by": None,
        "tabs": [],
        "running": None,
        "overlapping": [],
        "queue": [],
        "queue_bytes": 0,
        "zombies": 0,
        "slots": {name: len(data) for name, data in found.slots.items()},
        "state_bytes": sum(map(len, found.slots.values())),
        "transitions": [],
        "crashes": [],
        "errors": [],
        "budget": {},
        "outbox": {
            "epoch": row.epoch,
            "seq": found.seq,
            "bytes": sum(len(push.frame) for push in found.pushes),
            "replies": len(found.replies),
        },
        "ledger": len(found.ledger),
        "store": port.store.name,
        "durability": settings.durability,
        "expires_in_s": round(max(0.0, ends - now), 1),
    }


async def create(port: AdminPort, params: p.CreateSessions) -> dict[str, Any]:
    """Real sessions without passwords; the one answer that has secrets in it.

    The user's own bound (ECAN_MAX_SESSIONS_PER_USER) does not count, the server's does.
    """
    made: list[dict[str, Any]] = []
    async with port.accounts.trusted(params.user) as user:
        while len(made) < params.count:
            some = min(CREATED_AT_ONCE, params.count - len(made))
            opening = (port.sessions.open_for(user, BY_OPERATOR, capped=False) for _ in range(some))
            made += [
                {
                    "sid": opened.cell.sid,
                    "session_id": opened.session_id,
                    "token": opened.token,
                    "expires_at": opened.record.expires_at,
                }
                for opened in await _all_or_none(port, await _gather(opening), made)
            ]
    return {"sessions": made}


async def _gather(coroutines: Any) -> list[Any]:
    return await asyncio.gather(*coroutines, return_exceptions=True)


async def _all_or_none(
    port: AdminPort, outcomes: list[Any], made: list[dict[str, Any]]
) -> list[Any]:
    """The sessions, or the first error; then nobody has the secrets of the others."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if not errors:
        return outcomes
    sids = [row["sid"] for row in made]
    sids += [outcome.cell.sid for outcome in outcomes if not isinstance(outcome, BaseException)]
    for sid in sids:
        await port.sessions.close(sid, "abandoned")
    raise errors[0]


async def kill(port: AdminPort, params: p.KillSession) -> dict[str, bool]:
    """End it, wherever it is and whatever it does."""
    sid = await resolve(port, params.sid)
    cell = port.directory.get(sid)
    tabs = [] if cell is None else list(cell.tabs.values())
    if not await port.sessions.close(sid, params.reason):
        raise not_found()
    for tab in tabs:  # whatever the reason is called
        tab.close(CloseCode.SESSION_KILLED, "An operator ended the session.")
    return _OK


def _steering(command: str) -> Any:
    async def steer(port: AdminPort, params: p.OneSession) -> dict[str, bool]:
        cell = await cell_of(port, params.sid)
        await port.sessions.steer(cell.sid, command)
        return _OK

    return steer


async def keep(port: AdminPort, params: p.KeepSession) -> dict[str, float]:
    """Not idle for so long, whatever its activity; durable."""
    cell = await cell_of(port, params.sid)
    cell.keep_until_mono = port.clock.mono() + params.seconds
    durable = cell.write_facts()
    if durable is not None:
        await durable
    port.sessions.tell_supervisor(TabsChanged(cell))
    return {"expires_in_s": round(port.sessions.expires_in_s(cell), 1)}


async def push(port: AdminPort, params: p.PushTo) -> dict[str, int]:
    """To one, to all of a user (at rest too: kept for resume), or to all in memory."""
    if [params.sid is not None, params.user is not None, params.all].count(True) != 1:
        problem = "one of sid, user and all"
        raise ReplyError(
            ErrorCode.INVALID_PARAMS,
            f"Say {problem}.",
            details=[{"path": "params.sid", "problem": problem}],
        )
    if params.sid is not None:
        cells = [await cell_of(port, params.sid)]
    elif params.user is not None:
        cells = await _cells_of(port, params.user)
    else:
        cells = list(port.directory)
    count = 0
    async for part in slices(cells, NOTIFIED_AT_ONCE):
        for cell in part:
            if cell.state != "closed":
                cell.notify(params.method, params.params)
                count += 1
    return {"sessions": count}


async def _cells_of(port: AdminPort, username: str) -> list[Cell]:
    async with port.accounts.trusted(username) as user:
        user_id = user.user_id
    cells = []
    for row in await port.sessions.of_user(user_id):
        cell = await port.sessions.find(Sid(row["sid"]))
        if cell is not None:
            cells.append(cell)
    return cells


COMMANDS: dict[str, Function] = {
    "sessions.list": list_,
    "sessions.show": show,
    "sessions.create": create,
    "sessions.kill": kill,
    "sessions.restart": _steering("restart"),
    "sessions.revive": _steering("revive"),
    "sessions.reset": _steering("reset"),
    "sessions.passivate": _steering("passivate"),
    "sessions.keep": keep,
    "sessions.push": push,
}
