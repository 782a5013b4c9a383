"""Whether a file is whole: looked at in the background, for it may take seconds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import apsw

from ecan.observability import get_logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

log = get_logger("ecan.store")


def damage(connection: apsw.Connection) -> str | None:
    """What ``PRAGMA quick_check`` finds first; None: the file is whole.

    Raises:
        apsw.Error: it could not be found out.
    """
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchall()[0][0])
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return str(error)
    return None if found == "ok" else " ".join(found.split())


class BackgroundCheck:
    """Reads the whole file on a connection of its own, beside the writer.

    Args:
        path: of the file.
        vfs: as in `SqliteStore`.
        report: called on the loop with what is wrong, if anything is.
    """

    def __init__(self, path: Path, vfs: str | None, report: Callable[[str], None]) -> None:
        self._path = path
        self._vfs = vfs
        self._report = report
        self._thread: ThreadPoolExecutor | None = None
        self._stopping = False
        self._running: asyncio.Future[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; `stop` must follow."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions-check")
        self._running = loop.run_in_executor(self._thread, self._look, loop)

    async def stop(self) -> None:
        """End it, also in the middle; twice is fine."""
        self._stopping = True
        if self._running is not None and self._thread is not None:
            await self._running
            self._thread.shutdown(wait=False)
            self._running = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        # Runs on: its thread.
        found: str | None = None
        try:
            connection = apsw.Connection(
                os.fspath(self._path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs
            )
            try:
                connection.set_progress_handler(lambda: self._stopping, 10_000)
                found = damage(connection)
            finally:
                connection.close()
        except apsw.InterruptError:
            return
        except apsw.Error as error:
            log.warning("store.check_failed", path=str(self._path), error=str(error))
            return
        if found is not None:
            log.error(
                "store.damaged",
                path=str(self._path),
                error=found,
                remedy="stop the server and restore a backup: ecan restore FILE",
            )
            loop.call_soon_threadsafe(self._report, found)
