"""A session in words for its own user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.actors.reaper import expires_at_mono

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.actors.environment import Environment
    from ecan.protocol.frames import Peer


def describe(cell: Cell, env: Environment, origin: Peer | None) -> dict[str, Any]:
    """What `session.info` answers to a tab."""
    clock = env.clock
    now, mono = clock.now(), clock.mono()
    return {
        "sid": cell.sid,
        "state": str(cell.state),
        "incarnation": cell.incarnation,
        "restarts": cell.restarts,
        "created_at": cell.created_at,
        "expires_at": now + max(0.0, expires_at_mono(cell, env.settings) - mono),
        "idle_s": round(mono - cell.last_active_mono, 3),
        "user": cell.user.public(),
        "tabs": [
            {
                "id": peer.id,
                "address": peer.address,
                "user_agent": peer.user_agent,
                "connected_at": peer.connected_at,
                "current": peer is origin,
            }
            for peer in cell.tabs.values()
        ],
        "queue": {"depth": len(cell.mailbox), "bytes": cell.mailbox.nbytes},
        "epoch": cell.outbox.epoch,
        "seq": cell.outbox.seq,
        "state_bytes": sum(map(len, cell.slots.values())),
        "budget": {} if cell.usage is None else cell.usage.report(cell, mono),
        "ledger": len(cell.ledger),
        "store": env.store.name,
        "durability": env.settings.durability,
        "transitions": [
            {"at": t.at, "event": str(t.event), "state": str(t.state), "note": t.note}
            for t in list(cell.transitions or ())[-10:]
        ],
    }
