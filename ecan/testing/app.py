"""A whole server in this process, on a free port of the loopback address."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ecan.admin.client import AsyncClient
from ecan.app import App
from ecan.config import Settings
from ecan.testing.client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADMIN_PASSWORD = "correct horse battery"  # noqa: S105 - of servers that live for one test
USER_PASSWORD = "staple correct horse"  # noqa: S105


DEFAULTS: dict[str, Any] = {}
"""Settings of every server of a test, where it says nothing else: its transport."""


@attrs.frozen
class RunningApp:
    """A running server and how to reach it."""

    app: App
    url: str
    http: str

    def client(self, **options: Any) -> Client:
        """A client that is not connected yet; use it with ``async with``."""
        return Client(self.url, **options)

    @contextlib.asynccontextmanager
    async def logged_in(
        self, username: str = "admin", password: str = ADMIN_PASSWORD
    ) -> AsyncIterator[Client]:
        """A connected client with a session of its own."""
        async with self.client() as client:
            await client.login(username, password)
            yield client

    def admin(self) -> AsyncClient:
        """An operator that is not connected yet; use it with ``async with``."""
        return AsyncClient(self.app.settings.admin_socket)

    async def add_user(self, username: str, role: str = "user") -> None:
        """Make an account with `USER_PASSWORD`."""
        await self.app.accounts.create(username, USER_PASSWORD, role=role)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running_app(gui: Path | None = None, **settings: Any) -> AsyncIterator[RunningApp]:
    """Start a server with debug methods; stop it at the end.

    Args:
        gui: folder with a built browser app.
        settings: fields of `Settings` that differ from the tests' defaults.
    """
    with tempfile.TemporaryDirectory(prefix="ecan-test-") as folder:
        defaults: dict[str, Any] = {
            "mode": "web",
            "ws_host": "127.0.0.1",
            "ws_port": 0,
            "data_dir": Path(folder),
            "debug_methods": True,
            "admin_password": ADMIN_PASSWORD,
            "drain_timeout_s": 5.0,
        }
        app = App(Settings(**{**defaults, **DEFAULTS, **settings}), gui)
        await app.start()
        try:
            port = app.gateway.port
            yield RunningApp(app, f"ws://127.0.0.1:{port}/ws", f"http://127.0.0.1:{port}")
        finally:
            await app.stop()
