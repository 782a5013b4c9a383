"""Fixtures of the handlers' tests."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeServer

from ecan.handlers import Registry, debug, session, settings, system

# looptime's plugin asks the policy for a loop before a test runs; with none set yet, the
# policy would make one that nobody closes. After this it raises, which the plugin expects.
asyncio.set_event_loop(None)


@pytest.fixture
def server() -> FakeServer:
    """A server with all methods of this package's own modules."""
    tables = (system, session, settings, debug)
    return FakeServer(Registry([one for table in tables for one in table.HANDLERS]))
