"""Commits of one batch: checked one by one, written together.

A slot that changed ten times is written once, and each table gets one ``executemany``
for all sessions. What others may depend on within the batch, documents and dead
letters, is written when the commit is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.errors import ConflictError, IdUsedError
from ecan.store.rows import LEDGER_SLACK, MAX_LEDGER_ROWS, MAX_PUSH_ROWS, MAX_REPLY_ROWS, id_hash
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
    from ecan.store.base import Commit
    from ecan.store.rows import Facts, LedgerRow, PushRow, TokenRow
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
        found = _Rows()
        for row in rows:
            found.add(row, commits[row[0]])
        for sql, values in found.by_statement():
            if values:
                self._connection.executemany(sql, values)
        for trim in found.trims:
            self._trim(*trim)

    def _trim(self, sid: str, last: int) -> None:
        """Of the answers up to that one only the hashes of their ids stay."""
        old: list[tuple[Any, ...]] = self._connection.execute(
            "DELETE FROM ledger WHERE sid = ? AND n <= ? RETURNING request_id, n", (sid, last)
        ).fetchall()
        used = [(sid, id_hash(request_id), n) for request_id, n in old]
        self._connection.executemany(PUT_USED, used)
        self._connection.execute("UPDATE sessions SET trimmed = ? WHERE sid = ?", (last, sid))


class _Rows:
    """What a batch writes, by statement: gathered in one walk, for it costs what SQLite costs."""

    def __init__(self) -> None:
        self.slots: dict[tuple[str, str], bytes | None] = {}
        self.tokens: dict[str, tuple[TokenRow, ...]] = {}
        self.facts: dict[str, Facts] = {}
        self.ledger: list[tuple[Any, ...]] = []
        self.trims: list[tuple[str, int]] = []
        self.pushes: list[tuple[str, int, bytes]] = []
        self.old_pushes: list[tuple[str, int]] = []
        self.replies: list[tuple[Any, ...]] = []
        self.old_replies: list[tuple[str, int]] = []

    def add(self, row: tuple[Any, ...], commits: Sequence[Commit]) -> None:
        """All commits of a session; the row is what `_UPDATE` returned."""
        sid, seq, answers, trimmed, replies = row
        given: list[LedgerRow] = []
        pushes: list[PushRow] = []
        with_replies = False
        for commit in commits:
            for name, data in commit.slots.items():
                self.slots[sid, name] = data
            if commit.answer is not None:
                given.append(commit.answer)
            pushes += commit.pushes
            with_replies |= commit.handed_out or bool(commit.replies)
            if commit.tokens is not None:
                self.tokens[sid] = commit.tokens
            if commit.facts is not None:
                self.facts[sid] = commit.facts
        if given:
            self.ledger += ledger_rows(sid, given, answers - len(given) + 1)
            if answers - trimmed > MAX_LEDGER_ROWS + LEDGER_SLACK:
                self.trims.append((sid, answers - MAX_LEDGER_ROWS))
        if pushes:
            self._add_pushes(sid, pushes, seq)
        if with_replies:
            self._add_replies(sid, commits, replies)

    def _add_pushes(self, sid: str, pushes: Sequence[PushRow], seq: int) -> None:
        self.pushes += [(sid, push.seq, push.frame) for push in pushes]
        if any(push.seq % PUSH_SLACK == 0 for push in pushes):
            self.old_pushes.append((sid, seq - MAX_PUSH_ROWS))

    def _add_replies(self, sid: str, commits: Sequence[Commit], last: int) -> None:
        kept, handed_out = _replies(commits)
        oldest = len(kept) if handed_out else MAX_REPLY_ROWS
        self.old_replies.append((sid, last - min(oldest, MAX_REPLY_ROWS)))
        self.replies += reply_rows(sid, kept, last - len(kept) + 1)

    def by_statement(self) -> Iterable[tuple[str, list[Any]]]:
        """Statements in the order they are to be executed, each with all its values."""
        gone = [key for key, data in self.slots.items() if data is None]
        yield "DELETE FROM slots WHERE sid = ? AND name = ?", gone
        yield PUT_SLOT, [(*key, data) for key, data in self.slots.items() if data is not None]
        yield "DELETE FROM tokens WHERE sid = ?", [(sid,) for sid in self.tokens]
        yield (
            PUT_TOKEN,
            [row for sid, given in self.tokens.items() for row in token_rows(sid, given)],
        )
        yield _FACTS, [_facts_change(sid, facts) for sid, facts in self.facts.items()]
        yield PUT_ANSWER, self.ledger
        yield PUT_PUSH, self.pushes
        yield "DELETE FROM pushes WHERE sid = ? AND seq <= ?", self.old_pushes
        yield PUT_REPLY, self.replies
        yield "DELETE FROM replies WHERE sid = ? AND n <= ?", self.old_replies


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


def _facts_change(sid: str, facts: Facts) -> tuple[Any, ...]:
    return (
        facts.last_active_at,
        facts.keep_until_at,
        facts.restarts,
        int(facts.failed),
        sid,
        held_until(facts),
    )


def _session_change(sid: str, commits: Sequence[Commit]) -> tuple[Any, ...]:
    if len(commits) == 1:  # nearly always; each has its cost at thousands a second
        (commit,) = commits
        seq = commit.pushes[-1].seq if commit.pushes else None
        answers = 0 if commit.answer is None else 1
        return commit.incarnation, seq, answers, len(commit.replies), sid
    seqs = [commit.pushes[-1].seq for commit in commits if commit.pushes]
    answers = sum(commit.answer is not None for commit in commits)
    replies = len(_replies(commits)[0])
    incarnation = max(commit.incarnation for commit in commits)
    return incarnation, seqs[-1] if seqs else None, answers, replies, sid
