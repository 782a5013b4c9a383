"""Sessions in SQLite, one at a time: put, delete, load, and look for many by index.

What commits change is in `ecan.store.sqlite_commits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw
import attrs
import orjson

from ecan.store.rows import (
    MAX_ENDED,
    MAX_LEDGER_ROWS,
    MAX_PUSH_ROWS,
    MAX_REPLY_ROWS,
    MAX_USED_LOADED,
    Ended,
    Expiring,
    Facts,
    LedgerRow,
    PushRow,
    ReplyRow,
    SessionPage,
    SessionRow,
    SlotPage,
    Snapshot,
    TokenRow,
    id_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ecan.store.sqlite_meta import Meta

PUT_SLOT = "INSERT OR REPLACE INTO slots VALUES (?, ?, ?)"
PUT_TOKEN = "INSERT INTO tokens VALUES (?, ?, ?, ?)"  # noqa: S105 - SQL, no password
PUT_ANSWER = "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)"
PUT_PUSH = "INSERT INTO pushes VALUES (?, ?, ?)"
PUT_REPLY = "INSERT INTO replies VALUES (?, ?, ?, ?, ?)"
PUT_USED = "INSERT OR IGNORE INTO used_ids VALUES (?, ?, ?)"

_PARTS = ("slots", "tokens", "ledger", "used_ids", "pushes", "replies")
_FACTS = tuple(field.name for field in attrs.fields(Facts))
_ROW = (
    "sid", "key", "user", "created_at", "incarnation", "epoch", "generation", *_FACTS,
)  # fmt: skip
_PUT_SESSION = (
    "INSERT INTO sessions (sid, key, user, user_id, created_at, incarnation, epoch, generation,"
    " last_active_at, keep_until_at, restarts, failed, held_until, seq, answers, replies)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT_ROW = f"SELECT {', '.join(_ROW)} FROM sessions"  # noqa: S608 - our own names


class Sessions:
    """The table ``sessions``, and those of what belongs to a session."""

    def __init__(self, connection: apsw.Connection, meta: Meta) -> None:
        self._connection = connection
        self._meta = meta

    def put(self, snapshot: Snapshot) -> None:
        """Store the session as it is in the snapshot, whatever was there."""
        try:
            self._put(snapshot)
        except apsw.ConstraintError:  # there is one, or the values are wrong, then it raises again
            self._remove(snapshot.row.sid)
            self._put(snapshot)

    def _put(self, snapshot: Snapshot) -> None:
        row, facts, sid = snapshot.row, snapshot.row.facts, snapshot.row.sid
        ledger = snapshot.ledger[-MAX_LEDGER_ROWS:]
        replies = snapshot.replies[-MAX_REPLY_ROWS:]
        self._connection.execute(
            _PUT_SESSION,
            (
                sid,
                row.key,
                orjson.dumps(row.user).decode(),
                row.user["user_id"],
                row.created_at,
                row.incarnation,
                row.epoch,
                self._meta.generation,
                facts.last_active_at,
                facts.keep_until_at,
                facts.restarts,
                int(facts.failed),
                held_until(facts),
                snapshot.seq,
                len(ledger),
                len(replies),
            ),
        )
        many = self._connection.executemany
        many(PUT_TOKEN, token_rows(sid, snapshot.tokens))
        if snapshot.slots:
            many(PUT_SLOT, [(sid, name, data) for name, data in snapshot.slots.items()])
        if ledger:
            many(PUT_ANSWER, ledger_rows(sid, ledger, 1))
        forgotten = [id_hash(answer.request_id) for answer in snapshot.ledger[:-MAX_LEDGER_ROWS]]
        used = (*snapshot.used, *forgotten)
        if used:
            many(PUT_USED, [(sid, used_hash, n - len(used)) for n, used_hash in enumerate(used, 1)])
        if snapshot.pushes:
            pushes = snapshot.pushes[-MAX_PUSH_ROWS:]
            many(PUT_PUSH, [(sid, push.seq, push.frame) for push in pushes])
        if replies:
            many(PUT_REPLY, reply_rows(sid, replies, 1))

    def delete(self, sid: str, reason: str) -> bool:
        """See `SessionStore.delete`."""
        there = self._remove(sid)
        self._connection.execute(
            "INSERT OR REPLACE INTO ended (sid, reason, at) VALUES (?, ?, unixepoch('subsec'))",
            (sid, reason),
        )
        self._connection.execute(
            "DELETE FROM ended WHERE n <= ?", (self._connection.last_insert_rowid() - MAX_ENDED,)
        )
        return there

    def _remove(self, sid: str) -> bool:
        self._connection.execute("DELETE FROM sessions WHERE sid = ?", (sid,))
        if not self._connection.changes():
            return False
        for table in _PARTS:
            self._connection.execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608 - our own names
        return True

    def exists(self, sid: str) -> bool:
        """Whether there is such a session."""
        return bool(self._connection.execute("SELECT 1 FROM sessions WHERE sid = ?", (sid,)).get)

    def load(self, sid: str) -> Snapshot | Ended | None:
        """See `SessionStore.load`."""
        found = self._rows(f"{_SELECT_ROW} WHERE sid = ?", sid)
        if not found:
            reason = self._connection.execute("SELECT reason FROM ended WHERE sid = ?", (sid,)).get
            return None if reason is None else Ended(reason=reason)
        ((seq, answers),) = self._rows("SELECT seq, answers FROM sessions WHERE sid = ?", sid)
        ledger = self._rows(
            "SELECT request_id, fingerprint, frame, at, n FROM ledger WHERE sid = ? ORDER BY n", sid
        )
        old = [id_hash(row[0]) for row in ledger if row[4] <= answers - MAX_LEDGER_ROWS]
        used = self._rows(
            "SELECT hash FROM used_ids WHERE sid = ? ORDER BY n DESC LIMIT ?",
            sid,
            MAX_USED_LOADED - len(old),
        )
        return Snapshot(
            row=self._row(found[0]),
            seq=seq,
            slots=dict(self._rows("SELECT name, data FROM slots WHERE sid = ?", sid)),
            tokens=tuple(
                TokenRow(digest=digest, expires_at=at)
                for digest, at in self._rows(
                    "SELECT digest, expires_at FROM tokens WHERE sid = ? ORDER BY n", sid
                )
            ),
            ledger=tuple(
                LedgerRow(request_id=request_id, fingerprint=fingerprint, frame=frame, at=at)
                for request_id, fingerprint, frame, at, _ in ledger[len(old) :]
            ),
            used=(*(row[0] for row in reversed(used)), *old),
            pushes=tuple(
                PushRow(seq=seq, frame=frame)
                for seq, frame in self._rows(
                    "SELECT seq, frame FROM pushes WHERE sid = ? AND seq > ? ORDER BY seq",
                    sid,
                    seq - MAX_PUSH_ROWS,
                )
            ),
            replies=tuple(
                ReplyRow(request_id=request_id, seq=seq, frame=frame)
                for request_id, seq, frame in self._rows(
                    "SELECT request_id, seq, frame FROM replies WHERE sid = ? ORDER BY n", sid
                )
            ),
        )

    def count(self) -> int:
        """See `SessionStore.count`; SQLite walks the smallest index, 100 sessions a page."""
        return int(self._connection.execute("SELECT count(*) FROM sessions").get)

    def of_user(self, user_id: int) -> list[SessionRow]:
        """See `SessionStore.of_user`."""
        sql = f"{_SELECT_ROW} WHERE user_id = ? ORDER BY created_at, sid"
        return [self._row(row) for row in self._rows(sql, user_id)]

    def sids_of_user(self, user_id: int) -> list[str]:
        """See `SessionStore.sids_of_user`; all of it is in an index."""
        return [sid for (sid,) in self._rows("SELECT sid FROM sessions WHERE user_id = ?", user_id)]

    def page(
        self, limit: int, cursor: str | None, user_id: int | None, failed: bool | None
    ) -> SessionPage:
        """See `SessionStore.sessions`; by the primary key, or by an index that is as small."""
        wanted = ["sid > ?"]
        values: list[Any] = [cursor or ""]
        if user_id is not None:
            wanted.append("user_id = ?")
            values.append(user_id)
        if failed is not None:
            wanted.append(f"failed = {int(failed)}")  # as the partial index has it
        sql = f"{_SELECT_ROW} WHERE {' AND '.join(wanted)} ORDER BY sid LIMIT ?"
        found = self._rows(sql, *values, limit + 1)
        rows = tuple(self._row(row) for row in found[:limit])
        return SessionPage(rows=rows, cursor=rows[-1].sid if len(found) > limit else None)

    def slots(self, names: Sequence[str], limit: int, cursor: str | None) -> SlotPage:
        """See `SessionStore.slots`; both tables by their primary keys."""
        sids = self._rows(
            "SELECT sid FROM sessions WHERE sid > ? ORDER BY sid LIMIT ?", cursor or "", limit + 1
        )
        found: dict[str, dict[str, bytes]] = {}
        for sid, name, data in self._connection.executemany(
            "SELECT sid, name, data FROM slots WHERE sid = ? AND name = ?",
            [(sid, name) for (sid,) in sids[:limit] for name in names],
        ):
            found.setdefault(sid, {})[name] = data
        more = sids[limit - 1][0] if len(sids) > limit else None
        return SlotPage(sessions=tuple(found.items()), cursor=more)

    def count_by_user(self) -> dict[int, int]:
        """See `SessionStore.count_by_user`; one walk of an index."""
        return dict(self._rows("SELECT user_id, count(*) FROM sessions GROUP BY user_id"))

    def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """See `SessionStore.expiring`.

        A session with ``keep_until_at`` is in the index of the held ones until that has
        passed, then in the index of idle ones, so neither is searched past what is found.
        """
        # Each once after its keep_until_at was set; asked first, for that needs no writing.
        held = "SELECT sid FROM sessions WHERE held_until > 0 AND held_until <= ?"
        if self._rows(f"{held} LIMIT 1", now_at):
            self._connection.execute(
                f"UPDATE sessions SET held_until = 0 WHERE sid IN ({held})",  # noqa: S608 - as above
                (now_at,),
            )
        idle = self._rows(
            "SELECT sid, last_active_at FROM sessions WHERE held_until = 0"
            " ORDER BY last_active_at LIMIT ?",
            max(limit, 0) + 1,
        )
        due = [(sid, at) for sid, at in idle[: max(limit, 0)] if at + timeout_s <= now_at]
        nexts = [at + timeout_s for _, at in idle[len(due) : len(due) + 1]]
        nexts += self._rows_of_one("SELECT min(held_until) FROM sessions WHERE held_until > 0")
        return Expiring(sids=tuple(sid for sid, _ in due), next_at=min(nexts, default=None))

    def _row(self, values: tuple[Any, ...]) -> SessionRow:
        facts = dict(zip(_ROW, values, strict=True))
        return SessionRow(
            sid=facts["sid"],
            key=facts["key"],
            user=orjson.loads(facts["user"]),
            created_at=facts["created_at"],
            incarnation=facts["incarnation"],
            epoch=self._meta.epoch(facts["epoch"], facts["generation"]),
            facts=Facts(
                **{name: facts[name] for name in _FACTS if name != "failed"},
                failed=bool(facts["failed"]),
            ),
        )

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def _rows_of_one(self, sql: str) -> list[float]:
        return [value for (value,) in self._rows(sql) if value is not None]


def held_until(facts: Facts) -> float:
    """``keep_until_at``, or 0 if the last activity counts for longer whatever the time-out."""
    return facts.keep_until_at if facts.keep_until_at > facts.last_active_at else 0.0


def token_rows(sid: str, tokens: Iterable[TokenRow]) -> list[tuple[Any, ...]]:
    """For `PUT_TOKEN`."""
    return [(sid, n, token.digest, token.expires_at) for n, token in enumerate(tokens)]


def ledger_rows(sid: str, answers: Iterable[LedgerRow], first: int) -> list[tuple[Any, ...]]:
    """For `PUT_ANSWER`, numbered from `first`."""
    return [
        (sid, answer.request_id, n, answer.fingerprint, answer.frame, answer.at)
        for n, answer in enumerate(answers, first)
    ]


def reply_rows(sid: str, replies: Iterable[ReplyRow], first: int) -> list[tuple[Any, ...]]:
    """For `PUT_REPLY`, numbered from `first`."""
    return [
        (sid, n, reply.request_id, reply.seq, reply.frame) for n, reply in enumerate(replies, first)
    ]
