"""The memory: where sessions and users rest. The only package with database clients.

Actors see `SessionStore` and never ask which one it is.
"""

from ecan.store.base import Commit, SessionStore
from ecan.store.choose import make_store, sqlite_path
from ecan.store.memory import MemoryStore
from ecan.store.rows import (
    DocumentCheck,
    DocumentPage,
    DocumentRow,
    DocumentWrite,
    Ended,
    Expiring,
    Facts,
    LedgerRow,
    LetterRow,
    Order,
    PushRow,
    ReplyRow,
    SessionPage,
    SessionRow,
    SlotPage,
    Snapshot,
    TokenRow,
    id_hash,
)

__all__ = [
    "Commit",
    "DocumentCheck",
    "DocumentPage",
    "DocumentRow",
    "DocumentWrite",
    "Ended",
    "Expiring",
    "Facts",
    "LedgerRow",
    "LetterRow",
    "MemoryStore",
    "Order",
    "PushRow",
    "ReplyRow",
    "SessionPage",
    "SessionRow",
    "SessionStore",
    "SlotPage",
    "Snapshot",
    "TokenRow",
    "id_hash",
    "make_store",
    "sqlite_path",
]
