"""Fixtures of the actors' tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sessions_kit import World, a_world

# looptime's plugin asks the policy for a loop before a test runs; with none set yet, the
# policy would make one that nobody closes. After this it raises, which the plugin expects.
asyncio.set_event_loop(None)


@pytest.fixture
async def world() -> World:
    """Sessions with the debug methods and those of the kit."""
    async with a_world() as made:
        yield made
