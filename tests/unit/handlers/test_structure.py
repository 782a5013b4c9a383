"""Params against the handlers' own types."""

from __future__ import annotations

import doctest
import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from typing import Any, Literal, NewType

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecan.errors import ReplyError
from ecan.handlers import hooks, structure
from ecan.handlers.structure import MAX_PROBLEMS, ParamError, describe, structure_params

UserId = NewType("UserId", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.StrEnum):
    S = "s"


class Level(enum.IntEnum):
    ONE = 1


class Name(str):
    __slots__ = ()


@attrs.define
class Item:
    name: str
    count: int = 1
    price: float | None = None
    colour: Colour = Colour.RED
    tags: list[str] = attrs.field(factory=list)


@attrs.define
class Other:
    other: int


@attrs.define
class Login:
    username: str
    password: str
    tokens: dict[str, str] = attrs.field(factory=dict)
    secret: Colour = Colour.RED


@attrs.define
class Checked:
    n: int = attrs.field(validator=attrs.validators.ge(0))


@attrs.define
class Picky:
    n: int

    def __attrs_post_init__(self) -> None:
        raise AttributeError


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)

NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON | st.just("x"),
        "count": JSON | st.just(3),
        "price": JSON,
        "colour": JSON | st.sampled_from(["red", "blue"]),
        "tags": JSON | st.lists(st.text(max_size=3)),
        "more": JSON,
    },
)

TYPES = [
    str,
    int,
    float,
    bool,
    bytes,
    datetime,
    date,
    Item,
    Item | None,
    Item | Other,
    Item | str,
    Colour,
    Colour | None,
    Size,
    Level,
    UserId,
    UserId | None,
    list,
    list[int],
    dict,
    dict[str, int],
    Mapping[str, Item],
    tuple[int, ...],
    tuple[int, str],
    set[str],
    frozenset[int],
    Sequence[str],
    AbstractSet[int],
    Literal["a", 1],
    int | str | None,
    list[Item] | None,
]


def _problems(value: Any, type_: Any) -> list[dict[str, str]]:
    with pytest.raises(ReplyError) as caught:
        structure_params(value, type_)
    assert caught.value.code == "INVALID_PARAMS"
    return caught.value.details


@given(JSON | NEARLY, st.sampled_from(TYPES))
def test_p17_a_value_fits_or_is_refused_with_a_path(value, type_):
    """P17: any JSON against any type gives a value or INVALID_PARAMS, nothing else."""
    try:
        structure_params(value, type_)
    except ReplyError as refused:
        _check(refused)


def _check(refused: ReplyError) -> None:
    assert refused.code == "INVALID_PARAMS"
    assert refused.details
    for problem in refused.details:
        assert problem["path"].startswith("params")
        assert problem["problem"]


@given(JSON.filter(lambda value: type(value) is not str))
def test_strings_are_never_made_of_something_else(value):
    """cattrs would turn None into "None"."""
    assert _problems({"name": value}, Item)[0]["path"] == "params.name"


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (3, float, 3.0),
        ("red", Colour, Colour.RED),
        ("red", Colour | None, Colour.RED),
        (None, Colour | None, None),
        ("s", Size, Size.S),
        (1, Level, Level.ONE),
        ("u", UserId, "u"),
        ("u", UserId | None, "u"),
        ({"name": "x"}, Item | None, Item("x")),
        ({"other": 1}, Item | Other, Other(1)),
        ("x", Any | None, "x"),
        ([1], list, [1]),
        ({"a": 1}, dict, {"a": 1}),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple, (1, 2)),
        ([1, "a"], tuple[int, str], (1, "a")),
        (["a", "a"], set[str], {"a"}),
        ([1], AbstractSet[int], frozenset({1})),
        ({"a": 1}, Mapping[str, int], {"a": 1}),
        ("aGk=", bytes, b"hi"),
        ("2026-11-23", date, date(2026, 11, 23)),
        ("2026-11-23T10:00:00", datetime, datetime(2026, 11, 23, 10)),  # noqa: DTZ001
        (None, type(None), None),
        ("a", Literal["a", 1], "a"),
        (1, int | str, 1),
    ],
)
def test_what_fits(value, type_, expected):
    """JSON becomes the declared type."""
    result = structure_params(value, type_)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "type_", "problem"),
    [
        (None, str, "expected a string, got null"),
        ("5", int, "expected an integer, got '5'"),
        (3.9, int, "expected an integer, got 3.9"),
        (True, int, "expected an integer, got True"),
        (1, bool, "expected true or false, got 1"),
        ("1", float, "expected a number, got '1'"),
        (True, Literal[1], "expected one of 1, got True"),
        ("green", Colour, "expected one of 'red', 'blue', got 'green'"),
        ("xl", Size, "expected one of 's', got 'xl'"),
        (True, Level, "expected one of 1, got True"),
        (5, Colour | None, "expected one of 'red', 'blue' or null, got 5"),
        (5, UserId | None, "expected a string or null, got 5"),
        ("ab", tuple[str, ...], "expected an array, got 'ab'"),
        ("ab", set[str], "expected an array, got 'ab'"),
        ([1], tuple[int, str], "expected an array of 2, got an array"),
        ([["a", 1]], dict[str, int], "expected an object, got an array"),
        ([["a", 1]], Mapping[str, int], "expected an object, got an array"),
        (10**12, bytes, "expected a base64 string, got 1000000000000"),
        ("tomorrow", date, "expected an ISO 8601 date, got 'tomorrow'"),
        ({}, list[int], "expected an array, got an object"),
        ([], Item, "expected an object, got an array"),
        ("x" * 100, int, "expected an integer, got '" + "x" * 36 + "..."),
        ([1], int | str, "expected an integer or a string, got an array"),
    ],
)
def test_what_does_not_fit(value, type_, problem):
    """The message says what is expected and what came, in the words of JSON."""
    assert _problems(value, type_) == [{"path": "params", "problem": problem}]


def test_every_wrong_field_is_named_at_once():
    """One reply shows all that is wrong, however deep."""
    value = {"items": [{"name": 1, "colour": "x"}, {"nam": "y"}], "n": {"a": "b"}}

    @attrs.define
    class Order:
        items: list[Item]
        n: dict[str, int]

    globals()["Order"] = Order
    try:
        found = {one["path"]: one["problem"] for one in _problems(value, Order)}
    finally:
        del globals()["Order"]
    assert found == {
        "params.items[0].name": "expected a string, got 1",
        "params.items[0].colour": "expected one of 'red', 'blue', got 'x'",
        "params.items[1].name": "required field is missing",
        "params.items[1].nam": "unknown field",
        "params.n['a']": "expected an integer, got 'b'",
    }


def test_the_message_counts_the_rest():
    """The first problem is in the message; the others are counted."""
    with pytest.raises(ReplyError, match=r"params\.name: .* \(and 1 more\)"):
        structure_params({"x": 1}, Item)


def test_p8_a_huge_wrong_frame_gets_a_small_answer():
    """P8: the reply to 50 000 unknown fields does not list them all."""
    value = {f"f{number}": 0 for number in range(50_000)}
    assert len(_problems({"name": "x", **value}, Item)) == MAX_PROBLEMS


def test_p16_wrong_secrets_are_not_repeated():
    """P16: not in a secret field, nor below one."""
    value = {
        "username": "ann",
        "password": ["hunter2"],
        "tokens": {"a": 5},
        "secret": "hunter2",
    }
    found = _problems({**value, "tokens": "hunter2"}, Login)
    assert "hunter2" not in str(found)
    assert {one["problem"] for one in found} == {
        "expected a string",
        "expected an object",
        "expected one of 'red', 'blue'",
    }
    assert _problems({"username": "ann"}, Login) == [
        {"path": "params.password", "problem": "required field is missing"}
    ]


def test_p16_messages_of_others_are_dropped_in_secret_fields():
    """P16: a validator's own words may hold the value."""

    @attrs.define
    class Account:
        password: str = attrs.field()

        @password.validator
        def _check(self, _attribute: Any, value: str) -> None:
            raise ValueError(value)

    @attrs.define
    class Outer:
        password: Any

    problem = {"path": "params.password", "problem": "hunter2 is too short"}
    assert structure._without_secret(problem)["problem"] == "does not fit"


def test_validators_speak_for_themselves():
    """Their message reaches the client."""
    (problem,) = _problems({"n": -1}, Checked)
    assert problem == {"path": "params", "problem": "'n' must be >= 0: -1"}


def test_whatever_a_hook_raises_is_the_values_fault():
    """An exception without words is named by its type."""
    assert _problems({"n": 1}, Picky) == [{"path": "params", "problem": "AttributeError"}]


def test_subclasses_of_strings_stay_strict():
    """A class of its own is not made from any value."""
    with pytest.raises(ReplyError):
        structure_params(5, Name)


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        (Sequence[int], "an array"),
        (Mapping[str, int], "an object"),
        (Item, "an object"),
        (complex, "complex"),
        ("text", "text"),
        (Colour | None, "one of 'red', 'blue' or null"),
    ],
)
def test_describe(type_, words):
    """Types in the words of JSON."""
    assert describe(type_) == words


def test_doctests():
    """The examples in the docstrings are true."""
    assert doctest.testmod(structure).failed == 0
    assert doctest.testmod(hooks).failed == 0


def test_param_errors_are_value_errors():
    """cattrs collects them like any other."""
    assert issubclass(ParamError, ValueError)
