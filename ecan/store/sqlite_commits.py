"""Commits of one batch: checked one by one, written together.

A slot that changed ten times is written once, and each table gets one ``executemany``
for all sessions. What others may depend on within the batch, documents and dead
letters, is written when the commit is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.errors import ConflictError, IdUsedError
from ecan.store.base import (
    LEDGER_SLACK,
    MAX_LEDGER_ROWS,
    MAX_PUSH_ROWS,
    MAX_REPLY_ROWS,
    Commit,
    id_hash,
)
from ecan.store.sqlite_sessions import (
    PUT_ANSWER,
    PUT_PUSH,
    PUT_REPLY,
    PUT_SLOT,
    PUT_TOKEN,
    PUT_USED,
    held_until,
    ledger_rows,
    reply_rows,
    token_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import apsw

    from ecan.errors import StoreError
    from ecan.store.base import TokenRow
    from ecan.store.sqlite_work import Tables

PUSH_SLACK = 64
"""Pushes are trimmed when one of them has a number that this divides: not with each commit."""

_IS_USED = (
    "SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM ledger WHERE sid = ?1 AND request_id = ?2)"
    " OR EXISTS (SELECT 1 FROM used_ids WHERE sid = ?1 AND hash = ?3)"
)
_UPDATE = (
    "UPDATE sessions SET incarnation = max(incarnation, ?), seq = coalesce(?, seq),"
    " answers = answers + ?, replies = replies + ?"
    " WHERE sid = ? RETURNING sid, seq, answers, trimmed, replies"
)
_FACTS = (
    "UPDATE sessions SET last_active_at = ?1, keep_until_at = ?2, held_until = ?6,"
    " restarts = ?3, failed = ?4 WHERE sid = ?5"
)


class CommitGroup:
    """The commits of one batch, between being taken and being written.

    Args:
        connection: in a transaction.
        tables: of the same connection.
        commits: all of the batch; their request ids are looked up at once.
    """

    def __init__(
        self, connection: apsw.Connection, tables: Tables, commits: Iterable[Commit]
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._pending: dict[str, list[Commit]] = {}
        self._answered: dict[str, set[str]] = {}  # by session: ids that are used
        self._afresh: set[str] = set()  # made or ended since the look-up
        asked = [_question(c.sid, c.answer.request_id) for c in commits if c.answer is not None]
        found: Iterable[tuple[Any, ...]] = connection.executemany(_IS_USED, asked)
        for sid, request_id in found:
            self._answered.setdefault(sid, set()).add(request_id)

    def take(self, commit: Commit) -> StoreError | None:
        """Check a commit, and have it written with the others.

        Returns:
            Why it is refused; then nothing of it is applied.
        """
        sid, answer = commit.sid, commit.answer
        if answer is not None and self._is_used(sid, answer.request_id):
            if not self._tables.sessions.exists(sid):  # nor was the one before it applied
                return None
            return IdUsedError(f"request id {answer.request_id!r} was answered before")
        if commit.checks or commit.documents or commit.letter is not None:
            if not self._tables.sessions.exists(sid):
                return None
            documents = self._tables.documents
            for check in commit.checks:
                if not documents.holds(commit.user_id, check):
                    return ConflictError(f"{check.collection!r} was changed since it was read")
            for write in commit.documents:
                documents.write(commit.user_id, write)
            if commit.letter is not None:
                self._tables.letters.put(commit.letter)
        if answer is not None:
            self._answered.setdefault(sid, set()).add(answer.request_id)
        self._pending.setdefault(sid, []).append(commit)
        return None

    def _is_used(self, sid: str, request_id: str) -> bool:
        if request_id in self._answered.get(sid, ()):
            return True
        if sid not in self._afresh:
            return False
        return bool(self._connection.execute(_IS_USED, _question(sid, request_id)).fetchall())

    def forget(self, sid: str) -> None:
        """The session is made anew, or ended: what was looked up holds no longer."""
        self._answered.pop(sid, None)
        self._afresh.add(sid)

    def write(self, sid: str | None = None) -> None:
        """Write what was taken, of one session or of all.

        Commits of sessions that are not there are left out.
        """
        if sid is None:
            commits, self._pending = self._pending, {}
        elif sid in self._pending:
            commits = {sid: self._pending.pop(sid)}
        else:
            return
        if not commits:
            return
        rows: list[tuple[Any, ...]] = self._connection.executemany(
            _UPDATE, [_session_change(sid, changes) for sid, changes in commits.items()]
        ).fetchall()
        present = {row[0]: commits[row[0]] for row in rows}
        self._write_slots(present)
        self._write_tokens(present)
        self._write_facts(present)
        self._write_answers(present, rows)
        self._write_pushes(present, rows)
        self._write_replies(present, rows)

    def _write_slots(self, commits: dict[str, list[Commit]]) -> None:
        slots = {
            (sid, name): data
            for sid, changes in commits.items()
            for commit in changes
            for name, data in commit.slots.items()
        }
        gone = [key for key, data in slots.items() if data is None]
        kept = [(*key, data) for key, data in slots.items() if data is not None]
        self._connection.executemany("DELETE FROM slots WHERE sid = ? AND name = ?", gone)
        self._connection.executemany(PUT_SLOT, kept)

    def _write_tokens(self, commits: dict[str, list[Commit]]) -> None:
        tokens: dict[str, tuple[TokenRow, ...]] = {
            sid: commit.tokens
            for sid, changes in commits.items()
            for commit in changes
            if commit.tokens is not None
        }
        rows = [row for sid, given in tokens.items() for row in token_rows(sid, given)]
        self._connection.executemany("DELETE FROM tokens WHERE sid = ?", [(sid,) for sid in tokens])
        self._connection.executemany(PUT_TOKEN, rows)

    def _write_facts(self, commits: dict[str, list[Commit]]) -> None:
        facts = {
            sid: commit.facts
            for sid, changes in commits.items()
            for commit in changes
            if commit.facts is not None
        }
        self._connection.executemany(
            _FACTS,
            [
                (
                    fact.last_active_at,
                    fact.keep_until_at,
                    fact.restarts,
                    int(fact.failed),
                    sid,
                    held_until(fact),
                )
                for sid, fact in facts.items()
            ],
        )

    def _write_answers(self, commits: dict[str, list[Commit]], rows: list[tuple[Any, ...]]) -> None:
        ledger: list[tuple[Any, ...]] = []
        for sid, _, answers, _, _ in rows:
            given = [commit.answer for commit in commits[sid] if commit.answer is not None]
            ledger += ledger_rows(sid, given, answers - len(given) + 1)
        self._connection.executemany(PUT_ANSWER, ledger)
        for sid, _, answers, trimmed, _ in rows:
            if answers - trimmed > MAX_LEDGER_ROWS + LEDGER_SLACK:
                self._trim(sid, answers - MAX_LEDGER_ROWS)

    def _trim(self, sid: str, last: int) -> None:
        """Of the answers up to that one only the hashes of their ids stay."""
        old: list[tuple[Any, ...]] = self._connection.execute(
            "DELETE FROM ledger WHERE sid = ? AND n <= ? RETURNING request_id, n", (sid, last)
        ).fetchall()
        used = [(sid, id_hash(request_id), n) for request_id, n in old]
        self._connection.executemany(PUT_USED, used)
        self._connection.execute("UPDATE sessions SET trimmed = ? WHERE sid = ?", (last, sid))

    def _write_pushes(self, commits: dict[str, list[Commit]], rows: list[tuple[Any, ...]]) -> None:
        pushes = [
            (sid, push.seq, push.frame)
            for sid, changes in commits.items()
            for commit in changes
            for push in commit.pushes
        ]
        due = {sid for sid, seq, _ in pushes if seq % PUSH_SLACK == 0}
        old = [(row[0], row[1] - MAX_PUSH_ROWS) for row in rows if row[0] in due]
        self._connection.executemany(PUT_PUSH, pushes)
        self._connection.executemany("DELETE FROM pushes WHERE sid = ? AND seq <= ?", old)

    def _write_replies(self, commits: dict[str, list[Commit]], rows: list[tuple[Any, ...]]) -> None:
        kept: list[tuple[Any, ...]] = []
        gone: list[tuple[str, int]] = []
        for sid, _, _, _, count in rows:
            given, handed_out = _replies(commits[sid])
            if given or handed_out:
                oldest = len(given) if handed_out else MAX_REPLY_ROWS
                gone.append((sid, count - min(oldest, MAX_REPLY_ROWS)))
                kept += reply_rows(sid, given, count - len(given) + 1)
        self._connection.executemany(PUT_REPLY, kept)
        self._connection.executemany("DELETE FROM replies WHERE sid = ? AND n <= ?", gone)


def _question(sid: str, request_id: str) -> tuple[str, str, int]:
    return sid, request_id, id_hash(request_id)


def _replies(commits: Sequence[Commit]) -> tuple[list[Any], bool]:
    """Those that are kept in the end, and whether the ones from before were handed out."""
    given: list[Any] = []
    handed_out = False
    for commit in commits:
        if commit.handed_out:
            handed_out = True
            given = []
        given += commit.replies
    return given, handed_out


def _session_change(sid: str, commits: Sequence[Commit]) -> tuple[Any, ...]:
    seqs = [commit.pushes[-1].seq for commit in commits if commit.pushes]
    answers = sum(commit.answer is not None for commit in commits)
    replies = len(_replies(commits)[0])
    incarnation = max(commit.incarnation for commit in commits)
    return incarnation, seqs[-1] if seqs else None, answers, replies, sid
