"""What a store of sessions must do. Actors see this protocol and no store behind it.

Whatever a request changed, and its answer, is one `Commit`: it lands wholly or not at
all, and commits of one session land in the order of the calls. A store may answer
`commit` with None, "done already", so that a volatile store costs a frame nothing;
otherwise with an awaitable that ends when the change is durable.

A session that leaves memory needs no writing: all of it was committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from attrs import frozen as row

    from ecan.store.rows import (
        DocumentCheck,
        DocumentPage,
        DocumentRow,
        DocumentWrite,
        Ended,
        Expiring,
        Facts,
        LedgerRow,
        LetterRow,
        Order,
        PushRow,
        ReplyRow,
        SessionPage,
        SessionRow,
        SlotPage,
        Snapshot,
        TokenRow,
    )
else:  # see ecan.store.rows
    from attrs import define as row


@row(kw_only=True)
class Commit:
    """What one request changed; applied wholly or not at all.

    Attributes:
        incarnation: that did it; the store keeps the highest it has seen.
        begins: the incarnation is about to begin. Its number must never be given again, so
            even a store that may lose commits writes this one before it is done.
        slots: changed slots; None deletes.
        answer: the reply for the ledger. `IdUsedError` if its id is older than the ledger.
        pushes: sequence numbers follow on from those committed before.
        tokens: all tokens from now on; None: as before.
        facts: as they are now; None: as before.
        replies: to keep for resume.
        handed_out: the replies kept before this commit were handed out; applied before `replies`.
        letter: of the request, if it crashed.
        user_id: whose documents; needed with `checks` and `documents` only.
        checks: what must still be so, or `ConflictError`.
        documents: writes, in order.
    """

    sid: str
    incarnation: int
    begins: bool = False
    slots: dict[str, bytes | None] = attrs.field(factory=dict)
    answer: LedgerRow | None = None
    pushes: tuple[PushRow, ...] = ()
    tokens: tuple[TokenRow, ...] | None = None
    facts: Facts | None = None
    replies: tuple[ReplyRow, ...] = ()
    handed_out: bool = False
    letter: LetterRow | None = None
    user_id: int = 0
    checks: tuple[DocumentCheck, ...] = ()
    documents: tuple[DocumentWrite, ...] = ()


class SessionStore(Protocol):
    """Where sessions rest. All methods run on the loop and never block it.

    Every method may raise `StoreUnavailableError`: nothing was changed, later it may work.
    """

    @property
    def name(self) -> str:
        """As in the ready line: ``memory``, ``sqlite``, ``redis``."""

    @property
    def trouble(self) -> str | None:
        """Why changes cannot be written now, in words for an operator; None: all is well."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            StoreError: it cannot be used; the start ends.
        """

    async def close(self) -> None:
        """Write what is pending and let go; twice is fine."""

    async def create(self, snapshot: Snapshot) -> None:
        """Store a new session."""

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """Apply what a request changed; of a session that is not there, nothing.

        Returns:
            None if it is as durable as it gets, else an awaitable for that.

        Raises:
            StoreError: (or out of the awaitable) nothing was changed: `ConflictError`,
                `IdUsedError`, `StoreUnavailableError`, or the commit itself is wrong.
        """

    async def load(self, sid: str) -> Snapshot | Ended | None:
        """The session as committed, or why it is no more; None: it never was, or long ago."""

    async def delete(self, sid: str, reason: str) -> bool:
        """End the session and remember why, even if there is none (then False)."""

    async def count(self) -> int:
        """How many sessions are stored."""

    async def of_user(self, user_id: int) -> list[SessionRow]:
        """The sessions of a user, oldest first."""

    async def sids_of_user(self, user_id: int) -> Sequence[str]:
        """Their public ids, in any order: for who only counts them."""

    async def sessions(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        user_id: int | None = None,
        failed: bool | None = None,
    ) -> SessionPage:
        """A page of all sessions, by public id; does not get slower with their number.

        Args:
            limit: most rows of a page.
            cursor: from the page before; or any text: it goes on behind that.
            user_id: only those of this user.
            failed: only those that are given up, or are not.

        Raises:
            ValueError: the limit is less than 1.
        """

    async def slots(self, names: Sequence[str], limit: int, cursor: str | None = None) -> SlotPage:
        """Some slots of all sessions, as committed, in pages by public id.

        Args:
            names: of slots.
            limit: most sessions that are looked at for a page, so that none takes long.
            cursor: from the page before.

        Raises:
            ValueError: the limit is less than 1.
        """

    async def count_by_user(self) -> dict[int, int]:
        """How many sessions each user has; users without are missing."""

    async def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """Sessions whose ``last_active_at + timeout_s`` and ``keep_until_at`` have passed.

        Does not get slower with the number of sessions.
        """

    async def document(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """A document as committed."""

    async def documents(
        self,
        user_id: int,
        collection: str,
        *,
        prefix: str = "",
        order: Order = "key",
        cursor: str | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """A page of a collection, as of one moment.

        Args:
            user_id: whose.
            collection: its name.
            prefix: only keys that begin with it.
            order: see `Order`.
            cursor: from the page before, with the same prefix and order.
            limit: most documents of a page.

        Raises:
            ValueError: the cursor is none of ours, or the limit less than 1.
        """

    async def letters(self, limit: int, before: str | None = None) -> Sequence[LetterRow]:
        """Dead letters, newest first; ``before`` is the last crash id of the page before.

        Behind a letter that is not there any more there is nothing.
        """

    async def letter(self, crash_id: str) -> LetterRow | None:
        """One dead letter."""

    async def discard_letter(self, crash_id: str) -> bool:
        """Forget a dead letter; False if there is none."""

    async def letter_count(self) -> int:
        """How many dead letters there are."""
