"""Moving the journal (SQLite's WAL) into the file, beside the writer: checkpoints.

SQLite's own way, a checkpoint within the commit that made the journal too long, makes
everybody wait for it. Here a thread with a connection of its own copies and syncs while
the writer goes on; since that never catches up with a busy writer, the writer copies the
last few pages itself, between two batches, and its next commit begins the journal anew
(docs/adr/0016-checkpoints.md).

Nothing here is needed for durability: a commit is safe once the journal is synced, and
whatever of it has been copied, SQLite reads the journal first.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import apsw

from ecan.errors import StoreUnavailableError
from ecan.observability import get_logger

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

log = get_logger("ecan.store")

FRAME_BYTES = 4096 + 24
"""Of a page in the journal; our files have pages of SQLite's usual size."""


def _frames(mebibytes: int) -> int:
    return (mebibytes << 20) // FRAME_BYTES


COPY_FRAMES = _frames(4)
"""So much is copied and synced at once. More, and repeated changes of a page are one copy; less,
and the syncs of commits wait less for the one of the file: they share the disk."""

ANEW_FRAMES = _frames(16)
"""A journal of that length is to begin anew. Longer, the writer has to copy a rest less often;
shorter, a start after kill -9 reads less."""

REST_FRAMES = 128
"""So few pages the writer copies itself: a millisecond, sync included."""

MAX_CATCH_UPS = 4
"""Copies at once to get the rest that small; each leaves what was written meanwhile."""

RETRY_FRAMES = _frames(1)
"""Grown by that much, a journal that could not begin anew is tried again."""

HARD_FRAMES = _frames(64)
"""A journal of that length makes the writer wait for the copying: the changes come faster
than the disk takes them. One that is being read (by a backup) goes on growing."""

WARN_FRAMES = _frames(256)
"""From there on each doubling is a warning in the log."""

MAX_FRAMES = _frames(4096)
"""No changes beyond that, until whoever reads has ended: a full disk would harm more."""


class Journal:
    """Keeps the journal short. To be used by the thread of the writer's connection.

    Args:
        writing: the writer's connection; its automatic checkpoints are turned off.
        path: of the file.
        vfs: of SQLite, by name; None: the default one.
    """

    def __init__(self, writing: apsw.Connection, path: Path, vfs: str | None) -> None:
        self._writing = writing
        self._path = path
        self._vfs = vfs
        self._length = 0  # in frames, since the journal was begun anew
        self._copied = False  # all of it: the next commit begins it anew, unless it is being read
        self._held = False  # the last time not all could be copied: it is read, or the disk fails
        self._due_at = COPY_FRAMES
        self._warn_at = WARN_FRAMES
        self._failing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions-checkpoints")
        synchronous = writing.execute("PRAGMA synchronous").get
        try:
            self._copying = self._thread.submit(self._connect, synchronous).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._round: Future[int] | None = None
        writing.set_wal_hook(self._committed)  # instead of SQLite's automatic checkpoint

    def _connect(self, synchronous: int) -> apsw.Connection:
        connection = apsw.Connection(
            os.fspath(self._path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs
        )
        # Decides what a checkpoint syncs.
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # SQLite knows only then that there is a journal.
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        self._syncs = synchronous > 0
        return connection

    def check_room(self) -> None:
        """See whether there may be more changes.

        Raises:
            StoreUnavailableError: the journal is as long as it may get.
        """
        if self._length >= MAX_FRAMES and not self._copied:
            self._due_at = 0
            self.tend()
            raise StoreUnavailableError(
                f"{self._path}-wal has {self._length * FRAME_BYTES >> 20} MiB and cannot be"
                " emptied: another program keeps reading the file, or it cannot be written"
            )

    def tend(self) -> None:
        """Look after the journal; between two batches, when nobody waits for the last one."""
        if self._round is None:
            if self._length >= self._due_at and not self._copied:
                self._round = self._thread.submit(self._copy)
        elif self._round.done() or self._length >= HARD_FRAMES:
            copied, self._round = self._round.result(), None
            self._due_at = self._length + RETRY_FRAMES if self._held else copied + COPY_FRAMES
            due = self._length >= ANEW_FRAMES and self._length - copied <= REST_FRAMES
            if due or self._length >= HARD_FRAMES:
                self._copied = self._checkpoint(self._writing) >= self._length
                self._due_at = self._length + RETRY_FRAMES

    def close(self) -> None:
        """Wait for what is being copied, and let go of the file."""
        self._writing.set_wal_hook(None)
        try:
            self._thread.submit(self._copying.close).result()
        finally:
            self._thread.shutdown(wait=False)

    def _committed(self, _connection: apsw.Connection, _name: str, length: int) -> int:
        # SQLite calls it in every commit.
        if length < self._length:
            self._due_at = COPY_FRAMES
            self._warn_at = WARN_FRAMES
        elif length >= self._warn_at:
            self._warn_at = 2 * length
            log.warning(
                "store.journal_grows",
                path=f"{self._path}-wal",
                mebibytes=length * FRAME_BYTES >> 20,
                remedy="end what keeps reading the file: a backup, a shell in a transaction",
            )
        self._length = length
        self._copied = False
        return apsw.SQLITE_OK

    def _copy(self) -> int:
        # Runs on: the thread for checkpoints.
        copied = 0
        for _ in range(MAX_CATCH_UPS):
            copied = self._checkpoint(self._copying)
            enough = REST_FRAMES if self._length >= ANEW_FRAMES else COPY_FRAMES
            if self._held or self._length - copied <= enough:
                break
        return copied

    def _checkpoint(self, connection: apsw.Connection) -> int:
        """Copy what can be copied now; answers how many frames have been."""
        try:
            length, copied = connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
            if connection is self._copying and self._syncs:
                _sync(connection)
        except apsw.BusyError:  # another process is at it
            self._held = True
            return 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the journal stays as it is
            self._held = True
            if not self._failing:
                self._failing = True
                log.error("store.checkpoint_failed", path=str(self._path), error=str(error))  # noqa: TRY400 - no traceback, as of all that the disk does
            return 0
        self._held = copied < length
        if self._failing and not self._held:
            self._failing = False
            log.info("store.checkpoint_recovered", path=str(self._path))
        return copied


class _Methods(ctypes.Structure):
    """The beginning of ``struct sqlite3_io_methods``."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)),
    )


def _sync(connection: apsw.Connection) -> None:
    """Sync the main file.

    A checkpoint does so only if nothing was committed while it copied, else all the
    syncing is left to the last one: the writer's. SQLite has no call for it, and a
    descriptor of our own, closed, would take all locks of this process with it (POSIX).
    """
    file = ctypes.c_void_p()
    connection.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(file))
    methods = ctypes.cast(file, ctypes.POINTER(ctypes.POINTER(_Methods)))[0][0]
    code = methods.sync(file, apsw.SQLITE_SYNC_NORMAL)
    if code != apsw.SQLITE_OK:
        raise apsw.exception_for(code)
