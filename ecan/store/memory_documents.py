"""Documents of users in dictionaries, with the versions of `ecan.store.sqlite_documents`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ecan.store.cursors import by_key, check_page
from ecan.store.rows import DocumentPage, DocumentRow

if TYPE_CHECKING:
    from ecan.store.rows import DocumentCheck, DocumentWrite, Order


@attrs.frozen
class _Document:
    row: DocumentRow
    created: int  # version at its first put


class _Collection:
    """Documents by key, and how often they were changed."""

    def __init__(self) -> None:
        self.version = 0
        self.documents: dict[str, _Document] = {}


class MemoryDocuments:
    """Documents by user and collection."""

    def __init__(self) -> None:
        self._collections: dict[tuple[int, str], _Collection] = {}

    def holds(self, user_id: int, check: DocumentCheck) -> bool:
        """Whether it is still as it was read."""
        collection = self._collections.get((user_id, check.collection))
        if collection is None:
            return check.version == 0
        if check.key is None:
            return check.version == collection.version
        found = collection.documents.get(check.key)
        return check.version == (found.row.version if found is not None else 0)

    def write(self, user_id: int, write: DocumentWrite) -> None:
        """Put or delete; deleting what is not there changes nothing."""
        name = user_id, write.collection
        before = self.get(user_id, write.collection, write.key)
        if write.data is None:
            if before is not None:
                self._collections[name].version += 1
                del self._collections[name].documents[write.key]
            return
        collection = self._collections.setdefault(name, _Collection())
        collection.version += 1
        created = collection.version if before is None else collection.documents[write.key].created
        row = DocumentRow(key=write.key, data=write.data, version=collection.version)
        collection.documents[write.key] = _Document(row, created)

    def get(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        found = self._collections.get((user_id, collection))
        document = found.documents.get(key) if found is not None else None
        return document.row if document is not None else None

    def page(
        self,
        user_id: int,
        collection: str,
        prefix: str,
        order: Order,
        cursor: str | None,
        limit: int,
    ) -> DocumentPage:
        """See `SessionStore.documents`."""
        check_page(prefix, order, cursor, limit)
        found = self._collections.get((user_id, collection)) or _Collection()
        chosen = [d for d in found.documents.values() if d.row.key.startswith(prefix)]
        down = order in {"-key", "newest"}
        if by_key(order):
            chosen.sort(key=lambda d: d.row.key, reverse=down)
            chosen = [d for d in chosen if cursor is None or _behind(d.row.key, cursor, down)]
        else:
            chosen.sort(key=lambda d: d.created, reverse=down)
            chosen = [d for d in chosen if cursor is None or _behind(d.created, int(cursor), down)]
        more = len(chosen) > limit
        chosen = chosen[:limit]
        return DocumentPage(
            documents=tuple(d.row for d in chosen),
            version=found.version,
            cursor=_cursor(chosen[-1], order) if more else None,
        )


def _behind(place: Any, cursor: Any, down: bool) -> bool:
    return bool(place < cursor if down else place > cursor)


def _cursor(document: _Document, order: Order) -> str:
    return document.row.key if by_key(order) else str(document.created)
