"""Which store the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecan.store.memory import MemoryStore
from ecan.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from ecan.config import Settings
    from ecan.store.base import SessionStore
    from ecan.store.sqlite_queue import StoreObserver

SESSIONS_FILE = "sessions.sqlite3"


def sqlite_path(settings: Settings) -> Path | None:
    """The file of ``ECAN_STORE=sqlite[:path]``; None: another store is chosen.

    A relative path is one below ECAN_DATA_DIR.
    """
    kind, _, path = settings.store.partition(":")
    if kind != "sqlite":
        return None
    return settings.data_dir / Path(path or SESSIONS_FILE).expanduser()


def make_store(settings: Settings, observer: StoreObserver | None = None) -> SessionStore:
    """The store of a server, not open yet; the observer hears of every batch."""
    path = sqlite_path(settings)
    if path is None:
        return MemoryStore()
    durability: Any = settings.durability
    return SqliteStore(path, durability=durability, observer=observer)
