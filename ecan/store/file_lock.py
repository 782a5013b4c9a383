"""One process at a time: an advisory lock on a file beside the data."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from ecan.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

_MODE = 0o600


class FileLock:
    """A lock that the kernel takes back when the process ends, however it ends.

    The file stays: were it removed, a process that waits with the old file open and one
    that makes a new file would both have the lock.

    Args:
        path: of the lock file; what it guards has the same name without ``.lock``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take it, without waiting.

        Raises:
            StoreError: another process has it, or the file cannot be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            guarded = self._path.with_suffix("")
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                who = f"process {holder}" if holder else "another process"
                raise StoreError(
                    f"{guarded} is in use by {who}: stop that server first, or use another "
                    "ECAN_DATA_DIR"
                ) from None
            raise StoreError(f"{self._path} cannot be locked: {error.strerror}") from error
        # For the message above only; nobody trusts it.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back; twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
