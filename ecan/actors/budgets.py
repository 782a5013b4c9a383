"""What a session uses up, and how it is warned, throttled and suspended for it.

Every request adds two numbers (0.2 µs); whether that is too much is looked at four times a
second at most, and only of sessions that ask for something. Off, there is nothing to look at.

``used`` of CPU, wall time and sent bytes is that of the last minute: what this window has,
and the share of the last one that is not a minute old yet (a sliding window counter, as
Cloudflare's rate limiter has it: https://blog.cloudflare.com/counting-things-a-lot-of-different-things/).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ecan.actors.rolling import WINDOW_S, Rolling
from ecan.errors import HandlerError, ReplyError
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.actors.cell import Cell
    from ecan.config import Settings
    from ecan.config.parsers import Budget
    from ecan.observability import EventBus

log = get_logger("ecan.session")

LOOK_S = 0.25
"""Between two looks at a session's budgets; one look costs 3 µs with all of them set."""

WARN_EVERY_S = 60.0

PER_WINDOW = ("cpu_s", "wall_s", "sent_bytes")
OF_NOW = ("queued_bytes", "backlog_bytes", "state_bytes")
NAMES = (*PER_WINDOW, *OF_NOW)
"""`Settings.budget_…` of each has its limits."""


class Over(NamedTuple):
    """A budget that is used up."""

    name: str
    used: float
    limits: Budget
    wait_s: float


class Usage:
    """What one session uses; made with its first actor, dies with the cell.

    Attributes:
        look_mono: when a request is to be looked at; see `admit`.
        suspended: over its hard limits for too long: the queue is paused, nothing is taken
            until an operator resumes it.
    """

    __slots__ = (
        "_budgets",
        "_cpu",
        "_over_until_mono",
        "_over_windows",
        "_seen_bytes",
        "_seen_mono",
        "_sent",
        "_wall",
        "_warned",
        "look_mono",
        "suspended",
    )

    def __init__(self, budgets: Budgets, now_mono: float) -> None:
        self._budgets = budgets
        self._cpu = Rolling(now_mono)
        self._wall = Rolling(now_mono)
        self._sent: Rolling | None = None
        self._seen_bytes = 0
        self._seen_mono = now_mono
        self._over_until_mono = 0.0
        self._over_windows = 0
        self._warned: dict[str, float] | None = None
        self.look_mono = 0.0
        self.suspended = False

    def charge(self, now_mono: float, wall_s: float, cpu_s: float) -> None:
        """A handler ran, or a part of it did."""
        # Rolling.add, twice, without the calls: this runs for every request.
        wall, cpu = self._wall, self._cpu
        if now_mono >= wall._ends_mono:  # noqa: SLF001 - one unit
            wall._turn(now_mono)  # noqa: SLF001
        wall._now += wall_s  # noqa: SLF001
        if now_mono >= cpu._ends_mono:  # noqa: SLF001
            cpu._turn(now_mono)  # noqa: SLF001
        cpu._now += cpu_s  # noqa: SLF001

    # -- requests ------------------------------------------------------------------------

    def admit(self, cell: Cell, size_bytes: int, now_mono: float) -> None:
        """Look at the budgets because a request comes in.

        Args:
            cell: whose usage this is.
            size_bytes: of the request.
            now_mono: when it came.

        Raises:
            ReplyError: RATE_LIMITED, reason ``budget``.
        """
        if self.suspended:
            if cell.mailbox.paused:
                raise _suspended_error()
            self._resumed(now_mono)
        over = None
        limits = self._budgets.limits()
        for name, budget in limits.items():
            used = self.used(name, cell, now_mono)
            if name == "queued_bytes":
                used += size_bytes
            if used < budget.soft:
                continue
            self._warn(cell, name, used, budget, now_mono)
            if used >= budget.hard and name != "state_bytes" and over is None:
                over = Over(name, used, budget, self._wait_s(name, budget.hard, now_mono))
        if over is not None:
            self.look_mono = 0.0
            self._count_over(cell, over, now_mono)
            raise _over_error(over)
        if not limits:
            self.look_mono = now_mono + WINDOW_S
        else:
            self.look_mono = 0.0 if "queued_bytes" in limits else now_mono + LOOK_S

    def _wait_s(self, name: str, hard: float, now_mono: float) -> float:
        rolling = {"cpu_s": self._cpu, "wall_s": self._wall, "sent_bytes": self._sent}.get(name)
        return 1.0 if rolling is None else rolling.below_in_s(hard, now_mono)

    def _count_over(self, cell: Cell, over: Over, now_mono: float) -> None:
        """One window more over a hard limit; after too many in a row, suspend."""
        if now_mono < self._over_until_mono:
            return
        in_a_row = now_mono < self._over_until_mono + WINDOW_S
        self._over_windows = self._over_windows + 1 if in_a_row else 1
        self._over_until_mono = now_mono + WINDOW_S
        if self._over_windows > self._budgets.windows:
            self.suspended = True
            cell.mailbox.pause()
            self._budgets.suspended(cell, over)
            raise _suspended_error()
        self._budgets.throttled(cell, over)

    def _resumed(self, now_mono: float) -> None:
        """An operator let the session go on: it starts with nothing used."""
        self.suspended = False
        self._over_windows = 0
        self._over_until_mono = 0.0
        self._cpu, self._wall, self._sent = Rolling(now_mono), Rolling(now_mono), None

    def _warn(self, cell: Cell, name: str, used: float, budget: Budget, now_mono: float) -> None:
        if self._warned is None:
            self._warned = {}
        if now_mono >= self._warned.get(name, -math.inf) + WARN_EVERY_S:
            self._warned[name] = now_mono
            self._budgets.warned(cell, name, used, budget)

    def check_state(self, cell: Cell, changes: dict[str, bytes | None]) -> None:
        """See that a commit does not make the state too large; smaller it may always be.

        Raises:
            HandlerError: STATE_TOO_LARGE.
        """
        hard = self._budgets.state_hard()
        if hard == math.inf:
            return
        before = sum(map(len, cell.slots.values()))
        grown = sum(
            len(data or b"") - len(cell.slots.get(name, b"")) for name, data in changes.items()
        )
        if grown > 0 and before + grown > hard:
            raise HandlerError(
                "STATE_TOO_LARGE",
                f"The session's state would take {before + grown} bytes; {hard:.0f} are allowed.",
                details={"size_bytes": before + grown, "limit_bytes": int(hard)},
            )

    # -- figures -------------------------------------------------------------------------

    def used(self, name: str, cell: Cell, now_mono: float) -> float:
        """How much of a budget is used."""
        if name == "cpu_s":
            return self._cpu.at(now_mono)
        if name == "wall_s":
            return self._wall.at(now_mono)
        if name == "sent_bytes":
            return self._sent_at(cell, now_mono)
        if name == "queued_bytes":
            return cell.mailbox.nbytes
        if name == "backlog_bytes":
            return max((peer.backlog_bytes for peer in cell.tabs.values()), default=0)
        return sum(map(len, cell.slots.values()))

    def _sent_at(self, cell: Cell, now_mono: float) -> float:
        """Connections count what they send; here is looked only now and then."""
        if self._sent is None:
            self._sent = Rolling(now_mono)
        total = cell.sent_bytes
        passed_s = now_mono - self._seen_mono
        share = min(1.0, WINDOW_S / passed_s) if passed_s > 0 else 1.0
        self._sent.add((total - self._seen_bytes) * share, now_mono)
        self._seen_bytes, self._seen_mono = total, now_mono
        return self._sent.at(now_mono)

    def report(self, cell: Cell, now_mono: float) -> dict[str, dict[str, float | None]]:
        """Every budget: ``{name: {"used", "soft", "hard"}}``; what runs now counts as wall time."""
        limits = self._budgets.limits()
        report: dict[str, dict[str, float | None]] = {}
        for name in NAMES:
            budget = limits.get(name)
            used = self.used(name, cell, now_mono)
            if name == "wall_s" and cell.actor is not None and cell.actor.running is not None:
                used += max(0.0, now_mono - cell.actor.running.started_mono)
            report[name] = {
                "used": round(used, 3) if name in {"cpu_s", "wall_s"} else round(used),
                "soft": budget.soft if budget is not None else None,
                "hard": budget.hard if budget is not None else None,
            }
        return report


class Budgets:
    """The limits of all sessions, and who is told. Limits are read when they are needed.

    Args:
        settings: those of the server, which operators may change.
        events: for operators who watch.
    """

    def __init__(self, settings: Settings, events: EventBus) -> None:
        self._settings = settings
        self._events = events

    @property
    def windows(self) -> int:
        """Windows in a row over a hard limit, then a session is suspended."""
        return self._settings.budget_windows

    def limits(self) -> dict[str, Budget]:
        """The budgets that have limits."""
        found = {name: getattr(self._settings, f"budget_{name}") for name in NAMES}
        return {name: budget for name, budget in found.items() if budget is not None}

    def state_hard(self) -> float:
        """The most bytes a state may grow to."""
        budget = self._settings.budget_state_bytes
        return budget.hard if budget is not None else math.inf

    def warned(self, cell: Cell, name: str, used: float, budget: Budget) -> None:
        """Over a soft limit: the user, operators and the log are told, once a minute."""
        facts = {"name": name, "used": round(used, 3), "soft": budget.soft, "hard": budget.hard}
        cell.note_budget(f"{name}_soft")
        self._events.emit("session.budget", sid=cell.sid, **facts)
        log.warning("session.budget", sid=cell.sid, user=cell.user.username, **facts)
        cell.notify("session.budget", facts)

    def throttled(self, cell: Cell, over: Over) -> None:
        """Over a hard limit: told once a window."""
        cell.note_budget(f"{over.name}_hard")
        self._events.emit("session.throttled", sid=cell.sid, budget=over.name, used=over.used)
        log.warning("session.throttled", sid=cell.sid, budget=over.name, used=over.used)

    def suspended(self, cell: Cell, over: Over) -> None:
        """Over it for too long: an operator has to look."""
        cell.note_budget(f"{over.name}_suspended")
        self._events.emit("session.suspended", sid=cell.sid, budget=over.name, used=over.used)
        log.error("session.suspended", sid=cell.sid, budget=over.name, used=over.used)
        cell.notify("session.suspended", {"reason": "budget", "budget": over.name})


def _over_error(over: Over) -> ReplyError:
    return ReplyError(
        ErrorCode.RATE_LIMITED,
        f"This session has used up its {over.name}: {over.used:.6g} of {over.limits.hard:.6g}.",
        details={
            "reason": "budget",
            "budget": over.name,
            "used": round(over.used, 3),
            "hard": over.limits.hard,
        },
        outcome="not_run",
        retry_after_ms=max(1, math.ceil(over.wait_s * 1000)),
    )


def _suspended_error() -> ReplyError:
    return ReplyError(
        ErrorCode.RATE_LIMITED,
        "This session was over its budget for too long; an operator has to let it go on.",
        details={"reason": "budget", "suspended": True},
        outcome="not_run",
        retry_after_ms=60_000,
    )
