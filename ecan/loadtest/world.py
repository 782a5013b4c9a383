"""What all users of one generator process share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from ecan.loadtest.checks import Violations
from ecan.loadtest.counts import Counts

if TYPE_CHECKING:
    from ecan.loadtest.recorder import Recorder
    from ecan.loadtest.schedule import Schedule
    from ecan.loadtest.wire import Address


@attrs.define(kw_only=True)
class World:
    """Shared by the users of one process.

    Attributes:
        address: of the server.
        recorder: counts everything.
        schedule: tells the phase.
        counters: names of the plan's counters, and the method that answers each total.
        ordered: methods that are answered in order (P2).
        timeout_s: after it a request counts as lost.
        durable: a session that is gone is a broken promise (P11).
        seed: of the users' own choices.
        start_mono: when the plan began.
        lateness: how late requests left that could leave at once: the generator's doing.
        lost_sessions: how many sessions ended under their users.
    """

    address: Address
    recorder: Recorder
    schedule: Schedule
    counters: dict[str, str] = attrs.field(factory=dict)
    ordered: frozenset[str] = frozenset()
    timeout_s: float = 35.0
    durable: bool = False
    seed: int = 0
    start_mono: float = attrs.field(factory=time.monotonic)
    violations: Violations = attrs.field(factory=Violations)
    lateness: Counts = attrs.field(factory=Counts)
    lost_sessions: int = 0

    def phase_now(self) -> int:
        """Number of the phase."""
        return self.schedule.phase_at(time.monotonic() - self.start_mono)
