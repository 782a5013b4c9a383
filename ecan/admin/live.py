"""Which settings can change while the server runs, and what has to be done then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.actors.messages import TimeoutsChanged
from ecan.observability import set_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.admin.ports import AdminPort
    from ecan.config import LoginRateLimit


def _look_at_budgets(port: AdminPort) -> None:
    for cell in port.directory:
        if cell.usage is not None:
            cell.usage.look_mono = 0.0  # at its next request


def live_settings(port: AdminPort) -> dict[str, Callable[[Any], object] | None]:
    """By variable; None: whoever uses it reads it each time."""

    def timeouts(_value: float) -> None:
        port.sessions.tell_supervisor(TimeoutsChanged())

    def rate_limit(_value: object) -> None:
        for cell in port.directory:
            cell.bucket = None  # the next frame makes one

    def budgets(_value: object) -> None:
        _look_at_budgets(port)

    def mailbox_size(size: int) -> None:
        for cell in port.directory:
            cell.mailbox.max_items = size

    def threads(count: int) -> None:
        port.environment.workers.max_threads = count

    def login_limit(limit: LoginRateLimit) -> None:
        port.accounts.limit_logins(limit.count, limit.per_s)

    def signup(is_open: bool) -> None:
        port.accounts.signup_open = is_open

    return {
        "ECAN_LOG_LEVEL": set_level,
        "ECAN_SESSION_TIMEOUT": timeouts,
        "ECAN_PASSIVATE_AFTER": timeouts,
        "ECAN_PASSIVATE_DETACHED_AFTER": timeouts,
        "ECAN_BUDGET_CPU": budgets,
        "ECAN_BUDGET_WALL": budgets,
        "ECAN_BUDGET_SENT": budgets,
        "ECAN_BUDGET_BACKLOG": budgets,
        "ECAN_BUDGET_QUEUED": budgets,
        "ECAN_BUDGET_STATE": budgets,
        "ECAN_BUDGET_WINDOWS": None,
        "ECAN_MAX_SESSIONS": None,
        "ECAN_MAX_SESSIONS_PER_USER": None,
        "ECAN_MAX_CONNECTIONS": None,
        "ECAN_MAILBOX_SIZE": mailbox_size,
        "ECAN_REQUEST_TIMEOUT": None,
        "ECAN_WORKER_THREADS": threads,
        "ECAN_RATE_LIMIT": rate_limit,
        "ECAN_LOGIN_RATE_LIMIT": login_limit,
        "ECAN_TOKEN_TTL": None,
        "ECAN_SIGNUP": signup,
        "ECAN_ALLOWED_ORIGINS": None,
        "ECAN_TRUSTED_PROXIES": None,
        "ECAN_DRAIN_TIMEOUT": None,
    }
