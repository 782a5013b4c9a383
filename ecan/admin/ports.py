"""What the commands may ask of the server: the composition root fulfils it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ecan.actors import Directory, Environment, PoisonGuard, SessionService
    from ecan.config import LiveSettings, Settings
    from ecan.handlers.accounts.service import AccountService
    from ecan.handlers.registry import Registry
    from ecan.observability import EventBus, Metrics
    from ecan.runtime import Clock
    from ecan.store import SessionStore


Function: TypeAlias = "Callable[[AdminPort, Any], Awaitable[Any]]"
"""A command: what it answers is JSON, what it raises becomes an error."""


class AdminPort(Protocol):
    """The server, as an operator's commands see it. Runs on: the loop."""

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""

    @property
    def live(self) -> LiveSettings:
        """How they change."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def events(self) -> EventBus:
        """What happens."""

    @property
    def registry(self) -> Registry:
        """All methods."""

    @property
    def metrics(self) -> Metrics:
        """All figures."""

    @property
    def guard(self) -> PoisonGuard:
        """Which methods are suspended."""

    @property
    def store(self) -> SessionStore:
        """Sessions at rest, dead letters."""

    @property
    def directory(self) -> Directory:
        """Sessions in memory."""

    @property
    def sessions(self) -> SessionService:
        """The way to the supervisor."""

    @property
    def accounts(self) -> AccountService:
        """Users."""

    @property
    def environment(self) -> Environment:
        """What every session shares: threads that run handlers."""

    def status(self) -> dict[str, Any]:
        """What `get_system_status` answers to users, for operators too."""

    def vitals(self) -> dict[str, Any]:
        """What only operators are told: rates, loop lag, stalls of the loop."""

    def collect_garbage(self) -> dict[str, Any]:
        """Look at all objects for cycles nobody can reach: ``{"seconds", "found"}`` (ADR 17)."""

    def is_draining(self) -> bool:
        """Whether the server is shutting down."""

    def ask_drain(self, timeout_s: float | None) -> None:
        """Begin what SIGTERM begins; None: ECAN_DRAIN_TIMEOUT."""

    def ask_shutdown(self) -> None:
        """Begin what a second SIGTERM begins."""

    async def reload_handlers(self) -> dict[str, Any]:
        """Load changed handler modules; see `handlers.reload` in the table.

        Raises:
            ReloadError: nothing was changed, and why.
        """
