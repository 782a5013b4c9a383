"""What a store of sessions must do. Actors see this protocol and no store behind it.

Whatever a request changed, and its answer, is one `Commit`: it lands wholly or not at
all, and commits of one session land in the order of the calls. A store may answer
`commit` with None, "done already", so that a volatile store costs a frame nothing;
otherwise with an awaitable that ends when the change is durable.

A session that leaves memory needs no writing: all of it was committed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

MAX_LEDGER_ROWS = 256
"""Answers kept of a session (P10); a store may keep `LEDGER_SLACK` more, and trims in groups."""

LEDGER_SLACK = 64

MAX_USED_LOADED = 4096
"""Most hashes of forgotten request ids in a `Snapshot`; the store itself keeps them all."""

MAX_PUSH_ROWS = 1000
MAX_REPLY_ROWS = 1000
"""Pushes, and replies that nobody was there for, kept for resume (P12)."""

MAX_LETTERS = 1000
"""Dead letters kept, the newest."""

MAX_ENDED = 10_000
"""Ended sessions whose reason is kept, the newest."""

Order = Literal["key", "-key", "oldest", "newest"]
"""Of documents: by key up or down, or by when they were first put."""


def id_hash(request_id: str) -> int:
    """What is kept of a request id that is too old for the ledger: 64 bits, signed as in SQL."""
    digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


# -- sessions ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TokenRow:
    """A token as stored: hashed."""

    digest: bytes
    expires_at: float


@attrs.frozen(kw_only=True)
class LedgerRow:
    """An answered request; ``at`` is UTC epoch seconds."""

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
class ReplyRow:
    """A final response that no tab was there to take, kept for resume (P12).

    Attributes:
        request_id: of the request it answers.
        seq: of the last push before it: its place among the pushes.
        frame: the encoded response.
    """

    request_id: str
    seq: int
    frame: bytes


@attrs.frozen(kw_only=True)
class Facts:
    """What changes about a session without any request's doing.

    Attributes:
        last_active_at: UTC epoch seconds.
        keep_until_at: UTC epoch seconds; not idle before then, whatever its activity. 0: unset.
        restarts: how often it was restarted.
        failed: given up after a crash loop; only an operator revives it.
    """

    last_active_at: float
    keep_until_at: float = 0.0
    restarts: int = 0
    failed: bool = False


@attrs.frozen(kw_only=True)
class SessionRow:
    """What identifies a session, and the facts about it.

    Attributes:
        sid: public id.
        key: SHA-256 of the secret session id.
        user: the `User`, as plain JSON-able fields, ``user_id`` among them.
        created_at: UTC epoch seconds.
        incarnation: the highest that was ever begun.
        epoch: of the pushes' sequence numbers. A store whose numbers may have gone back
            (restored, or killed in a mode that may lose commits) answers another one.
    """

    sid: str
    key: bytes
    user: dict[str, str | int]
    created_at: float
    incarnation: int
    epoch: str
    facts: Facts


@attrs.frozen(kw_only=True)
class Snapshot:
    """A whole session at rest: enough to go on with it anywhere.

    Attributes:
        seq: of the last push.
        ledger: oldest first, at most `MAX_LEDGER_ROWS`.
        used: hashes (`id_hash`) of ids that are older than the ledger, oldest first; at
            most the newest `MAX_USED_LOADED`, so not always all.
        pushes, replies: oldest first.
    """

    row: SessionRow
    seq: int = 0
    slots: dict[str, bytes] = attrs.field(factory=dict)
    tokens: tuple[TokenRow, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    used: tuple[int, ...] = ()
    pushes: tuple[PushRow, ...] = ()
    replies: tuple[ReplyRow, ...] = ()


@attrs.frozen(kw_only=True)
class Ended:
    """A session that is no more, and why: ``logout``, ``idle``, ``killed`` and so on."""

    reason: str


@attrs.frozen(kw_only=True)
class Expiring:
    """Answer of `SessionStore.expiring`.

    Attributes:
        sids: sessions that have been idle for too long, the longest first. They are
            answered again until they are deleted or committed as active.
        next_at: UTC epoch seconds before which no session but those in `sids` will be; a
            bound, it may turn out later. In the past only if there were more than the limit.
            None: there are no others.
    """

    sids: tuple[str, ...]
    next_at: float | None


@attrs.frozen(kw_only=True)
class SessionPage:
    """Answer of `SessionStore.sessions`.

    Attributes:
        rows: by public id.
        cursor: goes on behind the last of them; None: there are no more.
    """

    rows: tuple[SessionRow, ...]
    cursor: str | None


@attrs.frozen(kw_only=True)
class SlotPage:
    """Answer of `SessionStore.slots`.

    Attributes:
        sessions: public id and the slots asked for; sessions without any are left out.
        cursor: goes on behind the last session looked at; None: there are no more.
    """

    sessions: tuple[tuple[str, dict[str, bytes]], ...]
    cursor: str | None


# -- documents of a user -----------------------------------------------------------------


@attrs.frozen(kw_only=True)
class DocumentRow:
    """One document of a user. Its version is never used twice within its collection."""

    key: str
    data: bytes
    version: int


@attrs.frozen(kw_only=True)
class DocumentPage:
    """Answer of `SessionStore.documents`.

    Attributes:
        version: of the whole collection: another one after every change in it. 0: never used.
        cursor: goes on behind the last document; None: there are no more.
    """

    documents: tuple[DocumentRow, ...]
    version: int
    cursor: str | None


@attrs.frozen(kw_only=True)
class DocumentCheck:
    """What a request has read: its commit fails with `ConflictError` if it is no longer so.

    Attributes:
        key: of the document; None: the whole collection, as it was listed.
        version: as read; 0: there was none.
    """

    collection: str
    key: str | None
    version: int


@attrs.frozen(kw_only=True)
class DocumentWrite:
    """A document to put, or to delete (``data`` None)."""

    collection: str
    key: str
    data: bytes | None


# -- dead letters ------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LetterRow:
    """A request that crashed its session (P9).

    Attributes:
        crash_id: as the client was told; identifies the letter.
        at: UTC epoch seconds.
        params: JSON, secrets redacted (P16).
        context: the committed slots before the request.
    """

    crash_id: str
    at: float
    sid: str
    user_id: int
    username: str
    method: str
    request_id: str
    incarnation: int
    params: bytes
    error: str
    traceback: str
    context: dict[str, bytes]


# -- the store ---------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
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
