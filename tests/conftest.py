"""Fixtures for all tests, and what must not be left behind by any of them."""

from __future__ import annotations

import asyncio
import os

import hypothesis
import pykka
import pytest

from ecan.testing import RunningApp, running_app
from ecan.testing.app import DEFAULTS

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


# RACE: pytest-asyncio asks for the current event loop; on Python 3.11 that makes one which
# nobody closes, and a later test is blamed for it.
asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def no_actor_left() -> object:
    """Every actor a test starts is stopped by it."""
    yield
    left = pykka.ActorRegistry.get_all()
    for ref in left:
        ref.actor_stopped.set()
        pykka.ActorRegistry.unregister(ref)
    assert left == []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked so runs over every transport; everything else over the default one."""
    if metafunc.definition.get_closest_marker("each_transport"):
        metafunc.parametrize("transport", ["websockets", "picows"], indirect=True)


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the frames of the servers that this test starts."""
    name = getattr(request, "param", "websockets")
    DEFAULTS["transport"] = name
    yield name
    del DEFAULTS["transport"]


@pytest.fixture
async def no_task_left() -> object:
    """Every task a test starts has ended with it."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert left == set()


@pytest.fixture
async def server(no_task_left: object) -> RunningApp:
    """A whole server with debug methods, on a free port."""
    async with running_app() as app:
        yield app
