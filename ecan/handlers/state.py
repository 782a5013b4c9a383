"""Session state: named slots with free rollback (DESIGN.md §4).

Each slot holds its committed bytes and, once touched, a live object. Throwing the
live objects away is the rollback; encoding the touched ones is the commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

import orjson

from ecan.errors import SlotError
from ecan.handlers.encoding import check_round_trip, decode, encode
from ecan.handlers.migrations import NO_MIGRATIONS, VERSIONS, Migrations

T = TypeVar("T")

_GONE: Any = object()

READS_ONLY = "the method is declared reads=True"
CONCURRENT_ONLY = "concurrent methods cannot write session state"
"""Why a request may write nothing."""


class State(MutableMapping[str, Any]):
    """The slots of one session, as one request sees them.

    Reading a slot counts as touching it: the object may have been changed in place.

    Args:
        committed: slot name to bytes; shared with the session, never changed here.
        locked: why nothing may be written, in words; None: it may.
        migrations: what a slot of an older form goes through when it is touched (ADR 12).
    """

    __slots__ = ("_committed", "_live", "_locked", "_migrated", "_migrations", "_types")

    def __init__(
        self,
        committed: Mapping[str, bytes],
        *,
        locked: str | None = None,
        migrations: Migrations = NO_MIGRATIONS,
    ) -> None:
        self._committed = committed
        self._migrations = migrations
        self._migrated: dict[str, bytes] | None = None
        self._live: dict[str, Any] = {}
        self._types: dict[str, Any] = {}
        self._locked = locked

    def __getitem__(self, name: str) -> Any:
        value = self._live.get(name, _GONE)
        if value is not _GONE:
            return value
        if name in self._live:
            raise KeyError(name)
        value = orjson.loads(self._stored(name))
        self._live[name] = value
        return value

    def _stored(self, name: str) -> bytes:
        """What is committed, in today's form."""
        data = self._committed[name]
        if name == VERSIONS:
            raise KeyError(name)
        if self._migrations.by_slot or VERSIONS in self._committed:
            migrated = self._migrations.migrate(name, self._committed)
            if migrated is not None:
                if self._migrated is None:
                    self._migrated = {}
                self._migrated[name] = data = migrated
        return data

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_writable(name)
        if type(name) is not str:
            raise SlotError(str(name), "a slot's name must be a string")
        self._types.pop(name, None)
        self._live[name] = value

    def __delitem__(self, name: str) -> None:
        self._check_writable(name)
        if name not in self:
            raise KeyError(name)
        self._live[name] = _GONE

    def __contains__(self, name: object) -> bool:
        if name in self._live:
            return self._live[name] is not _GONE
        return name in self._committed and name != VERSIONS

    def __iter__(self) -> Iterator[str]:
        for name in self._committed:
            if self._live.get(name) is not _GONE and name != VERSIONS:
                yield name
        for name, value in self._live.items():
            if value is not _GONE and name not in self._committed:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"State({', '.join(self)})"

    def slot(self, name: str, type_: type[T]) -> T:
        """The slot as a live object of a type; see `UserContext.slot`.

        Raises:
            SlotError: what is stored does not fit the type.
        """
        live = self._live.get(name, _GONE)
        if live is not _GONE and isinstance(live, type_):
            self._types.setdefault(name, type_)
            return live
        if live is not _GONE:
            raise SlotError(name, f"holds {type(live).__name__}, not {type_.__name__}")
        if name in self._committed and name not in self._live:
            value: T = decode(name, self._stored(name), type_)
        else:
            self._check_writable(name)
            value = type_()
        self._live[name] = value
        self._types[name] = type_
        return value

    def changes(self) -> dict[str, bytes | None]:
        """The touched slots that differ from what is committed; None for deleted ones.

        Raises:
            SlotError: a value cannot be stored and read back as it was. It is found
                here, on the day it is written, with the slot's name.
        """
        changed: dict[str, bytes | None] = {}
        for name, value in self._live.items():
            before = self._committed.get(name)
            if value is _GONE:
                if before is not None:
                    changed[name] = None
                continue
            type_ = self._types.get(name)
            after = encode(name, value, type_)
            stale = before is not None and bool(self._migrations.by_slot) and self._is_stale(name)
            if after == before and not stale:
                continue
            if stale:  # written whatever it is, with its new version
                before = self._migrated.get(name) if self._migrated is not None else None
            if self._locked is not None and self._is_untouched(name, type_, before, after):
                continue
            if after != before:
                self._check_writable(name)
                check_round_trip(name, value, after, type_)
            changed[name] = after
        if changed and (self._migrations.by_slot or VERSIONS in self._committed):
            versions = self._migrations.stamp(self._committed, changed)
            if versions is not None:
                changed[VERSIONS] = versions
        return changed

    def _is_stale(self, name: str) -> bool:
        return self._migrations.of(name, self._committed) is not None

    @staticmethod
    def _is_untouched(name: str, type_: Any, before: bytes | None, after: bytes) -> bool:
        """Whether it only looks otherwise: its type has got a field with a default since."""
        if before is None:
            return False
        return encode(name, decode(name, before, type_), type_) == after

    def _check_writable(self, name: str) -> None:
        if self._locked is not None:
            raise SlotError(name, self._locked)
        if name == VERSIONS:
            raise SlotError(name, "is the server's own")
