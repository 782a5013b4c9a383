"""What a store keeps of sessions, as values; and how much of it at most.

Nobody changes a row: it is in a cell, in commits on their way and in a memory store at once.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from attrs import frozen as row
else:  # a third of the time to make one; that nobody changes it, mypy sees
    from attrs import define as row

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


@row(kw_only=True)
class TokenRow:
    """A token as stored: hashed."""

    digest: bytes
    expires_at: float


@row(kw_only=True)
class LedgerRow:
    """An answered request; ``at`` is UTC epoch seconds."""

    request_id: str
    fingerprint: bytes
    frame: bytes
    at: float


@row(kw_only=True)
class PushRow:
    """A push that is kept for resume."""

    seq: int
    frame: bytes


@row(kw_only=True)
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


@row(kw_only=True)
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


@row(kw_only=True)
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


@row(kw_only=True)
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


@row(kw_only=True)
class Ended:
    """A session that is no more, and why: ``logout``, ``idle``, ``killed`` and so on."""

    reason: str


@row(kw_only=True)
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


@row(kw_only=True)
class SessionPage:
    """Answer of `SessionStore.sessions`.

    Attributes:
        rows: by public id.
        cursor: goes on behind the last of them; None: there are no more.
    """

    rows: tuple[SessionRow, ...]
    cursor: str | None


@row(kw_only=True)
class SlotPage:
    """Answer of `SessionStore.slots`.

    Attributes:
        sessions: public id and the slots asked for; sessions without any are left out.
        cursor: goes on behind the last session looked at; None: there are no more.
    """

    sessions: tuple[tuple[str, dict[str, bytes]], ...]
    cursor: str | None


# -- documents of a user -----------------------------------------------------------------


@row(kw_only=True)
class DocumentRow:
    """One document of a user. Its version is never used twice within its collection."""

    key: str
    data: bytes
    version: int


@row(kw_only=True)
class DocumentPage:
    """Answer of `SessionStore.documents`.

    Attributes:
        version: of the whole collection: another one after every change in it. 0: never used.
        cursor: goes on behind the last document; None: there are no more.
    """

    documents: tuple[DocumentRow, ...]
    version: int
    cursor: str | None


@row(kw_only=True)
class DocumentCheck:
    """What a request has read: its commit fails with `ConflictError` if it is no longer so.

    Attributes:
        key: of the document; None: the whole collection, as it was listed.
        version: as read; 0: there was none.
    """

    collection: str
    key: str | None
    version: int


@row(kw_only=True)
class DocumentWrite:
    """A document to put, or to delete (``data`` None)."""

    collection: str
    key: str
    data: bytes | None


# -- dead letters ------------------------------------------------------------------------


@row(kw_only=True)
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
