"""A real accounts service on a real file, with a hasher that counts."""

from __future__ import annotations

import asyncio

import pytest
from accounts_kit import PASSWORD, CountingHasher, FakeMono

from ecan.handlers.accounts import AccountService, LoginThrottle, Passwords
from ecan.runtime.clock import LoopClock
from ecan.store.users import UserStore

# pytest-asyncio asks for the current loop to put it back later; before Python 3.14 the
# question makes one that nobody closes, a ResourceWarning whenever gc finds it.
asyncio.set_event_loop(None)


@pytest.fixture
def mono():
    return FakeMono()


@pytest.fixture
async def hasher():
    return CountingHasher()


@pytest.fixture
def store(tmp_path):
    return UserStore(tmp_path / "data")


@pytest.fixture
async def accounts(store, hasher, mono):
    service = AccountService(
        store,
        Passwords(hasher),
        LoginThrottle(5, 60, clock=mono),
        clock=LoopClock(),
        signup_open=True,
    )
    await service.start()
    yield service
    hasher.gate.set()
    await service.stop()


@pytest.fixture
async def ann(accounts):
    return await accounts.create("ann", PASSWORD)
