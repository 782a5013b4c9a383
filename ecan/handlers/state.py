"""Session state: named slots with free rollback (DESIGN.md §4).

Each slot holds its committed bytes and, once touched, a live object. Throwing the
live objects away is the rollback; encoding the touched ones is the commit.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

import orjson
from cattrs.preconf.orjson import make_converter as _make_orjson_converter

from ecan.errors import SlotError
from ecan.handlers.structure import CONVERTER
from ecan.protocol.codec import exact

T = TypeVar("T")

_UNSTRUCTURE = _make_orjson_converter()
_UNSTRUCTURE.register_unstructure_hook(bytes, lambda data: base64.b64encode(data).decode())

_JSON_ONLY = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
"""What is not JSON by itself needs a typed slot: it would come back as something else."""

_ROUND_TRIPS = frozenset({int, str, bool, type(None)})
"""JSON values that orjson either refuses or gives back as they were."""

_GONE: Any = object()


def encode(name: str, value: Any, type_: Any = None) -> bytes:
    """A value as it is stored: JSON.

    Args:
        name: of the slot or document, for messages.
        value: JSON-able; with a type, structured.
        type_: None: the value is JSON by itself.

    Raises:
        SlotError: it is not.
    """
    try:
        if type_ is not None:
            return exact(orjson.dumps(_UNSTRUCTURE.unstructure(value, type_)))
        return exact(orjson.dumps(value, option=_JSON_ONLY))
    except TypeError as error:
        raise SlotError(name, f"cannot be stored: {error}") from error


def decode(name: str, data: bytes, type_: Any = None) -> Any:
    """What `encode` made of a value.

    Raises:
        SlotError: what is stored does not fit the type.
    """
    value = orjson.loads(data)
    if type_ is None:
        return value
    try:
        return CONVERTER.structure(value, type_)
    except Exception as error:
        raise SlotError(name, f"does not fit {type_.__name__}: {error}") from error


def check_round_trip(name: str, value: Any, data: bytes, type_: Any = None) -> None:
    """See that a value reads back as it was: on the day it is written, not on a later one.

    Raises:
        SlotError: it does not.
    """
    if type_ is None and type(value) in _ROUND_TRIPS:
        return
    try:
        again = orjson.loads(data)
        if type_ is not None:
            again = CONVERTER.structure(again, type_)
    except Exception as error:
        raise SlotError(name, f"is stored but cannot be read back: {error}") from error
    if again != value:
        raise SlotError(name, "reads back as something else (a tuple, NaN or a set, perhaps)")


class State(MutableMapping[str, Any]):
    """The slots of one session, as one request sees them.

    Reading a slot counts as touching it: the object may have been changed in place.

    Args:
        committed: slot name to bytes; shared with the session, never changed here.
        locked: why nothing may be written, in words; None: it may.
    """

    __slots__ = ("_committed", "_live", "_locked", "_types")

    def __init__(self, committed: Mapping[str, bytes], *, locked: str | None = None) -> None:
        self._committed = committed
        self._live: dict[str, Any] = {}
        self._types: dict[str, Any] = {}
        self._locked = locked

    def __getitem__(self, name: str) -> Any:
        value = self._live.get(name, _GONE)
        if value is not _GONE:
            return value
        if name in self._live:
            raise KeyError(name)
        value = orjson.loads(self._committed[name])
        self._live[name] = value
        return value

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
        return name in self._committed

    def __iter__(self) -> Iterator[str]:
        for name in self._committed:
            if self._live.get(name) is not _GONE:
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
            value: T = decode(name, self._committed[name], type_)
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
            if after != before:
                self._check_writable(name)
                check_round_trip(name, value, after, type_)
                changed[name] = after
        return changed

    def _check_writable(self, name: str) -> None:
        if self._locked is not None:
            raise SlotError(name, self._locked)
