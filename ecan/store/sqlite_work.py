"""What the loop asks of the store's thread, and the tables it is done with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from ecan.store.base import Commit
from ecan.store.sqlite_documents import Documents
from ecan.store.sqlite_letters import Letters
from ecan.store.sqlite_meta import Meta
from ecan.store.sqlite_sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from ecan.store.rows import Snapshot


class Tables:
    """All tables of a sessions file."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.meta = Meta(connection)
        self.sessions = Sessions(connection, self.meta)
        self.documents = Documents(connection)
        self.letters = Letters(connection)


@attrs.frozen
class Put:
    """Store the session as it is in the snapshot, whatever was there."""

    sid: str
    snapshot: Snapshot


@attrs.frozen
class Delete:
    """End the session; the outcome is whether there was one."""

    sid: str
    reason: str


@attrs.frozen
class Load:
    """Read the session."""

    sid: str


@attrs.frozen
class Read:
    """Anything that only reads.

    Attributes:
        function: its result is the outcome.
        settled: it looks at what commits change of sessions, so they are written before.
    """

    function: Callable[[Tables], Any]
    settled: bool = False


@attrs.frozen
class Change(Read):
    """As `Read`, and may write."""


Work: TypeAlias = Commit | Put | Delete | Load | Read
Writes = (Commit, Put, Delete, Change)
"""Work that needs a writing transaction."""
