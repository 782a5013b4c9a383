"""What waits in a session, and what an operator may do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.admin.commands.lookup import cell_of
from ecan.admin.commands.rows import queue_rows, running_of
from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function

_OK = {"ok": True}


async def list_(port: AdminPort, params: p.OneSession) -> dict[str, Any]:
    """What waits, oldest first."""
    cell = await cell_of(port, params.sid)
    now = port.clock.mono()
    return {
        "paused": cell.mailbox.paused,
        "running": running_of(cell, now),
        "queue": queue_rows(cell, now),
    }


async def drop(port: AdminPort, params: p.DropRequests) -> dict[str, int]:
    """Answer queued requests CANCELLED."""
    if (params.request_id is None) is not params.all:
        raise ReplyError(
            ErrorCode.INVALID_PARAMS,
            "Say request_id, or all.",
            details=[{"path": "params.request_id", "problem": "one of request_id and all"}],
        )
    cell = await cell_of(port, params.sid)
    dropped = cell.drop_queued(params.request_id)
    if params.request_id is not None and not dropped:
        raise ReplyError("REQUEST_NOT_FOUND", "No such request waits in that session.")
    port.events.emit("queue.dropped", sid=cell.sid, count=dropped)
    return {"dropped": dropped}


async def pause(port: AdminPort, params: p.OneSession) -> dict[str, bool]:
    """Let requests wait."""
    cell = await cell_of(port, params.sid)
    await port.sessions.steer(cell.sid, "pause")
    return _OK


async def resume(port: AdminPort, params: p.OneSession) -> dict[str, bool]:
    """Go on."""
    cell = await cell_of(port, params.sid)
    await port.sessions.steer(cell.sid, "resume")
    return _OK


COMMANDS: dict[str, Function] = {
    "queue.list": list_,
    "queue.drop": drop,
    "queue.pause": pause,
    "queue.resume": resume,
}
