"""The hooks of the strict converter, and the words of its messages.

cattrs by itself turns None into "None", "false" into True and 3.9 into 3; here a
value either has the declared type or is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "an array",
    NoneType: "null",
    bytes: "a base64 string",
    datetime: "an ISO 8601 time",
    date: "an ISO 8601 date",
}

_ARRAYS: dict[Any, Any] = {
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: tuple,
    MutableSequence: list,
    AbstractSet: frozenset,
    MutableSet: set,
}
"""Containers that are arrays in JSON, and what each is made with."""

_OBJECTS = (dict, Mapping, MutableMapping)


class ParamError(ValueError):
    """A value does not fit; the message says what is expected, for a person."""


def describe(expected: Any) -> str:  # noqa: PLR0911 - one for each kind of type
    """The type in the words of JSON, for error messages.

    >>> describe(int | None)
    'an integer or null'
    """
    origin = get_origin(expected)
    if isinstance(expected, NewType):
        return describe(expected.__supertype__)
    if origin is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(expected))
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(expected))
    if isinstance(expected, type) and issubclass(expected, Enum):
        return "one of " + ", ".join(repr(member.value) for member in expected)
    kind = origin or expected
    if isinstance(kind, type):
        if kind in _NAMES:
            return _NAMES[kind]
        if attrs.has(kind) or issubclass(kind, Mapping):
            return "an object"
        if issubclass(kind, Sequence):
            return "an array"
    return getattr(kind, "__name__", str(kind))


def _strict(expected: type) -> Any:
    def structure(value: Any, type_: Any) -> Any:
        if type_ is not expected and issubclass(type_, Enum):
            # cattrs takes a StrEnum for a str; it must not let any string pass.
            return _structure_enum(value, type_)
        if type(value) is not expected:
            raise ParamError(f"expected {describe(expected)}, got {_shown(value)}")
        return value

    return structure


def _structure_float(value: Any, _type: Any) -> float:
    if type(value) not in (int, float):
        raise ParamError(f"expected a number, got {_shown(value)}")
    return float(value)


def _structure_literal(value: Any, expected: Any) -> Any:
    for allowed in get_args(expected):
        if type(value) is type(allowed) and value == allowed:
            return value
    raise ParamError(f"expected {describe(expected)}, got {_shown(value)}")


def _structure_enum(value: Any, expected: Any) -> Any:
    for member in expected:
        if type(value) is type(member.value) and value == member.value:
            return member
    raise ParamError(f"expected {describe(expected)}, got {_shown(value)}")


def _from_text(expected: type, parse: Any) -> Any:
    def structure(value: Any, _type: Any) -> Any:
        try:
            return parse(value if type(value) is str else None)
        except (ValueError, TypeError):
            raise ParamError(f"expected {describe(expected)}, got {_shown(value)}") from None

    return structure


def _array_factory(expected: Any, conv: Converter) -> Any:
    """Tuples and sets; a string is none of them, though Python could iterate over it."""
    args = get_args(expected)
    make = _ARRAYS[get_origin(expected) or expected]
    if make is tuple and args and args[-1] is not Ellipsis and get_origin(expected) is tuple:

        def fixed(value: Any, _type: Any) -> Any:
            if type(value) is not list or len(value) != len(args):
                raise ParamError(f"expected an array of {len(args)}, got {_shown(value)}")
            return tuple(conv.structure(one, part) for one, part in zip(value, args, strict=True))

        return fixed
    as_list = list[args[0]] if args else list  # type: ignore[valid-type]
    return lambda value, _type: make(conv.structure(value, as_list))


def _is_plain_union(expected: Any) -> bool:
    """Unions of JSON's own types, literals and at most one attrs class or container."""
    if get_origin(expected) not in (Union, UnionType):
        return False
    return sum(not _is_scalar(part) for part in get_args(expected)) <= 1


def _is_scalar(part: Any) -> bool:
    return part in (str, int, float, bool, NoneType) or get_origin(part) is Literal


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if type(value) in (dict, list):
        return _NAMES[type(value)]
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - fits a line


def _structure_union(converter: Converter, value: Any, expected: Any) -> Any:
    others = []
    for part in get_args(expected):
        if not _is_scalar(part):
            others.append(part)
            continue
        try:
            return converter.structure(value, part)
        except ParamError:
            continue
    if others and type(value) in (dict, list):
        return converter.structure(value, others[0])
    if others:
        # An enum, a NewType or Any takes scalars too.
        try:
            return converter.structure(value, others[0])
        except Exception:  # noqa: BLE001, S110 - the union's own message follows
            pass
    raise ParamError(f"expected {describe(expected)}, got {_shown(value)}")


def _guard(kind: type, factory: Any) -> Any:
    """A container's own hook behind a check that the value is that container."""

    def make(expected: Any, conv: Converter) -> Any:
        inner = factory(expected, conv)

        def structure(value: Any, _type: Any) -> Any:
            if type(value) is not kind:
                raise ParamError(f"expected {describe(kind)}, got {_shown(value)}")
            return inner(value, expected)

        return structure

    return make


def _attrs_factory(expected: Any, conv: Converter) -> Any:
    return make_dict_structure_fn(
        expected, conv, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )


def _origin(expected: Any) -> Any:
    return get_origin(expected) or expected


def make_converter() -> Converter:
    """A converter with strict scalars; unknown fields are errors."""
    converter = Converter(forbid_extra_keys=True, prefer_attrib_converters=False)
    for scalar in (str, int, bool, NoneType):
        converter.register_structure_hook(scalar, _strict(scalar))
    converter.register_structure_hook(float, _structure_float)
    # Without a hook, bytes(10**12) would be made for a number.
    decode = _from_text(bytes, lambda text: base64.b64decode(text, validate=True))
    converter.register_structure_hook(bytes, decode)
    converter.register_structure_hook(datetime, _from_text(datetime, datetime.fromisoformat))
    converter.register_structure_hook(date, _from_text(date, date.fromisoformat))

    by_shape = converter.register_structure_hook_func
    by_shape(lambda t: isinstance(t, type) and issubclass(t, Enum), _structure_enum)
    by_shape(lambda t: _origin(t) is Literal, _structure_literal)
    by_shape(_is_plain_union, lambda value, type_: _structure_union(converter, value, type_))

    made_by: Any = converter.register_structure_hook_factory
    made_by(lambda t: _origin(t) is list, _guard(list, list_structure_factory))
    made_by(lambda t: _origin(t) in _OBJECTS, _guard(dict, mapping_structure_factory))
    made_by(lambda t: _origin(t) in _ARRAYS, _array_factory)
    made_by(lambda t: isinstance(t, type) and attrs.has(t), _guard(dict, _attrs_factory))
    return converter


CONVERTER = make_converter()
"""Shared by params, results and typed state slots. Runs on any thread."""
