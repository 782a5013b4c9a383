"""A cell as a snapshot and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ecan.actors.cell import Cell
from ecan.actors.ledger import Entry, Ledger
from ecan.actors.lifecycle import State
from ecan.actors.outbox import Outbox
from ecan.actors.tokens import Token, TokenTable
from ecan.handlers.context import User
from ecan.protocol.frames import Sid
from ecan.store import LedgerRow, PushRow, SessionRow, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.observability import Metrics
    from ecan.runtime import Clock
    from ecan.store import SessionStore


def snapshot_of(cell: Cell, now: float, now_mono: float) -> Snapshot:
    """Everything that outlives the process."""
    return Snapshot(
        row=SessionRow(
            sid=cell.sid,
            key=cell.key,
            user=attrs.asdict(cell.user),
            created_at=cell.created_at,
            last_active_at=now - (now_mono - cell.last_active_mono),
            keep_until_at=now + max(0.0, cell.keep_until_mono - now_mono),
            incarnation=cell.incarnation,
            restarts=cell.restarts,
            failed=cell.state is State.FAILED,
            epoch=cell.outbox.epoch,
        ),
        seq=cell.outbox.seq,
        slots=dict(cell.slots),
        tokens=cell.tokens.rows(),
        ledger=tuple(
            LedgerRow(request_id=id_, fingerprint=e.fingerprint, frame=e.frame, at=e.at)
            for id_, e in cell.ledger.entries().items()
        ),
        pushes=tuple(PushRow(seq=seq, frame=frame) for seq, frame in cell.outbox.frames()),
    )


def ledger_of(snapshot: Snapshot) -> Ledger:
    """The ledger as stored."""
    return Ledger(
        {row.request_id: Entry(row.fingerprint, row.frame, row.at) for row in snapshot.ledger}
    )


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
    cell = Cell(
        Sid(row.sid),
        row.key,
        User(**row.user),  # type: ignore[arg-type]
        clock,
        mailbox_size=mailbox_size,
        store=store,
        metrics=metrics,
        wake=wake,
        created_at=row.created_at,
        incarnation=row.incarnation,
        restarts=row.restarts,
        state=State.FAILED if row.failed else State.PASSIVATED,
        slots=dict(snapshot.slots),
        tokens=TokenTable(Token(t.digest, t.expires_at) for t in snapshot.tokens),
        ledger=ledger_of(snapshot),
        outbox=Outbox(row.epoch, snapshot.seq, [(p.seq, p.frame) for p in snapshot.pushes]),
    )
    cell.last_active_mono = clock.mono() - max(0.0, clock.now() - row.last_active_at)
    cell.keep_until_mono = clock.mono() + (row.keep_until_at - clock.now())
    return cell
