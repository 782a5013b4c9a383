"""A server that is a table."""

from __future__ import annotations

import pytest
from fake_admin import FakeAdmin


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Where a client with this environment looks."""
    monkeypatch.setenv("ECAN_ADMIN_SOCKET", str(tmp_path / "a.sock"))
    server = FakeAdmin(tmp_path / "a.sock")
    server.start()
    yield server
    server.stop()
