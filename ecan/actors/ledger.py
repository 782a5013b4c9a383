"""What was answered: a request id takes effect at most once (P10). Pure."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode
from ecan.store import id_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ENTRIES = 256
MAX_AGE_S = 600.0

MAX_FORGOTTEN = 4096
"""Ids remembered as answered after their reply is gone, to say ID_EXPIRED before anything runs.

The store remembers all of them, and refuses the commit of one (`IdUsedError`).
"""


def fingerprint(method: str, params: Any) -> bytes:
    """Tells whether a repeated id carries the same request; absent params are empty ones.

    Raises:
        ReplyError: INVALID_PARAMS for params nested more deeply than can be written again:
            orjson reads 1024 levels and writes 254.
    """
    if params is None or params == {}:
        return _bare_fingerprint(method)
    try:
        data = orjson.dumps([method, params], option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise ReplyError(
            ErrorCode.INVALID_PARAMS,
            "The params are nested too deeply.",
            details=[{"path": "params", "problem": "nested too deeply"}],
        ) from None
    return hashlib.blake2b(data, digest_size=8).digest()


@functools.lru_cache(maxsize=1024)
def _bare_fingerprint(method: str) -> bytes:
    return hashlib.blake2b(orjson.dumps([method, {}]), digest_size=8).digest()


class Entry(NamedTuple):
    """One answered request."""

    fingerprint: bytes
    frame: bytes
    at: float


_new_tuple = tuple.__new__
"""Makes an `Entry` at half the cost of calling it; this is done for every request."""


class Ledger:
    """The last answers of one session, by request id; `at` is UTC epoch seconds."""

    __slots__ = ("_entries", "_forgotten", "_loaded")

    def __init__(
        self, entries: dict[str, Entry] | None = None, forgotten: Iterable[int] = ()
    ) -> None:
        # Made when needed: an idle session that never asked for anything has none.
        self._entries: OrderedDict[str, Entry] | None = OrderedDict(entries) if entries else None
        # Two kinds of hash: the store's, of ids forgotten before this process, and Python's,
        # which every string knows already; the other would be an eighth of a small request.
        self._loaded: OrderedDict[int, None] | None = OrderedDict.fromkeys(forgotten) or None
        self._forgotten: OrderedDict[int, None] | None = None

    def add(self, request_id: str, print_: bytes, frame: bytes, now: float) -> None:
        """Remember an answer; the oldest give way."""
        entries = self._entries
        if entries is None:
            entries = self._entries = OrderedDict()
        entries[request_id] = _new_tuple(Entry, (print_, frame, now))
        if len(entries) > MAX_ENTRIES:
            self._forget(entries.popitem(False)[0])

    def get(self, request_id: str, now: float) -> Entry | None:
        """The answer to an id, if it is still kept."""
        if self._entries is None:
            return None
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        if now - entry.at > MAX_AGE_S:
            del self._entries[request_id]
            self._forget(request_id)
            return None
        return entry

    def is_forgotten(self, request_id: str) -> bool:
        """Whether the id was answered once and is too old to be answered again."""
        if self._forgotten is not None and hash(request_id) in self._forgotten:
            return True
        return self._loaded is not None and id_hash(request_id) in self._loaded

    def is_new(self, request_id: str) -> bool:
        """Whether nothing is known of an id, neither its answer nor that it had one."""
        if self._entries is not None and request_id in self._entries:
            return False
        if self._forgotten is not None and hash(request_id) in self._forgotten:
            return False
        return self._loaded is None or id_hash(request_id) not in self._loaded

    def __len__(self) -> int:
        return len(self._entries or ())

    def forget(self, request_id: str) -> None:
        """The id was answered too long ago, as the store knows."""
        self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        forgotten = self._forgotten
        if forgotten is None:
            forgotten = self._forgotten = OrderedDict()
        forgotten[hash(request_id)] = None
        loaded = self._loaded
        if len(forgotten) + (0 if loaded is None else len(loaded)) > MAX_FORGOTTEN:
            (loaded or forgotten).popitem(False)


def replayed(frame: bytes) -> bytes:
    """The kept answer with ``meta.replayed`` set.

    The first match is ours: id and method stand before ``meta``, and inside their
    JSON strings every quote is escaped.
    """
    return frame.replace(b'"replayed":false', b'"replayed":true', 1)
