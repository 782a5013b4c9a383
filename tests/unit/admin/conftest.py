"""A server of the admin socket whose port is a stand-in."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from admin_kit import a_server


@pytest.fixture
async def admin(tmp_path, no_task_left):
    """A running one, with its defaults."""
    async with a_server(tmp_path / "admin.sock") as server:
        yield server
        await asyncio.sleep(0)
