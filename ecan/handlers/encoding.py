"""Values of slots and documents as they are stored: JSON that reads back as it was written."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from cattrs.preconf.orjson import make_converter as _make_orjson_converter

from ecan.errors import SlotError
from ecan.handlers.structure import CONVERTER, problems
from ecan.protocol.codec import exact

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
        first = problems(error, name)[0]
        raise SlotError(
            name, f"does not fit {type_.__name__}: {first['path']}: {first['problem']}"
        ) from error


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
