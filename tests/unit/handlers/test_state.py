"""Slots: rollback for free, commit of what was touched."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecan.errors import SlotError
from ecan.handlers.state import State

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@attrs.define
class Cart:
    items: list[str] = attrs.field(factory=list)
    data: bytes = b""
    at: datetime | None = None


@attrs.define
class Odd:
    value: Any = None


@given(st.dictionaries(st.text(max_size=5), JSON), st.dictionaries(st.text(max_size=5), JSON))
def test_what_is_committed_reads_back_as_it_was(before, after):
    """Commit then read is the identity for JSON values; equal bytes are no change."""
    committed = {name: orjson.dumps(value) for name, value in before.items()}
    state = State(committed)
    state.update(after)
    changes = state.changes()
    merged = {**committed, **changes}
    again = State({name: data for name, data in merged.items() if data is not None})
    assert dict(again) == {**before, **after}
    assert again.changes() == {}


def test_p4_an_abandoned_state_leaves_nothing_behind():
    """P4: throwing the live objects away is the rollback."""
    committed = {"a": b'{"n":1}'}
    state = State(committed)
    state["a"]["n"] = 2
    state["b"] = 1
    assert committed == {"a": b'{"n":1}'}
    assert State(committed)["a"] == {"n": 1}


def test_a_change_in_place_is_seen():
    """Reading a slot counts as touching it."""
    state = State({"a": b"[1]", "b": b"2"})
    state["a"].append(2)
    assert state["b"] == 2
    assert state["a"] is state["a"]
    assert state.changes() == {"a": b"[1,2]"}


def test_deleting():
    """A deleted slot is gone now and in the commit; it can be written again."""
    state = State({"a": b"1", "b": b"2"})
    del state["a"]
    assert "a" not in state
    assert list(state) == ["b"]
    assert len(state) == 1
    with pytest.raises(KeyError):
        state["a"]
    with pytest.raises(KeyError):
        del state["a"]
    assert state.changes() == {"a": None}
    state["a"] = 3
    assert state.changes() == {"a": b"3"}


def test_a_slot_made_and_deleted_in_one_request_never_was():
    """Nothing to commit."""
    state = State({})
    state["x"] = 1
    assert list(state) == ["x"]
    del state["x"]
    assert list(state) == []
    assert state.changes() == {}


def test_a_slot_that_is_not_there():
    """As a dict does it."""
    with pytest.raises(KeyError):
        State({})["a"]


def test_its_repr_names_slots_only():
    """P16: values stay out of logs."""
    state = State({"a": b'"hunter2"'})
    assert repr(state) == "State(a)"


def test_typed_slots():
    """The live object of a type, made on first use, stored with all that JSON lacks."""
    state = State({})
    cart = state.slot("cart", Cart)
    cart.items.append("x")
    cart.data = b"\x00\xff"
    cart.at = datetime(2026, 11, 23, tzinfo=UTC)
    assert state.slot("cart", Cart) is cart
    changes = state.changes()
    again = State({"cart": changes["cart"]})
    assert again.slot("cart", Cart) == cart
    assert again.changes() == {}


def test_a_typed_slot_after_deletion_starts_fresh():
    """What was deleted does not come back."""
    state = State({"cart": b'{"items":["x"],"data":"","at":null}'})
    del state["cart"]
    assert state.slot("cart", Cart) == Cart()


def test_an_object_put_in_a_slot_becomes_typed_when_asked_for_by_type():
    """state["cart"] = Cart() followed by slot("cart", Cart) can be committed."""
    state = State({})
    state["cart"] = Cart(["x"])
    state.slot("cart", Cart)
    assert state.changes()["cart"] is not None


def test_the_wrong_type_is_named():
    """A slot has one type."""
    state = State({"cart": b'{"items": 5}'})
    with pytest.raises(SlotError, match="does not fit Cart"):
        state.slot("cart", Cart)
    state["cart"] = [1]
    with pytest.raises(SlotError, match="holds list, not Cart"):
        state.slot("cart", Cart)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, Cart(), datetime(2026, 1, 1, tzinfo=UTC), (1, 2), float("nan")]
)
def test_what_cannot_be_stored_fails_on_the_day_it_is_written(value):
    """With the slot's name, not on the day of the crash."""
    state = State({})
    state["a"] = value
    with pytest.raises(SlotError, match="state slot 'a'"):
        state.changes()


def test_a_typed_slot_that_cannot_be_read_back():
    """The declared type must fit what was put in it."""
    state = State({})
    state.slot("cart", Cart).items = [1]  # type: ignore[list-item]
    with pytest.raises(SlotError, match="cannot be read back"):
        state.changes()
    state = State({})
    state.slot("odd", Odd).value = (1, 2)
    with pytest.raises(SlotError, match="reads back as something else"):
        state.changes()
    state = State({})
    state.slot("odd", Odd).value = object()
    with pytest.raises(SlotError, match="cannot be stored"):
        state.changes()


def test_names_are_strings():
    """Stores keep them as text."""
    with pytest.raises(SlotError, match="must be a string"):
        State({})[5] = 1  # type: ignore[index]


def test_p2_concurrent_methods_cannot_write():
    """P2: neither by assignment nor in place nor by making a slot."""
    state = State(
        {"a": b"[1]", "cart": b'{"items":[]}'},
        locked="concurrent methods cannot write session state",
    )
    assert state["a"] == [1]
    assert state.slot("cart", Cart) == Cart()
    for write in (
        lambda: state.__setitem__("b", 1),
        lambda: state.__delitem__("a"),
        lambda: state.slot("new", Cart),
    ):
        with pytest.raises(SlotError, match="concurrent"):
            write()
    state["a"].append(2)
    with pytest.raises(SlotError, match="concurrent"):
        state.changes()
