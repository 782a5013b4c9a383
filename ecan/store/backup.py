"""Copies of the accounts and sessions, made while a server runs or not."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import apsw

from ecan import __version__
from ecan.store.archive import (
    ACCOUNTS,
    MANIFEST,
    SESSIONS,
    BackupError,
    Manifest,
    Packed,
    check_database,
    digest_of,
    no_progress,
)
from ecan.store.sqlite_db import BUSY_TIMEOUT_MS, FILE_MODE

if TYPE_CHECKING:
    from ecan.store.archive import Progress

PAGES_PER_STEP = 1024
"""4 MiB between two reports of progress."""

_GZIP_LEVEL = 6
"""zlib's default; 9 takes thrice as long for a few per cent."""


def back_up(
    target: Path,
    accounts: Path,
    sessions: Path | None,
    *,
    force: bool = False,
    progress: Progress = no_progress,
) -> Manifest:
    """Write an archive; it is there wholly or not at all.

    Args:
        target: compressed if its name ends in ``.gz`` or ``.tgz``.
        accounts: the file of accounts.
        sessions: the file of sessions; None, or not there: accounts only.
        force: overwrite an archive that is there.
        progress: hears of pages copied.

    Raises:
        BackupError: it cannot be made; nothing was written.

    Side effects: needs room for all files twice beside `target` for a while.
    """
    if target.exists() and not force:
        raise BackupError(f"{target} is there already; --force overwrites it")
    if not accounts.exists():
        raise BackupError(f"there are no accounts in {accounts.parent}; see ECAN_DATA_DIR")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            return _make(Path(folder), target, accounts, sessions, progress)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror or error}") from error


def _make(
    folder: Path, target: Path, accounts: Path, sessions: Path | None, progress: Progress
) -> Manifest:
    # INVARIANT: accounts first. A password change is written to the accounts, then ends the
    # user's sessions. Copied the other way round, a session could be taken before its end and
    # the account after the change, with nothing left to do: restored, who knew the old
    # password would still be logged in.
    sources = {ACCOUNTS: accounts}
    if sessions is not None and sessions.exists():
        sources[SESSIONS] = sessions
    files = {}
    for name, source in sources.items():
        copy = folder / name
        _copy(source, copy, name, progress)
        files[name] = Packed(
            schema=check_database(copy, name), bytes=copy.stat().st_size, sha256=digest_of(copy)
        )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(created=created, version=__version__, files=files)
    packed = folder / "archive"
    _pack(packed, folder, manifest, compress=target.suffix in {".gz", ".tgz"})
    packed.replace(target)
    sync_directory(target.parent)
    return manifest


def _copy(source: Path, target: Path, name: str, progress: Progress) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
    try:
        reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
        with ExitStack() as stack:
            stack.callback(reading.close)
            reading.set_busy_timeout(BUSY_TIMEOUT_MS)
            # RACE: a server writes meanwhile, and each of its commits would begin the backup
            # again. An open read transaction keeps the journal's state as it is now.
            reading.execute("BEGIN")
            reading.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            writing = apsw.Connection(str(target))
            stack.callback(writing.close)
            with writing.backup("main", reading, "main") as backup:
                while not backup.done:
                    backup.step(PAGES_PER_STEP)
                    progress(name, backup.page_count - backup.remaining, backup.page_count)
            writing.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, by itself
    except apsw.Error as error:
        raise BackupError(f"{source} cannot be copied: {error}") from error


def _pack(target: Path, folder: Path, manifest: Manifest, *, compress: bool) -> None:
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        if compress:
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file) as zipped:
                _write_tar(cast("IO[bytes]", zipped), folder, manifest)
        else:
            _write_tar(file, folder, manifest)
        file.flush()
        os.fsync(descriptor)


def _write_tar(stream: IO[bytes], folder: Path, manifest: Manifest) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        data = manifest.dumps()
        tar.addfile(_entry(MANIFEST, len(data)), io.BytesIO(data))
        for name, packed in manifest.files.items():
            with (folder / name).open("rb") as copy:
                tar.addfile(_entry(name, packed.bytes), copy)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = FILE_MODE
    entry.mtime = int(time.time())
    return entry


def sync_directory(folder: Path) -> None:
    """Make renames in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
