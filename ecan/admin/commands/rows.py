"""Sessions, requests and dead letters in the shapes of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from ecan.actors.call import Call
    from ecan.actors.cell import Cell
    from ecan.store import LetterRow, SessionRow


def cell_row(cell: Cell, now_mono: float) -> dict[str, Any]:
    """A session in memory, as `sessions.list` has it."""
    running = None if cell.actor is None else cell.actor.running
    story = cell.story
    return {
        "sid": cell.sid,
        "user": cell.user.username,
        "state": str(cell.state),
        "tabs": len(cell.tabs),
        "incarnation": cell.incarnation,
        "restarts": cell.restarts,
        "created_at": cell.created_at,
        "idle_s": round(now_mono - cell.last_active_mono, 1),
        "queue": len(cell.mailbox),
        "running": None if running is None else running.spec.name,
        "running_s": None if running is None else _age(running, now_mono),
        "requests": 0 if story is None else story.requests,
        "requests_s": 0.0 if story is None else story.requests_s(now_mono),
        "state_bytes": state_bytes(cell),
        "paused": cell.mailbox.paused,
    }


def stored_row(row: SessionRow, now_at: float) -> dict[str, Any]:
    """A session at rest, in the same shape; what is not known without loading it is None."""
    facts = row.facts
    return {
        "sid": row.sid,
        "user": str(row.user.get("username", "")),
        "state": "failed" if facts.failed else "passivated",
        "tabs": 0,
        "incarnation": row.incarnation,
        "restarts": facts.restarts,
        "created_at": row.created_at,
        "idle_s": round(max(0.0, now_at - facts.last_active_at), 1),
        "queue": 0,
        "running": None,
        "running_s": None,
        "requests": 0,
        "requests_s": 0.0,
        "state_bytes": None,
        "paused": False,
    }


def state_bytes(cell: Cell) -> int:
    """Of all its slots."""
    return sum(map(len, cell.slots.values()))


def running_of(cell: Cell, now_mono: float, *, stack: bool = False) -> dict[str, Any] | None:
    """What holds the session's lane."""
    call = None if cell.actor is None else cell.actor.running
    if cell.actor is None or call is None:
        return None
    row = {"method": call.spec.name, "id": call.id, "age_s": _age(call, now_mono)}
    return {**row, "stack": cell.actor.stack_of(call)} if stack else row


def overlapping_of(cell: Cell, now_mono: float) -> list[dict[str, Any]]:
    """Concurrent requests that run beside it."""
    if cell.actor is None:
        return []
    return [
        {"method": call.spec.name, "id": call.id, "age_s": _age(call, now_mono)}
        for call in cell.actor.overlapping
    ]


def queue_rows(cell: Cell, now_mono: float) -> list[dict[str, Any]]:
    """What waits, oldest first."""
    return [
        {
            "id": call.id,
            "method": call.spec.name,
            "age_s": round(now_mono - call.accepted_mono, 3),
            "bytes": call.size_bytes,
        }
        for call in cell.mailbox.items()
        if not getattr(call, "answered", True)
    ]


def _age(call: Call, now_mono: float) -> float:
    return round(now_mono - (call.started_mono or call.accepted_mono), 3)


def letter_row(letter: LetterRow) -> dict[str, Any]:
    """A dead letter in the list."""
    return {
        "id": letter.crash_id,
        "at": letter.at,
        "sid": letter.sid,
        "user": letter.username,
        "method": letter.method,
        "request_id": letter.request_id,
        "incarnation": letter.incarnation,
        "error": letter.error,
    }


def notes(kept: Any) -> list[dict[str, Any]]:
    """Notes of a biography, oldest first."""
    return [attrs.asdict(note) for note in kept or ()]
