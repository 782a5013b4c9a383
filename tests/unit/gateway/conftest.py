"""The turns of the loop, numbered."""

from __future__ import annotations

import asyncio

import pytest


class TurnCounter:
    """Numbers the turns of the loop for as long as it is asked."""

    def __init__(self):
        self.turn = 0
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._next)

    def _next(self):
        self.turn += 1
        self._handle = self._loop.call_soon(self._next)

    def stop(self):
        self._handle.cancel()


@pytest.fixture
async def turns():
    counter = TurnCounter()
    yield counter
    counter.stop()
