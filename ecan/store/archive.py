"""What a backup is: one tar with whole SQLite files, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import apsw
import attrs
import orjson

from ecan.errors import StoreError
from ecan.store.sqlite_check import damage
from ecan.store.sqlite_db import load_migrations, schema_version

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
FORMAT = 1

ACCOUNTS = "accounts.sqlite3"
SESSIONS = "sessions.sqlite3"
"""Names within the archive, wherever the settings have the files."""

SCHEMAS = {ACCOUNTS: "users", SESSIONS: "sessions"}

CHUNK_BYTES = 1 << 20


class BackupError(StoreError):
    """A backup that cannot be made or restored; one line that says why."""


class Progress(Protocol):
    """Hears how far a long work is. Runs on the caller's thread."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """So much of the total is done, in whatever unit."""


def no_progress(_what: str, _done: int, _total: int, /) -> None:
    """For who does not want to know."""


@attrs.frozen(kw_only=True)
class Packed:
    """A file in an archive."""

    schema: int
    bytes: int
    sha256: str


@attrs.frozen(kw_only=True)
class Manifest:
    """What is in an archive.

    Attributes:
        created: UTC, ISO 8601.
        version: of the ecan that made it.
        files: by name within the archive.
    """

    created: str
    version: str
    files: dict[str, Packed]

    def dumps(self) -> bytes:
        """As in the archive."""
        facts = {"format": FORMAT, **attrs.asdict(self)}
        return orjson.dumps(facts, option=orjson.OPT_INDENT_2)

    @classmethod
    def loads(cls, data: bytes) -> Manifest:
        """Read it.

        Raises:
            BackupError: it is none, or of a newer ecan.
        """
        try:
            facts: dict[str, Any] = orjson.loads(data)
            if facts["format"] > FORMAT:
                raise BackupError(f"made by a newer ecan ({facts['version']}): use that one")
            files = {
                str(name): Packed(
                    schema=int(file["schema"]), bytes=int(file["bytes"]), sha256=str(file["sha256"])
                )
                for name, file in facts["files"].items()
            }
            return cls(created=str(facts["created"]), version=str(facts["version"]), files=files)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackupError(f"{MANIFEST} cannot be read") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_database(path: Path, name: str) -> int:
    """See that a file that nobody else uses is whole, and what it should be.

    Args:
        path: of the file.
        name: of it within an archive; also for messages.

    Returns:
        Its schema version.

    Raises:
        BackupError: it is damaged, of another kind, or newer than this program.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            found = damage(connection)
            if found is not None:
                raise BackupError(f"{name} is damaged: {found}")
            connection.execute(f"SELECT 1 FROM {SCHEMAS[name]} LIMIT 1").fetchall()  # noqa: S608 - our own names
            version = schema_version(connection)
        finally:
            connection.close()
    except apsw.Error as error:
        raise BackupError(f"{name} cannot be used: {error}") from error
    newest = len(load_migrations(SCHEMAS[name]))
    if not 1 <= version <= newest:
        raise BackupError(f"{name} has schema {version}, this ecan knows 1 to {newest}")
    return version
