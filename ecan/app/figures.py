"""What a server tells of itself: health, status, latencies, gauges, the loop's lag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from ecan import __version__
from ecan.handlers import system
from ecan.observability import get_logger

if TYPE_CHECKING:
    from ecan.actors import PoisonGuard, SessionService
    from ecan.actors.call import Call
    from ecan.admin.vitals import VitalSigns
    from ecan.config import Settings
    from ecan.gateway import Gateway
    from ecan.handlers.registry import Registry
    from ecan.observability import EventBus, Metrics
    from ecan.runtime import HugePages, LoopClock, Stall, WorkerThreads
    from ecan.store import SessionStore

LAG_INTERVAL_S = 1.0
"""Between two measurements of the loop's lag."""

log = get_logger("ecan.app")


class Figures:
    """Half of `ecan.app.root.App`, which makes the parts."""

    settings: Settings
    clock: LoopClock
    metrics: Metrics
    registry: Registry
    store: SessionStore
    workers: WorkerThreads
    huge_pages: HugePages
    guard: PoisonGuard
    sessions: SessionService
    gateway: Gateway
    vital_signs: VitalSigns
    _starting: bool
    _draining: bool
    _started_mono: float
    _trouble: str | None
    _lag_timer: Any
    _figures_due_mono: float = 0.0

    @property
    def events(self) -> EventBus:
        """See `ecan.admin.ports.AdminPort`."""
        raise NotImplementedError

    def health(self) -> tuple[str, int]:
        """For /health: status and number of sessions."""
        status = "healthy"
        if self._draining:
            status = "draining"
        elif self._starting:  # the port listens, but nobody could log in
            status = "starting"
        elif self.store.trouble is not None:
            status = "degraded"
        return status, self.sessions.count()

    def is_draining(self) -> bool:
        """See `ecan.handlers.ports.Server`."""
        return self._draining

    def status(self) -> dict[str, Any]:
        """See `ecan.handlers.ports.Server`."""
        return {
            "status": self.health()[0],
            "mode": self.settings.mode,
            "version": __version__,
            "uptime_s": round(self.clock.mono() - self._started_mono, 1),
            "sessions": self.sessions.by_state(),
            "connections": self._connection_count(),
            "store": self.store.name,
            "store_trouble": self.store.trouble,
            "handlers": len(self.registry),
            "crashes": self.metrics.crashes,
            "restarts": self.metrics.restarts,
            "suspended_methods": dict(self.guard.suspended),
            "dead_letters": self.metrics.dead_letters,
            "worker_threads": self.workers.threads,
            "worker_zombies": self.workers.zombies,
        }

    def _connection_count(self) -> int:
        return self.gateway.connection_count

    def _openrpc(self) -> bytes:
        return orjson.dumps(system.discover_document(self.registry))

    def _observe(self, call: Call, status: str) -> None:
        started = call.started_mono
        done = call.done_mono
        ended = self.clock.mono() if call.committing or not done else done
        name = call.spec.name
        figures = self.metrics.methods.get(name) or self.metrics.method(name)
        done = done or ended
        figures.observe(
            status,
            (started or ended) - call.accepted_mono,
            done - started if started else 0.0,
            ended - done if call.committing else None,
        )

    def _measure_lag(self, due_mono: float) -> None:
        """How late the loop runs what was due."""
        now = self.clock.mono()
        self.metrics.loop_lag.observe(max(0.0, now - due_mono))
        self.vital_signs.sample(max(0.0, now - due_mono))
        self._look_at_store()
        self._log_figures(now)
        due = now + LAG_INTERVAL_S
        self._lag_timer = self.clock.call_at(due, self._measure_lag, due)

    def _log_figures(self, now: float) -> None:
        """What a service that can read logs only, like CloudWatch, scales by."""
        every_s = self.settings.log_figures_s
        if every_s and not self._starting and now >= self._figures_due_mono:
            self._figures_due_mono = now + every_s
            by_state = self.sessions.by_state()
            sessions = sum(by_state.values())
            log.info(
                "server.figures",
                sessions=sessions,
                in_memory=sessions - by_state.get("passivated", 0),
                connections=self._connection_count(),
            )

    def _look_at_store(self) -> None:
        trouble, self._trouble = self._trouble, self.store.trouble
        if (trouble is None) is not (self._trouble is None):
            if self._trouble is None:
                self.events.emit("store.recovered")
            else:
                self.events.emit("store.degraded", trouble=self._trouble)

    def _stalled(self, stall: Stall) -> None:
        self.vital_signs.stalled(stall)
        if not stall.ended:
            self.metrics.stalls += 1

    def _gauges(self) -> None:
        gauge = self.metrics.gauge_callback
        gauge("sessions", self.sessions.by_state)
        gauge("connections", self._connection_count)
        gauge("worker_threads", lambda: self.workers.threads)
        gauge("worker_zombies", lambda: self.workers.zombies)
        gauge("dead_letters", lambda: self.metrics.dead_letters)
        gauge("methods_suspended", lambda: dict.fromkeys(self.guard.suspended, 1.0))
        gauge("store_degraded", lambda: float(self.store.trouble is not None))
        gauge("huge_pages_bytes", lambda: self.huge_pages.bytes)
        gauge("draining", lambda: float(self._draining))
