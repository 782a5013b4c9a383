"""Slots of an older form: migrated when touched, numbered, rehearsed (ADR 12)."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest

from ecan.errors import ConfigError, ReplyError, SlotError
from ecan.handlers.migrations import (
    NO_MIGRATIONS,
    VERSIONS,
    Migrations,
    Rehearsal,
    SlotMigrations,
    gather,
)
from ecan.handlers.state import State


@attrs.define
class Cart:
    cents: int = 0
    currency: str = "EUR"


def to_cents(cart: Any) -> Any:
    cart["cents"] = cart.pop("price") * 100
    return cart


def add_currency(cart: Any) -> Any:
    return {**cart, "currency": "CHF"}


ONE = Migrations({"cart": SlotMigrations(to_cents, to=Cart)})
TWO = Migrations({"cart": SlotMigrations(to_cents, add_currency, to=Cart)})


def committed(slots: dict[str, bytes], state: State) -> dict[str, bytes]:
    """The slots after a commit."""
    after = dict(slots)
    for name, data in state.changes().items():
        if data is None:
            after.pop(name)
        else:
            after[name] = data
    return after


OLD = {"cart": b'{"price":3}'}


def test_a_slot_is_migrated_when_it_is_first_touched_and_written_with_its_version():
    state = State(OLD, migrations=ONE)
    assert state.slot("cart", Cart) == Cart(300)
    after = committed(OLD, state)
    assert orjson.loads(after["cart"]) == {"cents": 300, "currency": "EUR"}
    assert after[VERSIONS] == b'{"cart":1}'


def test_a_migrated_slot_is_not_migrated_again():
    once = State(OLD, migrations=ONE)
    once.slot("cart", Cart)
    after = committed(OLD, once)
    again = State(after, migrations=ONE)
    assert again.slot("cart", Cart) == Cart(300)
    assert again.changes() == {}


def test_later_steps_go_on_where_the_slot_stands():
    once = State(OLD, migrations=ONE)
    once.slot("cart", Cart)
    state = State(committed(OLD, once), migrations=TWO)
    assert state.slot("cart", Cart) == Cart(300, "CHF")
    assert state.changes()[VERSIONS] == b'{"cart":2}'


def test_all_steps_in_one_go():
    assert State(OLD, migrations=TWO).slot("cart", Cart) == Cart(300, "CHF")


def test_untouched_slots_stay_as_they_are():
    state = State({**OLD, "other": b"1"}, migrations=ONE)
    state["other"] = 2
    assert state.changes() == {"other": b"2"}


def test_a_raw_slot_is_migrated_too():
    assert State(OLD, migrations=ONE)["cart"] == {"cents": 300}


def test_a_new_slot_has_todays_version():
    state = State({}, migrations=TWO)
    state.slot("cart", Cart).cents = 5
    after = committed({}, state)
    assert after[VERSIONS] == b'{"cart":2}'
    assert State(after, migrations=TWO).slot("cart", Cart) == Cart(5)


def test_what_is_written_over_an_old_slot_is_new_even_if_it_looks_the_same():
    """The version says how to read it; without the new one it would be migrated at the next touch."""
    state = State(OLD, migrations=ONE)
    state["cart"] = {"price": 3}
    assert committed(OLD, state)[VERSIONS] == b'{"cart":1}'


def test_a_step_that_changes_nothing_counts():
    same = Migrations({"cart": SlotMigrations(lambda cart: cart)})
    state = State(OLD, migrations=same)
    assert state["cart"] == {"price": 3}
    assert state.changes() == {"cart": b'{"price":3}', VERSIONS: b'{"cart":1}'}


def test_a_deleted_slot_leaves_no_version():
    state = State({"cart": b"{}", VERSIONS: b'{"cart":1,"x":1}'}, migrations=ONE)
    del state["cart"]
    assert state.changes() == {"cart": None, VERSIONS: b'{"x":1}'}


@pytest.mark.parametrize("name", ["cart", "typed"])
def test_who_only_reads_sees_the_new_form_and_writes_nothing(name):
    state = State(OLD, locked="it only reads", migrations=ONE)
    value = state["cart"] if name == "cart" else state.slot("cart", Cart)
    assert value in ({"cents": 300}, Cart(300))
    assert state.changes() == {}


def test_a_field_with_a_default_that_came_later_is_no_change_by_a_reader():
    state = State({"cart": b'{"cents":1}'}, locked="it only reads")
    assert state.slot("cart", Cart) == Cart(1)
    assert state.changes() == {}
    state.slot("cart", Cart).cents = 2
    with pytest.raises(SlotError, match="it only reads"):
        state.changes()


def test_versions_are_hidden_from_handlers():
    state = State({"cart": b"{}", VERSIONS: b'{"cart":1}'}, migrations=ONE)
    assert list(state) == ["cart"]
    assert len(state) == 1
    assert VERSIONS not in state
    assert state.get(VERSIONS) is None
    for write in (lambda: state.slot(VERSIONS, dict), lambda: state.update({VERSIONS: {}})):
        with pytest.raises((SlotError, KeyError)):
            write()


def test_a_step_that_fails_names_slot_and_step():
    state = State({"cart": b'{"cost":3}'}, migrations=ONE)
    with pytest.raises(SlotError, match=r"'cart': migration 1 failed: KeyError: 'price'"):
        state.slot("cart", Cart)


def test_a_slot_of_newer_code_is_refused():
    """Older code was deployed."""
    future = {"cart": b"{}", VERSIONS: b'{"cart":2}'}
    with pytest.raises(SlotError, match="version 2, was written by newer code; this one knows 1"):
        State(future, migrations=ONE).slot("cart", Cart)


def test_a_slot_with_a_version_is_not_for_code_that_declares_nothing():
    """It was a migrated one; older code, or code that lost its declaration, would misread it."""
    slots = {"cart": b'{"cents":300}', VERSIONS: b'{"cart":1}', "other": b"1"}
    state = State(slots)
    assert state["other"] == 1
    with pytest.raises(SlotError, match="version 1, was written by newer code; this one knows 0"):
        state["cart"]
    state["cart"] = {"price": 3}
    assert state.changes() == {"cart": b'{"price":3}', VERSIONS: b"{}"}


def test_a_rehearsal_of_code_that_lost_its_declaration_names_the_sessions():
    rehearsal = Rehearsal(NO_MIGRATIONS, ONE)
    rehearsal.look_at([("new", {"cart": b"{}", VERSIONS: b'{"cart":1}'}), ("old", dict(OLD))])
    assert [problem.sid for problem in rehearsal.problems] == ["new"]


def test_superseded_code_that_meets_a_newer_slot_is_told_to_try_again():
    old = Migrations({"cart": SlotMigrations()}, superseded=True)
    future = {"cart": b"{}", VERSIONS: b'{"cart":1}'}
    with pytest.raises(ReplyError) as caught:
        State(future, migrations=old)["cart"]
    assert (caught.value.code, caught.value.outcome) == ("BUSY", "not_run")
    assert caught.value.details == {"reason": "reloaded"}


def test_a_module_without_declarations_costs_nothing():
    assert gather([("shop", None), ("bill", {})]).by_slot == {}


@pytest.mark.parametrize(
    "table", [[], {"cart": to_cents}, {1: SlotMigrations(to_cents)}, {"cart": SlotMigrations("no")}]
)
def test_a_wrong_table_names_its_module(table):
    with pytest.raises(ConfigError, match="shop"):
        gather([("shop", table)])


def test_two_modules_may_not_migrate_the_same_slot():
    table = {"cart": SlotMigrations(to_cents)}
    with pytest.raises(ConfigError, match=r"bill.*already declared by shop"):
        gather([("shop", table), ("bill", table)])


def test_a_rehearsal_counts_what_is_behind_and_names_what_fails():
    rehearsal = Rehearsal(ONE, NO_MIGRATIONS)
    assert rehearsal.names == ["cart", VERSIONS]
    rehearsal.look_at(
        [
            ("good", dict(OLD)),
            ("done", {"cart": b'{"cents":1}', VERSIONS: b'{"cart":1}'}),
            ("empty", {}),
            ("other", {"price": b"1"}),
        ]
    )
    assert (rehearsal.behind, rehearsal.failed) == ({"cart": 1}, 0)
    rehearsal.look_at(
        [
            ("broken", {"cart": b"[]"}),
            ("misfit", {"cart": b'{"price":3,"size":1}'}),
            ("future", {"cart": b"{}", VERSIONS: b'{"cart":7}'}),
            ("unfit", {"cart": b'{"cents":"1"}', VERSIONS: b'{"cart":1}'}),
        ]
    )
    assert rehearsal.failed == 4
    assert [(p.sid, p.slot) for p in rehearsal.problems] == [
        ("broken", "cart"),
        ("misfit", "cart"),
        ("future", "cart"),
        ("unfit", "cart"),
    ]
    assert "does not fit Cart: cart.size: unknown field" in rehearsal.problems[1].error
    assert "newer code" in rehearsal.problems[2].error
