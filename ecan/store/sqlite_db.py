"""Opening SQLite files the way this project wants them: durable, private, migrated.

Migrations are numbered files, ``migrations/<name>/0001_what.sql``; the number of the
last one applied is the file's ``PRAGMA user_version``. They only go forward.
"""

from __future__ import annotations

import contextlib
import os
from importlib import resources
from typing import TYPE_CHECKING

import apsw
import tenacity

from ecan.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

BUSY_TIMEOUT_MS = 5000
"""How long one process waits for another's transaction; ours take milliseconds."""

JOURNAL_BYTES = 64 << 20
"""Kept of a journal that grew, while a backup read the file; usually it has 4 MB."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def open_database(
    path: Path, schema: str, *, synchronous: str = "FULL", vfs: str | None = None
) -> apsw.Connection:
    """A connection to the file, made and migrated if need be; several processes may do so at once.

    Args:
        path: of the file; its directory is made (mode 0700) if it is missing.
        schema: the folder below ``migrations``.
        synchronous: ``FULL`` survives a power cut, ``NORMAL`` only a crash of the process.
        vfs: of SQLite, by name; None: the default one. Tests inject faults through it.

    Raises:
        StoreError: it cannot be opened, is damaged or no database, or was written by a
            newer version.

    Runs on: any thread; it blocks. The connection then belongs to one thread at a time.
    """
    make_directory(path)
    try:
        _make_private(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror or error}") from error
    connection: apsw.Connection | None = None
    try:
        connection = apsw.Connection(os.fspath(path), vfs=vfs)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _retry_busy(connection.execute, "PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}").fetchall()
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection, path, load_migrations(schema))
    except (apsw.Error, StoreError) as error:
        if connection is not None:
            with contextlib.suppress(apsw.Error):  # of a broken disk; it is closed
                connection.close()
        if isinstance(error, StoreError):
            raise
        raise cannot_open(path, error) from error
    return connection


def cannot_open(path: Path, error: Exception) -> StoreError:
    """One line that says what to do about a file that cannot be opened."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StoreError(
            f"{path} is damaged or no database ({error}): restore a backup with "
            "`ecan restore FILE`, or move the file away to start without it"
        )
    return StoreError(f"{path} cannot be opened: {error}")


def make_directory(path: Path) -> None:
    """The directory that the file is to be in, for us alone.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror or error}") from error


def _make_private(path: Path) -> None:
    # Before SQLite makes it: the journals take over the mode of the main file.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        if os.fstat(descriptor).st_mode & 0o077:
            with contextlib.suppress(PermissionError):  # another user's file that we may write
                os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


_retry_busy = tenacity.Retrying(
    # RACE: two processes turn WAL on in a new file; SQLite does not call the busy
    # handler where waiting could deadlock.
    retry=tenacity.retry_if_exception_type(apsw.BusyError),
    wait=tenacity.wait_random(0.005, 0.05),
    stop=tenacity.stop_after_delay(BUSY_TIMEOUT_MS / 1000),
    reraise=True,
)


def load_migrations(schema: str) -> list[str]:
    """The SQL texts of a schema, in order.

    Raises:
        StoreError: a number is missing or there twice; a mistake of ours, found at start.
    """
    folder = resources.files("ecan.store") / "migrations" / schema
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    numbers = [int(name.partition("_")[0]) for name in names]
    if not names or numbers != list(range(1, len(names) + 1)):
        raise StoreError(f"migrations of {schema} are not numbered 1, 2, 3 …: {names}")
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def migrate(connection: apsw.Connection, path: Path, migrations: list[str]) -> int:
    """Bring the file to the newest schema; all of it or nothing.

    Returns:
        How many migrations were applied.

    Raises:
        StoreError: the file's schema is newer than this program.
    """
    newest = len(migrations)
    current = schema_version(connection)
    if current == newest:
        return 0
    # RACE: another process may migrate meanwhile; look again inside the transaction.
    connection.execute("BEGIN IMMEDIATE")
    try:
        current = schema_version(connection)
        _check_known(path, current, newest)
        for sql in migrations[current:]:
            connection.execute(sql)
        connection.pragma("user_version", newest)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return newest - current


def _check_known(path: Path, current: int, newest: int) -> None:
    if current > newest:
        raise StoreError(
            f"{path} has schema {current}, this version of ecan knows {newest}: "
            "use the version that wrote it, or a copy of the file from before."
        )


def schema_version(connection: apsw.Connection) -> int:
    """The number of the last migration applied to the file."""
    return int(connection.pragma("user_version"))
