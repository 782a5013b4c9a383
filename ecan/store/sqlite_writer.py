"""The database's side of `ecan.store.sqlite`: what was queued becomes one transaction.

Blocking, for one thread; knows nothing of the loop and of who waits.

Commits are gathered and written together (`ecan.store.sqlite_commits`). A create,
delete or load is a barrier only for commits of its own session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

from ecan.errors import StoreError, StoreUnavailableError
from ecan.store.base import Commit
from ecan.store.sqlite_commits import CommitGroup
from ecan.store.sqlite_journal import Journal
from ecan.store.sqlite_work import Load, Put, Read, Tables, Work, Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_OF_ONE_WORK = (
    # What SQLite or the binding says about the values of one work; all else is the file's.
    apsw.ConstraintError,
    apsw.TooBigError,
    apsw.MismatchError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
)


class Writer:
    """Applies batches of work to the file, each in one transaction.

    Args:
        connection: belongs to the thread that calls.
        tables: of the same connection.
        path: of the file.
        vfs: of SQLite, by name; None: the default one.
    """

    def __init__(
        self, connection: apsw.Connection, tables: Tables, path: Path, vfs: str | None = None
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._path = path
        self._journal = Journal(connection, path, vfs)

    def run(self, batch: Sequence[Work]) -> tuple[list[Any], bool]:
        """Do the work in order and make it durable.

        Work that is wrong in itself fails alone. If the file cannot be written, nothing of
        the batch is, but what only reads is answered from the file as it is.

        Returns:
            The outcomes, in order, a `StoreError` where the work failed; and whether
            anything was written. Never raises.
        """
        before = self._connection.total_changes()
        try:
            try:
                outcomes = self._transaction(batch, self._apply)
            except _OF_ONE_WORK:
                outcomes = self._transaction(batch, self._apply_each)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            return self._fail(batch, error), False
        return outcomes, self._connection.total_changes() > before

    def rest(self) -> None:
        """Between two batches, when whoever waited for the last one has been told."""
        self._journal.tend()

    def close(self, *, clean: bool) -> None:
        """Move the journal into the file and let go.

        Args:
            clean: everything that was acknowledged has been written.

        Raises:
            StoreError: the journal stays beside the file; nothing is lost by that.
        """
        try:
            try:
                self._journal.close()
                self._rollback()
                if clean:
                    self._tables.meta.end()
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.close()  # which tries the checkpoint too
        except apsw.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _transaction(
        self, batch: Sequence[Work], apply: Callable[[Sequence[Work]], list[Any]]
    ) -> list[Any]:
        writes = any(isinstance(work, Writes) for work in batch)
        try:
            self._rollback()  # if that failed the last time
            if writes:
                self._journal.check_room()
            self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            outcomes = apply(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        return outcomes

    def _rollback(self) -> None:
        # After some errors (disk full) SQLite has rolled back already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _fail(self, batch: Sequence[Work], error: Exception) -> list[Any]:
        reads = [work for work in batch if not isinstance(work, Writes)]
        failed = StoreUnavailableError(f"{self._path} cannot be used, nothing was changed: {error}")
        failed.__cause__ = error
        answers: list[Any] = [failed] * len(reads)
        if reads and len(reads) < len(batch):
            answers, _ = self.run(reads)
        answer = iter(answers)
        return [failed if isinstance(work, Writes) else next(answer) for work in batch]

    def _apply_each(self, batch: Sequence[Work]) -> list[Any]:
        outcomes: list[Any] = []
        for work in batch:
            self._connection.execute("SAVEPOINT work")
            try:
                outcomes += self._apply([work])
            except _OF_ONE_WORK as error:
                self._connection.execute("ROLLBACK TO work")
                failed = StoreError(f"{self._path}: {type(work).__name__} refused: {error}")
                failed.__cause__ = error
                outcomes.append(failed)
            self._connection.execute("RELEASE work")
        return outcomes

    def _apply(self, batch: Sequence[Work]) -> list[Any]:
        commits = [work for work in batch if isinstance(work, Commit)]
        group = CommitGroup(self._connection, self._tables, commits)
        outcomes = [self._do(work, group) for work in batch]
        group.write()
        return outcomes

    def _do(self, work: Work, group: CommitGroup) -> Any:
        if isinstance(work, Commit):
            return group.take(work)
        if isinstance(work, Read):
            if work.settled:
                group.write()
            return work.function(self._tables)
        group.write(work.sid)
        if isinstance(work, Load):
            return self._tables.sessions.load(work.sid)
        group.forget(work.sid)
        if isinstance(work, Put):
            return self._tables.sessions.put(work.snapshot)
        return self._tables.sessions.delete(work.sid, work.reason)
