"""What handlers may ask of the server. The actors and the composition root fulfil it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from ecan.config import Settings
    from ecan.handlers.accounts.service import AccountService
    from ecan.handlers.context import ConnectionContext, User, UserContext
    from ecan.handlers.registry import Registry
    from ecan.store import DocumentPage, DocumentRow, Order


class SessionPort(Protocol):
    """The running session, as its handlers see it."""

    @property
    def user(self) -> User:
        """Who is logged in."""

    @property
    def sid(self) -> str:
        """The session's public id."""

    def info(self, ctx: UserContext) -> dict[str, Any]:
        """What `session.info` answers."""

    def brief(self) -> dict[str, Any]:
        """What `ping` adds in a session: ``{"tabs", "incarnation", "restarts"}``."""

    def keep(self, seconds: float | None) -> dict[str, Any]:
        """Count as activity now; with seconds, do not reap before then."""

    def cancel(self, request_id: str) -> str:
        """Cancel a request: ``"cancelled"``, ``"cancelling"`` or ``"unknown"``."""

    def end(self, ctx: UserContext, reason: str) -> None:
        """End this session; the request that asks is answered when that is durable."""

    def renew_token(self, ctx: UserContext) -> dict[str, Any]:
        """Revoke every token of this session and issue one: ``{"token", "expires_at"}``.

        With the request's commit, or not at all.
        """

    def progress(self, ctx: UserContext, result: Any) -> None:
        """See `UserContext.progress`."""

    async def read_document(self, collection: str, key: str) -> DocumentRow | None:
        """A document of the session's user, as committed."""

    async def read_documents(
        self, collection: str, *, prefix: str, order: Order, cursor: str | None, limit: int
    ) -> DocumentPage:
        """A page of the user's documents: see `SessionStore.documents`."""

    async def call(
        self, ctx: UserContext, method: str, params: Any, timeout_s: float | None
    ) -> Any:
        """See `UserContext.call`."""


class Sessions(Protocol):
    """All sessions of the server."""

    async def open(self, ctx: ConnectionContext, user: User) -> dict[str, Any]:
        """Create a session and bind the connection after the reply.

        Returns:
            ``{"token", "session_id", "expires_at", "sid", "epoch", "seq"}``.

        Raises:
            ReplyError: SESSION_LIMIT, DRAINING.
        """

    async def resume(
        self, ctx: ConnectionContext, last_seq: int | None, epoch: str | None
    ) -> dict[str, Any]:
        """Bind the connection to the session whose credentials ``ctx`` carries, then replay.

        Raises:
            ReplyError: TOKEN_REQUIRED, INVALID_TOKEN, SESSION_*.
        """

    async def logout(self, ctx: ConnectionContext) -> None:
        """End the session whose credentials ``ctx`` carries.

        Raises:
            ReplyError: TOKEN_REQUIRED, INVALID_TOKEN, SESSION_*.
        """

    async def refresh(self, ctx: ConnectionContext) -> dict[str, Any]:
        """A new token for the session; the old one stays good for a short grace.

        Returns:
            ``{"token", "expires_at"}``.
        """

    async def of_user(self, user_id: int) -> list[dict[str, Any]]:
        """The user's sessions as `session.list` answers them."""

    async def close(self, sid: str, reason: str) -> bool:
        """End a session by its public id; False if there is none."""

    async def close_user(self, user_id: int, reason: str, *, but: str | None = None) -> int:
        """End all sessions of a user but one; how many."""

    def count(self) -> int:
        """Active and passivated sessions."""


class Server(Protocol):
    """The server, as handlers see it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop everything runs on."""

    @property
    def settings(self) -> Settings:
        """The configuration."""

    @property
    def registry(self) -> Registry:
        """All methods."""

    @property
    def accounts(self) -> AccountService:
        """Users and passwords."""

    @property
    def sessions(self) -> Sessions:
        """All sessions."""

    def status(self) -> dict[str, Any]:
        """What `get_system_status` answers."""

    def is_draining(self) -> bool:
        """Whether the server is shutting down."""
