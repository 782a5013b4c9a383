"""The memory: where sessions and users rest. The only package with database clients.

Actors see `SessionStore` and never ask which one it is.
"""

from ecan.store.base import (
    Commit,
    LedgerRow,
    PushRow,
    SessionRow,
    SessionStore,
    Snapshot,
    TokenRow,
)
from ecan.store.memory import MemoryStore

__all__ = [
    "Commit",
    "LedgerRow",
    "MemoryStore",
    "PushRow",
    "SessionRow",
    "SessionStore",
    "Snapshot",
    "TokenRow",
]
