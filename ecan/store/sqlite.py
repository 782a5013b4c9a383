"""Sessions in one SQLite file, written by one thread: the durable store of one server.

Group commit: while the thread writes a batch, the loop queues what comes; all of that
is the next batch and one transaction (`ecan.store.sqlite_queue`).

Everything goes through the same queue, so a load sees what was committed before it, and
what is queued for a session lands in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import apsw

from ecan.errors import StoreError
from ecan.observability import get_logger
from ecan.store.cursors import check_limit, check_page
from ecan.store.file_lock import FileLock
from ecan.store.rows import MAX_LEDGER_ROWS, Snapshot
from ecan.store.sqlite_check import BackgroundCheck
from ecan.store.sqlite_db import cannot_open, make_directory, open_database
from ecan.store.sqlite_queue import GroupQueue, NoObserver
from ecan.store.sqlite_work import Change, Delete, Load, Put, Read, Tables
from ecan.store.sqlite_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

    from ecan.store.base import Commit
    from ecan.store.rows import (
        DocumentPage,
        DocumentRow,
        Ended,
        Expiring,
        LetterRow,
        Order,
        SessionPage,
        SessionRow,
        SlotPage,
    )
    from ecan.store.sqlite_meta import Durability
    from ecan.store.sqlite_queue import CallLater, StoreObserver
    from ecan.store.sqlite_work import Work

log = get_logger("ecan.store")

_TABLES = (
    "sessions", "slots", "tokens", "ledger", "used_ids", "pushes", "replies",
    "ended", "dead_letters", "collections", "documents",
)  # fmt: skip


class SqliteStore:
    """Sessions in a file. See `SessionStore`.

    Args:
        path: of the file; made if it is missing.
        durability: ``commit``: a commit is done when the disk has it. ``interval``: done at
            once, a crash loses up to `interval_s` of commits, a power cut some more.
            ``off``: as ``interval``, and a power cut may ruin the file.
        interval_s: unused with ``commit``.
        vfs: of SQLite, by name; None: the default one.
        observer: hears of every batch.
        call_later: for timers; None: the loop's.

    With ``interval`` and ``off``, commits that may be refused are waited for, without a
    sync: those with checks or documents, and answers of a session of which ids are
    forgotten. Other answers are not looked up before they are done: that an id is not
    in the ledger is the caller's to know, who has it in memory.
    """

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "commit",
        interval_s: float = 0.5,
        vfs: str | None = None,
        observer: StoreObserver | None = None,
        call_later: CallLater | None = None,
    ) -> None:
        self._path = path
        self._durability: Durability = durability
        self._interval_s = interval_s
        self._vfs = vfs
        self._observer = observer or NoObserver()
        self._call_later = call_later
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._check: BackgroundCheck | None = None
        self._damage: str | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._queue: GroupQueue | None = None
        self._answers: dict[str, int] = {}  # by session, if commits are answered before they land

    @property
    def trouble(self) -> str | None:
        """See `SessionStore.trouble`; a file found damaged is in trouble until it is replaced."""
        return self._damage or (self._queue.trouble if self._queue is not None else None)

    async def open(self) -> None:
        """See `SessionStore.open`.

        Raises:
            StoreError: the file cannot be used, is damaged or no database, of a newer
                version, or another server has it.
        """
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="sessions-writer")
        try:
            writer, existed = await loop.run_in_executor(thread, self._open)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        self._thread = thread
        self._writer = writer
        self._queue = GroupQueue(
            writer,
            thread,
            self._path,
            interval_s=self._interval_s,
            observer=self._observer,
            call_later=self._call_later or loop.call_later,
        )
        if existed:
            self._check = BackgroundCheck(self._path, self._vfs, self._damaged)
            self._check.start(loop)

    def _open(self) -> tuple[Writer, bool]:
        # Runs on: the thread.
        existed = self._path.exists() and self._path.stat().st_size > 0
        make_directory(self._path)
        self._lock.acquire()
        connection: apsw.Connection | None = None
        try:
            connection = open_database(self._path, "sessions", vfs=self._vfs)
            tables = Tables(connection)
            self._begin(connection, tables)
            writer = Writer(connection, tables, self._path, self._vfs)
        except BaseException as error:
            if connection is not None:
                with contextlib.suppress(apsw.Error):  # of a broken disk; it is closed
                    connection.close()
            self._lock.release()
            if isinstance(error, apsw.Error):
                raise cannot_open(self._path, error) from error
            raise
        return writer, existed

    def _begin(self, connection: apsw.Connection, tables: Tables) -> None:
        if not tables.meta.is_ours():
            raise StoreError(f"{self._path} is no file of sessions; see ECAN_STORE")
        tables.meta.begin(self._durability)
        for table in _TABLES:  # what is missing or broken at its root is found now
            connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()  # noqa: S608 - our own names

    async def close(self) -> None:
        """See `SessionStore.close`; twice is fine.

        Side effects: logs an error if the file cannot be written; kept commits are lost then.
        """
        thread, self._thread = self._thread, None  # nothing new from here on
        if thread is None or self._writer is None or self._queue is None:
            return
        if self._check is not None:
            await self._check.stop()
        lost = await self._queue.close()
        if lost:
            log.error("store.lost", path=str(self._path), commits=lost)
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._close, lost == 0)
        except StoreError as error:
            log.warning("store.checkpoint_failed", error=str(error))
        finally:
            thread.shutdown(wait=False)
            self._lock.release()

    def _close(self, clean: bool) -> None:
        if self._writer is not None:
            self._writer.close(clean=clean)

    def _damaged(self, found: str) -> None:
        self._damage = f"{self._path} is damaged ({found}): restore a backup with `ecan restore`"

    async def create(self, snapshot: Snapshot) -> None:
        """See `SessionStore.create`."""
        await self._ask(Put(snapshot.row.sid, snapshot))
        self._know(snapshot)

    def commit(self, commit: Commit) -> Awaitable[None] | None:
        """See `SessionStore.commit`."""
        if self._durability == "commit" or self._may_be_refused(commit):
            return self._ask(commit)
        self._opened().tell(commit)
        return None

    def _know(self, snapshot: Snapshot) -> None:
        # Only whether there are more answers than the ledger holds matters.
        if self._durability != "commit":
            answers = MAX_LEDGER_ROWS if snapshot.used else len(snapshot.ledger)
            self._answers.setdefault(snapshot.row.sid, answers)

    def _may_be_refused(self, commit: Commit) -> bool:
        if commit.begins:
            return True
        if commit.answer is not None:
            # Unknown ones wait. More than the ledger holds: some are forgotten.
            answers = self._answers.get(commit.sid, MAX_LEDGER_ROWS) + 1
            if commit.sid in self._answers:
                self._answers[commit.sid] = answers
            if answers > MAX_LEDGER_ROWS:
                return True
        return bool(commit.checks or commit.documents)

    async def load(self, sid: str) -> Snapshot | Ended | None:
        """See `SessionStore.load`."""
        loaded: Snapshot | Ended | None = await self._ask(Load(sid))
        if isinstance(loaded, Snapshot):
            self._know(loaded)
        return loaded

    async def delete(self, sid: str, reason: str) -> bool:
        """See `SessionStore.delete`."""
        self._answers.pop(sid, None)
        return bool(await self._ask(Delete(sid, reason)))

    async def count(self) -> int:
        """See `SessionStore.count`."""
        return int(await self._ask(Read(lambda tables: tables.sessions.count())))

    async def of_user(self, user_id: int) -> list[SessionRow]:
        """See `SessionStore.of_user`."""
        work = Read(lambda tables: tables.sessions.of_user(user_id), settled=True)
        return list(await self._ask(work))

    async def sids_of_user(self, user_id: int) -> Sequence[str]:
        """See `SessionStore.sids_of_user`."""
        return list(await self._ask(Read(lambda tables: tables.sessions.sids_of_user(user_id))))

    async def sessions(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        user_id: int | None = None,
        failed: bool | None = None,
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        check_limit(limit)
        page: SessionPage = await self._ask(
            Read(lambda tables: tables.sessions.page(limit, cursor, user_id, failed), settled=True)
        )
        return page

    async def slots(self, names: Sequence[str], limit: int, cursor: str | None = None) -> SlotPage:
        """See `SessionStore.slots`."""
        check_limit(limit)
        page: SlotPage = await self._ask(
            Read(lambda tables: tables.sessions.slots(names, limit, cursor), settled=True)
        )
        return page

    async def count_by_user(self) -> dict[int, int]:
        """See `SessionStore.count_by_user`."""
        work = Read(lambda tables: tables.sessions.count_by_user(), settled=True)
        return dict(await self._ask(work))

    async def expiring(self, now_at: float, timeout_s: float, limit: int) -> Expiring:
        """See `SessionStore.expiring`."""
        found: Expiring = await self._ask(
            Change(lambda tables: tables.sessions.expiring(now_at, timeout_s, limit), settled=True)
        )
        return found

    async def document(self, user_id: int, collection: str, key: str) -> DocumentRow | None:
        """See `SessionStore.document`."""
        found: DocumentRow | None = await self._ask(
            Read(lambda tables: tables.documents.get(user_id, collection, key))
        )
        return found

    async def documents(
        self,
        user_id: int,
        collection: str,
        *,
        prefix: str = "",
        order: Order = "key",
        cursor: str | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """See `SessionStore.documents`."""
        check_page(prefix, order, cursor, limit)
        page: DocumentPage = await self._ask(
            Read(
                lambda tables: tables.documents.page(
                    user_id, collection, prefix, order, cursor, limit
                )
            )
        )
        return page

    async def letters(self, limit: int, before: str | None = None) -> Sequence[LetterRow]:
        """See `SessionStore.letters`."""
        return list(await self._ask(Read(lambda tables: tables.letters.page(limit, before))))

    async def letter(self, crash_id: str) -> LetterRow | None:
        """See `SessionStore.letter`."""
        found: LetterRow | None = await self._ask(Read(lambda tables: tables.letters.get(crash_id)))
        return found

    async def discard_letter(self, crash_id: str) -> bool:
        """See `SessionStore.discard_letter`."""
        return bool(await self._ask(Change(lambda tables: tables.letters.discard(crash_id))))

    async def letter_count(self) -> int:
        """See `SessionStore.letter_count`."""
        return int(await self._ask(Read(lambda tables: tables.letters.count())))

    def _ask(self, work: Work) -> asyncio.Future[Any]:
        return self._opened().ask(work)

    def _opened(self) -> GroupQueue:
        if self._queue is None or self._thread is None:
            raise StoreError(f"{self._path} is not open")
        return self._queue
