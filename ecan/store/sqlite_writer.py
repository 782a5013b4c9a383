"""The database's side of `ecan.store.sqlite`: what was queued becomes one transaction.

Blocking, for one thread; knows nothing of the loop and of who waits.

Consecutive commits are merged before they are written: a slot that changed ten times
is written once, and each table gets one ``executemany`` for all sessions. A create,
save, delete or load is a barrier only for commits of its own session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import apsw
import attrs
import orjson

from ecan.errors import StoreError
from ecan.store.base import Commit, LedgerRow, PushRow, SessionRow, Snapshot, TokenRow
from ecan.store.memory import MAX_LEDGER_ROWS, MAX_PUSH_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


class StoreUnavailableError(StoreError):
    """Disk full, I/O error, locked: nothing was changed, and later it may work again."""


@attrs.frozen
class Put:
    """Store the session as it is in the snapshot, whatever was there."""

    sid: str
    snapshot: Snapshot


@attrs.frozen
class Delete:
    """Forget the session."""

    sid: str


@attrs.frozen
class Load:
    """Read the session; the outcome is a `Snapshot` or None."""

    sid: str


class Count:
    """The outcome is how many sessions there are."""


class ListSessions:
    """The outcome is a list of (sid, user_id, last_active_at)."""


Work: TypeAlias = Commit | Put | Delete | Load | Count | ListSessions
Writes = (Commit, Put, Delete)

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

_PARTS = ("slots", "tokens", "ledger", "pushes")
_PUT_SLOT = "INSERT OR REPLACE INTO slots VALUES (?, ?, ?)"
_PUT_TOKEN = "INSERT INTO tokens VALUES (?, ?, ?, ?)"  # noqa: S105 - SQL, no password
_PUT_ANSWER = "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)"
_PUT_PUSH = "INSERT INTO pushes VALUES (?, ?, ?)"


class Writer:
    """Applies batches of work to the file, each in one transaction.

    Args:
        connection: belongs to the thread that calls.
        path: for messages.
    """

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Do the work in order and make it durable.

        Work that is wrong in itself fails alone. If the file cannot be written, nothing of
        the batch is, but what only reads is answered from the file as it is.

        Returns:
            The outcomes, in order; a `StoreError` where the work failed. Never raises.
        """
        try:
            try:
                return self._transaction(batch, self._apply)
            except _OF_ONE_WORK:
                return self._transaction(batch, self._apply_each)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            return self._fail(batch, error)

    def close(self) -> None:
        """Move the journal into the file and let go.

        Raises:
            StoreError: the journal stays beside the file; nothing is lost by that.
        """
        try:
            self._rollback()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except apsw.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        finally:
            self._connection.close()

    def _transaction(
        self, batch: Sequence[Work], apply: Callable[[Sequence[Work]], list[Any]]
    ) -> list[Any]:
        writes = any(isinstance(work, Writes) for work in batch)
        try:
            self._rollback()  # if that failed the last time
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
            answers = self.run(reads)
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
        outcomes: list[Any] = []
        commits: dict[str, list[Commit]] = {}
        for work in batch:
            outcome: Any = None
            if isinstance(work, Commit):
                commits.setdefault(work.sid, []).append(work)
            elif isinstance(work, Count):  # commits neither make nor end sessions
                outcome = self._execute("SELECT count(*) FROM sessions")[0][0]
            elif isinstance(work, ListSessions):
                outcome = self._execute("SELECT sid, user_id, last_active_at FROM sessions")
            else:
                if work.sid in commits:
                    self._write_commits({work.sid: commits.pop(work.sid)})
                if isinstance(work, Put):
                    self._put(work.snapshot)
                elif isinstance(work, Delete):
                    self._delete(work.sid)
                else:
                    outcome = self._load(work.sid)
            outcomes.append(outcome)
        self._write_commits(commits)
        return outcomes

    def _write_commits(self, commits: dict[str, list[Commit]]) -> None:
        """Commits of sessions that are not there are left out."""
        if not commits:
            return
        rows: list[Any] = self._connection.executemany(
            "UPDATE sessions SET incarnation = ?, seq = coalesce(?, seq), answers = answers + ?"
            " WHERE sid = ? RETURNING sid, seq, answers",
            [_session_change(sid, changes) for sid, changes in commits.items()],
        ).fetchall()
        slots: dict[tuple[str, str], bytes | None] = {}
        tokens: dict[str, tuple[TokenRow, ...]] = {}
        ledger: list[tuple[Any, ...]] = []
        pushes: list[tuple[Any, ...]] = []
        for sid, _, answers in rows:
            given = [commit.answer for commit in commits[sid] if commit.answer is not None]
            ledger += _ledger_rows(sid, given, answers - len(given) + 1)
            for commit in commits[sid]:
                for name, data in commit.slots.items():
                    slots[sid, name] = data
                if commit.tokens is not None:
                    tokens[sid] = commit.tokens
                pushes += [(sid, push.seq, push.frame) for push in commit.pushes]
        old_answers = [(sid, n - MAX_LEDGER_ROWS) for sid, _, n in rows if n > MAX_LEDGER_ROWS]
        old_pushes = [(sid, n - MAX_PUSH_ROWS) for sid, n, _ in rows if n > MAX_PUSH_ROWS]
        gone = [key for key, data in slots.items() if data is None]
        kept = [(*key, data) for key, data in slots.items() if data is not None]
        self._many("DELETE FROM slots WHERE sid = ? AND name = ?", gone)
        self._many(_PUT_SLOT, kept)
        self._many("DELETE FROM tokens WHERE sid = ?", [(sid,) for sid in tokens])
        self._many(_PUT_TOKEN, [row for sid in tokens for row in _token_rows(sid, tokens[sid])])
        self._many(_PUT_ANSWER, ledger)
        self._many("DELETE FROM ledger WHERE sid = ? AND n <= ?", old_answers)
        self._many(_PUT_PUSH, pushes)
        self._many("DELETE FROM pushes WHERE sid = ? AND seq <= ?", old_pushes)

    def _put(self, snapshot: Snapshot) -> None:
        row, sid = snapshot.row, snapshot.row.sid
        self._delete(sid)
        ledger = snapshot.ledger[-MAX_LEDGER_ROWS:]
        values = {
            **{name: getattr(row, name) for name in _ROW_FIELDS},
            "user": orjson.dumps(row.user).decode(),
            "user_id": row.user["user_id"],
            "failed": int(row.failed),
            "seq": snapshot.seq,
            "answers": len(ledger),
        }
        columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        self._execute(f"INSERT INTO sessions ({columns}) VALUES ({places})", values)  # noqa: S608 - our own names
        self._many(_PUT_SLOT, [(sid, name, data) for name, data in snapshot.slots.items()])
        self._many(_PUT_TOKEN, _token_rows(sid, snapshot.tokens))
        self._many(_PUT_ANSWER, _ledger_rows(sid, ledger, 1))
        pushes = snapshot.pushes[-MAX_PUSH_ROWS:]
        self._many(_PUT_PUSH, [(sid, push.seq, push.frame) for push in pushes])

    def _delete(self, sid: str) -> None:
        for table in ("sessions", *_PARTS):
            self._execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608 - our own names

    def _load(self, sid: str) -> Snapshot | None:
        columns = ", ".join(_ROW_FIELDS)
        found = self._execute(f"SELECT seq, {columns} FROM sessions WHERE sid = ?", (sid,))  # noqa: S608 - our own names
        if not found:
            return None
        seq, *values = found[0]
        facts = dict(zip(_ROW_FIELDS, values, strict=True))
        facts |= {"user": orjson.loads(facts["user"]), "failed": bool(facts["failed"])}
        return Snapshot(
            row=SessionRow(**facts),
            seq=seq,
            slots=dict(self._execute("SELECT name, data FROM slots WHERE sid = ?", (sid,))),
            tokens=self._rows(TokenRow, "tokens", "n", sid),
            ledger=self._rows(LedgerRow, "ledger", "n", sid),
            pushes=self._rows(PushRow, "pushes", "seq", sid),
        )

    def _rows(self, kind: type[Any], table: str, order: str, sid: str) -> tuple[Any, ...]:
        names = [field.name for field in attrs.fields(kind)]
        sql = f"SELECT {', '.join(names)} FROM {table} WHERE sid = ? ORDER BY {order}"  # noqa: S608 - our own names
        found = self._execute(sql, (sid,))
        return tuple(kind(**dict(zip(names, row, strict=True))) for row in found)

    def _execute(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def _many(self, sql: str, rows: Iterable[Any]) -> None:
        self._connection.executemany(sql, rows)


_ROW_FIELDS = tuple(field.name for field in attrs.fields(SessionRow))


def _session_change(sid: str, commits: Sequence[Commit]) -> tuple[int, int | None, int, str]:
    seqs = [commit.pushes[-1].seq for commit in commits if commit.pushes]
    answers = sum(commit.answer is not None for commit in commits)
    return commits[-1].incarnation, seqs[-1] if seqs else None, answers, sid


def _token_rows(sid: str, tokens: Iterable[TokenRow]) -> list[tuple[Any, ...]]:
    return [(sid, n, token.digest, token.expires_at) for n, token in enumerate(tokens)]


def _ledger_rows(sid: str, answers: Iterable[LedgerRow], first: int) -> list[tuple[Any, ...]]:
    return [
        (sid, n, answer.request_id, answer.fingerprint, answer.frame, answer.at)
        for n, answer in enumerate(answers, first)
    ]
