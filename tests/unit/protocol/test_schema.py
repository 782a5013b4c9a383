"""The OpenRPC document and the JSON Schemas in it."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict

import attrs
import orjson
import pytest

from ecan.protocol.docs import field_docs, summary_of
from ecan.protocol.schema import MethodDoc, Schemas, openrpc

UserId = NewType("UserId", int)


class Colour(enum.Enum):
    """Of a thing."""

    RED = "red"
    BLUE = "blue"


class Plain(enum.IntEnum):
    ONE = 1


@attrs.define
class Item:
    """What is in the cart.

    Attributes:
        name: of the thing,
            in full.
        count (int): how many.
    """

    name: str
    count: int = 1
    colour: Colour = Colour.RED
    tags: list[str] = attrs.field(factory=list)
    extra: dict[str, Any] = attrs.field(factory=dict, metadata={"doc": "anything"})
    made: Any = attrs.field(factory=object)
    hidden: int = attrs.field(init=False, default=0)


@attrs.define
class Tree:
    children: list[Tree]
    item: Item | None = None


class Answer(TypedDict):
    """A result.

    Attributes:
        ok: whether it worked.
    """

    ok: bool
    why: NotRequired[str]


@dataclass
class Unknown:
    x: int


@pytest.mark.parametrize(
    ("type_", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (type(None), {"type": "null"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (Any, {}),
        (Unknown, {}),
        ("a forward reference", {}),
        (UserId, {"type": "integer"}),
        (list, {"type": "array"}),
        (dict, {"type": "object"}),
        (list[Any], {"type": "array"}),
        (dict[str, Any], {"type": "object"}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
            },
        ),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Literal["a"], {"const": "a"}),
        (Literal["a", 1, Colour.RED], {"enum": ["a", 1, "red"]}),
        (Annotated[int, "metres"], {"type": "integer"}),
        (AsyncGenerator[int, None], {"type": "integer"}),
        (AsyncIterator, {}),
        (type[int], {}),
    ],
)
def test_types(type_, schema):
    """Every type a handler may name has its schema."""
    assert Schemas().of(type_) == schema


def test_attrs_classes_become_components():
    """Fields, docs, defaults; what is made at run time has no default in the document."""
    schemas = Schemas()
    assert schemas.of(Item) == {"$ref": "#/components/schemas/Item"}
    assert schemas.components["Item"] == {
        "type": "object",
        "title": "Item",
        "description": "What is in the cart.",
        "properties": {
            "name": {"type": "string", "description": "of the thing, in full."},
            "count": {"type": "integer", "description": "how many.", "default": 1},
            "colour": {"$ref": "#/components/schemas/Colour", "default": "red"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
            "extra": {"type": "object", "description": "anything", "default": {}},
            "made": {},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    assert schemas.components["Colour"] == {
        "title": "Colour",
        "description": "Of a thing.",
        "enum": ["red", "blue"],
    }


def test_a_class_may_refer_to_itself():
    """Trees are finite in the document."""
    schemas = Schemas()
    schemas.of(Tree)
    children = schemas.components["Tree"]["properties"]["children"]
    assert children == {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}
    assert "description" not in schemas.components["Tree"]


def test_enums_without_a_docstring_have_no_description():
    """enum's own docstring is not ours."""
    schemas = Schemas()
    schemas.of(Plain)
    assert schemas.components["Plain"] == {"title": "Plain", "enum": [1]}


def test_two_classes_of_one_name_do_not_meet():
    """The second is named with its module."""

    def make() -> type:
        @attrs.define
        class Item:
            other: bool

        return Item

    schemas = Schemas()
    schemas.of(Item)
    other = schemas.of(make())["$ref"].rpartition("/")[2]
    assert other != "Item"
    assert list(schemas.components[other]["properties"]) == ["other"]


def test_typed_dicts_are_open_objects():
    """Results may grow: clients must not refuse new fields."""
    schemas = Schemas()
    schemas.of(Answer)
    assert schemas.components["Answer"] == {
        "type": "object",
        "title": "Answer",
        "description": "A result.",
        "properties": {
            "ok": {"type": "boolean", "description": "whether it worked."},
            "why": {"type": "string"},
        },
        "required": ["ok"],
        "additionalProperties": True,
    }


def test_docstrings_without_sections():
    """No docs, no harm."""
    assert field_docs(Plain) == {}
    assert summary_of(Tree) == ""


def test_only_its_own_section_is_read():
    """A paragraph behind the section belongs to nobody."""

    class Thing:
        """Summary.

        Attributes:
            a: first.

        Later text.
            b: is an example.
        """

    assert field_docs(Thing) == {"a": "first."}


@pytest.fixture(name="document")
def _document():
    return openrpc(
        "Shop",
        "1.0",
        [
            MethodDoc(
                name="cart.add",
                summary="Adds.",
                description="More.",
                params_type=Item,
                result_type=Answer,
                errors=("INVALID_PARAMS",),
                extensions={"scope": "session"},
            ),
            MethodDoc(name="any", summary="Any.", params_type=Any),
            MethodDoc(name="none", summary="None."),
        ],
        description="A shop.",
    )


def test_the_document_has_the_shape_of_openrpc(document):
    """The required fields of OpenRPC 1.3's meta schema, and references that resolve."""
    assert set(document) <= {"openrpc", "info", "methods", "components", "x-ecan"}
    assert document["openrpc"].startswith("1.3.")
    assert document["info"] == {"title": "Shop", "version": "1.0", "description": "A shop."}
    names = [method["name"] for method in document["methods"]]
    assert names == sorted(set(names))
    for method in document["methods"]:
        allowed = {"name", "summary", "description", "paramStructure", "params", "result"}
        assert set(method) <= allowed | {"errors", "x-ecan"}
        assert method["paramStructure"] == "by-name"
        assert set(method["result"]) == {"name", "schema"}
        seen_optional = False
        for descriptor in method["params"]:
            assert {"name", "schema"} <= set(descriptor)
            assert set(descriptor) <= {"name", "schema", "required", "description"}
            assert not (descriptor["required"] and seen_optional)
            seen_optional = seen_optional or not descriptor["required"]
    for error in document["components"]["errors"].values():
        assert isinstance(error["code"], int)
        assert isinstance(error["message"], str)
    for reference in _references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    assert orjson.loads(orjson.dumps(document)) == document


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for inner in value.values() for ref in _references(inner)]
    if isinstance(value, list):
        return [ref for inner in value for ref in _references(inner)]
    return []


def test_methods_say_what_they_take(document):
    """By name where the fields are known, else as a whole, else nothing."""
    any_, add, none = document["methods"]
    assert [one["name"] for one in add["params"]] == [
        "name",
        "count",
        "colour",
        "tags",
        "extra",
        "made",
    ]
    assert add["params"][0] == {
        "name": "name",
        "required": True,
        "schema": {"type": "string", "description": "of the thing, in full."},
        "description": "of the thing, in full.",
    }
    assert add["errors"] == [{"$ref": "#/components/errors/INVALID_PARAMS"}]
    assert add["x-ecan"] == {"scope": "session"}
    assert any_["params"] == [{"name": "params", "required": False, "schema": {}}]
    assert none["params"] == []
    assert "errors" not in none


def test_the_codes_are_in_the_document(document):
    """Clients make their enums from it."""
    extension = document["x-ecan"]
    assert extension["errorCodes"]["BUSY"]["retryable"] is True
    assert extension["closeCodes"]["4500"]["reconnect"] is False


def test_a_title_is_enough():
    """The description is optional."""
    assert openrpc("T", "1", [])["info"] == {"title": "T", "version": "1"}
