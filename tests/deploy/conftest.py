"""What the tests of the image share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Podman with our image built from nothing but the clone."""
    made = Engine()
    made.build("Dockerfile.web", "ecan-web")
    return made


@pytest.fixture
def docker(engine) -> Iterator[Engine]:
    """The same without containers and volumes of other tests."""
    yield engine
    engine("rm", "--force", "--all", "--time", "1", check=False)
    engine("volume", "prune", "--force", check=False)
