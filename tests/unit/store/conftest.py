"""Fixtures for the tests of the durable stores."""

from __future__ import annotations

import pytest


@pytest.fixture
def path(tmp_path):
    """Where a sessions file may be made."""
    return tmp_path / "sessions.sqlite3"
