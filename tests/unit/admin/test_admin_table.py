"""The table and the functions name the same commands."""

from __future__ import annotations

import inspect

import attrs
import pytest

from ecan.admin.commands import FUNCTIONS
from ecan.admin.dispatch import is_reading
from ecan.admin.table import BY_NAME, COMMANDS


def test_every_command_has_a_function_and_every_function_is_in_the_table():
    """Both ways."""
    assert set(FUNCTIONS) == set(BY_NAME)
    assert len(BY_NAME) == len(COMMANDS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_port_and_params(name):
    """And is a coroutine."""
    function = FUNCTIONS[name]

    assert inspect.iscoroutinefunction(function)
    assert len(inspect.signature(function).parameters) == 2
    assert attrs.has(BY_NAME[name].params)


def test_no_dangerous_command_is_taken_for_one_that_reads():
    """What changes something is logged."""
    assert [c.name for c in COMMANDS if c.danger and is_reading(c.name)] == []
