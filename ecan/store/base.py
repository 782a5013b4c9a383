"""What a store of sessions must do. Actors see this protocol and no store behind it.

A session is written in two ways: `commit` after a request that changed something
(cheap, only what changed), and `save` when it leaves memory (everything). A store
may answer `commit` with None, "done already", so that a volatile store costs a
frame nothing; otherwise with an awaitable that ends when the change is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable


@attrs.frozen(kw_only=True)
class TokenRow:
    """A token as stored: hashed."""

    digest: bytes
    expires_at: float


@attrs.frozen(kw_only=True)
class LedgerRow:
    """An answered request."""

    request_id: str
    fingerprint: bytes
    frame: bytes
    at: float


@attrs.frozen(kw_only=True)
class PushRow:
    """A push that is kept for resume."""

    seq: int
    frame: bytes


@attrs.frozen(kw_only=True)
class SessionRow:
    """What identifies a session, and the facts about it that change rarely.

    Attributes:
        sid: public id.
        key: SHA-256 of the secret session id.
        user: the `User`, as plain JSON-able fields.
        created_at: UTC epoch seconds.
        last_active_at: UTC epoch seconds.
        keep_until_at: UTC epoch seconds; not idle before then, whatever its activity.
        failed: given up after a crash loop; only an operator revives it.
    """

    sid: str
    key: bytes
    user: dict[str, str | int]
    created_at: float
    last_active_at: float
    keep_until_at: float = 0.0
    incarnation: int
    restarts: int
    failed: bool
    epoch: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """A whole session at rest: enough to go on with it anywhere."""

    row: SessionRow
    seq: int
    slots: dict[str, bytes]
    tokens: tuple[TokenRow, ...]
    ledger: tuple[LedgerRow, ...]
    pushes: tuple[PushRow, ...]


@attrs.frozen(kw_only=True)
class Commit:
    """What one request changed; applied wholly or not at all.

    Attributes:
        slots: changed slots; None deletes.
        answer: the reply for the ledger.
        pushes: sequence numbers follow on from those committed before.
        tokens: all tokens from now on; None: as before.
    """

    sid: str
    incarnation: int
    slots: dict[str, bytes | None]
    answer: LedgerRow | None
    pushes: tuple[PushRow, ...]
    tokens: tuple[TokenRow, ...] | None = None


class SessionStore(Protocol):
    """Where sessions rest. All methods run on the loop and never block it."""

    @property
    def name(self) -> str:
        """As in the ready line: ``memory``, ``sqlite``, ``redis``."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            StoreError: it cannot be used; the start ends.
        """

    async def close(self) -> None:
        """Write what is pending and let go."""

    async def create(self, snapshot: Snapshot) -> None:
        """Store a new session."""

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """Apply what a request changed; commits of one session land in the order of the calls.

        Returns:
            None if it is as durable as it gets, else an awaitable for that.

        Raises:
            StoreError: (or out of the awaitable) nothing was changed.
        """

    async def save(self, snapshot: Snapshot) -> None:
        """Replace everything known of the session; it leaves memory."""

    async def load(self, sid: str) -> Snapshot | None:
        """The session as committed, or None."""

    async def delete(self, sid: str) -> None:
        """Forget the session; unknown ones are fine."""

    async def count(self) -> int:
        """How many sessions are stored."""
