"""Putting a backup in the place of what is there, which is kept beside it.

Numbers of pushes go back with the sessions, so the restored file is of another
generation: every session answers another epoch, and tabs fetch their state anew.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import apsw
import attrs

from ecan.store.archive import (
    ACCOUNTS,
    CHUNK_BYTES,
    MANIFEST,
    SCHEMAS,
    SESSIONS,
    BackupError,
    Manifest,
    check_database,
    no_progress,
)
from ecan.store.backup import sync_directory
from ecan.store.file_lock import FileLock
from ecan.store.sqlite_db import FILE_MODE, make_directory, open_database
from ecan.store.sqlite_work import Tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecan.store.archive import Packed, Progress

MAX_MANIFEST_BYTES = 1 << 20

_COMPANIONS = ("-wal", "-shm")
"""SQLite's, beside a file that was not closed; a journal belongs to its file and no other."""

_OF_SESSIONS = ("sessions", "slots", "tokens", "ledger", "used_ids", "pushes", "replies")


@attrs.frozen(kw_only=True)
class Restored:
    """What was done.

    Attributes:
        manifest: of the backup.
        kept: where the files that were there before are now.
    """

    manifest: Manifest
    kept: list[Path]


def read_manifest(source: Path) -> Manifest:
    """What is in an archive; its files are looked at by `restore` only.

    Raises:
        BackupError: it is no backup of ours.
    """
    with _reading(source) as tar:
        return _manifest(tar)


def restore(
    source: Path,
    accounts: Path,
    sessions: Path | None,
    *,
    without_sessions: bool = False,
    progress: Progress = no_progress,
) -> Restored:
    """Replace the accounts and sessions by those of an archive.

    Everything is unpacked and checked beside its place before anything is moved.

    Args:
        source: the archive.
        accounts: where the server has its accounts.
        sessions: where it has its sessions; None: in memory, those of the archive are left out.
        without_sessions: log everybody out; documents and dead letters are restored.
        progress: hears of bytes unpacked.

    Raises:
        BackupError: it is no backup or damaged; nothing was changed.
        StoreError: a server is running on these files.
    """
    places = {ACCOUNTS: accounts} | ({SESSIONS: sessions} if sessions is not None else {})
    with ExitStack() as stack:
        for place in places.values():
            make_directory(place)
        if sessions is not None:
            lock = FileLock(sessions.with_name(f"{sessions.name}.lock"))
            lock.acquire()
            stack.callback(lock.release)
        fresh = {name: _beside(place, ".restoring") for name, place in places.items()}
        for file in fresh.values():
            stack.callback(_remove, file)
            _remove(file)
        manifest = _unpack(source, fresh, progress)
        places = {name: place for name, place in places.items() if name in manifest.files}
        for name in places:
            check_database(fresh[name], name)
        if SESSIONS in places:
            _begin_generation(fresh[SESSIONS], without_sessions=without_sessions)
        kept = _replace(places, fresh)
    return Restored(manifest=manifest, kept=kept)


@contextmanager
def _reading(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:*") as tar:
            yield tar
    except OSError as error:
        raise BackupError(f"{source} cannot be read: {error.strerror or error}") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(f"{source} is no backup of ecan, or damaged") from error
    except BackupError as error:
        raise BackupError(f"{source}: {error}") from error


def _manifest(tar: tarfile.TarFile) -> Manifest:
    entry = tar.next()
    if entry is None or entry.name != MANIFEST or not entry.isreg():
        raise BackupError(f"no backup of ecan: it does not begin with {MANIFEST}")
    file = tar.extractfile(entry)
    if file is None or entry.size > MAX_MANIFEST_BYTES:
        raise BackupError(f"{MANIFEST} cannot be read")
    manifest = Manifest.loads(file.read())
    if ACCOUNTS not in manifest.files or not set(manifest.files) <= set(SCHEMAS):
        raise BackupError(f"{MANIFEST} lists other files than a backup has")
    return manifest


def _unpack(source: Path, targets: dict[str, Path], progress: Progress) -> Manifest:
    with _reading(source) as tar:
        manifest = _manifest(tar)
        missing = set(manifest.files)
        # Names and sizes are the manifest's; nothing else of an entry is trusted.
        while (entry := tar.next()) is not None:
            packed = manifest.files.get(entry.name)
            if entry.name not in missing or packed is None or not entry.isreg():
                raise BackupError(f"{entry.name!r} does not belong there")
            missing.discard(entry.name)
            if entry.name in targets:
                _unpack_one(tar, entry, packed, targets[entry.name], progress)
        if missing:
            raise BackupError(f"{', '.join(sorted(missing))} is missing")
    return manifest


def _unpack_one(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, packed: Packed, target: Path, progress: Progress
) -> None:
    file = tar.extractfile(entry)
    if file is None or entry.size != packed.bytes:
        raise BackupError(f"{entry.name} has another size than {MANIFEST} says")
    digest = hashlib.sha256()
    with _writing(target) as unpacked:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            unpacked.write(chunk)
            progress(entry.name, unpacked.tell(), packed.bytes)
    if digest.hexdigest() != packed.sha256:
        raise BackupError(f"{entry.name} is damaged: its SHA-256 is not the one in {MANIFEST}")


@contextmanager
def _writing(target: Path) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror or error}") from error


def _begin_generation(path: Path, *, without_sessions: bool) -> None:
    connection = open_database(path, "sessions")
    try:
        tables = Tables(connection)
        if not tables.meta.is_ours():
            raise BackupError(f"{SESSIONS} is no file of sessions")
        with connection:
            tables.meta.bump()
            if without_sessions:
                for table in _OF_SESSIONS:
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, to be renamed
    except apsw.Error as error:
        raise BackupError(f"{SESSIONS} cannot be used: {error}") from error
    finally:
        connection.close()


def _replace(places: dict[str, Path], fresh: dict[str, Path]) -> list[Path]:
    """Move what is there aside, and the new files in; all of it or nothing."""
    aside = f".before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    moves: list[tuple[Path, Path]] = []
    for place in places.values():
        kept = _beside(place, aside)
        moves += [(_beside(place, end), _beside(kept, end)) for end in ("", *_COMPANIONS)]
    moves = [(there, kept) for there, kept in moves if there.exists()]
    kept_files = [kept for there, kept in moves if there in places.values()]
    moves += [(fresh[name], place) for name, place in places.items()]
    done: list[tuple[Path, Path]] = []
    try:
        for before, after in moves:
            before.rename(after)
            done.append((before, after))
        for folder in {place.parent for place in places.values()}:
            sync_directory(folder)
    except OSError as error:
        for before, after in reversed(done):
            after.rename(before)
        raise BackupError(f"{error.filename} cannot be moved: {error.strerror}") from error
    return kept_files


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _remove(path: Path) -> None:
    for end in ("", *_COMPANIONS, "-journal"):
        _beside(path, end).unlink(missing_ok=True)
