"""Lines become calls, and errors are those of JSON-RPC 2.0."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecan.admin.jsonrpc import RpcError, encode, failure, id_of, parse_call, parse_line, success

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_p17_any_bytes_are_calls_or_an_error(line):
    """Nothing else comes out of it."""
    with contextlib.suppress(RpcError):
        for call in parse_line(line)[0]:
            parse_call(call)


@given(json_values)
def test_p17_any_value_is_a_call_or_an_error(value):
    """And the error can be answered."""
    try:
        parse_call(value)
    except RpcError as error:
        json.loads(failure(id_of(value), error))


@given(json_values)
def test_any_result_is_one_line(value):
    """Whatever is in it."""
    line = success("x", value)

    assert b"\n" not in line
    assert json.loads(line)["id"] == "x"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (1, -32600),
        ({}, -32600),
        ({"jsonrpc": "1.0", "method": "status"}, -32600),
        ({"jsonrpc": "2.0"}, -32600),
        ({"jsonrpc": "2.0", "method": 1}, -32600),
        ({"jsonrpc": "2.0", "method": "status", "id": {}}, -32600),
        ({"jsonrpc": "2.0", "method": "status", "id": True}, -32600),
        ({"jsonrpc": "2.0", "method": "status", "params": "x"}, -32602),
        ({"jsonrpc": "2.0", "method": "status", "params": [1]}, -32602),
    ],
)
def test_what_is_no_call(value, code):
    """Each mistake has its code."""
    with pytest.raises(RpcError) as refused:
        parse_call(value)

    assert refused.value.code == code


def test_a_call_without_an_id_is_a_notification():
    """An id of null is an id."""
    assert parse_call({"jsonrpc": "2.0", "method": "status"}).is_notification
    assert not parse_call({"jsonrpc": "2.0", "method": "status", "id": None}).is_notification


def test_what_orjson_refuses_is_written_all_the_same():
    """Surrogates from file names, and large numbers."""
    assert json.loads(encode({"a": "\ud800", "b": 2**70})) == {"a": "\ud800", "b": 2**70}
