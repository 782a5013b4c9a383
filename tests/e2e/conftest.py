"""Real Chromium against a real server process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ecan.testing.process import ServerProcess

ROOT = Path(__file__).parent.parent.parent
ARTIFACTS = ROOT / "test-artifacts"
PASSWORD = "adminadmin1"
expect.set_options(timeout=30_000)  # generous: a test that waits for it has failed
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here drives a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def browser() -> Browser:
    """Debian's Chromium, headless; a missing one fails the run."""
    path = shutil.which("chromium")
    assert path, "chromium is missing: make chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield launched
        launched.close()


@pytest.fixture
def server(tmp_path: Path, transport: str) -> ServerProcess:
    """A server with debug methods, as ``python web_server.py`` starts it."""
    env = {
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "ECAN_DEBUG_METHODS": "1",
        "ECAN_LOG_FORMAT": "json",
        "ECAN_DRAIN_TIMEOUT": "5",
        "ECAN_TRANSPORT": transport,
    }
    assert (ROOT / "gui_v2" / "dist" / "index.html").exists(), "not built: make gui"
    with ServerProcess(tmp_path, env) as running:
        yield running


@pytest.fixture
def context(
    browser: Browser, server: ServerProcess, request: pytest.FixtureRequest
) -> BrowserContext:
    """A browser profile of its own; page errors fail the test, a failure leaves a picture."""
    made = browser.new_context(viewport={"width": 1360, "height": 1000}, locale="en-US")
    made.set_default_timeout(30_000)
    errors: list[str] = []
    made.on("weberror", lambda error: errors.append(str(error.error)))
    yield made
    shots(made, request.node.name)
    made.close()
    assert errors == []


def shots(context: BrowserContext, name: str) -> None:
    """Pictures of all pages, to be looked at."""
    ARTIFACTS.mkdir(exist_ok=True)
    for number, page in enumerate(context.pages):
        page.screenshot(path=ARTIFACTS / f"{name}-{number}.png")


@pytest.fixture
def page(context: BrowserContext, server: ServerProcess) -> Page:
    """The login page."""
    opened = context.new_page()
    opened.goto(server.http)
    return opened
