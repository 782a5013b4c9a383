"""Where the sessions of a run come from: the admin socket, one account, or accounts made for it."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import attrs

from ecan.admin.client import AsyncClient
from ecan.loadtest.probe import Probe
from ecan.loadtest.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MADE_AT_ONCE = 500
"""Sessions in one answer of the admin socket."""

ACCOUNTS = 20
"""Made by ``--signup``; they share the sessions. ECAN_MAX_SESSIONS_PER_USER is 20."""

SIGNUP_PATIENCE_S = 120.0
CREATE_TIMEOUT_S = 120.0


@attrs.frozen
class Supply:
    """Credentials for users; one of the two, or accounts for logins.

    Attributes:
        sessions: credentials of sessions that are there already.
        accounts: name and password for each user.
        made_by: in words, for the report.
    """

    sessions: list[dict[str, str]]
    accounts: list[tuple[str, str]]
    made_by: str


async def by_admin_socket(
    path: Path, user: str, count: int, progress: Callable[[int], None]
) -> list[dict[str, str]]:
    """Make sessions in bulk.

    Raises:
        ClientError: nobody is there, or it said no.
    """
    sessions: list[dict[str, str]] = []
    async with AsyncClient(path, CREATE_TIMEOUT_S) as client:
        while len(sessions) < count:
            some = min(MADE_AT_ONCE, count - len(sessions))
            answer = await client.call("sessions.create", {"user": user, "count": some})
            sessions += [
                {"session_id": row["session_id"], "token": row["token"]}
                for row in answer["sessions"]
            ]
            progress(len(sessions))
    return sessions


async def log_out(url: str, many: list[dict[str, str]]) -> None:
    """End sessions that were made for the test, as far as that works."""
    async with Probe(url) as probe:
        for session in many:
            await probe.ask("logout", None, session)


async def sign_up(
    url: str, count: int, per_account: int, progress: Callable[[int], None]
) -> list[tuple[str, str]]:
    """Make accounts; each is given to ``per_account`` users.

    Raises:
        WireError: no answer, or signing up is closed.
    """
    run = secrets.token_hex(3)
    names = -(-count // per_account)
    accounts: list[tuple[str, str]] = []
    async with Probe(url) as probe:
        for number in range(names):
            account = (f"load-{run}-{number}", secrets.token_urlsafe(12))
            await _sign_up(probe, account)
            accounts.append(account)
            progress(len(accounts))
    return [accounts[i % names] for i in range(count)]


async def _sign_up(probe: Probe, account: tuple[str, str]) -> None:
    end = asyncio.get_running_loop().time() + SIGNUP_PATIENCE_S
    params: dict[str, Any] = {"username": account[0], "password": account[1]}
    while not (reply := await probe.ask("signup", params)).ok:
        error = reply.error or {}
        if not error.get("retryable") or asyncio.get_running_loop().time() > end:
            raise WireError(f"signup: {error.get('code')}: {error.get('message')}")
        await asyncio.sleep(error.get("retry_after_ms", 1000) / 1000)
