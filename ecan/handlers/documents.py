"""Documents of a user: shared by all of the user's sessions, in collections (ADR 10).

Reads go to the store and note the version they saw; writes wait for the request's own
commit, which fails if a noted version is no longer true. Then the handler runs again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from ecan.errors import ConflictError, HandlerError, SlotError
from ecan.handlers.encoding import check_round_trip, decode, encode
from ecan.store import DocumentCheck, DocumentWrite

if TYPE_CHECKING:
    from ecan.handlers.context import User, UserContext
    from ecan.store import Order

T = TypeVar("T")

MAX_DOCUMENT_BYTES = 2**20
MAX_KEY_CHARS = 512
MAX_PAGE = 1000


@attrs.frozen
class Document(Generic[T]):
    """One document of a list."""

    key: str
    value: T


@attrs.frozen
class Page(Generic[T]):
    """A page of a collection.

    Attributes:
        documents: in the order asked for.
        cursor: to ask for the next page with; None: this was the last one.
    """

    documents: list[Document[T]]
    cursor: str | None


class Work:
    """What one run of a handler has read and written: goes into its commit.

    Attributes:
        checks: versions seen, by collection and key; key None: the whole collection.
        writes: by collection and key; None deletes.
        locked: why nothing may be written, in words; None: it may.
    """

    __slots__ = ("checks", "locked", "writes")

    def __init__(self, locked: str | None) -> None:
        self.checks: dict[tuple[str, str | None], int] = {}
        self.writes: dict[tuple[str, str], bytes | None] = {}
        self.locked = locked

    def saw(self, collection: str, key: str | None, version: int) -> None:
        """Note a version.

        Raises:
            ConflictError: the same was seen before with another one: run again.
        """
        if self.checks.setdefault((collection, key), version) != version:
            raise ConflictError(f"{collection} was changed while it was read")

    @property
    def must_commit(self) -> bool:
        """Whether the store has to look at it: a single read is true by itself."""
        return bool(self.writes) or len(self.checks) > 1

    def as_checks(self) -> tuple[DocumentCheck, ...]:
        """For the commit."""
        return tuple(
            DocumentCheck(collection=collection, key=key, version=version)
            for (collection, key), version in self.checks.items()
        )

    def as_writes(self) -> tuple[DocumentWrite, ...]:
        """For the commit."""
        return tuple(
            DocumentWrite(collection=collection, key=key, data=data)
            for (collection, key), data in self.writes.items()
        )


class Collection(Generic[T]):
    """One collection of the user's documents, as one request sees it.

    What it returns are copies: a change needs a `put`. Writes happen with the request's
    commit or not at all (P4); its own `get` sees them at once.
    """

    __slots__ = ("_ctx", "_name", "_type", "_work")

    def __init__(self, ctx: UserContext, work: Work, name: str, type_: type[T] | None) -> None:
        self._ctx = ctx
        self._work = work
        self._name = name
        self._type = type_

    async def get(self, key: str, default: Any = None) -> Any:
        """The document, or the default.

        Raises:
            SlotError: what is stored does not fit the collection's type.
        """
        _check_key(key)
        written = self._work.writes.get((self._name, key), _UNWRITTEN)
        if written is not _UNWRITTEN:
            return default if written is None else self._decode(key, written)
        row = await self._ctx.session.read_document(self._name, key)
        self._work.saw(self._name, key, row.version if row is not None else 0)
        return default if row is None else self._decode(key, row.data)

    async def list(
        self,
        *,
        prefix: str = "",
        order: Order = "key",
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[T]:
        """A page of documents.

        Args:
            prefix: only keys that begin with it.
            order: ``key``, ``-key`` (downwards), ``oldest`` or ``newest`` (by first put).
            cursor: of the page before; same prefix and order.
            limit: 1 to 1000.

        Raises:
            SlotError: this request has written to the collection; list first, then write.
            HandlerError: BAD_CURSOR.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"limit must be 1 to {MAX_PAGE}")
        if any(collection == self._name for collection, _ in self._work.writes):
            raise SlotError(self._name, "list a collection before writing to it, not after")
        try:
            page = await self._ctx.session.read_documents(
                self._name, prefix=prefix, order=order, cursor=cursor, limit=limit
            )
        except ValueError as error:
            raise HandlerError("BAD_CURSOR", f"{error}") from None
        self._work.saw(self._name, None, page.version)
        documents = [Document(row.key, self._decode(row.key, row.data)) for row in page.documents]
        return Page(documents, page.cursor)

    def put(self, key: str, value: T) -> None:
        """Write a document when the request commits.

        Raises:
            SlotError: the value cannot be stored and read back as it was.
            HandlerError: DOCUMENT_TOO_LARGE, above 1 MiB.
        """
        self._check_writable(key)
        where = self._where(key)
        data = encode(where, value, self._type)
        check_round_trip(where, value, data, self._type)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise HandlerError(
                "DOCUMENT_TOO_LARGE",
                f"It would take {len(data)} bytes; {MAX_DOCUMENT_BYTES} are allowed.",
                details={"size_bytes": len(data), "limit_bytes": MAX_DOCUMENT_BYTES},
            )
        self._work.writes[self._name, key] = data

    def delete(self, key: str) -> None:
        """Delete a document, if there is one, when the request commits."""
        self._check_writable(key)
        self._work.writes[self._name, key] = None

    def get_blocking(self, key: str, default: Any = None) -> Any:
        """`get` for handlers in worker threads."""
        return self._wait(self.get(key, default))

    def list_blocking(self, **options: Any) -> Page[T]:
        """`list` for handlers in worker threads."""
        page: Page[T] = self._wait(self.list(**options))
        return page

    def _wait(self, reading: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(reading, self._ctx.server.loop).result()

    def _where(self, key: str) -> str:
        return f"{self._name}/{key}"

    def _decode(self, key: str, data: bytes) -> Any:
        return decode(self._where(key), data, self._type)

    def _check_writable(self, key: str) -> None:
        _check_key(key)
        if self._work.locked is not None:
            raise SlotError(self._where(key), self._work.locked)


_UNWRITTEN: Any = object()


def _check_key(key: str) -> None:
    if type(key) is not str or not 1 <= len(key) <= MAX_KEY_CHARS or "\0" in key:
        raise SlotError(repr(key), f"a key is a string of 1 to {MAX_KEY_CHARS} characters")


class CurrentUser:
    """Who is logged in, and what belongs to them: `UserContext.user`.

    Has the fields of `User`; `collection` opens documents.
    """

    __slots__ = ("_ctx", "_user")

    def __init__(self, user: User, ctx: UserContext) -> None:
        self._user = user
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._user, name)

    def __repr__(self) -> str:
        return repr(self._user)

    def collection(self, name: str, type_: type[T] | None = None) -> Collection[T]:
        """Documents of the user under one name; with a type, they are of that type.

        Raises:
            SlotError: the name is empty or too long.
        """
        _check_key(name)
        return Collection(self._ctx, self._ctx.documents, name, type_)
