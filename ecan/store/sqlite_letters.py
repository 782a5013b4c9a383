"""Dead letters in SQLite: the newest `MAX_LETTERS`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from ecan.store.rows import MAX_LETTERS, LetterRow

if TYPE_CHECKING:
    import apsw

_FIELDS = tuple(field.name for field in attrs.fields(LetterRow))
_COLUMNS = ", ".join(_FIELDS)
_PUT = (
    f"INSERT OR REPLACE INTO dead_letters ({_COLUMNS})"  # noqa: S608 - our own names
    f" VALUES ({', '.join('?' * len(_FIELDS))})"
)
_SELECT = f"SELECT {_COLUMNS} FROM dead_letters"  # noqa: S608 - our own names


class Letters:
    """The table ``dead_letters``."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def put(self, letter: LetterRow) -> None:
        """Keep a letter, and forget the oldest of too many."""
        context = {
            name: base64.b64encode(data).decode("ascii") for name, data in letter.context.items()
        }
        values = [getattr(letter, name) for name in _FIELDS[:-1]]
        self._connection.execute(_PUT, (*values, orjson.dumps(context)))
        self._connection.execute(
            "DELETE FROM dead_letters WHERE n <= (SELECT n FROM dead_letters"
            " ORDER BY n DESC LIMIT 1 OFFSET ?)",
            (MAX_LETTERS,),
        )

    def page(self, limit: int, before: str | None) -> list[LetterRow]:
        """See `SessionStore.letters`."""
        found = self._connection.execute(
            f"{_SELECT} WHERE :before IS NULL"  # noqa: S608 - our own names
            " OR n < (SELECT n FROM dead_letters WHERE crash_id = :before)"
            " ORDER BY n DESC LIMIT :limit",
            {"before": before, "limit": max(limit, 0)},
        )
        return [_letter(row) for row in found]

    def get(self, crash_id: str) -> LetterRow | None:
        """See `SessionStore.letter`."""
        rows = self._connection.execute(f"{_SELECT} WHERE crash_id = ?", (crash_id,)).fetchall()
        return _letter(rows[0]) if rows else None

    def discard(self, crash_id: str) -> bool:
        """See `SessionStore.discard_letter`."""
        self._connection.execute("DELETE FROM dead_letters WHERE crash_id = ?", (crash_id,))
        return self._connection.changes() > 0

    def count(self) -> int:
        """See `SessionStore.letter_count`."""
        return int(self._connection.execute("SELECT count(*) FROM dead_letters").get)


def _letter(row: tuple[Any, ...]) -> LetterRow:
    facts = dict(zip(_FIELDS, row, strict=True))
    context = {name: base64.b64decode(data) for name, data in orjson.loads(row[-1]).items()}
    return LetterRow(**{**facts, "context": context})
