"""Documents of users in SQLite.

A collection counts its changes; the count is the version of the document that the
change put, and of the collection. Since the count is never reset, no version is used twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.store.cursors import by_key, prefix_end
from ecan.store.rows import DocumentPage, DocumentRow

if TYPE_CHECKING:
    import apsw

    from ecan.store.rows import DocumentCheck, DocumentWrite, Order

_OF = "user_id = :user_id AND collection = :collection"


class Documents:
    """The tables ``documents`` and ``collections``."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def holds(self, user_id: int, check: DocumentCheck) -> bool:
        """Whether it is still as it was read."""
        if check.key is None:
            return self._collection_version(user_id, check.collection) == check.version
        found = self._connection.execute(
            "SELECT version FROM documents WHERE user_id = ? AND collection = ? AND key = ?",
            (user_id, check.collection, check.key),
        ).get
        return (found or 0) == check.version

    def write(self, user_id: int, write: DocumentWrite) -> None:
        """Put or delete; deleting what is not there changes nothing."""
        name = (user_id, write.collection)
        if write.data is None:
            self._connection.execute(
                "DELETE FROM documents WHERE user_id = ? AND collection = ? AND key = ?",
                (*name, write.key),
            )
            if self._connection.changes():
                self._next_version(*name)
            return
        version = self._next_version(*name)
        self._connection.execute(
            "INSERT INTO documents (user_id, collection, key, data, version, created)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (user_id, collection, key)"
            " DO UPDATE SET data = excluded.data, version = excluded.version",
            (*name, write.key, write.data, version),
        )

    def get(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        rows: list[tuple[Any, ...]] = self._connection.execute(
            "SELECT data, version FROM documents WHERE user_id = ? AND collection = ? AND key = ?",
            (user_id, collection, key),
        ).fetchall()
        return DocumentRow(key=key, data=rows[0][0], version=rows[0][1]) if rows else None

    def page(
        self,
        user_id: int,
        collection: str,
        prefix: str,
        order: Order,
        cursor: str | None,
        limit: int,
    ) -> DocumentPage:
        """See `SessionStore.documents`; the cursor and the limit have been checked."""
        values: dict[str, Any] = {
            "user_id": user_id,
            "collection": collection,
            "prefix": prefix,
            "end": prefix_end(prefix),
            "limit": limit + 1,
        }
        wheres = [_OF]
        if prefix:
            wheres.append("key >= :prefix")
            if values["end"] is not None:
                wheres.append("key < :end")
        column = "key" if by_key(order) else "created"
        down = order in {"-key", "newest"}
        # A prefix selects by key; the unary + keeps SQLite from walking a whole collection by age.
        sorted_by = "+created" if prefix and column == "created" else column
        if cursor is not None:
            wheres.append(f"{sorted_by} {'<' if down else '>'} :cursor")
            values["cursor"] = cursor if column == "key" else int(cursor)
        direction = "DESC" if down else "ASC"
        # The data is fetched for the page only, not sorted with the rest.
        rows: list[tuple[Any, ...]] = self._connection.execute(
            "WITH page AS MATERIALIZED"  # noqa: S608 - our own words
            f" (SELECT n, {column} AS place FROM documents WHERE {' AND '.join(wheres)}"
            f" ORDER BY {sorted_by} {direction} LIMIT :limit)"
            " SELECT key, data, version, place FROM page JOIN documents USING (n)"
            f" ORDER BY place {direction}",
            values,
        ).fetchall()
        more = len(rows) > limit
        rows = rows[:limit]
        return DocumentPage(
            documents=tuple(DocumentRow(key=row[0], data=row[1], version=row[2]) for row in rows),
            version=self._collection_version(user_id, collection),
            cursor=str(rows[-1][3]) if more else None,
        )

    def _collection_version(self, user_id: int, name: str) -> int:
        found = self._connection.execute(
            "SELECT version FROM collections WHERE user_id = ? AND name = ?", (user_id, name)
        ).get
        return int(found or 0)

    def _next_version(self, user_id: int, name: str) -> int:
        return int(
            self._connection.execute(
                "INSERT INTO collections VALUES (?, ?, 1) ON CONFLICT (user_id, name)"
                " DO UPDATE SET version = version + 1 RETURNING version",
                (user_id, name),
            ).get
        )
