"""The tables of codes, and the examples in the package's docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

from ecan.protocol.codes import CLOSE_CODES, ERROR_CODES, CloseCode, ErrorCode, may_reconnect


@pytest.mark.parametrize("name", ["codec", "codes", "docs", "frames", "redact", "schema"])
def test_doctests(name):
    """The examples in the docstrings are true."""
    module = importlib.import_module(f"ecan.protocol.{name}")
    assert doctest.testmod(module).failed == 0


def test_every_code_has_its_row():
    """The enum and the table say the same."""
    assert list(ERROR_CODES) == [str(code) for code in ErrorCode]
    assert list(CLOSE_CODES) == list(CloseCode)


def test_the_range_of_a_close_code_says_whether_to_reconnect():
    """4500-4999: do not."""
    refused = {code for code in CloseCode if not may_reconnect(code)}
    assert refused == {CloseCode.SESSION_CLOSED, CloseCode.SESSION_KILLED}
