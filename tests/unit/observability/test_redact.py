"""Secrets by the names of their fields."""

from __future__ import annotations

import pytest

from ecan.observability import REDACTED, is_secret_name, redact
from ecan.protocol import redact as seen_from_protocol


@pytest.mark.parametrize(
    "name",
    ["password", "newPassword", "session_id", "sessionId", "TOKEN", "api-key", "x_secret_y"],
)
def test_p16_secret_names(name):
    """P16: in whatever style a field is named."""
    assert is_secret_name(name)
    assert redact({name: "hunter2", "n": 1}) == {name: REDACTED, "n": 1}


@pytest.mark.parametrize("name", ["sid", "username", "session", "seq", "id"])
def test_public_names(name):
    """What people need for finding things stays readable."""
    assert not is_secret_name(name)


def test_p16_bottomless_values_are_cut():
    """P16: what is nested too deeply to be searched is not shown at all."""
    value: object = {"password": "hunter2"}
    for _ in range(100):
        value = [value]
    assert "hunter2" not in str(redact(value))


def test_the_original_stays_as_it_is():
    """A copy is redacted: the handler still needs its params."""
    params = {"token": "x", "rows": [{"token": "y"}]}
    redact(params)
    assert params == {"token": "x", "rows": [{"token": "y"}]}


def test_protocol_has_the_same_rule():
    """There is one rule, at the bottom of the layers."""
    assert seen_from_protocol.redact is redact
