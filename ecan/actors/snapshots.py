"""A session at rest becomes a cell again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.actors.cell import Cell
from ecan.actors.ledger import Entry, Ledger
from ecan.actors.lifecycle import State
from ecan.actors.outbox import Outbox
from ecan.actors.tokens import Token, TokenTable
from ecan.handlers.context import User
from ecan.protocol.frames import Sid

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.observability import Metrics
    from ecan.runtime import Clock
    from ecan.store import SessionStore, Snapshot


def cell_of(
    snapshot: Snapshot,
    clock: Clock,
    *,
    mailbox_size: int,
    store: SessionStore,
    metrics: Metrics,
    wake: Callable[[Cell], None],
) -> Cell:
    """The cell of a session that rests in the store: passivated, or failed."""
    row = snapshot.row
    facts = row.facts
    # Of an older epoch are pushes whose numbers may have been given twice (ADR 9).
    mine = f'"epoch":"{row.epoch}"'.encode()
    pushes = [(push.seq, push.frame) for push in snapshot.pushes if mine in push.frame]
    cell = Cell(
        Sid(row.sid),
        row.key,
        User(**row.user),  # type: ignore[arg-type]
        clock,
        mailbox_size=mailbox_size,
        wake=wake,
        store=store,
        metrics=metrics,
        created_at=row.created_at,
        incarnation=row.incarnation,
        restarts=facts.restarts,
        state=State.FAILED if facts.failed else State.PASSIVATED,
        slots=dict(snapshot.slots),
        tokens=TokenTable(Token(t.digest, t.expires_at) for t in snapshot.tokens),
        ledger=Ledger(
            {row.request_id: Entry(row.fingerprint, row.frame, row.at) for row in snapshot.ledger},
            snapshot.used,
        ),
        outbox=Outbox(row.epoch, snapshot.seq, pushes, snapshot.replies),
    )
    mono = clock.mono()
    idle_s = max(0.0, clock.now() - facts.last_active_at)
    cell.set_last_active(mono - idle_s)
    if facts.keep_until_at:
        cell.keep_until_mono = mono + (facts.keep_until_at - clock.now())
    return cell
