"""An OpenRPC 1.3 document and JSON Schema 2020-12 from the handlers' own types.

Pure: takes plain descriptions of methods, knows nothing of handlers. Made by hand
because the document has to say what `ecan.handlers.structure` accepts, strictness
included, and no library reads attrs classes that way.
"""

from __future__ import annotations

import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from typing import Any

import attrs

from ecan.protocol.codes import CLOSE_CODES, ERROR_CODES, may_reconnect
from ecan.protocol.docs import field_docs, summary_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OPENRPC = "1.3.2"

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
}

_FIRST_ERROR = -32000
"""OpenRPC wants integers as error codes; the wire has names. Ours count down from here."""


@attrs.frozen(kw_only=True)
class MethodDoc:
    """What the document says of one method.

    Attributes:
        params_type: an attrs class, another type for params as a whole, or None for none.
        errors: the codes of `ERROR_CODES` it may answer beyond what every method may.
        extensions: the ``x-ecan`` object: scope, role, kind, concurrent, control.
    """

    name: str
    summary: str
    description: str = ""
    params_type: Any = None
    result_type: Any = Any
    errors: tuple[str, ...] = ()
    extensions: Mapping[str, Any] = attrs.field(factory=dict)


class Schemas:
    """JSON Schemas of Python types; classes become components that are referred to.

    >>> Schemas().of(list[int] | None)
    {'anyOf': [{'type': 'array', 'items': {'type': 'integer'}}, {'type': 'null'}]}
    """

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}
        self._names: dict[Any, str] = {}

    def of(self, type_: Any) -> dict[str, Any]:
        """The schema of a type; ``{}`` (anything) for what JSON Schema cannot say."""
        if isinstance(type_, typing.NewType):
            return self.of(type_.__supertype__)
        if type_ in _SCALARS or type_ is None:
            return dict(_SCALARS[type(None) if type_ is None else type_])
        origin = typing.get_origin(type_)
        if origin is not None:
            return self._generic(origin, typing.get_args(type_))
        return self._class(type_) if isinstance(type_, type) else {}

    def _class(self, class_: type) -> dict[str, Any]:
        if issubclass(class_, Enum):
            return self._component(class_, _enum)
        if attrs.has(class_):
            return self._component(class_, self._attrs_class)
        if typing.is_typeddict(class_):
            return self._component(class_, self._typed_dict)
        return self._container(class_, ())

    def _generic(self, origin: Any, args: tuple[Any, ...]) -> dict[str, Any]:
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self.of(args[0])
        if origin is typing.Literal:
            return _literal(args)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(part) for part in args]}
        return self._container(origin, args) if isinstance(origin, type) else {}

    def _container(self, origin: type, args: tuple[Any, ...]) -> dict[str, Any]:
        if issubclass(origin, Mapping):
            inner = self.of(args[1]) if args else {}
            return (
                {"type": "object", "additionalProperties": inner} if inner else {"type": "object"}
            )
        if issubclass(origin, tuple) and args and args[-1] is not Ellipsis:
            prefix = [self.of(part) for part in args]
            return {"type": "array", "prefixItems": prefix, "items": False, "minItems": len(prefix)}
        if issubclass(origin, AsyncGenerator | AsyncIterator):
            return self.of(args[0]) if args else {}
        if not issubclass(origin, Sequence | AbstractSet):
            return {}
        array: dict[str, Any] = {"type": "array"}
        if args and (inner := self.of(args[0])):
            array["items"] = inner
        if issubclass(origin, AbstractSet):
            array["uniqueItems"] = True
        return array

    def _component(self, class_: type, make: Any) -> dict[str, Any]:
        name = self._names.get(class_)
        if name is None:
            name = class_.__name__
            if name in self.components:
                name = f"{class_.__module__.replace('.', '_')}_{class_.__qualname__}"
            # The name stands before the schema is made: a class may refer to itself.
            self._names[class_] = name
            self.components[name] = {}
            self.components[name].update(make(class_))
        return {"$ref": f"#/components/schemas/{name}"}

    def _attrs_class(self, class_: type) -> dict[str, Any]:
        return self._object(
            class_,
            {name: schema for name, _, schema in self.fields(class_)},
            [name for name, required, _ in self.fields(class_) if required],
        )

    def fields(self, class_: type) -> list[tuple[str, bool, dict[str, Any]]]:
        """Name, whether it is required, and schema of each field of an attrs class."""
        hints = typing.get_type_hints(class_, include_extras=True)
        docs = field_docs(class_)
        found = []
        for field in attrs.fields(class_):
            if not field.init:
                continue
            schema = self.of(hints.get(field.name, Any))
            doc = field.metadata.get("doc") or docs.get(field.name)
            if doc:
                schema["description"] = doc
            if field.default is not attrs.NOTHING:
                default = _default(field.default)
                if default is not attrs.NOTHING:
                    schema["default"] = default
            found.append((field.name, field.default is attrs.NOTHING, schema))
        return found

    def _typed_dict(self, class_: Any) -> dict[str, Any]:
        hints = typing.get_type_hints(class_, include_extras=True)
        docs = field_docs(class_)
        properties = {}
        for name, hint in hints.items():
            schema = self.of(hint)
            if name in docs:
                schema["description"] = docs[name]
            properties[name] = schema
        optional = {
            name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired
        }
        # INVARIANT: with postponed annotations __required_keys__ holds the NotRequired ones too.
        required = [name for name in hints if name in class_.__required_keys__ - optional]
        return {**self._object(class_, properties, required), "additionalProperties": True}

    @staticmethod
    def _object(class_: type, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"type": "object", "title": class_.__name__}
        if summary := summary_of(class_):
            body["description"] = summary
        body["properties"] = properties
        if required:
            body["required"] = required
        body["additionalProperties"] = False
        return body


def _enum(class_: type[Enum]) -> dict[str, Any]:
    body: dict[str, Any] = {"title": class_.__name__, "enum": [one.value for one in class_]}
    if summary := summary_of(class_):
        body["description"] = summary
    return body


def _literal(values: tuple[Any, ...]) -> dict[str, Any]:
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    return {"const": plain[0]} if len(plain) == 1 else {"enum": plain}


def _default(default: Any) -> Any:
    """A default as JSON; NOTHING for what is made at run time."""
    if isinstance(default, Enum):
        return default.value
    if default is None or type(default) in (str, int, float, bool):
        return default
    factory = getattr(default, "factory", None)
    return factory() if factory in (list, dict) else attrs.NOTHING


def openrpc(
    title: str, version: str, methods: Iterable[MethodDoc], *, description: str = ""
) -> dict[str, Any]:
    """The document of all methods; JSON-able.

    Args:
        title: of the service.
        version: of the service.
        methods: in any order; the document sorts them by name.
        description: Markdown.
    """
    schemas = Schemas()
    listed = [_method(schemas, method) for method in sorted(methods, key=lambda one: one.name)]
    info: dict[str, Any] = {"title": title, "version": version}
    if description:
        info["description"] = description
    return {
        "openrpc": OPENRPC,
        "info": info,
        "methods": listed,
        "components": {"schemas": schemas.components, "errors": _errors()},
        "x-ecan": {
            "jsonSchemaDialect": DIALECT,
            "errorCodes": {
                code: {"retryable": row.retryable, "outcome": row.outcome, "doc": row.doc}
                for code, row in ERROR_CODES.items()
            },
            "closeCodes": {
                str(int(code)): {"name": code.name, "reconnect": may_reconnect(code), "doc": doc}
                for code, doc in CLOSE_CODES.items()
            },
        },
    }


def _errors() -> dict[str, Any]:
    return {
        name: {
            "code": _FIRST_ERROR - number,
            "message": row.doc,
            "data": {"code": name, "retryable": row.retryable, "outcome": row.outcome},
        }
        for number, (name, row) in enumerate(ERROR_CODES.items())
    }


def _method(schemas: Schemas, method: MethodDoc) -> dict[str, Any]:
    body: dict[str, Any] = {"name": method.name, "summary": method.summary}
    if method.description:
        body["description"] = method.description
    body["paramStructure"] = "by-name"
    body["params"] = _params(schemas, method.params_type)
    body["result"] = {"name": "result", "schema": schemas.of(method.result_type)}
    if method.errors:
        body["errors"] = [{"$ref": f"#/components/errors/{code}"} for code in method.errors]
    body["x-ecan"] = dict(method.extensions)
    return body


def _params(schemas: Schemas, type_: Any) -> list[dict[str, Any]]:
    if type_ is None:
        return []
    if not (isinstance(type_, type) and attrs.has(type_)):
        # Not an object with known fields: OpenRPC can only name the whole.
        return [{"name": "params", "required": False, "schema": schemas.of(type_)}]
    listed = []
    for name, required, schema in schemas.fields(type_):
        descriptor: dict[str, Any] = {"name": name, "required": required, "schema": schema}
        if "description" in schema:
            descriptor["description"] = schema["description"]
        listed.append(descriptor)
    return listed
